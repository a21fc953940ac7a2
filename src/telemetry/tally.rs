//! The numbers that have to fit together: what was taken up, and how it ended.
//!
//! `consumed = recorded + duplicate + skipped + dead_lettered + in_flight` at every moment anybody looks, since a batch
//! changes all of them under one lock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::event::Reason;

use super::metrics::{ClosedLabel as _, End};

/// What became of one batch, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchTally {
    /// Positions whose record stands under their own origin.
    pub recorded: u64,
    /// Those of them whose record stood before.
    pub repeated: u64,
    /// Positions whose event stands under another origin.
    pub duplicate: u64,
    /// Positions left out by a rule or an order.
    pub skipped: u64,
    /// Creation requests acknowledged by the broker.
    pub requests: u64,
    /// State writes below what stands.
    pub stale: u64,
    /// State writes beside other content of their version.
    pub ties: u64,
    /// Events, or requests, whose id stands with other content.
    pub conflicts: u64,
    pub(super) dead_lettered: [u64; Reason::ALL.len()],
}

impl BatchTally {
    /// One more position that became a dead letter.
    pub fn dead_letter(&mut self, reason: Reason) {
        self.dead_lettered[reason.index()] += 1;
    }

    /// Positions that became dead letters, by reason.
    pub fn dead_letters(&self) -> impl Iterator<Item = (Reason, u64)> + use<'_> {
        Reason::ALL.into_iter().zip(self.dead_lettered)
    }

    /// Positions that ended.
    pub fn ended(&self) -> u64 {
        self.recorded + self.duplicate + self.skipped + self.dead_lettered.iter().sum::<u64>()
    }

    fn add(&mut self, other: &Self) {
        let Self { recorded, repeated, duplicate, skipped, requests, stale, ties, conflicts, dead_lettered } = other;
        self.recorded += recorded;
        self.repeated += repeated;
        self.duplicate += duplicate;
        self.skipped += skipped;
        self.requests += requests;
        self.stale += stale;
        self.ties += ties;
        self.conflicts += conflicts;
        for (mine, theirs) in self.dead_lettered.iter_mut().zip(dead_lettered) {
            *mine += theirs;
        }
    }
}

/// All that a tally holds; none of it ever shrinks, as counters must not.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) consumed: u64,
    pub(super) abandoned: u64,
    pub(super) settled: BatchTally,
    pub(super) checkpoints: u64,
    pub(super) attested: u64,
}

impl Counts {
    pub(super) fn in_flight(&self) -> u64 {
        self.consumed.saturating_sub(self.abandoned + self.settled.ended())
    }

    pub(super) fn ended(&self, end: End) -> u64 {
        match end {
            End::Recorded => self.settled.recorded,
            End::Duplicate => self.settled.duplicate,
            End::Skipped => self.settled.skipped,
            End::DeadLettered => self.settled.dead_lettered.iter().sum(),
            End::Abandoned => self.abandoned,
        }
    }
}

/// One pipeline's numbers. Every call takes one short lock: once a batch, never once an event.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<Counts>,
}

impl Tally {
    /// So many positions were taken up: they are in flight now.
    pub fn consumed(&self, positions: u64) {
        self.counts_mut().consumed += positions;
    }

    /// A batch ended: its positions leave flight. To be called once for each position taken up, unless it is abandoned.
    pub fn settle(&self, batch: &BatchTally) {
        let mut counts = self.counts_mut();
        counts.settled.add(batch);
        debug_assert!(counts.abandoned + counts.settled.ended() <= counts.consumed, "more ended than was consumed");
    }

    /// So many positions in flight are let go with their partition: its next owner takes them up again.
    pub fn abandon(&self, positions: u64) {
        self.counts_mut().abandoned += positions;
    }

    /// Checkpoints were handed to the source.
    pub fn checkpointed(&self, checkpoints: u64) {
        self.counts_mut().checkpoints += checkpoints;
    }

    /// So many positions stand in a ledger entry now.
    pub fn attested(&self, positions: u64) {
        self.counts_mut().attested += positions;
    }

    /// The numbers of one moment.
    pub fn summary(&self) -> Summary {
        let counts = self.counts_mut();
        Summary {
            consumed: counts.consumed.saturating_sub(counts.abandoned),
            recorded: counts.settled.recorded,
            repeated: counts.settled.repeated,
            duplicate: counts.settled.duplicate,
            skipped: counts.settled.skipped,
            dead_lettered: counts
                .settled
                .dead_letters()
                .filter(|(_, positions)| *positions > 0)
                .map(|(reason, positions)| (reason.name(), positions))
                .collect(),
            in_flight: counts.in_flight(),
            requests: counts.settled.requests,
            stale: counts.settled.stale,
            ties: counts.settled.ties,
            checkpoints: counts.checkpoints,
            attested: counts.attested,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts_mut().clone()
    }

    fn counts_mut(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a run did. Its JSON is the line that `run --summary json` ends with; its text is a table for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Positions taken up, without those that were let go unfinished.
    pub consumed: u64,
    /// Positions whose record stands under their own origin.
    pub recorded: u64,
    /// Those of them whose record stood before.
    pub repeated: u64,
    /// Positions whose event stands under another origin.
    pub duplicate: u64,
    /// Positions left out by a rule or an order.
    pub skipped: u64,
    /// Dead letters by reason; reasons without any are left out.
    pub dead_lettered: BTreeMap<&'static str, u64>,
    /// Positions taken up and not ended.
    pub in_flight: u64,
    /// Creation requests acknowledged by the broker.
    pub requests: u64,
    /// State writes below what stands.
    pub stale: u64,
    /// State writes beside other content of their version.
    pub ties: u64,
    /// Checkpoints handed to the source.
    pub checkpoints: u64,
    /// Positions that stand in a ledger entry.
    pub attested: u64,
}

impl Summary {
    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        self.consumed += other.consumed;
        self.recorded += other.recorded;
        self.repeated += other.repeated;
        self.duplicate += other.duplicate;
        self.skipped += other.skipped;
        for (reason, positions) in other.dead_lettered {
            *self.dead_lettered.entry(reason).or_default() += positions;
        }
        self.in_flight += other.in_flight;
        self.requests += other.requests;
        self.stale += other.stale;
        self.ties += other.ties;
        self.checkpoints += other.checkpoints;
        self.attested += other.attested;
        self
    }

    /// One line of JSON, without the line's end.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, number: u64| writeln!(f, "{name:<20}{number:>12}");
        row("consumed", self.consumed)?;
        row("  recorded", self.recorded)?;
        row("    repeated", self.repeated)?;
        row("  duplicate", self.duplicate)?;
        row("  skipped", self.skipped)?;
        row("  dead-lettered", self.dead_lettered.values().sum())?;
        for (reason, positions) in &self.dead_lettered {
            row(&format!("    {reason}"), *positions)?;
        }
        row("  in flight", self.in_flight)?;
        row("requests", self.requests)?;
        row("stale", self.stale)?;
        row("ties", self.ties)?;
        row("checkpoints", self.checkpoints)?;
        row("attested", self.attested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_names_that_scripts_read() {
        let tally = Tally::default();
        tally.consumed(12);
        let mut batch = BatchTally { recorded: 4, repeated: 1, duplicate: 2, skipped: 1, ..BatchTally::default() };
        batch.dead_letter(Reason::TooLarge);
        batch.dead_letter(Reason::TooLarge);
        batch.dead_letter(Reason::Schema);
        tally.settle(&batch);
        tally.checkpointed(1);
        tally.attested(10);
        assert_eq!(
            tally.summary().json().unwrap(),
            r#"{"consumed":12,"recorded":4,"repeated":1,"duplicate":2,"skipped":1,"dead_lettered":{"schema":1,"too_large":2},"in_flight":2,"requests":0,"stale":0,"ties":0,"checkpoints":1,"attested":10}"#
        );
        tally.abandon(2);
        let summary = tally.summary();
        assert_eq!((summary.consumed, summary.in_flight), (10, 0));
    }

    #[test]
    fn the_table_names_the_reasons() {
        let tally = Tally::default();
        tally.consumed(1);
        let mut batch = BatchTally::default();
        batch.dead_letter(Reason::Conflict);
        tally.settle(&batch);
        let table = tally.summary().to_string();
        assert!(table.contains("  dead-lettered                1\n    conflict                   1\n"), "{table}");
    }

    #[test]
    fn summaries_add_up() {
        let of = |reason| {
            let tally = Tally::default();
            tally.consumed(2);
            let mut batch = BatchTally { recorded: 1, ..BatchTally::default() };
            batch.dead_letter(reason);
            tally.settle(&batch);
            tally.summary()
        };
        let both = of(Reason::Schema).plus(of(Reason::Empty)).plus(of(Reason::Schema));
        assert_eq!((both.consumed, both.recorded), (6, 3));
        assert_eq!(both.dead_lettered, BTreeMap::from([("empty", 1), ("schema", 2)]));
    }
}
