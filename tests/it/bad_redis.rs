//! A relay in front of Redis that can be told to be a bad server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What it does. Connections end with every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As Redis.
    Well,
    /// Nobody listens.
    Refuses,
    /// Takes connections and answers nothing.
    Silent,
    /// Answers each command with an error.
    Errors,
    /// Answers what is no answer of Redis'.
    Garbage,
}

/// A running relay; stops when dropped.
pub struct BadRedis {
    pub url: String,
    mode: watch::Sender<Mode>,
    connections: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Drop for BadRedis {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl BadRedis {
    /// In front of the server on this port, and well.
    pub async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let (mode, told) = watch::channel(Mode::Well);
        let connections = Arc::new(AtomicUsize::new(0));
        let server = tokio::spawn(serve(listener, upstream, told, connections.clone()));
        Self { url, mode, connections, server }
    }

    pub fn becomes(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many connections were opened so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, upstream: u16, mut told: watch::Receiver<Mode>, count: Arc<AtomicUsize>) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let mut open = JoinSet::new();
    loop {
        let mode = *told.borrow_and_update();
        if mode == Mode::Refuses {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::bind(address).await.unwrap());
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await.unwrap().0,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stream = accepted => {
                count.fetch_add(1, Ordering::SeqCst);
                open.spawn(answer(stream, upstream, mode));
            }
            changed = told.changed() => {
                if changed.is_err() {
                    return;
                }
                open.shutdown().await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, upstream: u16, mode: Mode) {
    if mode == Mode::Well {
        let mut server = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
        return;
    }
    let mut request = vec![0; 1 << 16];
    while let Ok(read) = stream.read(&mut request).await {
        let commands = request[..read].windows(3).filter(|bytes| bytes.starts_with(b"\n*")).count() + 1;
        let answer: &[u8] = match mode {
            Mode::Errors => b"-LOADING Redis is loading the dataset in memory\r\n",
            Mode::Garbage => b"HTTP/1.1 400 Bad Request\r\n\r\n",
            Mode::Well | Mode::Refuses | Mode::Silent => b"",
        };
        if read == 0 || stream.write_all(&answer.repeat(commands)).await.is_err() {
            return;
        }
    }
}
