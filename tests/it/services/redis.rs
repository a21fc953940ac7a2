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
        // Forgetting a lot on a busy machine takes longer than a client waits by default.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
        let connection = client.get_multiplexed_async_connection_with_config(&patient).await;
        redis::cmd("FLUSHALL").query_async::<()>(&mut connection.expect("connection")).await.expect("flushed");
    }
}
