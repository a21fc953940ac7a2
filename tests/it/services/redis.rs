//! redis-server.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use super::{free_port, fresh_folder, kill, start};

/// A running server without persistence.
#[derive(Debug)]
pub struct RedisServer {
    pub url: String,
    pub port: u16,
    pid: AtomicU32,
}

static REDIS: OnceCell<RedisServer> = OnceCell::const_new();

/// The server, ready. Tests share it: use keys of your own.
pub async fn redis() -> &'static RedisServer {
    REDIS.get_or_init(RedisServer::start).await
}

async fn pings(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let mut answer = [0; 7];
    stream.write_all(b"PING\r\n").await.is_ok()
        && stream.read_exact(&mut answer).await.is_ok()
        && &answer == b"+PONG\r\n"
}

impl RedisServer {
    /// A server of one's own, ready.
    pub async fn start() -> Self {
        let port = free_port();
        let server = Self { url: format!("redis://127.0.0.1:{port}"), port, pid: AtomicU32::new(0) };
        server.restart().await;
        server
    }

    /// Starts it where it does not run, with nothing in it; back when it answers.
    pub async fn restart(&self) {
        if self.pid.load(Ordering::SeqCst) != 0 {
            return;
        }
        let folder = fresh_folder("redis");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]);
        command.args(["--port", &self.port.to_string()]).arg("--dir").arg(&folder);
        self.pid.store(start(&mut command, &folder.join(format!("redis-{}.log", self.port))), Ordering::SeqCst);
        let ready = async {
            while !pings(self.port).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ready).await.expect("redis-server starts");
    }

    /// Ends it as a power cut would.
    pub async fn kill(&self) {
        kill(self.pid.swap(0, Ordering::SeqCst)).await;
        while pings(self.port).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it answers to a command.
    pub async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url.as_str()).expect("url");
        // Forgetting a lot on a busy machine takes longer than a client waits by default.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
        let connection = client.get_multiplexed_async_connection_with_config(&patient).await;
        let mut command = redis::Cmd::new();
        command.arg(words);
        command.query_async::<T>(&mut connection.expect("connection")).await.expect("answer")
    }

    /// Forgets everything.
    pub async fn flush(&self) {
        self.ask::<()>(&["FLUSHALL"]).await;
    }
}
