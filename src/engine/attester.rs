//! Appends to the ledgers of a worker's lanes, all of them in shared calls, and tells how far each may be checkpointed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::event::{Digest, PartitionRef};
use crate::guard::failpoint;
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
        loop {
            let again = self.ask_again_at();
            tokio::select! {
                biased;
                _ = tick.tick() => {}
                () = self.now.notified() => {}
                () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
            self.round().await;
        }
    }

    /// When the first of the lanes in trouble may be tried again, if any has something to attest.
    fn ask_again_at(&self) -> Option<Instant> {
        let lanes = self.lanes.borrow();
        let waiting = lanes.values().filter(|lane| !lane.pending.borrow().is_empty());
        waiting.filter_map(|lane| lane.trouble.borrow().until).min()
    }

    /// One append for each lane that has something to attest and does not wait for its ledger.
    async fn round(&self) {
        let mut work: Vec<(Rc<Lane>, Entry)> = Vec::new();
        let now = Instant::now();
        for lane in self.lanes.borrow().values().filter(|lane| lane.trouble.borrow().is_over(now)) {
            if let Some(entry) = self.entry(lane) {
                work.push((lane.clone(), entry));
            }
        }
        if !work.is_empty() {
            failpoint::hit("attesting");
            let calls: Vec<(&Chain, &Entry)> = work.iter().map(|(lane, entry)| (&lane.chain, entry)).collect();
            let mut verdicts = self.ledger.append(&calls).await.into_iter();
            failpoint::hit("attested");
            for (lane, entry) in &work {
                let taken = match verdicts.next() {
                    Some(verdict) => self.take_verdict(lane, entry, verdict).await,
                    None => Err("no verdict".to_owned()),
                };
                match taken {
                    Ok(()) => lane.trouble.borrow_mut().end(),
                    Err(why) => self.wait(lane, &why),
                }
                lane.moved.notify_one();
            }
        }
        self.tell_checkpoints().await;
    }

    /// Leaves a lane's ledger alone for a while; an alert where it has taken nothing for long.
    fn wait(&self, lane: &Lane, why: &str) {
        let refused = lane.trouble.borrow_mut().begin(Instant::now());
        if refused == lane.parts.patience.stalled_after {
            let (at, message) =
                (At::partition(&lane.chain.partition), format_args!("its ledger takes no entry: {why}"));
            lane.parts.metrics.alerts.raise(Alert::StalledPartition, &at, message);
        } else {
            tracing::warn!(chain = lane.chain.key(), detail = why, "its ledger takes no entry, trying again");
        }
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

    /// The inner error says why the entry may not stand.
    async fn take_verdict(&self, lane: &Lane, entry: &Entry, verdict: Appended) -> Result<(), String> {
        let (metrics, at) = (&lane.parts.metrics, At::partition(&lane.chain.partition));
        match verdict {
            Appended::Done => {
                metrics.ledger_appends.add(Append::Appended, 1);
                extend(lane, entry.digest(&lane.chain.key()), entry.to);
                Ok(())
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
                            let _ = self.outbox.send(FromWorker::Fenced { partition, reason: reason.clone() }).await;
                            return Err(reason);
                        }
                        Extended::Nowhere => {
                            let from = entry.from;
                            let message = format!("an entry above {from} is refused, but the chain ends at {end:?}");
                            metrics.ledger_appends.add(Append::Contradicted, 1);
                            metrics.alerts.raise(Alert::LedgerRefused, &at, &message);
                            return Err(message);
                        }
                    };
                    metrics.ledger_appends.add(append, 1);
                    if let Some(end) = end {
                        extend(lane, end.digest, end.position);
                    }
                    Ok(())
                }
                Err(retry) => {
                    metrics.ledger_appends.add(Append::Retried, 1);
                    Err(format!("refused, and the ledger's end cannot be read: {}", retry.detail))
                }
            },
            Appended::Retry(retry) => {
                metrics.ledger_appends.add(Append::Retried, 1);
                Err(retry.detail)
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
