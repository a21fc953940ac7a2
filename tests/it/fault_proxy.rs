//! A proxy in front of the embedded DynamoDB server that spoils chosen answers. What it does not know it refuses.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
    /// The statements from this one on are left out; their answers, inside a 200, are this code.
    StatementsFailFrom { at: usize, code: &'static str },
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
    refused: Mutex<Vec<Refusal>>,
    /// This percentage of the records is refused once.
    refused_once: AtomicUsize,
    /// By record id, how often its statement came.
    records: Mutex<HashMap<String, usize>>,
    away: AtomicBool,
    calls: Mutex<HashMap<String, usize>>,
    index: Mutex<Option<IndexLimit>>,
    half: Mutex<Option<Half>>,
    pair: Barrier,
}

/// Every second batched write to each table is spoiled, by one of these faults.
struct Half {
    rng: fastrand::Rng,
    faults: &'static [Fault],
    /// By table, how many calls came.
    calls: HashMap<String, usize>,
    spoiled: usize,
}

/// Each batched statement on this table that holds that text in a parameter is answered by this code.
#[derive(Clone)]
struct Refusal {
    table: &'static str,
    text: String,
    code: &'static str,
}

/// What each key of an index takes in a second.
struct IndexLimit {
    name: &'static str,
    /// How its keys begin.
    keys: &'static str,
    units: usize,
    second: Instant,
    /// Taken in this second, by key.
    taken: HashMap<String, usize>,
    refused: usize,
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
        let shared = Arc::new(Shared {
            upstream,
            faults: Mutex::default(),
            refused: Mutex::default(),
            refused_once: AtomicUsize::new(0),
            records: Mutex::default(),
            away: AtomicBool::new(false),
            calls: Mutex::default(),
            index: Mutex::default(),
            half: Mutex::default(),
            pair: Barrier::new(2),
        });
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

    /// From now on refuses, for good, each statement on this table that holds that text in a parameter; in a
    /// transaction it is the whole that is refused.
    pub fn refuse(&self, table: &'static str, text: &str) {
        self.answer(table, text, "ValidationError");
    }

    /// From now on answers each batched statement on this table that holds that text in a parameter by this code.
    pub fn answer(&self, table: &'static str, text: &str, code: &'static str) {
        self.shared.refused.lock().unwrap().push(Refusal { table, text: text.to_owned(), code });
    }

    /// Refuses no statement any more for what it holds.
    pub fn mend(&self) {
        self.shared.refused.lock().unwrap().clear();
    }

    /// From now on answers the first statement of so many of 100 records by a server's fault.
    pub fn answer_once(&self, percent: usize) {
        self.shared.refused_once.store(percent, Ordering::SeqCst);
    }

    /// Whether every call fails by a server's fault.
    pub fn away(&self, away: bool) {
        self.shared.away.store(away, Ordering::SeqCst);
    }

    /// How often the statement of each record came, by record id.
    pub fn records(&self) -> HashMap<String, usize> {
        self.shared.records.lock().unwrap().clone()
    }

    /// From now on each key of this index (they begin with `keys`) takes so many statements a second; a batch with more is
    /// refused as a whole, naming the index.
    pub fn limit_index(&self, name: &'static str, keys: &'static str, units: usize) {
        let (second, taken) = (Instant::now(), HashMap::new());
        *self.shared.index.lock().unwrap() = Some(IndexLimit { name, keys, units, second, taken, refused: 0 });
    }

    /// From now on spoils every second batched write to each table, by a fault that the seed draws.
    pub fn spoil_half(&self, seed: u64, faults: &'static [Fault]) {
        let (rng, calls) = (fastrand::Rng::with_seed(seed), HashMap::new());
        *self.shared.half.lock().unwrap() = Some(Half { rng, faults, calls, spoiled: 0 });
    }

    /// Spoils every second write no more; gives how many were, and of how many.
    pub fn spoil_none(&self) -> (usize, usize) {
        let half = self.shared.half.lock().unwrap().take();
        half.map_or((0, 0), |half| (half.spoiled, half.calls.values().sum()))
    }

    /// How many calls the index's limit refused.
    pub fn refused_by_index(&self) -> usize {
        self.shared.index.lock().unwrap().as_ref().map_or(0, |limit| limit.refused)
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
    if shared.away.load(Ordering::SeqCst) {
        let answer = json!({"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError", "message": "away"});
        return (StatusCode::INTERNAL_SERVER_ERROR, answer.to_string()).into_response();
    }
    let fault = shared.faults.lock().unwrap().get_mut(&operation).and_then(VecDeque::pop_front);
    let fault = fault.or_else(|| (operation == "BatchExecuteStatement").then(|| of_half(&shared, &body)).flatten());
    match fault {
        None if operation == "BatchExecuteStatement" => match over_index(&shared, &body) {
            Some(refusal) => refusal,
            None => without_refused(&shared, &headers, &body).await,
        },
        None if operation == "ExecuteTransaction" => match refused_transaction(&shared, &body) {
            Some(refusal) => refusal,
            None => forward(&shared, &headers, &body).await.into_response(),
        },
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
        Some(Fault::StatementsFailFrom { at, code }) => {
            let mut request: Value = serde_json::from_slice(&body).unwrap();
            let statements = request["Statements"].as_array_mut().unwrap();
            let left_out = statements.split_off(at.min(statements.len()));
            let (status, mut answer) = forward_statements(&shared, &headers, &request).await;
            let failed = json!({"Error": {"Code": code, "Message": "slow down"}});
            answer["Responses"].as_array_mut().unwrap().extend(left_out.iter().map(|_| failed.clone()));
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

/// The fault of a batched write where every second one is spoiled, and this is one.
fn of_half(shared: &Shared, body: &[u8]) -> Option<Fault> {
    let mut half = shared.half.lock().unwrap();
    let half = half.as_mut()?;
    let request: Value = serde_json::from_slice(body).unwrap();
    let table = request["Statements"][0]["Statement"].as_str().unwrap().split('"').nth(1).unwrap();
    let calls = half.calls.entry(table.to_owned()).or_default();
    *calls += 1;
    if *calls % 2 == 1 {
        return None;
    }
    half.spoiled += 1;
    half.rng.choice(half.faults).copied()
}

/// The refusal of a batch that has more for a key of the limited index than it takes now.
fn over_index(shared: &Shared, body: &[u8]) -> Option<Response> {
    let mut limit = shared.index.lock().unwrap();
    let limit = limit.as_mut()?;
    if limit.second.elapsed() >= Duration::from_secs(1) {
        (limit.second, limit.taken) = (Instant::now(), HashMap::new());
    }
    let request: Value = serde_json::from_slice(body).unwrap();
    let mut wanted: HashMap<String, usize> = HashMap::new();
    let parameters = request["Statements"].as_array().unwrap().iter().filter_map(|one| one["Parameters"].as_array());
    for key in parameters.flatten().filter_map(|value| value["S"].as_str()).filter(|key| key.starts_with(limit.keys)) {
        *wanted.entry(key.to_owned()).or_default() += 1;
    }
    if wanted.iter().any(|(key, n)| limit.taken.get(key).copied().unwrap_or(0) + n > limit.units) {
        limit.refused += 1;
        let reason = json!({"reason": "IndexWriteKeyRangeThroughputExceeded",
            "resource": format!("arn:aws:dynamodb:::table/t/index/{}", limit.name)});
        let answer = json!({"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException", "message": "slow down",
            "throttlingReasons": [reason]});
        return Some((StatusCode::BAD_REQUEST, answer.to_string()).into_response());
    }
    wanted.into_iter().for_each(|(key, n)| *limit.taken.entry(key).or_default() += n);
    None
}

/// The answer to a transaction in which a statement is refused for good: nothing of it is applied.
fn refused_transaction(shared: &Shared, body: &[u8]) -> Option<Response> {
    let request: Value = serde_json::from_slice(body).unwrap();
    let statements = request["TransactStatements"].as_array().unwrap();
    let reasons: Vec<&str> =
        statements.iter().map(|statement| code_by_rule(shared, statement).unwrap_or("None")).collect();
    reasons.iter().any(|code| *code != "None").then(|| {
        let reasons: Vec<Value> = reasons.iter().map(|code| json!({"Code": code})).collect();
        let answer = json!({"__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "Message": "refused", "CancellationReasons": reasons});
        (StatusCode::BAD_REQUEST, answer.to_string()).into_response()
    })
}

/// What the rules answer a statement by.
fn code_by_rule(shared: &Shared, statement: &Value) -> Option<&'static str> {
    let (text, parameters) = (statement["Statement"].as_str().unwrap(), statement["Parameters"].to_string());
    let rules = shared.refused.lock().unwrap();
    let rule = rules.iter().find(|rule| text.contains(rule.table) && parameters.contains(&rule.text));
    rule.map(|rule| rule.code)
}

/// Forwards the statements that no rule refuses, and answers for the others.
async fn without_refused(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Response {
    let mut request: Value = serde_json::from_slice(body).unwrap();
    let statements = request["Statements"].as_array_mut().unwrap();
    let codes: Vec<_> = statements.iter().map(|statement| code_of(shared, statement)).collect();
    let mut told = codes.iter();
    statements.retain(|_| told.next().unwrap().is_none());
    let (status, mut answer) = forward_statements(shared, headers, &request).await;
    for (at, code) in codes.into_iter().enumerate() {
        if let Some(code) = code {
            let failed = json!({"Error": {"Code": code, "Message": "refused"}});
            answer["Responses"].as_array_mut().unwrap().insert(at, failed);
        }
    }
    (status, answer.to_string()).into_response()
}

/// What a statement is answered by instead of by the server.
fn code_of(shared: &Shared, statement: &Value) -> Option<&'static str> {
    let (text, rule) = (statement["Statement"].as_str().unwrap(), code_by_rule(shared, statement));
    let record = statement["Parameters"].as_array().unwrap().iter().filter_map(|value| value["S"].as_str());
    let record =
        record.filter(|_| text.contains("wallet_records")).find(|text| text.contains('|') && text.starts_with('/'));
    let mut first = false;
    if let Some(record) = record {
        let mut records = shared.records.lock().unwrap();
        let count = records.entry(record.to_owned()).or_default();
        *count += 1;
        first = *count == 1;
    }
    let percent = shared.refused_once.load(Ordering::SeqCst);
    let chosen = || record.is_some_and(|record| record.bytes().map(usize::from).sum::<usize>() * 37 % 100 < percent);
    rule.or_else(|| (first && chosen()).then_some("InternalServerError"))
}

/// The answer to what is left of a batch, which may be nothing.
async fn forward_statements(shared: &Shared, headers: &HeaderMap, request: &Value) -> (StatusCode, Value) {
    if request["Statements"].as_array().is_some_and(Vec::is_empty) {
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
