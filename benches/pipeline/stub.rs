//! A DynamoDB that says yes: batched writes are counted and answered without a look inside. Anything else, and the few
//! writes to the ledger, which are read back, goes to an embedded server in the same process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The stub as a process, ended with this.
pub struct Stub {
    pub endpoint: String,
    child: Child,
}

impl Stub {
    /// Each batched write is answered this many milliseconds late.
    pub fn start(delay_ms: &str) -> Self {
        let mut child = super::mortal(&std::env::current_exe().unwrap())
            .args(["stub", delay_ms])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut endpoint = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
        Self { endpoint: endpoint.trim().to_owned(), child }
    }

    /// What came since the last look.
    pub fn take_stats(&self) -> Stats {
        let mut stream = TcpStream::connect(self.endpoint.trim_start_matches("http://")).unwrap();
        stream.write_all(b"GET /stats HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let stats: Value = serde_json::from_str(answer.rsplit("\r\n\r\n").next().unwrap()).unwrap();
        Stats {
            calls: stats["calls"].as_u64().unwrap(),
            writes: stats["writes"].as_u64().unwrap(),
            seconds: stats["seconds"].as_f64().unwrap(),
        }
    }
}

/// What came to the stub.
#[derive(Debug)]
pub struct Stats {
    /// Calls of every kind.
    pub calls: u64,
    /// Statements and items of batched writes.
    pub writes: u64,
    /// From the first batched write to the last: the rate without starting and ending.
    pub seconds: f64,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

struct Shared {
    seen: Mutex<Seen>,
    delay: Duration,
    behind: String,
}

#[derive(Default)]
struct Seen {
    calls: u64,
    writes: u64,
    /// The first batched write and the last one.
    span: Option<(Instant, Instant)>,
}

/// Serves until killed; says its endpoint on standard output.
pub fn run(delay_ms: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let behind = recordkeeper::embedded::dynamodb::start(None).await.unwrap();
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            delay: Duration::from_millis(delay_ms),
            behind: behind.endpoint.trim_start_matches("http://").to_owned(),
        });
        let router = Router::new().route("/", post(answer)).route("/stats", get(stats)).with_state(shared);
        let router = router.layer(axum::extract::DefaultBodyLimit::max(32 << 20));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("http://{}", listener.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        axum::serve(listener, router).await.unwrap();
        behind.stop().await;
    });
}

async fn stats(State(shared): State<Arc<Shared>>) -> String {
    let seen = std::mem::take(&mut *shared.seen.lock().unwrap());
    let seconds = seen.span.map_or(0.0, |(first, last)| last.duration_since(first).as_secs_f64());
    json!({ "calls": seen.calls, "writes": seen.writes, "seconds": seconds }).to_string()
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    // Keys are counted, not parsed: inside a text their quotes would be escaped.
    let count = |key: &[u8]| memchr::memmem::find_iter(&body, key).count();
    let (writes, answer) = match target.rsplit('.').next() {
        Some("BatchExecuteStatement") if count(br#"INTO \"ledger\""#) == 0 => {
            let statements = count(b"\"Statement\":");
            (statements, format!("{{\"Responses\":[{}]}}", vec!["{}"; statements].join(",")))
        }
        Some("BatchWriteItem") => {
            let items = count(b"\"PutRequest\":");
            (items, "{\"UnprocessedItems\":{}}".to_owned())
        }
        _ => {
            shared.seen.lock().unwrap().calls += 1;
            return forward(&shared.behind, target, &headers, &body).await;
        }
    };
    {
        let (mut seen, now) = (shared.seen.lock().unwrap(), Instant::now());
        seen.calls += 1;
        seen.writes += writes as u64;
        seen.span = Some((seen.span.map_or(now, |(first, _)| first), now));
    }
    if !shared.delay.is_zero() {
        tokio::time::sleep(shared.delay).await;
    }
    (StatusCode::OK, answer.into_bytes())
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
