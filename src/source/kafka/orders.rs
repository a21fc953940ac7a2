//! What the engine wants of the reader thread, folded to the last word a partition: bounded by the partitions alone.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::wake::Wake;
use crate::event::{PartitionRef, Position};
use crate::source::Checkpoint;

/// What is wanted of one partition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    /// To be read from just above here.
    pub(super) start: Option<Position>,
    /// To be paused or resumed, after a start.
    pub(super) paused: Option<bool>,
    /// By assignment: everything at or below is done.
    pub(super) done: Option<(u64, Position)>,
}

/// To leave the group.
#[derive(Debug)]
pub(super) struct Close {
    pub(super) deadline: Instant,
    /// Told when the group is left.
    pub(super) left: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Wanted {
    orders: HashMap<PartitionRef, Order>,
    close: Option<Close>,
}

#[derive(Debug)]
pub(super) struct Orders {
    // A std mutex: held for a few assignments, never across an await.
    wanted: Mutex<Wanted>,
    reader: Wake,
}

impl Orders {
    pub(super) fn new(reader: Wake) -> Self {
        Self { wanted: Mutex::default(), reader }
    }

    fn with(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn start(&self, partition: &PartitionRef, after: Position) {
        self.with(|wanted| {
            let order = wanted.orders.entry(partition.clone()).or_default();
            // A start begins anew: what was said about pausing before is void.
            *order = Order { start: Some(after), paused: None, done: order.done };
        });
        self.reader.wake();
    }

    pub(super) fn pause(&self, partition: &PartitionRef, paused: bool) {
        self.with(|wanted| wanted.orders.entry(partition.clone()).or_default().paused = Some(paused));
        self.reader.wake();
    }

    /// Does not wake the reader: checkpoints are persisted at its own pace.
    pub(super) fn done(&self, done: &[Checkpoint]) {
        self.with(|wanted| {
            for Checkpoint { partition, assignment, done } in done {
                let order = wanted.orders.entry(partition.clone()).or_default();
                // A lane that is late must not take the place of its successor's word.
                if order.done.is_none_or(|(earlier, _)| earlier <= *assignment) {
                    order.done = Some((*assignment, *done));
                }
            }
        });
    }

    pub(super) fn close(&self, within: Duration) -> oneshot::Receiver<()> {
        let (left, done) = oneshot::channel();
        self.with(|wanted| wanted.close = Some(Close { deadline: Instant::now() + within, left }));
        self.reader.wake();
        done
    }

    /// For an order to close that came while something else was taken.
    pub(super) fn put_back(&self, close: Close) {
        self.with(|wanted| wanted.close = Some(close));
    }

    pub(super) fn take(&self) -> (HashMap<PartitionRef, Order>, Option<Close>) {
        let mut taken = Wanted::default();
        self.with(|wanted| std::mem::swap(wanted, &mut taken));
        (taken.orders, taken.close)
    }
}
