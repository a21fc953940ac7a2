//! What a lane has done and not yet attested: a contiguous range above the ledger's end.

use std::collections::VecDeque;

use crate::event::{Digest, Origin, Outcome, Position, SetDigest};
use crate::ledger::{Entry, Fills, Outcomes};

/// The low watermark of a lane as the ledger needs it. Grows at the top as batches complete in order; shrinks at the bottom
/// as entries are appended, by this lane or by anybody else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    from: Position,
    to: Position,
    outcomes: Outcomes,
    /// Record digests with the position of their origin, in order.
    digests: VecDeque<(Position, Digest)>,
    /// Positions whose events were read elsewhere first and stand recorded, with their origins, in order.
    fills: VecDeque<(Position, Origin)>,
}

/// The part of a [`Pending`] that goes into one entry.
#[derive(Debug, PartialEq, Eq)]
pub struct Portion {
    /// The range is `(from, to]`.
    pub from: Position,
    /// See `from`.
    pub to: Position,
    /// One for each position.
    pub outcomes: Outcomes,
    /// Sum over the range's record digests.
    pub records: SetDigest,
    /// How many.
    pub record_count: u64,
    /// What it fills in other chains.
    pub fills: Fills,
}

impl Pending {
    /// Runs of outcomes, record digests, or fills, from which on it is full: about 5 MB.
    const HELD_MAX: usize = 100_000;

    /// Nothing done yet above this ledger end.
    pub fn new(ledger_end: Position) -> Self {
        Self {
            from: ledger_end,
            to: ledger_end,
            outcomes: Outcomes::default(),
            digests: VecDeque::new(),
            fills: VecDeque::new(),
        }
    }

    /// Whether there is something to attest.
    pub fn is_empty(&self) -> bool {
        self.to <= self.from
    }

    /// Whether so much waits for the ledger that nothing more should be begun.
    pub fn is_full(&self) -> bool {
        self.outcomes.runs().len().max(self.digests.len()).max(self.fills.len()) >= Self::HELD_MAX
    }

    /// Where the ledger ends, as far as this lane knows.
    pub fn ledger_end(&self) -> Position {
        self.from
    }

    /// Adds the outcome of the positions `(self.to, to]`; those that the ledger already holds are left out.
    pub fn push(&mut self, to: Position, outcome: Outcome) {
        self.outcomes.push(outcome, self.to.distance_to(to));
        self.to = self.to.max(to);
    }

    /// Adds the digest of a record whose origin is `position`.
    pub fn push_digest(&mut self, position: Position, digest: Digest) {
        if position > self.from {
            self.digests.push_back((position, digest));
        }
    }

    /// Adds the origin of the event at `position`, which stands recorded and was read elsewhere first.
    pub fn push_fill(&mut self, position: Position, origin: Origin) {
        if position > self.from {
            self.fills.push_back((position, origin));
        }
    }

    /// The lowest part that fits one entry.
    pub fn portion(&self) -> Portion {
        let mut outcomes = self.outcomes.prefix(Entry::OUTCOME_BYTES_MAX);
        let mut to = Position::before_offset(self.from.next_offset() + outcomes.len());
        let mut fills = Fills::default();
        // An archive may hold an origin twice: its records count once.
        let mut again: Vec<Position> = Vec::new();
        for (position, origin) in self.fills.iter().take_while(|(position, _)| *position <= to) {
            if !fills.push(origin) {
                again.push(*position);
            }
            if fills.is_over(Entry::FILL_BYTES_MAX) {
                to = *position;
                outcomes = outcomes.first(self.from.distance_to(to));
                break;
            }
        }
        let mut records = SetDigest::default();
        let mut record_count = 0;
        let counts = |position: &Position| again.binary_search(position).is_err();
        let digests = self.digests.iter().take_while(|(position, _)| *position <= to);
        for (_, digest) in digests.filter(|(position, _)| counts(position)) {
            records.add(digest);
            record_count += 1;
        }
        Portion { from: self.from, to, outcomes, records, record_count, fills }
    }

    /// The ledger now ends at `end`: what it holds is no longer pending. Never moves down.
    pub fn attested_to(&mut self, end: Position) {
        if end <= self.from {
            return;
        }
        self.outcomes = self.outcomes.skip(self.from.distance_to(end.min(self.to)));
        self.from = end;
        self.to = self.to.max(end);
        while self.digests.front().is_some_and(|(position, _)| *position <= end) {
            self.digests.pop_front();
        }
        while self.fills.front().is_some_and(|(position, _)| *position <= end) {
            self.fills.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Reason;
    use proptest::prelude::*;

    fn at(offset: u64) -> Position {
        Position::Offset(offset)
    }

    #[test]
    fn somebody_elses_entry_trims_what_is_pending() {
        let mut pending = Pending::new(Position::Begin);
        pending.push(at(4), Outcome::Recorded);
        pending.push(at(5), Outcome::DeadLettered(Reason::Schema));
        for offset in 0..5 {
            pending.push_digest(at(offset), Digest::of(&[offset as u8]));
        }
        pending.attested_to(at(2));
        let portion = pending.portion();
        assert_eq!((portion.from, portion.to), (at(2), at(5)));
        assert_eq!(portion.outcomes.text(), "r2 xs1");
        assert_eq!(portion.record_count, 2);
        pending.attested_to(at(9));
        assert!(pending.is_empty());
        assert_eq!(pending.ledger_end(), at(9));
        pending.push(at(7), Outcome::Recorded);
        assert!(pending.is_empty(), "what the ledger holds is not attested again");
        pending.push(at(10), Outcome::Duplicate);
        assert_eq!(pending.portion().outcomes.text(), "d1");
    }

    #[test]
    fn an_entry_is_cut_at_its_size_and_the_rest_follows() {
        let mut pending = Pending::new(Position::Begin);
        for offset in 0..60_000 {
            let outcome = if offset % 2 == 0 { Outcome::Recorded } else { Outcome::Duplicate };
            pending.push(at(offset), outcome);
        }
        let first = pending.portion();
        assert!(first.outcomes.text().len() <= Entry::OUTCOME_BYTES_MAX);
        assert!(first.to < at(59_999));
        pending.attested_to(first.to);
        let rest = pending.portion();
        assert_eq!(rest.from, first.to);
        assert_eq!(first.outcomes.len() + rest.outcomes.len(), 60_000);
    }

    #[test]
    fn a_ledger_that_takes_nothing_fills_it_and_one_entry_empties_it() {
        let mut pending = Pending::new(Position::Begin);
        let last = Pending::HELD_MAX as u64 - 1;
        for offset in 0..=last {
            assert!(!pending.is_full());
            pending.push(at(offset), Outcome::Recorded);
            pending.push_digest(at(offset), Digest::of(b""));
        }
        assert!(pending.is_full());
        pending.attested_to(pending.portion().to);
        assert!(!pending.is_full() && pending.is_empty());
    }

    #[test]
    fn what_stands_at_the_ledgers_end_is_attested_already() {
        let mut pending = Pending::new(at(4));
        let origin = |offset| Origin { partition: std::sync::Arc::default(), position: at(offset) };
        for offset in 3..=5 {
            pending.push(at(offset), Outcome::Recorded);
            pending.push_digest(at(offset), Digest::of(b"r"));
            pending.push_fill(at(offset), origin(offset));
        }
        let portion = pending.portion();
        assert_eq!((portion.outcomes.text().as_str(), portion.record_count), ("r1", 1));
        assert!(portion.fills.holds(&origin(5).partition.key(), at(5)));
        assert!((3..5).all(|offset| !portion.fills.holds(&origin(offset).partition.key(), at(offset))));
    }

    #[test]
    fn records_of_one_origin_are_counted_once_in_an_entry() {
        let partition = crate::event::Partition { topic: "t".into(), name: "0".into(), ..Default::default() };
        let partition = std::sync::Arc::new(partition);
        let mut pending = Pending::new(Position::Begin);
        for (at_line, offset) in [(0, 7), (1, 8), (2, 7)] {
            pending.push(at(at_line), Outcome::Recorded);
            pending.push_digest(at(at_line), Digest::of(&[offset as u8]));
            pending.push_fill(at(at_line), Origin { partition: partition.clone(), position: at(offset) });
        }
        let both = pending.portion();
        assert_eq!((both.record_count, both.outcomes.text().as_str()), (2, "r3"));
        pending.attested_to(at(1));
        assert_eq!(pending.portion().record_count, 1, "in another entry it counts again");
    }

    proptest! {
        #[test]
        fn a_portion_always_covers_its_range(steps in proptest::collection::vec((1u64..5, any::<bool>()), 1..40), cut in 0u64..100) {
            let mut pending = Pending::new(Position::Begin);
            let mut top = 0;
            for (count, recorded) in steps {
                top += count;
                pending.push(at(top - 1), if recorded { Outcome::Recorded } else { Outcome::Hole });
            }
            pending.attested_to(Position::before_offset(cut));
            let portion = pending.portion();
            prop_assert_eq!(portion.outcomes.len(), portion.from.distance_to(portion.to));
            prop_assert_eq!(pending.is_empty(), cut >= top);
        }
    }
}
