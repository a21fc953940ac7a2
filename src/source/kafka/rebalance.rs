//! Giving partitions back: drain, commit, let go; and leaving the group altogether.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::context::{Key, Note};
use super::lists::list_of;
use super::reader::Reader;
use crate::source::SourceEvent;

/// How long the commit of what was drained may take.
const LAST_COMMIT: Duration = Duration::from_secs(5);

/// A revocation under way.
pub(super) struct Leaving {
    keys: Vec<Key>,
    ack: oneshot::Receiver<()>,
    deadline: Instant,
    /// Set when drained: until when the commit is waited for.
    committing_until: Option<Instant>,
}

impl Reader {
    pub(super) fn revoked(&mut self, keys: Vec<Key>, lost: bool) {
        let mut partitions = Vec::with_capacity(keys.len());
        for key in &keys {
            let Some(slot) = self.slots.get_mut(key) else { continue };
            slot.leave();
            // Known to the engine only where it was announced once.
            partitions.extend(slot.partition.clone());
        }
        // librdkafka tells of the next revocation only after the answer to the last; should it not, that is answered now.
        if let Some(earlier) = self.leaving.take() {
            self.unassign(&earlier.keys);
        }
        let nobody_to_ask = partitions.is_empty();
        let (ack, acked) = oneshot::channel();
        if !nobody_to_ask {
            self.parts.mailbox.post(SourceEvent::Revoked { partitions, lost, ack });
        }
        if lost || nobody_to_ask {
            self.unassign(&keys);
            return;
        }
        let deadline = Instant::now() + self.parts.drain;
        self.leaving = Some(Leaving { keys, ack: acked, deadline, committing_until: None });
    }

    /// Goes on with a revocation: waits for the acknowledgement, then for the commit, then lets go.
    pub(super) fn let_go(&mut self) {
        let Some(leaving) = &mut self.leaving else { return };
        let lost = self.parts.consumer.assignment_lost();
        let now = Instant::now();
        if leaving.committing_until.is_none() {
            let acked = !matches!(leaving.ack.try_recv(), Err(TryRecvError::Empty));
            if !acked && !lost && now < leaving.deadline {
                return;
            }
            if !acked && !lost {
                tracing::warn!(
                    "revoked partitions were not drained within the deadline; what is not done is read again"
                );
            }
            leaving.committing_until = Some(now + LAST_COMMIT);
            // The checkpoints that came before the acknowledgement.
            let (orders, close) = self.parts.orders.take();
            self.obey(orders);
            if let Some(close) = close {
                self.parts.orders.put_back(close);
            }
            self.commit_now();
        }
        let Some(leaving) = &self.leaving else { return };
        let pending = |key: &Key| self.slots.get(key).is_some_and(|slot| slot.commits.pending().is_some());
        let unsettled = self.committing.is_some() || leaving.keys.iter().any(pending);
        if unsettled && !lost && leaving.committing_until.is_some_and(|until| now < until) {
            self.commit_now();
            return;
        }
        if let Some(leaving) = self.leaving.take() {
            self.unassign(&leaving.keys);
        }
    }

    fn unassign(&mut self, keys: &[Key]) {
        let consumer = Arc::clone(&self.parts.consumer);
        let done = consumer.incremental_unassign(&list_of(keys.iter().map(|key| (key, Offset::Invalid))));
        self.expect("unassign", done);
        for key in keys {
            self.slots.remove(key);
        }
        self.settled();
    }

    /// Commits what is checkpointed and leaves the group.
    pub(super) fn leave(&mut self, deadline: Instant) {
        let consumer = Arc::clone(&self.parts.consumer);
        // Half of the time for the last commit, so that leaving has the other half.
        let commit_until = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        self.commit_now();
        while self.has_uncommitted() && Instant::now() < commit_until {
            self.serve_group();
            self.commit_now();
            self.parts.sleep.sleep(Duration::from_millis(5));
        }
        if self.has_uncommitted() {
            tracing::warn!(
                group = self.parts.group,
                "the last offsets were not committed in time; what they cover is read again"
            );
        }
        self.leaving = None;
        self.slots.clear();
        if let Err(error) = consumer.close_queue() {
            tracing::warn!(group = self.parts.group, "could not leave the group: {error}");
            return;
        }
        while !consumer.closed() && Instant::now() < deadline {
            if let Some(Err(error)) = consumer.poll(Duration::from_millis(10)) {
                tracing::debug!("while leaving the group: {error}");
            }
            for note in consumer.context().take_notes() {
                match note {
                    Note::Assign(keys) => {
                        // Too late to be read; librdkafka takes any answer for an unassignment now.
                        let list = list_of(keys.iter().map(|key| (key, Offset::Offset(0))));
                        self.expect("assign", consumer.incremental_assign(&list));
                    }
                    Note::Revoke { keys, .. } => self.unassign(&keys),
                    Note::Committed(_) | Note::Odd(_) => {}
                }
            }
        }
    }

    fn has_uncommitted(&self) -> bool {
        self.committing.is_some() || self.slots.values().any(|slot| slot.commits.pending().is_some())
    }
}
