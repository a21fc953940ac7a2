//! A DynamoDB server in the process, on a free port of the loopback interface.

use std::path::Path;
use std::time::Duration;

use dynoxide::Database;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::store::dynamodb::StaticCredentials;

/// The longest that open connections may hold up the stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The database could not be opened.
    #[error("embedded DynamoDB: the database cannot be opened: {0}")]
    Database(String),
    /// No port could be had.
    #[error("embedded DynamoDB: no port on 127.0.0.1: {0}")]
    Port(#[from] std::io::Error),
}

/// A running server. Dropping it stops it, too, without waiting.
#[derive(Debug)]
pub struct EmbeddedDynamo {
    /// Where it listens, such as `http://127.0.0.1:40123`.
    pub endpoint: String,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), String>>,
}

impl EmbeddedDynamo {
    /// The region to sign for; any would do.
    pub const REGION: &str = "us-east-1";

    /// Any credentials would do: the server checks that there are some, not which.
    pub fn credentials() -> StaticCredentials {
        StaticCredentials { access_key_id: "embedded".to_owned(), secret_access_key: "embedded".to_owned() }
    }

    /// Stops it and waits until requests that run have ended, five seconds at most. What was in memory is gone.
    pub async fn stop(mut self) {
        // An error means that the server has ended already.
        let _ = self.stop.send(());
        if tokio::time::timeout(STOP_DEADLINE, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

/// Starts a server with its data in memory, or in a file at `path` where one is given. Must be called on a Tokio runtime,
/// which then runs it.
pub async fn start(path: Option<&Path>) -> Result<EmbeddedDynamo, EmbeddedError> {
    let database = match path {
        None => Database::memory(),
        Some(path) => Database::new(&path.to_string_lossy()),
    };
    let database = database.map_err(|error| EmbeddedError::Database(error.to_string()))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(dynoxide::server::serve_with_shutdown(listener, database, async move {
        // Dropping the sender stops the server as well.
        let _ = stopped.await;
    }));
    Ok(EmbeddedDynamo { endpoint, stop, server })
}
