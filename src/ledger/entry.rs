//! One ledger entry: a range, what became of each position in it, and the link to the entry before.

use sha2::{Digest as _, Sha256};

use crate::event::{Digest, Outcome, Position, SetDigest};

use super::Fills;

/// Consecutive positions of one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// What became of them.
    pub outcome: Outcome,
    /// How many, at least one.
    pub count: u64,
}

/// Outcomes of consecutive positions, run-length coded. Stored as text: `r120 d1 xs1 r30`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Outcomes {
    runs: Vec<Run>,
}

impl Outcomes {
    /// Adds `count` positions with this outcome at the end; none for a count of zero.
    pub fn push(&mut self, outcome: Outcome, count: u64) {
        if count == 0 {
            return;
        }
        match self.runs.last_mut() {
            Some(last) if last.outcome == outcome => last.count += count,
            _ => self.runs.push(Run { outcome, count }),
        }
    }

    /// Adds all of another's positions at the end.
    pub fn extend(&mut self, other: &Self) {
        for run in &other.runs {
            self.push(run.outcome, run.count);
        }
    }

    /// The runs, in order; neighbours differ.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// How many positions.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| run.count).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The outcome of the position at `index`, counted from zero.
    pub fn get(&self, index: u64) -> Option<Outcome> {
        let mut left = index;
        for run in &self.runs {
            if left < run.count {
                return Some(run.outcome);
            }
            left -= run.count;
        }
        None
    }

    /// What is left without the first `count` positions.
    pub fn skip(&self, count: u64) -> Self {
        let mut left = count;
        let mut out = Self::default();
        for run in &self.runs {
            let skipped = left.min(run.count);
            left -= skipped;
            out.push(run.outcome, run.count - skipped);
        }
        out
    }

    /// The longest run of leading positions whose stored form has at most `bytes_max` bytes.
    pub fn prefix(&self, bytes_max: usize) -> Self {
        let mut out = Self::default();
        let mut bytes = 0;
        for run in &self.runs {
            bytes += 1 + run.outcome.code().len() + run.count.checked_ilog10().unwrap_or(0) as usize + 1;
            if bytes > bytes_max {
                break;
            }
            out.push(run.outcome, run.count);
        }
        out
    }

    /// The first `count` positions.
    pub fn first(&self, count: u64) -> Self {
        let mut left = count;
        let mut out = Self::default();
        for run in &self.runs {
            out.push(run.outcome, left.min(run.count));
            left -= left.min(run.count);
        }
        out
    }

    /// The stored form.
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(self.runs.len() * 6);
        for run in &self.runs {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(run.outcome.code());
            out.push_str(&run.count.to_string());
        }
        out
    }

    /// The inverse of [`Outcomes::text`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut out = Self::default();
        for word in text.split(' ') {
            let (code, count) = word.split_at(word.find(|c: char| c.is_ascii_digit())?);
            let outcome = Outcome::from_code(code)?;
            let count = count.parse().ok().filter(|count| *count > 0)?;
            out.push(outcome, count);
        }
        (out.text() == text).then_some(out)
    }
}

/// One entry of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The range `(from, to]` begins above this.
    pub from: Position,
    /// The last position of the range; above `from`.
    pub to: Position,
    /// What became of each position of the range.
    pub outcomes: Outcomes,
    /// Sum of the record digests, as stored, of the records whose origin lies in the range.
    pub records: SetDigest,
    /// How many records those are.
    pub record_count: u64,
    /// Of the range's events, those that were read elsewhere first and now stand recorded: their positions there.
    pub fills: Fills,
    /// The pipeline's revision.
    pub revision: String,
    /// Which process wrote it.
    pub writer: String,
    /// Fresh for each entry.
    pub nonce: String,
    /// The digest of the entry before; of no bytes for the first.
    pub previous: Digest,
    /// When, `2026-01-02T03:04:05.678901Z`.
    pub attested_at: String,
}

impl Entry {
    /// The most bytes that the outcomes of one entry may have in their stored form.
    pub const OUTCOME_BYTES_MAX: usize = 100_000;
    /// From so many bytes of fills on the next ones go into the next entry.
    pub const FILL_BYTES_MAX: usize = 100_000;

    /// What is wrong with an entry that stands in the chain with this key under this digest.
    pub fn fault(&self, chain_key: &str, digest: &Digest) -> Option<String> {
        if self.digest(chain_key) != *digest {
            return Some("it does not fit its own digest".to_owned());
        }
        let fits = self.to > self.from && self.outcomes.len() == self.from.distance_to(self.to);
        (!fits).then(|| format!("it has outcomes for {} positions", self.outcomes.len()))
    }

    /// The entry's digest in the chain with this key: over everything it holds, each part with its length in front.
    pub fn digest(&self, chain_key: &str) -> Digest {
        let mut hash = Sha256::new();
        let (from, to) = (self.from.sort_key(), self.to.sort_key());
        let (outcomes, records, count) = (self.outcomes.text(), self.records.hex(), self.record_count.to_string());
        let previous = self.previous.hex();
        for part in [
            chain_key,
            &from,
            &to,
            &outcomes,
            &records,
            &count,
            &self.revision,
            &self.writer,
            &self.nonce,
            &previous,
            &self.attested_at,
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        // What fills nothing has the digest that it always had.
        for (partition, offsets) in self.fills.texts() {
            for part in [partition, &offsets] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part.as_bytes());
            }
        }
        Digest(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Reason;
    use proptest::prelude::*;

    fn outcomes() -> impl Strategy<Value = Vec<Outcome>> {
        let one = prop_oneof![
            Just(Outcome::Recorded),
            Just(Outcome::Duplicate),
            Just(Outcome::DeadLettered(Reason::Schema)),
            Just(Outcome::Hole)
        ];
        proptest::collection::vec(one, 0..40)
    }

    proptest! {
        #[test]
        fn run_lengths_hold_every_position(list in outcomes(), cut in 0u64..50) {
            let mut coded = Outcomes::default();
            list.iter().for_each(|outcome| coded.push(*outcome, 1));
            prop_assert_eq!(coded.len(), list.len() as u64);
            for (index, outcome) in list.iter().enumerate() {
                prop_assert_eq!(coded.get(index as u64), Some(*outcome));
            }
            prop_assert_eq!(coded.get(list.len() as u64), None);
            if !list.is_empty() {
                prop_assert_eq!(Outcomes::parse(&coded.text()), Some(coded.clone()));
            }
            let rest = coded.skip(cut);
            prop_assert_eq!(rest.len(), coded.len().saturating_sub(cut));
            prop_assert_eq!(rest.get(0), coded.get(cut));
            let mut whole = coded.first(cut);
            prop_assert_eq!(whole.len(), coded.len().min(cut));
            whole.extend(&rest);
            prop_assert_eq!(whole, coded);
        }
    }

    #[test]
    fn only_the_stored_form_is_read() {
        for bad in ["", "r", "r0", "r1  r1", "r1 r2", "q4", "r01", " r1"] {
            assert_eq!(Outcomes::parse(bad), None, "{bad:?}");
        }
    }
}
