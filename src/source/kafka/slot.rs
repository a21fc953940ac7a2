//! One assigned partition inside the reader: its queue, its open batch, its commits and how far it has come.

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;

use super::commits::Commits;
use super::context::{Context, Key};
use super::line::{Asked, Ticket};
use super::native;
use crate::event::{PartitionRef, Position};
use crate::source::{Provenance, RawBatch, RawMessage};

/// What the engine knows of an assigned partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Being looked up; the engine does not know of it yet, or is to be told anew. The ticket comes with a question and
    /// keeps it wanted, so that neither is there without the other.
    LookingUp(Ticket),
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
    last_messages: usize,
}

impl Open {
    /// Copies a message.
    pub(super) fn append(&mut self, message: &BorrowedMessage<'_>, limits: BatchLimits) {
        let Ok(offset) = u64::try_from(message.offset()) else { return };
        if self.since.is_none() {
            self.since = Some(Instant::now());
            self.bytes.reserve(self.last_bytes.min(limits.bytes_max));
            self.messages.reserve(self.last_messages.min(limits.messages_max));
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
        self.messages.push(RawMessage {
            position: Position::Offset(offset),
            timestamp_ms,
            key,
            value,
            headers,
            provenance: Provenance::Here,
        });
        self.next = offset + 1;
    }

    pub(super) fn is_full(&self, limits: BatchLimits) -> bool {
        self.messages.len() >= limits.messages_max || self.bytes.len() >= limits.bytes_max
    }

    /// What was filled, to be handed over.
    pub(super) fn take(&mut self, partition: PartitionRef) -> Option<RawBatch> {
        if self.messages.is_empty() {
            return None;
        }
        self.since = None;
        let bytes = std::mem::take(&mut self.bytes);
        let messages = std::mem::take(&mut self.messages);
        self.last_bytes = bytes.len();
        self.last_messages = messages.len();
        Some(RawBatch { partition, bytes, messages })
    }

    fn discard(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }
}

pub(super) struct Slot {
    pub(super) key: Key,
    pub(super) topic: CString,
    pub(super) queue: PartitionQueue<Context>,
    /// Set by librdkafka when the queue is no longer empty.
    pub(super) ready: Arc<AtomicBool>,
    pub(super) stage: Stage,
    pub(super) partition: Option<PartitionRef>,
    /// The assignment that the engine was told last; zero before the first.
    pub(super) number: u64,
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
    /// With the question where to read from.
    pub(super) fn new(
        key: Key,
        topic: CString,
        queue: PartitionQueue<Context>,
        ready: Arc<AtomicBool>,
    ) -> (Self, Asked) {
        let (ticket, asked) = Ticket::ask(key.clone());
        let slot = Self {
            key,
            topic,
            queue,
            ready,
            stage: Stage::LookingUp(ticket),
            partition: None,
            number: 0,
            commits: Commits::default(),
            derailed: false,
            paused: false,
            at_end: false,
            began: 0,
            end: 0,
            open: Open::default(),
        };
        (slot, asked)
    }

    /// Polls the partition's queue until its batch is full or there is nothing more.
    pub(super) fn fill(&mut self, limits: BatchLimits, faults: &mut Vec<(Key, KafkaError)>) {
        // Cleared before the queue is looked at: what arrives from now on sets it again.
        self.ready.store(false, Ordering::Release);
        loop {
            if self.open.is_full(limits) {
                self.ready.store(true, Ordering::Release);
                return;
            }
            match self.queue.poll(Duration::ZERO) {
                None => return,
                Some(Err(error)) => faults.push((self.key.clone(), error)),
                Some(Ok(message)) => self.open.append(&message, limits),
            }
        }
    }

    /// Is looked up anew. What was read and not handed over is read again after the next start.
    pub(super) fn look_up(&mut self) -> Asked {
        let (ticket, asked) = Ticket::ask(self.key.clone());
        self.stage = Stage::LookingUp(ticket);
        self.open.discard();
        asked
    }

    /// Is to be given back. What was read and not handed over is the next owner's to read.
    pub(super) fn leave(&mut self) {
        self.stage = Stage::Leaving;
        self.open.discard();
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

    /// How long the open batch may wait for more; zero where it is due, `None` where there is none to be handed over.
    pub(super) fn due_in(&self, limits: BatchLimits) -> Option<Duration> {
        if self.stage != Stage::Started {
            // To be started elsewhere: the engine's next lane must not see it.
            return None;
        }
        let since = self.open.since?;
        let waited = if self.open.is_full(limits) || self.at_end { limits.linger } else { since.elapsed() };
        Some(limits.linger.saturating_sub(waited))
    }

    /// The open batch, to be handed over.
    pub(super) fn take_batch(&mut self) -> Option<RawBatch> {
        self.open.take(self.partition.clone()?)
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
    use rdkafka::config::FromClientConfigAndContext;
    use rdkafka::consumer::BaseConsumer;

    use super::*;
    use crate::event::Partition;
    use crate::source::kafka::config::KafkaConnection;

    const LIMITS: BatchLimits = BatchLimits { messages_max: 10, bytes_max: 1000, linger: Duration::ZERO };

    /// A partition that is read, with one message that waits to be handed over.
    fn reading() -> Slot {
        let connection = KafkaConnection::plaintext("127.0.0.1:1");
        let config = connection.client_config().set("group.id", "g").clone();
        let consumer = Arc::new(BaseConsumer::from_config_and_context(&config, Context::new(&connection)).unwrap());
        let queue = consumer.split_partition_queue("t", 0).unwrap();
        let (mut slot, _asked) = Slot::new(("t".into(), 0), c"t".into(), queue, Arc::default());
        slot.partition = Some(Arc::new(Partition {
            cluster: "c".into(),
            topic: "t".into(),
            topic_id: String::new(),
            epoch: 0,
            name: "0".into(),
        }));
        slot.started(7);
        let position = Position::Offset(7);
        slot.open.messages.push(RawMessage {
            position,
            timestamp_ms: None,
            key: None,
            value: None,
            headers: vec![],
            provenance: Provenance::Here,
        });
        slot.open.since = Some(Instant::now());
        slot.open.next = 8;
        slot
    }

    #[test]
    fn what_was_read_before_a_new_lookup_or_a_farewell_is_never_handed_over() {
        let mut slot = reading();
        assert_eq!(slot.due_in(LIMITS), Some(Duration::ZERO));
        let _asked = slot.look_up();
        assert!(slot.take_batch().is_none());
        // Nor once it is read again.
        slot.started(3);
        assert!(slot.take_batch().is_none());
        let mut slot = reading();
        slot.leave();
        assert!(slot.take_batch().is_none());
    }

    #[test]
    fn what_was_read_before_a_new_start_is_not_due() {
        let mut slot = reading();
        slot.stage = Stage::Starting(3, Instant::now());
        assert_eq!(slot.due_in(LIMITS), None);
        slot.started(3);
        assert_eq!(slot.due_in(LIMITS), None);
    }

    #[test]
    fn markers_after_the_last_message_are_no_lag_once_the_end_was_seen() {
        // Messages up to 9, markers up to 12.
        assert_eq!(lag(13, 5, 10, Some(13)), 8);
        assert_eq!(lag(13, 10, 10, None), 3);
        assert_eq!(lag(13, 10, 10, Some(13)), 0);
        assert_eq!(lag(20, 10, 10, Some(13)), 7);
    }
}
