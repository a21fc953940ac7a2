//! A fixed number of shared connections, each opened when first needed and again after it was lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisFuture, RedisResult, Value};

use super::config::Target;

/// So many calls in a row without an answer end one connection; fewer may be a busy server.
const FAILURES_OF_ONE: u32 = 3;

/// One connection; clones share it.
#[derive(Clone)]
pub(crate) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// A connection out of the pool; given back by nothing, since it is shared, but reported when it is of no more use.
pub(super) struct Lease {
    pub(super) connection: Connection,
    pub(super) slot: usize,
    pub(super) generation: u64,
}

pub(super) struct Pool {
    target: Target,
    connect_deadline: Duration,
    slots: Vec<Slot>,
    next: AtomicUsize,
}

#[derive(Default)]
struct Slot {
    /// Held while a connection is opened, so that one is opened and not one a waiting lane.
    opening: tokio::sync::Mutex<()>,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    connection: Option<Connection>,
    /// Changes with every connection, so that the end of a call on an earlier one says nothing about this one.
    generation: u64,
    /// In a row.
    failures: u32,
}

impl Pool {
    pub(super) fn new(target: Target, connections: usize, connect_deadline: Duration) -> Self {
        let slots = (0..connections).map(|_| Slot::default()).collect();
        Self { target, connect_deadline, slots, next: AtomicUsize::new(0) }
    }

    /// The next connection in turn, opened within the deadline where it is not open.
    pub(super) async fn lease(&self) -> Result<Lease, String> {
        let slot = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len();
        match self.slots[slot].lease(slot) {
            Some(lease) => Ok(lease),
            None => match tokio::time::timeout(self.connect_deadline, self.open(slot)).await {
                Ok(opened) => opened.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no connection within {:?}", self.connect_deadline)),
            },
        }
    }

    /// A connection gave an answer.
    pub(super) fn worked(&self, slot: usize, generation: u64) {
        let mut current = self.slots[slot].current();
        if current.generation == generation {
            current.failures = 0;
        }
    }

    /// A connection gave none. It is let go of when it is broken, or after some in a row: one that went dumb among others
    /// that work would else fail its share of the calls for ever, and no breaker would see it.
    pub(super) fn failed(&self, slot: usize, generation: u64, broken: bool) {
        let mut current = self.slots[slot].current();
        if current.generation == generation {
            current.failures += 1;
            if broken || current.failures >= FAILURES_OF_ONE {
                current.connection = None;
            }
        }
    }

    /// Lets go of every connection: after failures in a row none of them is to be believed, open as it may look.
    pub(super) fn discard_all(&self) {
        for slot in &self.slots {
            slot.current().connection = None;
        }
    }

    async fn open(&self, slot: usize) -> RedisResult<Lease> {
        let _opening = self.slots[slot].opening.lock().await;
        if let Some(lease) = self.slots[slot].lease(slot) {
            return Ok(lease);
        }
        let connection = match &self.target {
            Target::Single(client) => {
                // The deadlines are kept by the callers, over whole operations.
                let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
                Connection::Single(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            Target::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        };
        let mut current = self.slots[slot].current();
        current.generation += 1;
        current.failures = 0;
        current.connection = Some(connection.clone());
        Ok(Lease { connection, slot, generation: current.generation })
    }
}

impl Slot {
    fn lease(&self, slot: usize) -> Option<Lease> {
        let current = self.current();
        let connection = current.connection.clone()?;
        Some(Lease { connection, slot, generation: current.generation })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
