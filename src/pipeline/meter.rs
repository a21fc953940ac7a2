//! What a pipeline counts. One call a batch, never one an event.

use crate::dedupe::{DedupeError, Known};
use crate::event::{Outcome, Reason};
use crate::ledger::Appended;
use crate::store::Changed;

/// a
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// a
    Prepare,
    /// a
    LookUp,
    /// a
    Judge,
    /// a
    Apply,
    /// a
    Remember,
}
/// Outcomes of one batch.
#[derive(Debug, Default)]
pub struct BatchTally {}
impl BatchTally {
    /// a
    pub fn add(&mut self, _: Outcome, _: bool) {}
}
/// a
pub struct Meter;
/// a
pub struct Lap;
impl Lap {
    /// a
    pub fn lap(&self, _: Stage) {}
}
#[allow(unused)]
impl Meter {
    /// a
    pub fn start(&self) -> Lap {
        Lap
    }
    /// a
    pub fn dedupe_failed(&self, _: &DedupeError) {}
    /// a
    pub fn dedupe_looked_up(&self, _: &[Option<Known>]) {}
    /// a
    pub fn state_unchanged(&self, _: &Changed) {}
    /// a
    pub fn states_folded(&self, _: u64, _: usize) {}
    /// a
    pub fn request_published(&self) {}
    /// a
    pub fn consumed(&self, _: u64) {}
    /// a
    pub fn abandon(&self, _: u64) {}
    /// a
    pub fn settle(&self, _: &BatchTally) {}
    /// a
    pub fn appended(&self, _: &Appended) {}
    /// a
    pub fn attested(&self, _: u64) {}
    /// a
    pub fn checkpointed(&self, _: usize) {}
    /// a
    pub fn holding(&self, _: usize, _: usize) {}
    /// a
    pub fn assigned(&self, _: usize) {}
    /// a
    pub fn rebalanced(&self, _: &str) {}
}
