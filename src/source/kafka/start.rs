//! Starting assigned partitions where the engine says.
//!
//! By seeking: an assign call of our own, made while librdkafka waits for the answer to a rebalance, would be taken for
//! that answer. Only a partition whose offset librdkafka has given up on must be assigned again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::Consumer;

use super::context::Key;
use super::lists::{list_of, offset_of};
use super::reader::Reader;
use super::slot::Stage;

/// librdkafka's main thread answers within moments; this only bounds a fault.
const SEEK: Duration = Duration::from_secs(5);
/// How long librdkafka may take to begin with a new assignment before it is assigned again.
const START_PATIENCE: Duration = Duration::from_secs(2);

impl Reader {
    /// Starts what is to be started, or tries again.
    pub(super) fn start_waiting(&mut self) {
        let waiting: Vec<(Key, u64, Instant)> = self
            .slots
            .values()
            .filter_map(|slot| match slot.stage {
                Stage::Starting(next, since) => Some((slot.key.clone(), next, since)),
                Stage::LookingUp(_) | Stage::Announced | Stage::Started | Stage::Leaving => None,
            })
            .collect();
        for (key, next, since) in waiting {
            self.drain(&key);
            let derailed = self.slots.get(&key).is_some_and(|slot| slot.derailed) || since.elapsed() > START_PATIENCE;
            let done = if derailed { self.assign_again(&key, next) } else { self.seek(&key, next) };
            if !done {
                continue;
            }
            let consumer = Arc::clone(&self.parts.consumer);
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            let paused = slot.paused;
            slot.started(next);
            slot.paused = paused;
            if !paused {
                let resumed = consumer.resume(&list_of([(&key, Offset::Invalid)]));
                self.expect("resume", resumed);
            }
        }
    }

    /// Empties the queue of a partition that is about to start: errors of the time before are heard, messages left.
    fn drain(&mut self, key: &Key) {
        let mut faults = Vec::new();
        if let Some(slot) = self.slots.get(key) {
            while let Some(polled) = slot.queue.poll(Duration::ZERO) {
                faults.extend(polled.err());
            }
        }
        for error in faults {
            self.fault(Some(key), &error);
        }
    }

    /// False where librdkafka has not begun with the assignment yet.
    fn seek(&mut self, key: &Key, next: u64) -> bool {
        let list = list_of([(key, offset_of(next))]);
        match self.parts.consumer.seek_partitions(list, SEEK) {
            Ok(list) => list.elements().iter().all(|element| element.error().is_ok()),
            Err(error) => {
                tracing::warn!("seek on {}/{} failed, it is tried again: {error}", key.0, key.1);
                false
            }
        }
    }

    /// The way back for a partition whose offset librdkafka has given up on. Not while the group waits for an answer:
    /// it would take this for one.
    fn assign_again(&mut self, key: &Key, next: u64) -> bool {
        if self.leaving.is_some() {
            return false;
        }
        let consumer = Arc::clone(&self.parts.consumer);
        let unassigned = consumer.incremental_unassign(&list_of([(key, Offset::Invalid)]));
        self.expect("unassign", unassigned);
        if let Err(error) = consumer.incremental_assign(&list_of([(key, offset_of(next))])) {
            // It would stay ours and never be read.
            self.parts.mailbox.fatal(format!("librdkafka does not take {}/{} back: {error}", key.0, key.1));
        }
        true
    }
}
