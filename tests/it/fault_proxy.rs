//! A proxy in front of the embedded DynamoDB server that spoils chosen answers. What it does not know it refuses.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

/// What happens to one call.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Applied, then no answer.
    CutAfterApply,
    /// One statement is left out; its answer, inside a 200, is this code.
    StatementFails { at: usize, code: &'static str },
    /// Half of the keys, all of a single one, come back as unprocessed.
    KeysLeftOver,
    /// Not applied; the call fails with this code, and the answer does not say of what.
    CallFailsUnexplained { code: &'static str },
    /// Not applied; the server has a fault of its own.
    ServerFails,
    /// Applied, and answered after this time.
    AnswersAfter(Duration),
    /// Not applied; the whole call fails with this code.
    CallFails { code: &'static str },
    /// Not applied; answered by this text.
    Answers(&'static str),
    /// Held until another call comes that is held.
    WaitsForAnother,
}

struct Shared {
    upstream: String,
    faults: Mutex<HashMap<String, VecDeque<Fault>>>,
    refused: Mutex<Vec<(&'static str, String)>>,
    calls: Mutex<HashMap<String, usize>>,
    pair: Barrier,
}

/// A running proxy; stops when dropped.
pub struct FaultProxy {
    /// Where it listens.
    pub endpoint: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FaultProxy {
    pub async fn start(upstream: &str) -> Self {
        let upstream = upstream.strip_prefix("http://").unwrap().to_owned();
        let (faults, refused, calls) = (Mutex::default(), Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { upstream, faults, refused, calls, pair: Barrier::new(2) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(handle).with_state(shared.clone());
        let layer = axum::extract::DefaultBodyLimit::max(16 * 1024 * 1024);
        let server = tokio::spawn(async move { axum::serve(listener, router.layer(layer)).await.unwrap() });
        Self { endpoint, shared, server }
    }

    /// Spoils the next call of this operation that is not spoiled yet.
    pub fn next(&self, operation: &str, fault: Fault) {
        self.shared.faults.lock().unwrap().entry(operation.to_owned()).or_default().push_back(fault);
    }

    /// From now on refuses, for good, each batched statement on this table that holds that text in a parameter.
    pub fn refuse(&self, table: &'static str, text: &str) {
        self.shared.refused.lock().unwrap().push((table, text.to_owned()));
    }

    /// How many faults are still to come to calls of this operation.
    pub fn left(&self, operation: &str) -> usize {
        self.shared.faults.lock().unwrap().get(operation).map_or(0, VecDeque::len)
    }

    /// How many calls of this operation have come.
    pub fn calls(&self, operation: &str) -> usize {
        self.shared.calls.lock().unwrap().get(operation).copied().unwrap_or(0)
    }
}

async fn handle(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers["x-amz-target"].to_str().unwrap().to_owned();
    let operation = target.split('.').next_back().unwrap().to_owned();
    *shared.calls.lock().unwrap().entry(operation.clone()).or_default() += 1;
    let fault = shared.faults.lock().unwrap().get_mut(&operation).and_then(VecDeque::pop_front);
    match fault {
        None if operation == "BatchExecuteStatement" => without_refused(&shared, &headers, &body).await,
        None => forward(&shared, &headers, &body).await.into_response(),
        Some(Fault::Answers(text)) => (StatusCode::OK, text).into_response(),
        Some(Fault::WaitsForAnother) => {
            shared.pair.wait().await;
            forward(&shared, &headers, &body).await.into_response()
        }
        Some(Fault::CutAfterApply) => {
            forward(&shared, &headers, &body).await;
            // A body that breaks off: the client reads an unexpected end.
            let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
            (StatusCode::OK, axum::body::Body::from_stream(broken)).into_response()
        }
        Some(Fault::StatementFails { at, code }) => {
            let mut request: Value = serde_json::from_slice(&body).unwrap();
            let statements = request["Statements"].as_array_mut().unwrap();
            let at = at.min(statements.len() - 1);
            statements.remove(at);
            let (status, mut answer) = forward_statements(&shared, &headers, &request).await;
            let failed = json!({"Error": {"Code": code, "Message": "slow down"}});
            answer["Responses"].as_array_mut().unwrap().insert(at, failed);
            (status, answer.to_string()).into_response()
        }
        Some(Fault::KeysLeftOver) => {
            let mut request: Value = serde_json::from_slice(&body).unwrap();
            let (table, wanted) = request["RequestItems"].as_object_mut().unwrap().iter_mut().next().unwrap();
            let table = table.clone();
            let mut unprocessed = wanted.clone();
            let keys = wanted["Keys"].as_array_mut().unwrap();
            unprocessed["Keys"] = keys.split_off(keys.len() / 2).into();
            let (status, mut answer) = if keys.is_empty() {
                (StatusCode::OK, json!({"Responses": { table.clone(): [] }}))
            } else {
                let (status, answer) = forward(&shared, &headers, request.to_string().as_bytes()).await;
                (status, serde_json::from_slice(&answer).unwrap())
            };
            answer["UnprocessedKeys"] = json!({ table: unprocessed });
            (status, answer.to_string()).into_response()
        }
        Some(Fault::CallFailsUnexplained { code }) => {
            let answer = json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "spoiled"});
            (StatusCode::BAD_REQUEST, answer.to_string()).into_response()
        }
        Some(Fault::ServerFails) => {
            let answer =
                json!({"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError", "message": "spoiled"});
            (StatusCode::INTERNAL_SERVER_ERROR, answer.to_string()).into_response()
        }
        Some(Fault::AnswersAfter(time)) => {
            let answer = forward(&shared, &headers, &body).await;
            tokio::time::sleep(time).await;
            answer.into_response()
        }
        Some(Fault::CallFails { code }) => {
            let answer = json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "spoiled",
                "throttlingReasons": [{"reason": "IndexWriteKeyRangeThroughputExceeded", "resource": "arn:index/by_wallet"}]});
            (StatusCode::BAD_REQUEST, answer.to_string()).into_response()
        }
    }
}

/// Forwards the statements that no rule refuses, and answers for the others.
async fn without_refused(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Response {
    let mut request: Value = serde_json::from_slice(body).unwrap();
    let rules = shared.refused.lock().unwrap().clone();
    let is_refused = |statement: &Value| {
        let (text, parameters) = (statement["Statement"].as_str().unwrap(), statement["Parameters"].to_string());
        rules.iter().any(|(table, held)| text.contains(table) && parameters.contains(held))
    };
    let statements = request["Statements"].as_array_mut().unwrap();
    let refused: Vec<usize> = (0..statements.len()).filter(|at| is_refused(&statements[*at])).collect();
    statements.retain(|statement| !is_refused(statement));
    let (status, mut answer) = forward_statements(shared, headers, &request).await;
    for at in refused {
        let failed = json!({"Error": {"Code": "ValidationError", "Message": "refused"}});
        answer["Responses"].as_array_mut().unwrap().insert(at, failed);
    }
    (status, answer.to_string()).into_response()
}

/// A batch of statements, of which none may be left.
async fn forward_statements(shared: &Shared, headers: &HeaderMap, request: &Value) -> (StatusCode, Value) {
    if request["Statements"].as_array().unwrap().is_empty() {
        return (StatusCode::OK, json!({"Responses": []}));
    }
    let (status, answer) = forward(shared, headers, request.to_string().as_bytes()).await;
    (status, serde_json::from_slice(&answer).unwrap())
}

/// One request on a connection of its own; the server ignores signatures.
async fn forward(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> (StatusCode, Vec<u8>) {
    let mut connection = TcpStream::connect(&shared.upstream).await.unwrap();
    let mut head = format!("POST / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", shared.upstream);
    for name in ["x-amz-target", "content-type", "authorization", "x-amz-date"] {
        head.push_str(&format!("{name}: {}\r\n", headers[name].to_str().unwrap()));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..split].to_vec()).unwrap().to_lowercase();
    assert!(head.contains("content-length:"), "an answer of a known length: {head}");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (StatusCode::from_u16(status).unwrap(), answer[split + 4..].to_vec())
}
