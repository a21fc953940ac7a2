//! One assigned partition inside the reader: its queue, its open batch, its commits and how far it has come.

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::message::BorrowedMessage;

use super::commits::Commits;
use super::context::{Context, Key};
use super::native;
use crate::event::{PartitionRef, Position};
use crate::source::{RawBatch, RawMessage};

/// What the engine knows of an assigned partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Being looked up; the engine does not know of it yet, or is to be told anew.
    LookingUp,
    /// Announced; fetches nothing until it is started.
    Announced,
    /// To be started at this offset as soon as librdkafka takes it; tried since.
    Starting(u64, Instant),
    /// Read.
    Started,
    /// Being given back; nothing more is read.
    Leaving,
}

/// The batch being filled, and where it has come to. Apart from [`Slot`], since a message borrows the slot's queue.
#[derive(Debug, Default)]
pub(super) struct Open {
    bytes: Vec<u8>,
    messages: Vec<RawMessage>,
    since: Option<Instant>,
    /// Just above the last message read.
    next: u64,
    /// What the last batch took, to size the next one.
    last_bytes: usize,
}

impl Open {
    /// Copies a message.
    pub(super) fn append(&mut self, message: &BorrowedMessage<'_>, limits: BatchLimits) {
        let Ok(offset) = u64::try_from(message.offset()) else { return };
        if self.since.is_none() {
            self.since = Some(Instant::now());
            self.bytes.reserve(self.last_bytes.min(limits.bytes_max));
        }
        let bytes = &mut self.bytes;
        let key = message.key().map(|key| append(bytes, key));
        let value = message.payload().map(|value| append(bytes, value));
        let mut headers = Vec::new();
        native::for_each_header(message, |name, value| {
            // Names are text by Kafka's protocol, which no broker checks.
            let name = append(bytes, String::from_utf8_lossy(name).as_bytes());
            headers.push((name, value.map(|value| append(bytes, value))));
        });
        let timestamp_ms = message.timestamp().to_millis();
        self.messages.push(RawMessage { position: Position::Offset(offset), timestamp_ms, key, value, headers });
        self.next = offset + 1;
    }

    pub(super) fn is_full(&self, limits: BatchLimits) -> bool {
        self.messages.len() >= limits.messages_max || self.bytes.len() >= limits.bytes_max
    }
}

pub(super) struct Slot {
    pub(super) key: Key,
    pub(super) topic: CString,
    pub(super) queue: PartitionQueue<Context>,
    /// Set by librdkafka when the queue is no longer empty.
    pub(super) ready: Arc<AtomicBool>,
    /// Cleared when the lookup's answer is of no use any more.
    pub(super) wanted: Arc<AtomicBool>,
    pub(super) stage: Stage,
    pub(super) partition: Option<PartitionRef>,
    pub(super) commits: Commits,
    /// librdkafka has given up on the offset it was told; only a new assignment brings it back.
    pub(super) derailed: bool,
    pub(super) paused: bool,
    /// The end was seen since the start.
    pub(super) at_end: bool,
    /// Where it was started.
    began: u64,
    /// The log's end when it was last reached.
    pub(super) end: u64,
    pub(super) open: Open,
}

/// When a batch is handed over.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchLimits {
    pub(super) messages_max: usize,
    pub(super) bytes_max: usize,
    pub(super) linger: Duration,
}

impl Slot {
    pub(super) fn new(key: Key, topic: CString, queue: PartitionQueue<Context>, ready: Arc<AtomicBool>) -> Self {
        Self {
            key,
            topic,
            queue,
            ready,
            wanted: Arc::new(AtomicBool::new(true)),
            stage: Stage::LookingUp,
            partition: None,
            commits: Commits::default(),
            derailed: false,
            paused: false,
            at_end: false,
            began: 0,
            end: 0,
            open: Open::default(),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.stage == Stage::Started && self.ready.load(Ordering::Acquire)
    }

    /// Begins at `next`: what was open belongs to an earlier start.
    pub(super) fn started(&mut self, next: u64) {
        self.stage = Stage::Started;
        self.derailed = false;
        self.paused = false;
        self.at_end = false;
        self.began = next;
        self.end = next;
        self.open = Open { next, ..Open::default() };
        self.ready.store(true, Ordering::Release);
    }

    /// How long the open batch may wait for more; zero where it is due, `None` where there is none.
    pub(super) fn due_in(&self, limits: BatchLimits) -> Option<Duration> {
        let since = self.open.since?;
        let waited = if self.open.is_full(limits) || self.at_end { limits.linger } else { since.elapsed() };
        Some(limits.linger.saturating_sub(waited))
    }

    /// The open batch, to be handed over.
    pub(super) fn take_batch(&mut self) -> Option<RawBatch> {
        let partition = self.partition.clone()?;
        if self.open.messages.is_empty() {
            return None;
        }
        self.open.since = None;
        let bytes = std::mem::take(&mut self.open.bytes);
        let messages = std::mem::take(&mut self.open.messages);
        self.open.last_bytes = bytes.len();
        Some(RawBatch { partition, bytes, messages })
    }

    /// How many offsets lie between the last checkpoint and the log's next offset. Where all was read and checkpointed,
    /// offsets that nothing can arrive for (transaction markers, compaction) do not count.
    pub(super) fn lag(&self, log_next: u64) -> u64 {
        lag(log_next, self.commits.next().unwrap_or(self.began), self.open.next, self.at_end.then_some(self.end))
    }
}

fn lag(log_next: u64, checkpointed: u64, read: u64, end_seen: Option<u64>) -> u64 {
    let done = match end_seen {
        Some(end) if checkpointed >= read => end.max(checkpointed),
        Some(_) | None => checkpointed,
    };
    log_next.saturating_sub(done)
}

fn append(bytes: &mut Vec<u8>, part: &[u8]) -> std::ops::Range<usize> {
    let from = bytes.len();
    bytes.extend_from_slice(part);
    from..bytes.len()
}

#[cfg(test)]
mod tests {
    use super::lag;

    #[test]
    fn markers_after_the_last_message_are_no_lag_once_the_end_was_seen() {
        // Messages up to 9, markers up to 12.
        assert_eq!(lag(13, 5, 10, Some(13)), 8);
        assert_eq!(lag(13, 10, 10, None), 3);
        assert_eq!(lag(13, 10, 10, Some(13)), 0);
        assert_eq!(lag(20, 10, 10, Some(13)), 7);
    }
}
