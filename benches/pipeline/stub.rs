//! A DynamoDB that says yes: batched writes are counted and answered without a look inside; anything else goes to an
//! embedded server in the same process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The stub as a process, ended with this.
pub struct Stub {
    pub endpoint: String,
    child: Child,
}

impl Stub {
    pub fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("stub")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut endpoint = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
        Self { endpoint: endpoint.trim().to_owned(), child }
    }

    /// Calls since the last look.
    pub fn take_calls(&self) -> u64 {
        let mut stream = TcpStream::connect(self.endpoint.trim_start_matches("http://")).unwrap();
        stream.write_all(b"GET /calls HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.rsplit("\r\n\r\n").next().unwrap().trim().parse().unwrap()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

struct Shared {
    calls: AtomicU64,
    behind: String,
}

/// Serves until killed; says its endpoint on standard output.
pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let behind = recordkeeper::embedded::dynamodb::start(None).await.unwrap();
        let shared = Arc::new(Shared {
            calls: AtomicU64::new(0),
            behind: behind.endpoint.trim_start_matches("http://").to_owned(),
        });
        let router = Router::new().route("/", post(answer)).route("/calls", get(calls)).with_state(shared);
        let router = router.layer(axum::extract::DefaultBodyLimit::max(32 << 20));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("http://{}", listener.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        axum::serve(listener, router).await.unwrap();
        behind.stop().await;
    });
}

async fn calls(State(shared): State<Arc<Shared>>) -> String {
    shared.calls.swap(0, Ordering::Relaxed).to_string()
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
    shared.calls.fetch_add(1, Ordering::Relaxed);
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    match target.rsplit('.').next() {
        Some("BatchExecuteStatement") => {
            let statements = memchr::memmem::find_iter(&body, b"\"Statement\":").count();
            let mut answer = b"{\"Responses\":[".to_vec();
            for statement in 0..statements {
                answer.extend_from_slice(if statement == 0 { b"{}" } else { b",{}" });
            }
            answer.extend_from_slice(b"]}");
            (StatusCode::OK, answer)
        }
        Some("BatchWriteItem") => (StatusCode::OK, b"{\"UnprocessedItems\":{}}".to_vec()),
        _ => forward(&shared.behind, target, &headers, &body).await,
    }
}

async fn forward(to: &str, target: &str, headers: &HeaderMap, body: &[u8]) -> (StatusCode, Vec<u8>) {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-type: application/x-amz-json-1.0\r\nx-amz-target: {target}\r\nauthorization: {}\r\nx-amz-date: {}\r\ncontent-length: {}\r\n\r\n",
        header("authorization"),
        header("x-amz-date"),
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = memchr::memmem::find(&answer, b"\r\n\r\n").unwrap();
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (StatusCode::from_u16(status).unwrap(), answer.split_off(end + 4))
}
