//! Connections to Redis or Valkey: one node or a cluster, with TLS and ACL. What is kept there may be lost at any time.
//!
//! A call is one piece of work on a shared connection, within a deadline and behind the breaker. What can fail is the answer:
//! silence and errors are [`Unanswered::Away`], then, after some in a row, [`Unanswered::Open`] until a trial succeeds.

mod config;
mod pool;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisResult;

use crate::guard::Settled;
use crate::telemetry::{Guarded, Metrics, Watched};
use pool::{Connection, Lease, Pool};

pub use config::{RedisConfig, RedisConfigError, RedisMode};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Not tried: it failed too often a moment ago.
    #[error("left alone for the moment")]
    Open,
    /// No answer in time, no connection, an error as the answer.
    #[error("{0}")]
    Away(String),
}

/// See the module. Connections are opened when first needed.
pub struct RedisClient {
    pool: Pool,
    breaker: Arc<Watched>,
    deadline: Duration,
}

impl RedisClient {
    /// Checks the configuration and reads its CA file; connects to nothing yet.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration.
    pub fn new(config: &RedisConfig, metrics: &Metrics) -> Result<Self, RedisConfigError> {
        let pool = Pool::new(config.target()?, config.connections.get(), config.connect_deadline());
        Ok(Self { pool, breaker: metrics.breakers.of(Guarded::Redis), deadline: config.deadline })
    }

    /// Runs one piece of work on a connection. Cancel safe as far as the work is.
    ///
    /// # Errors
    ///
    /// No answer; whether the work was done is unknown then.
    pub(crate) async fn call<T, W>(&self, work: impl FnOnce(Connection) -> W) -> Result<T, Unanswered>
    where
        W: Future<Output = RedisResult<T>>,
    {
        let Ok(permit) = self.breaker.permit() else { return Err(Unanswered::Open) };
        let detail = match self.attempt(work).await {
            Ok(answer) => {
                permit.success();
                return Ok(answer);
            }
            Err(detail) => detail,
        };
        match permit.failure(&detail) {
            Settled::Unchanged | Settled::Closed => {}
            Settled::Opened | Settled::Reopened => self.pool.discard_all(),
        }
        Err(Unanswered::Away(detail))
    }

    async fn attempt<T, W>(&self, work: impl FnOnce(Connection) -> W) -> Result<T, String>
    where
        W: Future<Output = RedisResult<T>>,
    {
        let Lease { connection, slot, generation } = self.pool.lease().await?;
        match tokio::time::timeout(self.deadline, work(connection)).await {
            Ok(Ok(answer)) => {
                self.pool.worked(slot, generation);
                Ok(answer)
            }
            Ok(Err(error)) => {
                self.pool.failed(slot, generation, error.is_unrecoverable_error());
                Err(shortened(&error))
            }
            Err(_) => {
                self.pool.failed(slot, generation, false);
                Err(format!("no answer within {:?}", self.deadline))
            }
        }
    }
}

/// What the client says, bounded: a server that is none may send anything.
fn shortened(error: &redis::RedisError) -> String {
    error.to_string().chars().take(200).collect()
}
