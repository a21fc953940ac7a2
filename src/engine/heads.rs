//! Publishes where the chains of a worker's lanes end, now and then and when the worker ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::{Digest, Position};
use crate::ledger::{Head, Heads};
use crate::telemetry::{Alert, Alerts, At};

use super::attester::{Lanes, now};
use super::lane::Lane;

/// Publishes the heads of lanes whose chains grew.
pub(super) struct Publisher {
    heads: Arc<Heads>,
    lanes: Lanes,
    alerts: Alerts,
    /// Heads of lanes that ended, by chain: at most one for each partition.
    ended: RefCell<BTreeMap<String, (Position, Digest)>>,
    /// Where the last published head of each chain stands.
    published: RefCell<BTreeMap<String, Position>>,
}

impl Publisher {
    pub fn new(heads: Arc<Heads>, lanes: Lanes, alerts: Alerts) -> Self {
        Self { heads, lanes, alerts, ended: RefCell::default(), published: RefCell::default() }
    }

    /// Publishes every interval. Runs until dropped.
    pub async fn run(&self) {
        let mut tick = tokio::time::interval(self.heads.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.publish().await;
        }
    }

    /// Keeps the head of a lane that ended for the next time.
    pub fn keep(&self, lane: &Lane) {
        if let Some((chain, end, digest)) = head(lane) {
            self.ended.borrow_mut().insert(chain, (end, digest));
        }
    }

    /// Publishes what moved since the last time. What could not be written is tried again the next time, with an alert.
    pub async fn publish(&self) {
        let mut ends = self.ended.borrow().clone();
        for lane in self.lanes.borrow().values() {
            if let Some((chain, end, digest)) = head(lane) {
                ends.insert(chain, (end, digest));
            }
        }
        ends.retain(|chain, (end, _)| self.published.borrow().get(chain).is_none_or(|published| *published < *end));
        if ends.is_empty() {
            return;
        }
        let moved: Vec<_> = ends.iter().map(|(chain, (end, _))| (chain.clone(), *end)).collect();
        let at = now();
        let head = |(chain, (end, digest))| Head { chain, end, digest, at: at.clone() };
        match self.heads.publish(ends.into_iter().map(head).collect()).await {
            Ok(()) => {
                let mut published = self.published.borrow_mut();
                published.extend(moved);
                // A lane that ended meanwhile has the next one.
                self.ended.borrow_mut().retain(|chain, (end, _)| published.get(chain).is_none_or(|at| *at < *end));
            }
            Err(what) => {
                let message = format_args!("heads of ledger chains are not published, which is tried again: {what}");
                self.alerts.raise(Alert::HeadsUnpublished, &At::default(), message);
            }
        }
    }
}

/// Where a lane's chain ends, once it has an entry.
fn head(lane: &Lane) -> Option<(String, Position, Digest)> {
    let (end, digest) = (lane.pending.borrow().ledger_end(), lane.previous.get());
    (digest != Digest::of(b"")).then(|| (lane.chain.key(), end, digest))
}
