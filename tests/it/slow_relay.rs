//! A TCP relay that makes a server slow: each answer is held back for a while.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running relay; stops when dropped.
pub struct SlowRelay {
    /// Where it listens, `127.0.0.1:port`.
    pub address: String,
    server: JoinHandle<()>,
}

impl Drop for SlowRelay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl SlowRelay {
    /// In front of `upstream` (`host:port`).
    pub async fn start(upstream: &str, delay: Duration) -> Self {
        let upstream = upstream.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // A client that was killed leaves its connection: it ends by itself.
                let Ok(server) = TcpStream::connect(&upstream).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(copy(from_client, to_server, Duration::ZERO));
                tokio::spawn(copy(from_server, to_client, delay));
            }
        });
        Self { address, server }
    }
}

/// Passes on what comes until either side closes.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        tokio::time::sleep(delay).await;
        if to.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}
