//! A lane: one partition on its way through the protocol, in order, several batches at a time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::event::{Digest, Outcome, Position};
use crate::guard::Backoff;
use crate::ledger::Chain;
use crate::pipeline::{self, Gates, Held, Parts, Patience, Pending, protocol};
use crate::source::{Assignment, Checkpoint, RawBatch};

use super::intake::Intake;
use super::progress::{Progress, now_ms};
use super::worker::FromWorker;

/// What a lane may hold.
#[derive(Clone, Copy, Debug)]
pub struct LaneLimits {
    /// Batches between read and attested-or-waiting at a time.
    pub batches_in_flight_max: usize,
}

/// What a lane is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Go on.
    Run,
    /// Finish everything that was handed over, attest, end.
    Finish,
    /// Finish only what is in flight, attest, end.
    Drain,
}

/// What a lane shares with its worker's attester.
pub(super) struct Lane {
    /// The seams.
    pub parts: Parts,
    /// The chain that this lane extends.
    pub chain: Chain,
    /// Done and not yet attested.
    pub pending: RefCell<Pending>,
    /// The digest of the chain's last entry.
    pub previous: Cell<Digest>,
    /// Everything at or below is durable.
    pub processed: Cell<Position>,
    /// Told whenever the ledger's end moved.
    pub moved: Notify,
    /// The last checkpoint: told to the coordinator, or found when the partition came. One that expired or is not followed is
    /// set right at once.
    pub told: Cell<Option<Position>>,
    /// With its ledger.
    pub trouble: RefCell<Trouble>,
    /// Whose checkpoints these are.
    assignment: u64,
    /// Messages taken in and not settled.
    held: Cell<u64>,
    /// Of each batch that is not attested: its last position, and the time of its first message.
    waiting: RefCell<VecDeque<(Position, i64)>>,
    progress: Arc<Progress>,
}

/// Appends in a row that the ledger did not take, and how long it is left alone for it.
#[derive(Debug)]
pub(super) struct Trouble {
    backoff: Backoff,
    refused: u32,
    /// It is not asked before.
    pub until: Option<Instant>,
}

impl Trouble {
    fn new(patience: &Patience) -> Self {
        Self { backoff: Backoff::new(patience.initial, patience.ceiling), refused: 0, until: None }
    }

    /// Whether the ledger may be asked.
    pub fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Another append was not taken; gives how many.
    pub fn begin(&mut self, now: Instant) -> u32 {
        self.refused += 1;
        self.until = Some(now + self.backoff.next_delay());
        self.refused
    }

    /// One was taken.
    pub fn end(&mut self) {
        self.backoff.reset();
        (self.refused, self.until) = (0, None);
    }
}

/// Counts what a lane holds as given up when the lane ends, however it ends.
struct Holding<'a>(&'a Lane);

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.0.parts.tally.abandon(self.0.held.take());
    }
}

impl Lane {
    /// A lane of this assignment, that is read from just above `after` on.
    pub fn new(
        parts: Parts,
        chain: Chain,
        pending: Pending,
        previous: Digest,
        after: Position,
        assignment: &Assignment,
        progress: Arc<Progress>,
    ) -> Self {
        let trouble = Trouble::new(&parts.patience);
        Self {
            parts,
            chain,
            pending: RefCell::new(pending),
            previous: Cell::new(previous),
            processed: Cell::new(after),
            moved: Notify::new(),
            told: Cell::new(assignment.checkpoint),
            trouble: RefCell::new(trouble),
            assignment: assignment.number,
            held: Cell::new(0),
            waiting: RefCell::default(),
            progress,
        }
    }

    /// Where the lane may be checkpointed.
    pub fn checkpoint(&self) -> Checkpoint {
        let done = protocol::checkpoint(self.processed.get(), self.pending.borrow().ledger_end());
        Checkpoint { partition: self.chain.partition.clone(), assignment: self.assignment, done }
    }

    /// The ledger's end moved: what it holds waits no longer.
    pub fn attested(&self) {
        let end = self.pending.borrow().ledger_end();
        let mut waiting = self.waiting.borrow_mut();
        while waiting.front().is_some_and(|(last, _)| *last <= end) {
            waiting.pop_front();
        }
        self.progress.waits(waiting.front().map(|(_, time)| *time));
        self.progress.moved();
    }

    /// Counts a batch as held. `last` is its last position, `time_ms` its first message's time.
    fn hold(&self, messages: u64, last: Position, time_ms: i64) {
        self.parts.tally.consumed(messages);
        self.held.set(self.held.get() + messages);
        if last <= self.pending.borrow().ledger_end() {
            return;
        }
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back((last, time_ms));
        self.progress.waits(waiting.front().map(|(_, time)| *time));
    }

    /// Takes in what became of `(self.processed, last]`; positions between two messages are holes.
    fn take_in(&self, done: pipeline::Done) {
        let settled = done.outcomes.len() as u64;
        let mut pending = self.pending.borrow_mut();
        let mut at = self.processed.get();
        for (position, outcome) in &done.outcomes {
            let before = Position::before_offset(position.next_offset().saturating_sub(1));
            if before > at {
                pending.push(before, Outcome::Hole);
            }
            pending.push(*position, *outcome);
            at = at.max(*position);
        }
        for (position, digest) in done.digests {
            pending.push_digest(position, digest);
        }
        for (position, origin) in done.fills {
            pending.push_fill(position, origin);
        }
        self.processed.set(at);
        self.held.set(self.held.get().saturating_sub(settled));
        self.parts.tally.settle(&done.tally);
    }
}

/// Runs the lane until it is told to end and has drained: everything taken in is durable and attested. What is queued is
/// bounded by the coordinator, which stops the source at a lane's byte limit. Dropping it gives up what is in flight.
pub(super) async fn run(
    lane: Rc<Lane>,
    limits: LaneLimits,
    mut batches: mpsc::UnboundedReceiver<RawBatch>,
    mut mode: watch::Receiver<Mode>,
    attest_now: Rc<Notify>,
    outbox: mpsc::Sender<FromWorker>,
) {
    let _holding = Holding(&lane);
    let gates = Rc::new(Gates::default());
    let mut held = gates.held();
    let mut taken_in = 0;
    let mut intake = Intake::new();
    let mut in_flight = FuturesOrdered::new();
    let mut ticket = 0;
    let mut open = true;
    loop {
        // Before anything is begun: what a drain lets go of must not be overtaken by a later batch.
        intake.tell(*mode.borrow_and_update());
        // A ledger that takes nothing stops the lane, and so its source, before memory runs out.
        let room = !lane.pending.borrow().is_full();
        while room && in_flight.len() < limits.batches_in_flight_max {
            let Some(batch) = intake.next() else { break };
            let (lane, gates, mine) = (lane.clone(), gates.clone(), ticket);
            ticket += 1;
            let ledger_end = lane.pending.borrow().ledger_end();
            in_flight.push_back(async move {
                let done = pipeline::process(&lane.parts, &lane.chain, &gates, &batch, mine, ledger_end).await;
                (done, held_bytes(&batch))
            });
        }
        let handed_over = match intake.mode() {
            Mode::Run => false,
            Mode::Finish => intake.is_empty() && batches.is_empty(),
            Mode::Drain => true,
        };
        // A batch that waits for ever is left to the partition's next owner, as what is queued behind it is.
        let waits_for_ever = held.borrow().as_ref().is_some_and(|held| held.ticket == taken_in);
        if handed_over && (in_flight.is_empty() || (waits_for_ever && intake.mode() == Mode::Drain)) {
            break;
        }
        if !room {
            attest_now.notify_one();
        }
        let mut freed = 0;
        tokio::select! {
            biased;
            Some((done, bytes)) = in_flight.next(), if !in_flight.is_empty() => {
                lane.take_in(done);
                taken_in += 1;
                freed = bytes;
            }
            batch = batches.recv(), if open => match batch {
                Some(batch) => {
                    let (messages, last, bytes) = (batch.messages.len() as u64, batch.last(), held_bytes(&batch));
                    let time_ms = batch.messages.first().and_then(|message| message.timestamp_ms).unwrap_or_else(now_ms);
                    if intake.push(batch) {
                        lane.hold(messages, last, time_ms);
                    } else {
                        freed = bytes;
                    }
                }
                None => open = false,
            },
            Ok(()) = held.changed() => {
                let told = held.borrow_and_update().clone();
                let Some(Held { poisoned, .. }) = told else { continue };
                freed = intake.close();
                let poisoned = FromWorker::Poisoned { partition: lane.chain.partition.clone(), poisoned };
                if outbox.send(poisoned).await.is_err() {
                    return;
                }
            }
            () = lane.moved.notified(), if !room => {}
            changed = mode.changed() => if changed.is_err() {
                return;
            },
        }
        if freed > 0 {
            let freed = FromWorker::Freed { partition: lane.chain.partition.clone(), bytes: freed };
            if outbox.send(freed).await.is_err() {
                return;
            }
        }
    }
    drop(in_flight);
    // Attest what is left; the attester tells whenever it got on.
    loop {
        let moved = lane.moved.notified();
        if lane.pending.borrow().is_empty() {
            break;
        }
        attest_now.notify_one();
        moved.await;
    }
    let checkpoint = FromWorker::Checkpoint { done: vec![lane.checkpoint()] };
    // Without a coordinator there is nobody to checkpoint for.
    let _ = outbox.send(checkpoint).await;
}

/// What a batch counts against the memory limits.
pub(super) fn held_bytes(batch: &RawBatch) -> usize {
    batch.bytes.len() + batch.messages.len() * std::mem::size_of::<crate::source::RawMessage>()
}
