//! The admin port: metrics, health and a status page. It only reads.
//!
//! `/metrics` (Prometheus' text format), `/livez` (200 unless a loop of the process hangs), `/readyz` (200 or 503, with
//! every dependency and what to do), `/` (the same for a person). Nothing of it shows settings or payloads.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::metrics::{REVISION, VERSION};
use super::{Heartbeats, Metrics, Readiness};

/// How long requests under way may take once the server is told to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// How often observations are folded into their histograms: they pile up where nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// What the pages are made of.
#[derive(Clone)]
pub struct AdminState {
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// Every dependency.
    pub readiness: Arc<Readiness>,
    /// Every loop.
    pub heartbeats: Arc<Heartbeats>,
}

/// The admin port cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken, or not one of this machine.
    #[error(
        "admin port cannot listen on {address}: {source}; stop what listens there, or set another admin address \
         (port 0 takes a free one)"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server ended by itself.
    #[error("admin port failed: {0}")]
    Serve(#[from] io::Error),
    /// The server's task was killed.
    #[error("admin port broke down: {0}")]
    Task(#[from] JoinError),
}

/// A server that listens.
pub struct AdminServer {
    addr: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

impl AdminServer {
    /// Listens on the address and answers from now on.
    pub async fn start(address: SocketAddr, state: AdminState) -> Result<Self, AdminError> {
        let bind_error = |source| AdminError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let addr = listener.local_addr().map_err(bind_error)?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, state, stop.clone()));
        Ok(Self { addr, stop, task })
    }

    /// Where it listens; the real port where 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes no more requests, and ends those under way within two seconds.
    pub async fn stop(self) -> Result<(), AdminError> {
        self.stop.cancel();
        let Self { mut task, .. } = self;
        match tokio::time::timeout(STOP_DEADLINE, &mut task).await {
            Ok(ended) => Ok(ended??),
            // A client that keeps its connection busy is no reason to stay.
            Err(_) => {
                task.abort();
                match task.await {
                    Err(error) if error.is_cancelled() => Ok(()),
                    ended => Ok(ended??),
                }
            }
        }
    }
}

async fn serve(listener: TcpListener, state: AdminState, stop: CancellationToken) -> io::Result<()> {
    let metrics = Arc::clone(&state.metrics);
    let server = axum::serve(listener, router(state)).with_graceful_shutdown(stop.cancelled_owned()).into_future();
    tokio::pin!(server);
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            ended = &mut server => return ended,
            _ = upkeep.tick() => metrics.upkeep(),
        }
    }
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/", get(status))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(state)
}

async fn metrics(State(state): State<AdminState>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render()).into_response()
}

async fn livez(State(state): State<AdminState>) -> Response {
    let hung = state.heartbeats.hung();
    if hung.is_empty() {
        return (StatusCode::OK, "ok\n").into_response();
    }
    let mut text = String::new();
    for (name, silent) in hung {
        // A String takes every write.
        let _ = writeln!(text, "{name} has not moved for {} s", silent.as_secs());
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn readyz(State(state): State<AdminState>) -> Response {
    let report = state.readiness.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&report) {
        Ok(json) => (status, [(CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status(State(state): State<AdminState>) -> Html<String> {
    Html(page(&state))
}

fn page(state: &AdminState) -> String {
    let report = state.readiness.report();
    let word = match (report.ready, report.draining) {
        (_, true) => "draining",
        (true, false) => "ready",
        (false, false) => "not ready",
    };
    // A String takes every write.
    let mut html = String::from("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>recordkeeper</title>");
    let _ = write!(html, "<h1>recordkeeper</h1><p>version {VERSION}, revision {REVISION}, {word}</p>");
    html.push_str("<h2>Dependencies</h2><table><tr><th>name<th>state<th>what to do</tr>");
    for dependency in &report.dependencies {
        let reason = escaped(dependency.reason.as_deref().unwrap_or_default());
        let _ = write!(html, "<tr><td>{}<td>{}<td>{reason}</tr>", dependency.name, dependency.state);
    }
    html.push_str("</table><h2>Loops</h2>");
    let hung = state.heartbeats.hung();
    if hung.is_empty() {
        html.push_str("<p>All of them move.</p>");
    }
    for (name, silent) in hung {
        let _ = write!(html, "<p>{name} has not moved for {} s.</p>", silent.as_secs());
    }
    html.push_str("<h2>Outcomes</h2>");
    for (pipeline, summary) in state.metrics.pipelines() {
        let _ = write!(html, "<h3>{}</h3><pre>{}</pre>", escaped(&pipeline), escaped(&summary.to_string()));
    }
    html.push_str("<h2>Partitions</h2><table><tr><th>group<th>topic<th>partition<th>lag<th>seconds<th>paused</tr>");
    for (group, topic, partition, reading) in state.metrics.partitions.all() {
        let [group, topic, partition] = [&group, &topic, &partition].map(|name| escaped(name));
        let paused = match (&reading.poisoned_by, reading.paused) {
            (Some(route), _) => format!("waits, route {} is poisoned", escaped(route)),
            (None, true) => "paused".to_owned(),
            (None, false) => String::new(),
        };
        let _ = write!(
            html,
            "<tr><td>{group}<td>{topic}<td>{partition}<td>{}<td>{:.1}<td>{paused}</tr>",
            reading.lag, reading.lag_seconds
        );
    }
    html.push_str("</table><p><a href=\"/metrics\">metrics</a> <a href=\"/livez\">livez</a> <a href=\"/readyz\">readyz</a></p></html>");
    html
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Condition, Dependency};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    fn state() -> AdminState {
        let metrics = Arc::new(Metrics::new().unwrap());
        let readiness = Arc::new(Readiness::new(Arc::clone(&metrics), &[Dependency::Kafka]));
        AdminState { metrics, readiness, heartbeats: Arc::new(Heartbeats::new()) }
    }

    async fn started(state: AdminState) -> AdminServer {
        AdminServer::start(SocketAddr::from(([127, 0, 0, 1], 0)), state).await.unwrap()
    }

    async fn ask(server: &AdminServer, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        stream
            .write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    #[tokio::test]
    async fn the_pages_answer_and_take_nothing() {
        let state = state();
        state.metrics.tally("<pipe>").consumed(3);
        let server = started(state.clone()).await;
        let (status, text) = ask(&server, "GET /metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
        assert!(text.contains("recordkeeper_consumed_total{pipeline=\"<pipe>\"} 3\n"));
        let (status, html) = ask(&server, "GET /").await;
        assert_eq!(status, 200);
        assert!(html.contains("&lt;pipe&gt;") && !html.contains("<pipe>"));
        for path in ["/", "/metrics", "/livez", "/readyz"] {
            assert_eq!(ask(&server, &format!("POST {path}")).await.0, 405);
        }
        assert_eq!(ask(&server, "GET /debug/config").await.0, 404);
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn an_outage_of_others_is_not_ready_and_alive() {
        let state = state();
        let poll = state.heartbeats.register("poll", Duration::from_secs(60));
        let server = started(state.clone()).await;
        state.readiness.set(Dependency::Kafka, Condition::NotReady("brokers away; see the network".to_owned()));
        assert_eq!(ask(&server, "GET /livez").await.0, 200);
        let (status, json) = ask(&server, "GET /readyz").await;
        assert_eq!(status, 503);
        let named = r#"{"name":"kafka","state":"not_ready","reason":"brokers away; see the network"}"#;
        assert!(json.contains(named), "{json}");
        state.readiness.set(Dependency::Kafka, Condition::Ready);
        assert_eq!(ask(&server, "GET /readyz").await.0, 200);
        drop(poll);
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_hung_loop_is_not_alive_and_is_named() {
        let state = state();
        let _poll = state.heartbeats.register("poll", Duration::ZERO);
        while state.heartbeats.hung().is_empty() {
            tokio::task::yield_now().await;
        }
        let server = started(state).await;
        let (status, text) = ask(&server, "GET /livez").await;
        assert_eq!(status, 503);
        assert!(text.contains("poll has not moved"), "{text}");
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_said_with_what_to_do() {
        let server = started(state()).await;
        let error = AdminServer::start(server.addr(), state()).await.err().unwrap().to_string();
        assert!(error.contains(&server.addr().to_string()) && error.contains("another admin address"), "{error}");
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn it_stops_although_a_client_holds_its_connection() {
        let server = started(state()).await;
        let mut idle = TcpStream::connect(server.addr()).await.unwrap();
        idle.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
        let address = server.addr();
        server.stop().await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
