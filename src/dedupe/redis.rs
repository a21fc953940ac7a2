//! The dedupe cache in Redis or Valkey.
//!
//! A look-up is one MGET, a remembering one pipeline of SETs with a time to live (in cluster mode: the client splits the
//! MGET over the nodes, and many single SETs are in flight). What can fail is the answer, never the batch.

use futures::StreamExt as _;
use futures::TryStreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream;
use redis::{Cmd, Pipeline, Value};
use tracing::warn;

use crate::redis::{RedisClient, RedisConfig, RedisConfigError, RedisMode};
use crate::telemetry::{DedupeMetrics, Metrics};

use super::{DedupeError, DedupeStore, IdentityHash, Known, value};

/// Keys in one MGET or one pipeline; ElastiCache Serverless takes 3,999 arguments a request.
const KEYS_PER_CALL: usize = 1000;

/// Single SETs of one call in flight at once in cluster mode.
const SETS_IN_FLIGHT: usize = 128;

/// Remembers in Redis. Connections are opened when first needed; the start does not wait for them.
pub struct RedisDedupe {
    client: RedisClient,
    mode: RedisMode,
    key_prefix: Vec<u8>,
    ttl_ms: u64,
    metrics: DedupeMetrics,
}

impl RedisDedupe {
    /// Checks the configuration and reads its CA file; connects to nothing yet.
    pub fn new(config: &RedisConfig, metrics: &Metrics) -> Result<Self, RedisConfigError> {
        Ok(Self {
            client: RedisClient::new(config, metrics)?,
            mode: config.mode,
            key_prefix: format!("{}:{}:{}:", config.prefix, config.table_id, value::FORMAT).into_bytes(),
            ttl_ms: u64::try_from(config.ttl.as_millis()).unwrap_or(u64::MAX),
            metrics: metrics.dedupe.clone(),
        })
    }

    async fn get(&self, ids: &[IdentityHash], answers: &mut Answers) -> Result<(), DedupeError> {
        let mut get = Cmd::with_capacity(1 + ids.len(), ids.len() * (self.key_prefix.len() + 16));
        get.arg("MGET");
        let mut key = self.key_prefix.clone();
        for id in ids {
            get.arg(self.key(&mut key, id));
        }
        let answer =
            self.client.call(|mut connection| async move { get.query_async::<Value>(&mut connection).await }).await?;
        let Value::Array(values) = answer else {
            return Err(DedupeError::Garbled("MGET was not answered by an array".to_owned()));
        };
        if values.len() != ids.len() {
            let detail = format!("{} keys were asked for, {} answers came", ids.len(), values.len());
            return Err(DedupeError::Garbled(detail));
        }
        for value in values {
            answers.add(value);
        }
        Ok(())
    }

    async fn set(&self, done: &[(IdentityHash, Known)]) -> Result<(), DedupeError> {
        let (mut key, mut stored) = (self.key_prefix.clone(), Vec::with_capacity(128));
        let sets = done.iter().map(|(id, known)| {
            value::encode(known, &mut stored);
            let mut set = Cmd::with_capacity(5, key.len() + stored.len() + 32);
            set.arg("SET").arg(self.key(&mut key, id)).arg(&stored[..]).arg("PX").arg(self.ttl_ms);
            set
        });
        match self.mode {
            RedisMode::Single => {
                let mut pipeline = Pipeline::with_capacity(done.len());
                for set in sets {
                    pipeline.add_command(set).ignore();
                }
                self.client
                    .call(|mut connection| async move { pipeline.query_async::<()>(&mut connection).await })
                    .await?;
            }
            // A pipeline over several slots is refused by the client.
            RedisMode::Cluster => {
                let sets: Vec<Cmd> = sets.collect();
                self.client
                    .call(|connection| async move {
                        stream::iter(sets)
                            .map(|set| {
                                let mut connection = connection.clone();
                                async move { set.query_async::<()>(&mut connection).await }
                            })
                            .buffer_unordered(SETS_IN_FLIGHT)
                            .try_collect::<()>()
                            .await
                    })
                    .await?;
            }
        }
        Ok(())
    }

    /// The id's key, written over the end of `key`, which begins with the prefix.
    fn key<'k>(&self, key: &'k mut Vec<u8>, id: &IdentityHash) -> &'k [u8] {
        key.truncate(self.key_prefix.len());
        key.extend_from_slice(&id.0);
        key
    }
}

impl DedupeStore for RedisDedupe {
    fn look_up<'a>(&'a self, ids: &'a [IdentityHash]) -> BoxFuture<'a, Result<Vec<Option<Known>>, DedupeError>> {
        async move {
            let mut answers = Answers { known: Vec::with_capacity(ids.len()), garbled: 0 };
            for ids_of_call in ids.chunks(KEYS_PER_CALL) {
                self.get(ids_of_call, &mut answers).await.inspect_err(|error| self.metrics.unanswered(error, ids.len()))?;
            }
            if answers.garbled > 0 {
                warn!(
                    dependency = "redis",
                    "dedupe cache holds {} of {} values that do not read back; they count as unknown: does something else \
                     write under the same prefix?",
                    answers.garbled,
                    ids.len(),
                );
            }
            self.metrics.answered(&answers.known, answers.garbled);
            Ok(answers.known)
        }
        .boxed()
    }

    fn remember<'a>(&'a self, done: &'a [(IdentityHash, Known)]) -> BoxFuture<'a, Result<(), DedupeError>> {
        async move {
            for done_of_call in done.chunks(KEYS_PER_CALL) {
                self.set(done_of_call).await.inspect_err(|error| self.metrics.not_remembered(error, done.len()))?;
            }
            self.metrics.remembered(done.len());
            Ok(())
        }
        .boxed()
    }
}

struct Answers {
    known: Vec<Option<Known>>,
    garbled: usize,
}

impl Answers {
    fn add(&mut self, value: Value) {
        let known = match value {
            Value::Nil => None,
            Value::BulkString(bytes) => {
                let known = value::decode(&bytes);
                self.garbled += usize::from(known.is_none());
                known
            }
            _ => {
                self.garbled += 1;
                None
            }
        };
        self.known.push(known);
    }
}
