//! The reader: a thread that alone polls librdkafka, turns its queues into batches and carries out orders.
//!
//! Each partition has a queue of its own, so that errors and ends are known by partition, and a full mailbox simply
//! leaves the queues alone. The thread never waits for anything but its own alarm clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::Lags;
use super::commits::Commits;
use super::context::{Context, Key, Note};
use super::line::{Asked, Question};
use super::lists::{list_of, offset_of};
use super::lookup::Answer;
use super::mailbox::Mailbox;
use super::orders::{Close, Order, Orders};
use super::rebalance::Leaving;
use super::slot::{BatchLimits, Slot, Stage};
use super::wake::{Sleep, Wake};
use crate::event::PartitionRef;
use crate::source::SourceEvent;
use crate::telemetry::Heartbeat;

/// The longest time between two looks at everything.
const TICK: Duration = Duration::from_millis(100);
/// Callbacks that are served in one go, at most.
const CALLBACKS_MAX: u32 = 10_000;
/// Commits are no closer than this.
const COMMIT_EVERY: Duration = Duration::from_millis(250);
/// A refused commit is repeated no sooner.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);

/// What the reader is made of.
pub(super) struct Parts {
    pub(super) consumer: Arc<BaseConsumer<Context>>,
    pub(super) topics: Vec<String>,
    pub(super) group: String,
    pub(super) limits: BatchLimits,
    pub(super) until_end: bool,
    pub(super) drain: Duration,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) orders: Arc<Orders>,
    pub(super) questions: Sender<Question>,
    /// Lists to commit, at most one at a time.
    pub(super) committer: Sender<TopicPartitionList>,
    pub(super) answers: Receiver<Answer>,
    pub(super) lags: Lags,
    pub(super) heartbeat: Heartbeat,
    pub(super) wake: Wake,
    pub(super) sleep: Sleep,
}

pub(super) struct Reader {
    pub(super) parts: Parts,
    pub(super) slots: BTreeMap<Key, Slot>,
    /// How many assignments the engine was told of.
    announced: u64,
    /// Which changes of topics' logs were looked at.
    pub(super) log_changes: u64,
    pub(super) leaving: Option<Leaving>,
    /// Partitions of the commit that is under way.
    pub(super) committing: Option<Vec<Key>>,
    next_commit: Instant,
    /// Not before this: the last commit was refused.
    commit_after: Instant,
    pub(super) next_lag: Instant,
    /// What is wrong, as last told; empty text before anything is known.
    pub(super) trouble: Option<String>,
    pub(super) probing: bool,
    pub(super) next_probe: Instant,
    /// The last change of what the group gave us.
    pub(super) settled_since: Instant,
    pub(super) end_told: bool,
    /// What the group's other members have left to do, as last heard, and since when it is that.
    pub(super) others: Option<(u64, Instant)>,
    pub(super) next_others: Instant,
}

impl Reader {
    pub(super) fn new(parts: Parts) -> Self {
        let now = Instant::now();
        Self {
            parts,
            slots: BTreeMap::new(),
            announced: 0,
            log_changes: 0,
            leaving: None,
            committing: None,
            next_commit: now,
            commit_after: now,
            next_lag: now,
            trouble: Some(String::new()),
            probing: false,
            next_probe: now,
            settled_since: now,
            end_told: false,
            others: None,
            next_others: now,
        }
    }

    /// Runs until told to close or until librdkafka gives up for good.
    pub(super) fn run(mut self) {
        loop {
            self.parts.heartbeat.touch();
            self.serve_group();
            self.serve_answers();
            let (orders, close) = self.parts.orders.take();
            self.obey(orders);
            if let Some(close) = close {
                return self.close(close);
            }
            self.start_waiting();
            let more = self.read();
            self.let_go();
            self.commit();
            self.watch();
            if !more {
                self.parts.sleep.sleep(self.nap());
            }
        }
    }

    fn nap(&self) -> Duration {
        let limits = self.parts.limits;
        let busy = self.leaving.is_some() || self.slots.values().any(|slot| matches!(slot.stage, Stage::Starting(..)));
        let tick = if busy { Duration::from_millis(5) } else { TICK };
        if !self.parts.mailbox.has_room() {
            return tick;
        }
        self.slots.values().filter_map(|slot| slot.due_in(limits)).fold(tick, Duration::min)
    }

    /// Polls the group's queue: keeps the membership alive and collects the callbacks' notes.
    pub(super) fn serve_group(&mut self) {
        let consumer = Arc::clone(&self.parts.consumer);
        // A poll that served a callback returns nothing, so nothing is the end only where none was served.
        let mut more = true;
        for _ in 0..CALLBACKS_MAX {
            if !more {
                return;
            }
            let served = consumer.context().served();
            match consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    // Only a message that was queued before its partition got a queue of its own.
                    let key = (rdkafka::Message::topic(&message).to_owned(), rdkafka::Message::partition(&message));
                    if let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.stage == Stage::Started) {
                        slot.open.append(&message, self.parts.limits);
                    }
                }
                Some(Err(error)) => self.fault(None, &error),
                None => {
                    more = consumer.context().served() != served;
                    for note in consumer.context().take_notes() {
                        self.hear(note);
                    }
                }
            }
        }
    }

    fn hear(&mut self, note: Note) {
        match note {
            Note::Assign(keys) => self.assigned(keys),
            Note::Revoke { keys, lost } => self.revoked(keys, lost),
            Note::Committed(refused) => {
                for key in self.committing.take().unwrap_or_default() {
                    if let Some(slot) = self.slots.get_mut(&key) {
                        slot.commits.answered(refused.is_none());
                    }
                }
                if let Some(why) = refused {
                    self.commit_after = Instant::now() + COMMIT_AGAIN;
                    tracing::warn!(group = self.parts.group, "a commit was refused, the next one repeats it: {why}");
                }
            }
            Note::Odd(what) => tracing::warn!(group = self.parts.group, "librdkafka could not rebalance: {what}"),
        }
    }

    /// What is wanted may have changed with what the group gave or took.
    pub(super) fn settled(&mut self) {
        self.settled_since = Instant::now();
        self.end_told = false;
        self.others = None;
    }

    /// Sends what is checkpointed without waiting for the next turn.
    pub(super) fn commit_now(&mut self) {
        if self.committing.is_none() {
            self.next_commit = self.next_commit.min(Instant::now());
            self.commit();
        }
    }

    fn assigned(&mut self, keys: Vec<Key>) {
        self.settled();
        let consumer = Arc::clone(&self.parts.consumer);
        let list = list_of(keys.iter().map(|key| (key, Offset::Offset(0))));
        let mut wanted = Vec::with_capacity(keys.len());
        for key in &keys {
            match self.open_slot(key) {
                Some((slot, asked)) => {
                    self.slots.insert(key.clone(), slot);
                    wanted.push(asked);
                }
                None => self.parts.mailbox.fatal(format!("librdkafka has no queue for {}/{}", key.0, key.1)),
            }
        }
        // Nothing is fetched before the engine says from where. Paused first, where librdkafka knows the partition
        // already, and again after, where it does not.
        self.expect("pause", consumer.pause(&list));
        self.expect("assign", consumer.incremental_assign(&list));
        self.expect("pause", consumer.pause(&list));
        self.ask(Question::Assignments(wanted));
    }

    fn open_slot(&self, key: &Key) -> Option<(Slot, Asked)> {
        let mut queue = self.parts.consumer.split_partition_queue(&key.0, key.1)?;
        let ready = Arc::new(AtomicBool::new(true));
        let (flag, wake) = (Arc::clone(&ready), self.parts.wake.clone());
        queue.set_nonempty_callback(move || {
            flag.store(true, Ordering::Release);
            wake.wake();
        });
        let topic = std::ffi::CString::new(key.0.as_str()).ok()?;
        Some(Slot::new(key.clone(), topic, queue, ready))
    }

    pub(super) fn ask(&self, question: Question) {
        if self.parts.questions.send(question).is_err() {
            self.parts.mailbox.fatal("the lookup thread has ended: restart, and report this".to_owned());
        }
    }

    fn serve_answers(&mut self) {
        while let Ok(answer) = self.parts.answers.try_recv() {
            match answer {
                Answer::Trouble(why) => {
                    self.probing = false;
                    self.unwell(why);
                }
                Answer::Others(left) => {
                    if self.others.is_none_or(|(before, _)| before != left) {
                        self.others = Some((left, Instant::now()));
                    }
                }
                Answer::Healthy => {
                    self.probing = false;
                    self.well();
                }
                Answer::Assignments(found) => {
                    let mut told = Vec::with_capacity(found.len());
                    for (asked, mut assignment) in found {
                        if let Some(slot) = self.slots.get_mut(&asked.key).filter(|_| asked.is_wanted()) {
                            self.announced += 1;
                            (slot.number, assignment.number) = (self.announced, self.announced);
                            slot.stage = Stage::Announced;
                            if slot.partition.as_ref() != Some(&assignment.partition) {
                                // What was checkpointed is of another log.
                                slot.commits = Commits::default();
                            }
                            slot.partition = Some(assignment.partition.clone());
                            told.push(assignment);
                        }
                    }
                    // The answers may be older than what librdkafka has told meanwhile.
                    self.log_changes = 0;
                    if !told.is_empty() {
                        self.well();
                        self.parts.mailbox.post(SourceEvent::Assigned(told));
                    }
                }
            }
        }
    }

    pub(super) fn obey(&mut self, orders: HashMap<PartitionRef, Order>) {
        let consumer = Arc::clone(&self.parts.consumer);
        for (partition, order) in orders {
            let slot =
                partition.name.parse().ok().and_then(|number| self.slots.get_mut(&(partition.topic.clone(), number)));
            let Some(slot) = slot.filter(|slot| slot.partition.as_ref() == Some(&partition)) else { continue };
            if let Some(after) = order.start
                && matches!(slot.stage, Stage::Announced | Stage::Starting(..) | Stage::Started)
            {
                slot.stage = Stage::Starting(after.next_offset(), Instant::now());
                slot.paused = false;
            }
            if let Some(paused) = order.paused
                && slot.paused != paused
            {
                slot.paused = paused;
                if slot.stage == Stage::Started {
                    let list = list_of([(&slot.key, Offset::Invalid)]);
                    let done = if paused { consumer.pause(&list) } else { consumer.resume(&list) };
                    slot.ready.store(true, Ordering::Release);
                    if let Err(error) = done {
                        tracing::error!(%partition, "librdkafka could not pause or resume: {error}");
                    }
                }
            }
            if let Some((_, done)) = order.done.filter(|(assignment, _)| *assignment == slot.number)
                && !slot.commits.checkpoint(done)
            {
                tracing::warn!(%partition, position = %done, "a checkpoint below an earlier one is left out");
            }
        }
    }

    /// Moves messages into batches and batches into the mailbox. True where there is more to do at once.
    fn read(&mut self) -> bool {
        let limits = self.parts.limits;
        let mut faults = Vec::new();
        for slot in self.slots.values_mut().filter(|slot| slot.is_ready()) {
            slot.fill(limits, &mut faults);
        }
        for (key, error) in faults {
            self.fault(Some(&key), &error);
        }
        // Decided once: what becomes due only now waits for the next turn.
        let is_due = |slot: &Slot| slot.due_in(limits).is_some_and(|wait| wait.is_zero());
        let due: Vec<Key> = self.slots.iter().filter(|(_, slot)| is_due(slot)).map(|(key, _)| key.clone()).collect();
        if !due.is_empty() {
            // What was said before these messages were fetched.
            self.serve_group();
        }
        self.drop_replaced_logs();
        for key in due {
            if let Some(slot) = self.slots.get_mut(&key).filter(|slot| is_due(slot))
                && self.parts.mailbox.has_room()
                && let Some(batch) = slot.take_batch()
            {
                self.parts.mailbox.batch(batch);
            }
        }
        self.parts.mailbox.has_room() && self.slots.values().any(Slot::is_ready)
    }

    /// Sends what is checkpointed, one commit at a time.
    pub(super) fn commit(&mut self) {
        let now = Instant::now();
        if self.committing.is_some() || now < self.next_commit.max(self.commit_after) {
            return;
        }
        let mut keys = Vec::new();
        let mut list = TopicPartitionList::new();
        for slot in self.slots.values_mut() {
            let Some(next) = slot.commits.pending() else { continue };
            if let Err(error) = list.add_partition_offset(&slot.key.0, slot.key.1, offset_of(next)) {
                tracing::error!("offset {next} of {}/{} cannot be committed: {error}", slot.key.0, slot.key.1);
                continue;
            }
            slot.commits.sent(next);
            keys.push(slot.key.clone());
        }
        if keys.is_empty() {
            return;
        }
        self.next_commit = now + COMMIT_EVERY;
        self.committing = Some(keys);
        if self.parts.committer.send(list).is_err() {
            self.parts.mailbox.fatal("the commit thread has ended: restart, and report this".to_owned());
        }
    }

    /// An error of a call that only fails where librdkafka and we disagree about what is assigned: said, not hidden.
    pub(super) fn expect(&self, what: &str, done: Result<(), KafkaError>) {
        if let Err(error) = done {
            tracing::error!(group = self.parts.group, "librdkafka refused to {what}: {error}");
        }
    }

    fn close(mut self, close: Close) {
        self.leave(close.deadline);
        if close.left.send(()).is_err() {
            tracing::debug!(group = self.parts.group, "the group was left after the deadline");
        }
    }
}

#[cfg(test)]
mod tests;
