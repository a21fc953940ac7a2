//! An S3 server over HTTP on folders of this machine. It checks signatures, and conditions also where the server that it is made of
//! does not.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Answered,
    /// Nothing is done, and the answer is `503 SlowDown`.
    Refused,
    /// It is done, and the answer is `500`.
    Lost,
    /// Nothing is done, and nothing is answered.
    Silent,
    /// The answer ends in the middle of its body.
    Cut,
    /// As if there were no such object.
    Absent,
}

type Decide = Box<dyn FnMut(&Method, &str) -> Fate + Send>;

#[derive(Clone)]
struct Served {
    service: S3Service,
    decide: Arc<Mutex<Decide>>,
}

/// One server with buckets of its own; it ends with the test.
pub struct S3Server {
    pub endpoint: String,
    root: PathBuf,
    stop: Option<tokio::sync::oneshot::Sender<Infallible>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl S3Server {
    /// With these buckets, for the key `test`. `decide` is asked about each request, by its method and its path with query.
    pub fn start(name: &str, buckets: &[&str], decide: impl FnMut(&Method, &str) -> Fate + Send + 'static) -> Self {
        let root = crate::services::scratch(&format!("s3-{name}"));
        for bucket in buckets {
            std::fs::create_dir_all(root.join(bucket)).unwrap();
        }
        let service = {
            let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&root).unwrap());
            builder.set_auth(SimpleAuth::from_single("test", "test"));
            builder.build()
        };
        let served = Served { service, decide: Arc::new(Mutex::new(Box::new(decide))) };
        let (started, starting) = channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<Infallible>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                started.send(listener.local_addr().unwrap()).unwrap();
                let router = axum::Router::new().fallback(answer).with_state(served);
                tokio::select! {
                    served = axum::serve(listener, router) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        let endpoint = format!("http://{}", starting.recv().expect("the server starts"));
        Self { endpoint, root, stop: Some(stop), thread: Some(thread) }
    }

    /// The file that holds an object.
    pub fn file(&self, bucket: &str, key: &str) -> PathBuf {
        self.root.join(bucket).join(key)
    }

    /// Parts of uploads that were neither completed nor given up.
    pub fn unfinished(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.root).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.starts_with(".upload")).collect()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

async fn answer(State(served): State<Served>, request: Request) -> Response {
    let error = |status: StatusCode, code: &str| {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as asked</Message></Error>");
        (status, [("content-type", "application/xml")], body).into_response()
    };
    let target = request.uri().path_and_query().map(|target| target.as_str().to_owned()).unwrap_or_default();
    let fate = (served.decide.lock().unwrap())(request.method(), &target);
    match fate {
        Fate::Refused => return error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
        Fate::Absent => return error(StatusCode::NOT_FOUND, "NoSuchKey"),
        Fate::Silent => std::future::pending().await,
        Fate::Answered | Fate::Lost | Fate::Cut => {}
    }
    let wanted = (request.method() == Method::GET).then(|| request.headers().get("if-match").cloned()).flatten();
    let answered = served.service.call(request.map(s3s::Body::http_body_unsync)).await.unwrap();
    if fate == Fate::Lost {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    }
    if wanted.is_some() && answered.status().is_success() && answered.headers().get("etag") != wanted.as_ref() {
        return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
    }
    let answered = answered.map(axum::body::Body::new);
    if fate != Fate::Cut {
        return answered;
    }
    let (head, body) = answered.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let half = Ok(body.slice(..body.len() / 2));
    let broken = futures::stream::iter([half, Err(std::io::Error::other("cut"))]);
    Response::from_parts(head, axum::body::Body::from_stream(broken))
}
