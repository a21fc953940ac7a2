//! Letting go of partitions: revocation, shutdown, deadlines, and lanes that end by themselves.

use std::collections::BTreeSet;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::engine::lane::Mode;
use crate::engine::owned::{Owned, Revocation};
use crate::engine::worker::{ToWorker, Worker};
use crate::event::PartitionRef;
use crate::source::SourceError;
use crate::telemetry::{Alert, At, Condition, Dependency};

use super::Coordinator;

impl Coordinator {
    pub(super) fn revoke(&mut self, partitions: Vec<PartitionRef>, ack: oneshot::Sender<()>) {
        for partition in &partitions {
            self.waiting.remove(partition);
        }
        let left: BTreeSet<PartitionRef> = self.owned_at_places_of(&partitions).into_iter().collect();
        if left.is_empty() {
            let _ = ack.send(());
            return;
        }
        self.end_lanes(left.iter().cloned().collect(), Mode::Drain);
        let deadline = Instant::now() + self.limits.drain_deadline;
        self.revocations.push(Revocation { left, ack, deadline });
    }

    pub(super) fn end(&mut self, mode: Mode) {
        self.ending = Some(mode);
        let partitions: Vec<PartitionRef> = self.owned.keys().cloned().collect();
        for partition in &partitions {
            self.source.pause(partition);
        }
        self.end_lanes(partitions, mode);
        if mode == Mode::Drain {
            // A second cause to drain gives no more time.
            self.deadline.get_or_insert(Instant::now() + self.limits.drain_deadline);
        }
    }

    pub(super) fn end_lanes(&mut self, partitions: Vec<PartitionRef>, mode: Mode) {
        for partition in &partitions {
            if let Some(owned) = self.owned.get_mut(partition) {
                owned.draining |= mode == Mode::Drain;
            }
        }
        self.by_worker(partitions, |partitions| ToWorker::End { partitions, mode });
    }

    pub(super) fn ended(&mut self, partition: &PartitionRef, complete: bool) {
        let Some(owned) = self.owned.remove(partition) else { return };
        self.bytes = self.bytes.saturating_sub(owned.bytes);
        self.metrics.partitions.lost(&self.group, partition);
        if owned.unread && !self.owned.values().any(|owned| owned.unread) {
            self.tell_readiness(Dependency::SourceTopics, Condition::Ready);
        }
        if self.ending.is_some() {
            if !complete {
                self.given_up.push(partition.to_string());
            }
        } else if !owned.draining {
            // Still assigned, with nobody to read it: it would stall unseen.
            self.given_up.push(partition.to_string());
            self.fail(SourceError::Fatal(format!("the lane of {partition} broke down: see the log, start again")));
        } else if !complete {
            let message = "given up before it was drained: its next owner reads what was left again";
            self.metrics.alerts.raise(Alert::PartitionsLost, &At::partition(partition), message);
        }
        for revocation in &mut self.revocations {
            revocation.left.remove(partition);
        }
        for done in self.revocations.extract_if(.., |revocation| revocation.left.is_empty()) {
            // A source that stopped waiting has let go already.
            let _ = done.ack.send(());
        }
        // What it held may have been what others were paused for.
        self.give_room();
        let next = self.waiting.keys().find(|next| next.is_at_place_of(partition)).cloned();
        if let Some(assignment) = next.and_then(|next| self.waiting.remove(&next)) {
            self.assign(assignment);
        }
    }

    /// A worker whose thread ended on a fault answers nothing more: its lanes have ended.
    pub(super) fn bury_dead_workers(&mut self) {
        let dead = |owned: &Owned| self.workers.get(owned.worker).is_none_or(Worker::is_finished);
        let orphans: Vec<PartitionRef> =
            self.owned.iter().filter(|(_, owned)| dead(owned)).map(|(partition, _)| partition.clone()).collect();
        for partition in orphans {
            self.ended(&partition, false);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.revocations.iter().map(|revocation| revocation.deadline).chain(self.deadline).min()
    }

    /// Gives up what should have drained by now.
    pub(super) fn give_up(&mut self) {
        let now = Instant::now();
        let all = self.deadline.is_some_and(|deadline| deadline <= now);
        let mut late: Vec<PartitionRef> = Vec::new();
        for revocation in &mut self.revocations {
            if revocation.deadline <= now {
                late.extend(revocation.left.iter().cloned());
                // Asked once; the lanes end at once and answer.
                revocation.deadline = now + self.limits.drain_deadline;
            }
        }
        if all {
            late = self.owned.keys().cloned().collect();
            self.deadline = Some(now + self.limits.drain_deadline);
        }
        self.by_worker(late, |partitions| ToWorker::GiveUp { partitions });
    }
}
