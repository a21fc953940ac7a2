//! The seams that a lane works with.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dedupe::DedupeStore;
use crate::event::PartitionRef;
use crate::ledger::Ledger;
use crate::store::RecordStore;
use crate::telemetry::{Metrics, Tally};
use crate::topic::Topic;

use super::compile::Pipeline;
use super::poison::Poison;
use super::protocol::Purpose;
use super::settle::Patience;

/// Everything that a lane calls. Cheap to clone; one a lane.
#[derive(Clone)]
pub struct Parts {
    /// Whose ledger is kept: the consumer group, or a run of its own that reads again.
    pub group: Arc<str>,
    /// The ledger epoch of each partition in which this process alone may extend its chain; `None` where the consumer group sees
    /// to it.
    pub tokens: Option<Arc<BTreeMap<PartitionRef, u32>>>,
    /// What the run is for.
    pub purpose: Purpose,
    /// The lane's partition.
    pub partition: PartitionRef,
    /// Decode, classify, validate, map.
    pub pipeline: Arc<Pipeline>,
    /// The cache in front of the judge.
    pub dedupe: Arc<dyn DedupeStore>,
    /// Records and states.
    pub store: Arc<dyn RecordStore>,
    /// Chains.
    pub ledger: Arc<dyn Ledger>,
    /// Where creation requests go.
    pub requests: Arc<dyn Topic>,
    /// Where dead letters go.
    pub letters: Arc<dyn Topic>,
    /// The process's metrics and alerts.
    pub metrics: Arc<Metrics>,
    /// The pipeline's outcomes.
    pub tally: Arc<Tally>,
    /// Where dead letters are to wait; none for a replay or a redrive, whose events were refused before.
    pub poison: Option<Arc<Poison>>,
    /// How patiently dependencies are asked again.
    pub patience: Patience,
}
