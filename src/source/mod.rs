//! Where events come from.
//!
//! A [`Source`] hands out partitions and batches and takes checkpoints back. What leaves is a [`SourceEvent`]; what can
//! fail is the source as a whole ([`SourceError`]); an outage that the source rides out by itself is none.

pub mod archive;
pub mod kafka;
pub mod range;

use std::ops::Range;

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::event::{Digest, Origin, Outcome, PartitionRef, Position};

/// Key, value and headers of one message, as ranges into its batch's bytes.
#[derive(Clone, Debug)]
pub struct RawMessage {
    /// Its own position.
    pub position: Position,
    /// Broker's time in milliseconds since 1970, where there is one.
    pub timestamp_ms: Option<i64>,
    /// Null and empty are different things.
    pub key: Option<Range<usize>>,
    /// Null (a tombstone) and empty are different things.
    pub value: Option<Range<usize>>,
    /// Names and values in order; names are UTF-8.
    pub headers: Vec<(Range<usize>, Option<Range<usize>>)>,
    /// Where its event was read first.
    pub provenance: Provenance,
}

/// Where a message's event was read first: what becomes its origin.
#[derive(Clone, Debug)]
pub enum Provenance {
    /// At this very position.
    Here,
    /// Elsewhere: an archive or a dead letter carries it along.
    Carried(Box<Carried>),
    /// It is not to be processed; this is what becomes of the position.
    LeftOut(Outcome),
    /// What carries it cannot be read, for this reason: the message is the whole of it.
    Damaged(String),
}

/// What an archive or a dead letter tells of its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Where it was read first.
    pub origin: Origin,
    /// How often it was tried before.
    pub attempts: u32,
    /// When it came first, in the stored form; empty where that is unknown.
    pub first_seen: String,
    /// Content digests of the forms of the event that this one corrects, the first one first.
    pub corrects: Vec<Digest>,
}

/// Consecutive messages of one partition in one allocation.
#[derive(Debug)]
pub struct RawBatch {
    /// The partition.
    pub partition: PartitionRef,
    /// Bytes that the messages' ranges point into.
    pub bytes: Vec<u8>,
    /// In the log's order, at least one.
    pub messages: Vec<RawMessage>,
}

impl RawBatch {
    /// The bytes of a range.
    pub fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// A message's headers, names and values in order.
    pub fn headers(&self, message: &RawMessage) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        message.headers.iter().map(|(name, value)| {
            let name = std::str::from_utf8(self.slice(name)).unwrap_or_default();
            (name, value.as_ref().map(|value| self.slice(value)))
        })
    }

    /// Where a message's event was read first.
    pub fn origin(&self, message: &RawMessage) -> Origin {
        match &message.provenance {
            Provenance::Carried(carried) => carried.origin.clone(),
            Provenance::Here | Provenance::LeftOut(_) | Provenance::Damaged(_) => {
                Origin { partition: self.partition.clone(), position: message.position }
            }
        }
    }

    /// The position of the last message; [`Position::Begin`] for a batch without messages.
    pub fn last(&self) -> Position {
        self.messages.last().map_or(Position::Begin, |message| message.position)
    }
}

/// A partition that the source now owns, with what decides where it is read from.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// The partition.
    pub partition: PartitionRef,
    /// Counts the source's assignments: checkpoints name the one that they are of.
    pub number: u64,
    /// What was checkpointed: everything at or below is done. `None` where nothing was, or it expired.
    pub checkpoint: Option<Position>,
    /// The log holds nothing at or below this position any more.
    pub log_start: Position,
    /// The last position that can be read at the moment.
    pub log_end: Position,
}

/// Everything at or below a position is durable and attested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The partition.
    pub partition: PartitionRef,
    /// The assignment that it is of.
    pub assignment: u64,
    /// The position.
    pub done: Position,
}

/// One partition's place at the moment a group first looks at a topic.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The partition.
    pub partition: PartitionRef,
    /// The checkpoint found, else what the start policy says.
    pub start: Position,
}

/// What a source has to tell.
#[derive(Debug)]
pub enum SourceEvent {
    /// Partitions to be started with [`Source::start`].
    Assigned(Vec<Assignment>),
    /// Messages of a started partition.
    Batch(RawBatch),
    /// Partitions to be drained; the source waits for the acknowledgement (or its deadline) before it lets go of them.
    Revoked {
        /// Which.
        partitions: Vec<PartitionRef>,
        /// True where they are already someone else's: nothing can be checkpointed any more.
        lost: bool,
        /// To be sent when drained and checkpointed; dropping it counts as sent.
        ack: oneshot::Sender<()>,
    },
    /// Every owned partition has been read to the end that it had (only with [`crate::source`]s told to say so).
    EndOfInput,
    /// A dependency of the source is away or back; for logs, metrics and readiness.
    Health {
        /// Whether the source can work.
        ready: bool,
        /// What is wrong, and what to do.
        detail: String,
    },
}

/// Why a source cannot go on at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Wrong settings, missing permissions, a fenced instance: no retry helps.
    #[error("source failed for good: {0}")]
    Fatal(String),
}

/// What a source was asked, to be awaited by any task: the answer, or why there is none for now. One deadline inside.
pub type Answer<V> = BoxFuture<'static, Result<V, String>>;

/// A stream of events with checkpoints. All methods are called from one task.
pub trait Source: Send {
    /// The next thing to happen. Cancel safe: what was not returned is returned by the next call. Waits while there is
    /// nothing to tell.
    fn next(&mut self) -> BoxFuture<'_, Result<SourceEvent, SourceError>>;

    /// For every partition of the topic: the checkpoint found, else where the start policy points.
    fn survey(&mut self, topic: &str) -> Answer<Vec<Survey>>;

    /// Asks anew for the last position of an assigned partition that can be read.
    fn log_end(&mut self, partition: &PartitionRef) -> Answer<Position>;

    /// Starts an assigned partition just above `after`. Ignored for a partition that is no longer assigned.
    fn start(&mut self, partition: &PartitionRef, after: Position);

    /// Stops fetching for a partition until [`Source::resume`]; what was fetched before may still be handed out.
    fn pause(&mut self, partition: &PartitionRef);

    /// Undoes [`Source::pause`].
    fn resume(&mut self, partition: &PartitionRef);

    /// Persisted soon; never awaited, since only lag tools and the next start depend on it. Those of an earlier assignment are
    /// dropped: whoever had the partition since may be far above them.
    fn checkpoint(&mut self, done: &[Checkpoint]);

    /// How many positions lie between the last checkpoint and the log's end, for each partition; as last known.
    fn lags(&self) -> Vec<(PartitionRef, u64)>;

    /// Leaves: persists the last checkpoints and lets go, within `deadline`.
    fn close(self: Box<Self>, deadline: std::time::Duration) -> BoxFuture<'static, ()>;
}
