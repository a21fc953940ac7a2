//! The ledger's chains, one for each epoch of a partition, and how one is extended.

use recordkeeper::audit::SoundPrefix;
use recordkeeper::event::{Digest, Outcome, SetDigest};
use recordkeeper::ledger::{self, Fills, Kept, Outcomes};
use recordkeeper::pipeline::Pending;
use recordkeeper::pipeline::protocol::{self, Extended};

use crate::rules::Rule;
use crate::steps::{count, position, possible};
use crate::world::World;

/// A ledger entry, `(from, to]`, counted in events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub from: u8,
    pub to: u8,
    pub outcomes: Vec<Outcome>,
    /// By which mapping.
    pub revision: u8,
    /// Whether it can no longer be read as it was written.
    pub damaged: bool,
}

/// The chain of one epoch. Entries and seal are inserted, each only where nothing begins yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    pub begin: u8,
    pub entries: Vec<Entry>,
    /// Where its seal stands.
    pub seal: Option<u8>,
    /// Which processes of a run have extended it, as bits.
    pub writers: u8,
}

/// What came of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    Done,
    /// Refused, and what the chain holds by now is no longer pending.
    Trimmed,
    /// Refused for good.
    Sealed,
}

impl Chain {
    /// Without an entry.
    pub fn new(begin: u8) -> Self {
        Self { begin, entries: Vec::new(), seal: None, writers: 0 }
    }

    /// Where it ends.
    pub fn end(&self) -> u8 {
        self.entries.last().map_or(self.begin, |entry| entry.to)
    }

    /// Whether something begins there.
    pub fn stands(&self, from: u8) -> bool {
        self.seal == Some(from) || self.entries.iter().any(|entry| entry.from == from)
    }

    /// Whether who opens it finds nothing wrong with it.
    pub fn is_sound(&self) -> bool {
        !self.entries.iter().any(|entry| entry.damaged)
    }

    /// The entry that holds a position.
    pub fn holding(&self, position: u8) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.from <= position && position < entry.to)
    }

    /// How far it is sound, as an operator is told.
    pub fn sound_end(&self) -> u8 {
        let mut sound = SoundPrefix::new("chain".to_owned(), position(self.begin));
        let mut previous = Digest::of(b"");
        for entry in &self.entries {
            let mut outcomes = Outcomes::default();
            entry.outcomes.iter().for_each(|outcome| outcomes.push(*outcome, 1));
            let mut stored = ledger::Entry {
                from: position(entry.from),
                to: position(entry.to),
                outcomes,
                records: SetDigest::default(),
                record_count: 0,
                fills: Fills::default(),
                revision: entry.revision.to_string(),
                writer: String::new(),
                nonce: String::new(),
                previous,
                attested_at: String::new(),
            };
            previous = stored.digest("chain");
            if entry.damaged {
                stored.revision.clear();
            }
            sound.extend(&Kept::Entry { chain: "chain".to_owned(), entry: Box::new(stored), digest: previous });
        }
        count(sound.end)
    }
}

impl World {
    /// Appends what is pending to the chain of an epoch. `lost`: nobody hears of it. `None` where no answer comes of it.
    pub fn append(
        &self,
        chains: &mut [Chain],
        epoch: usize,
        pending: &mut Pending,
        revision: u8,
        lost: bool,
    ) -> Option<Append> {
        possible(!pending.is_empty())?;
        let portion = pending.portion();
        let from = count(portion.from);
        let shared = self.off(Rule::OwnChain) && chains.iter().any(|chain| chain.stands(from));
        let chain = &mut chains[epoch];
        if (shared || chain.stands(from)) && !self.off(Rule::Fence) {
            // An end that cannot be read is asked for again and again.
            possible(!lost && !chain.entries.last().is_some_and(|entry| entry.damaged))?;
            let end = (!chain.entries.is_empty() || chain.seal.is_some()).then(|| (position(chain.end()), "last"));
            return match protocol::refused_append(portion.from, "mine", end, chain.seal.is_some()) {
                Extended::Found | Extended::Others => {
                    pending.attested_to(position(chain.end()));
                    Some(Append::Trimmed)
                }
                Extended::Sealed => Some(Append::Sealed),
                Extended::Nowhere if shared => None,
                Extended::Nowhere => panic!("refused, and the chain ends where the lane believed"),
            };
        }
        if !lost {
            pending.attested_to(portion.to);
        }
        let outcomes = portion.outcomes.runs().iter();
        chain.entries.push(Entry {
            from,
            to: count(portion.to),
            outcomes: outcomes.flat_map(|run| std::iter::repeat_n(run.outcome, run.count as usize)).collect(),
            revision,
            damaged: false,
        });
        Some(Append::Done)
    }
}
