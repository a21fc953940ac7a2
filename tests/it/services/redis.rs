//! redis-server.

use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use super::{free_port, fresh_folder, start};

/// A running server without persistence.
#[derive(Debug)]
pub struct RedisServer {
    pub url: String,
    pub port: u16,
}

static REDIS: OnceCell<RedisServer> = OnceCell::const_new();

/// The server, ready. Tests share it: use keys of your own.
pub async fn redis() -> &'static RedisServer {
    REDIS.get_or_init(start_redis).await
}

async fn start_redis() -> RedisServer {
    let (port, folder) = (free_port(), fresh_folder("redis"));
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]);
    command.args(["--port", &port.to_string()]).arg("--dir").arg(&folder);
    start(&mut command, &folder.join("redis.log"));
    let ready = async {
        while !pings(port).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ready).await.expect("redis-server starts");
    RedisServer { url: format!("redis://127.0.0.1:{port}"), port }
}

async fn pings(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let mut answer = [0; 7];
    stream.write_all(b"PING\r\n").await.is_ok()
        && stream.read_exact(&mut answer).await.is_ok()
        && &answer == b"+PONG\r\n"
}

impl RedisServer {
    /// Forgets everything.
    pub async fn flush(&self) {
        let client = redis::Client::open(self.url.as_str()).expect("url");
        let mut connection = client.get_multiplexed_async_connection().await.expect("connection");
        redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.expect("flushed");
    }
}

/// A server of one test's own.
#[derive(Debug)]
pub struct Redis {
    pub url: String,
    pub port: u16,
    child: std::process::Child,
}

impl Redis {
    pub async fn start(options: &[&str]) -> Self {
        Self::start_at(free_port(), options).await
    }

    pub async fn start_at(port: u16, options: &[&str]) -> Self {
        let plain = ["--port".to_owned(), port.to_string()];
        let options = plain.into_iter().chain(options.iter().map(|option| (*option).to_owned()));
        Self::launch(port, "redis", options.collect()).await
    }

    /// With TLS and users, and without a plain port.
    pub async fn start_tls(certificate: &str, key: &str, users: &str) -> Self {
        let port = free_port();
        let options = [
            "--port",
            "0",
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            certificate,
            "--tls-key-file",
            key,
            "--tls-ca-cert-file",
            certificate,
            "--tls-auth-clients",
            "no",
            "--aclfile",
            users,
        ];
        Self::launch(port, "rediss", options.map(str::to_owned).to_vec()).await
    }

    async fn launch(port: u16, scheme: &str, options: Vec<String>) -> Self {
        let folder = fresh_folder("redis-own").join(port.to_string());
        std::fs::create_dir_all(&folder).expect("folder");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(&folder)
            .args(options)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("redis-server starts");
        let up = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), up).await.expect("redis-server listens");
        Self { url: format!("{scheme}://127.0.0.1:{port}"), port, child }
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.end();
    }
}
