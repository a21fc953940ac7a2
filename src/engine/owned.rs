//! What a coordinator knows of the partitions that its workers have, and of those that have to go.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::event::PartitionRef;

use super::progress::Progress;

/// Partitions to be let go of.
pub(super) struct Revocation {
    pub left: BTreeSet<PartitionRef>,
    pub ack: oneshot::Sender<()>,
    pub deadline: Instant,
}

/// A partition that a worker has.
pub(super) struct Owned {
    pub worker: usize,
    /// Held in memory: read and not settled.
    pub bytes: usize,
    pub paused: bool,
    /// How much its log held above its checkpoint when it was assigned: its lag until the source tells.
    pub behind: u64,
    /// Its lane has said where to read from.
    pub started: bool,
    /// Told to let go of what it has not begun: nothing is started or handed over any more.
    pub draining: bool,
    /// Must not be read: its log ends below its ledger, or its ledger is broken.
    pub unread: bool,
    /// The poisoned route that it waits for, for as long as it is ours.
    pub poisoned_by: Option<Arc<str>>,
    pub progress: Arc<Progress>,
}

impl Owned {
    pub fn by(worker: usize, behind: u64) -> Self {
        let progress = Arc::new(Progress::new());
        Self {
            worker,
            bytes: 0,
            paused: false,
            behind,
            started: false,
            draining: false,
            unread: false,
            poisoned_by: None,
            progress,
        }
    }
}
