//! Appends to the ledgers of a worker's lanes, all of them in shared calls, and tells how far each may be checkpointed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::event::{Digest, PartitionRef};
use crate::guard::{Backoff, failpoint};
use crate::ledger::{Appended, Chain, Entry, Ledger};
use crate::pipeline::protocol::{self, Extended};
use crate::telemetry::metrics::Append;
use crate::telemetry::{Alert, At};

use super::lane::Lane;
use super::worker::FromWorker;

/// The lanes that a worker runs.
pub(super) type Lanes = Rc<RefCell<BTreeMap<PartitionRef, Rc<Lane>>>>;

/// What an attester needs.
pub(super) struct Attester {
    /// The lanes to look after.
    pub lanes: Lanes,
    /// The chains.
    pub ledger: std::sync::Arc<dyn Ledger>,
    /// At most one append a lane in this time, drains aside.
    pub interval: Duration,
    /// Asks for a round at once.
    pub now: Rc<Notify>,
    /// Where checkpoints go.
    pub outbox: mpsc::Sender<FromWorker>,
    /// Names this process in entries.
    pub writer: String,
}

impl Attester {
    /// Runs until dropped. Rounds follow one another, so that no lane has two appends in flight.
    pub async fn run(self) {
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut backoff = Backoff::new(self.interval, Duration::from_secs(5).max(self.interval));
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => {}
                () = self.now.notified() => {}
            }
            if self.round().await {
                backoff.reset();
            } else {
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }

    /// One append for each lane that has something to attest; false where some of them have to wait for the ledger.
    async fn round(&self) -> bool {
        let mut work: Vec<(Rc<Lane>, Entry)> = Vec::new();
        for lane in self.lanes.borrow().values() {
            if let Some(entry) = self.entry(lane) {
                work.push((lane.clone(), entry));
            }
        }
        let mut settled = true;
        if !work.is_empty() {
            failpoint::hit("attesting");
            let calls: Vec<(&Chain, &Entry)> = work.iter().map(|(lane, entry)| (&lane.chain, entry)).collect();
            let verdicts = self.ledger.append(&calls).await;
            settled = verdicts.len() == work.len();
            failpoint::hit("attested");
            for ((lane, entry), verdict) in work.iter().zip(verdicts) {
                settled &= self.take_verdict(lane, entry, verdict).await;
                lane.moved.notify_one();
            }
        }
        self.tell_checkpoints().await;
        settled
    }

    fn entry(&self, lane: &Lane) -> Option<Entry> {
        let pending = lane.pending.borrow();
        if pending.is_empty() {
            return None;
        }
        let portion = pending.portion();
        Some(Entry {
            from: portion.from,
            to: portion.to,
            outcomes: portion.outcomes,
            records: portion.records,
            record_count: portion.record_count,
            fills: portion.fills,
            revision: lane.parts.pipeline.revision().to_owned(),
            writer: self.writer.clone(),
            nonce: uuid::Uuid::new_v4().simple().to_string(),
            previous: lane.previous.get(),
            attested_at: now(),
        })
    }

    async fn take_verdict(&self, lane: &Lane, entry: &Entry, verdict: Appended) -> bool {
        let (metrics, at) = (&lane.parts.metrics, At::partition(&lane.chain.partition));
        match verdict {
            Appended::Done => {
                metrics.ledger_appends.add(Append::Appended, 1);
                extend(lane, entry.digest(&lane.chain.key()), entry.to);
                true
            }
            Appended::Refused => match self.ledger.end(&lane.chain).await {
                Ok(end) => {
                    let last = end.as_ref().map(|end| (end.position, end.nonce.as_str()));
                    let sealed_by = end.as_ref().and_then(|end| end.sealed_by.as_deref());
                    let append = match protocol::refused_append(entry.from, &entry.nonce, last, sealed_by.is_some()) {
                        Extended::Found => Append::Found,
                        Extended::Others => Append::Refused,
                        Extended::Sealed => {
                            metrics.ledger_appends.add(Append::Fenced, 1);
                            let reason =
                                format!("taken over by {}: this process may not go on", sealed_by.unwrap_or_default());
                            metrics.alerts.raise(Alert::Fenced, &at, &reason);
                            let partition = lane.chain.partition.clone();
                            // Without a coordinator the lane is about to end anyway.
                            let _ = self.outbox.send(FromWorker::Fenced { partition, reason }).await;
                            return false;
                        }
                        Extended::Nowhere => {
                            let from = entry.from;
                            let message =
                                format_args!("an entry above {from} is refused, but the chain ends at {end:?}");
                            metrics.alerts.raise(Alert::LedgerRefused, &at, message);
                            return false;
                        }
                    };
                    metrics.ledger_appends.add(append, 1);
                    if let Some(end) = end {
                        extend(lane, end.digest, end.position);
                    }
                    true
                }
                Err(retry) => {
                    tracing::warn!(chain = lane.chain.key(), detail = retry.detail, "ledger's end cannot be read");
                    false
                }
            },
            Appended::Retry(retry) => {
                metrics.ledger_appends.add(Append::Retried, 1);
                tracing::warn!(chain = lane.chain.key(), detail = retry.detail, "ledger takes no entry, trying again");
                false
            }
        }
    }

    async fn tell_checkpoints(&self) {
        let mut done = Vec::new();
        for lane in self.lanes.borrow().values() {
            let checkpoint = lane.checkpoint();
            if lane.told.get() != Some(checkpoint.done) {
                lane.told.set(Some(checkpoint.done));
                done.push(checkpoint);
            }
        }
        if !done.is_empty() {
            // Without a coordinator there is nobody to checkpoint for: the worker is about to end.
            let _ = self.outbox.send(FromWorker::Checkpoint { done }).await;
        }
    }
}

/// The clock in the stored form; empty only beyond the year 9999.
pub(super) fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).ok().and_then(crate::event::time::from_unix_micros).unwrap_or_default()
}

fn extend(lane: &Lane, digest: Digest, end: crate::event::Position) {
    let before = lane.pending.borrow().ledger_end();
    lane.pending.borrow_mut().attested_to(end);
    lane.previous.set(digest);
    lane.attested();
    lane.parts.tally.attested(before.distance_to(end));
}
