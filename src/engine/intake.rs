//! What was handed over to a lane and not begun.

use std::collections::VecDeque;

use crate::source::RawBatch;

use super::lane::{Mode, held_bytes};

/// A lane's queue. Once a batch is let go of, no later one is begun: the lane would take the positions between for holes,
/// and attest them.
pub(super) struct Intake {
    queued: VecDeque<RawBatch>,
    mode: Mode,
    closed: bool,
}

impl Intake {
    /// Empty, and taking batches in.
    pub fn new() -> Self {
        Self { queued: VecDeque::new(), mode: Mode::Run, closed: false }
    }

    /// Told what to do; a drain is never taken back.
    pub fn tell(&mut self, mode: Mode) {
        if self.mode != Mode::Drain {
            self.mode = mode;
        }
        if self.mode == Mode::Drain {
            self.queued.clear();
        }
    }

    /// Lets go of what waits and takes nothing more in: what was begun before it waits for ever. Gives what was let go of, in
    /// bytes.
    pub fn close(&mut self) -> usize {
        self.closed = true;
        self.queued.drain(..).map(|batch| held_bytes(&batch)).sum()
    }

    /// What the lane does.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Queues a batch; false where it is left to the partition's next owner.
    pub fn push(&mut self, batch: RawBatch) -> bool {
        let taken = self.mode != Mode::Drain && !self.closed;
        if taken {
            self.queued.push_back(batch);
        }
        taken
    }

    /// The next batch to begin.
    pub fn next(&mut self) -> Option<RawBatch> {
        self.queued.pop_front()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> RawBatch {
        RawBatch { partition: Default::default(), bytes: Vec::new(), messages: Vec::new() }
    }

    #[test]
    fn nothing_is_begun_above_a_batch_that_a_drain_let_go_of() {
        let mut intake = Intake::new();
        assert!(intake.push(batch()));
        intake.tell(Mode::Drain);
        assert!(!intake.push(batch()), "it lies above one that was let go of");
        // The end of the input, told while a revoked lane drains, must not start it again.
        intake.tell(Mode::Finish);
        assert!(!intake.push(batch()));
        assert!(intake.next().is_none());
        assert_eq!(intake.mode(), Mode::Drain);
    }

    #[test]
    fn a_lane_that_waits_for_ever_holds_no_more_than_it_began() {
        let mut intake = Intake::new();
        let of_bytes = |bytes| RawBatch { bytes: vec![0; bytes], ..batch() };
        assert!(intake.push(of_bytes(7)) && intake.push(of_bytes(8)));
        assert_eq!(intake.close(), 15);
        assert!(!intake.push(batch()) && intake.is_empty());
        assert_eq!(intake.mode(), Mode::Run, "it still holds the partition");
    }

    #[test]
    fn the_end_of_the_input_lets_go_of_nothing() {
        let mut intake = Intake::new();
        assert!(intake.push(batch()));
        intake.tell(Mode::Finish);
        assert!(intake.push(batch()));
        assert!(intake.next().is_some() && intake.next().is_some() && intake.is_empty());
    }
}
