//! Who works on what, and when: partitions come and go, workers own them, batches flow through lanes, ledgers grow.
//!
//! A [`Source`](crate::source::Source)'s events enter the [`Coordinator`]; it hands partitions to worker threads. A worker
//! owns its partitions end to end: one lane a partition, several batches in flight, and one attester that appends to the
//! ledgers of all of them together. Checkpoints flow back to the source. What can fail is the source as a whole, and a drain
//! that does not end by its deadline.

mod attester;
mod coordinator;
mod heads;
mod intake;
mod lane;
mod open;
mod owned;
mod progress;
#[cfg(test)]
mod tests;
mod worker;

pub use coordinator::{Coordinator, Ending, Limits};
pub use lane::LaneLimits;
pub use worker::{Hosting, Worker, WorkerParts};
