//! Which entries hold a position, of which chains.

use std::collections::{HashMap, HashSet};

use super::chains::{AuditEntry, Fate};
use crate::event::Position;

/// Where an offset lies, as a chain sees it.
pub(super) enum Place {
    /// In this entry of this chain, which says this about it.
    In((u32, u32), Fate),
    /// Above its end.
    Above,
    /// Below its beginning.
    Below,
    /// Between two entries.
    Gap,
}

/// The chains by the partitions whose positions they hold.
#[derive(Default)]
pub(super) struct ChainIndex {
    chains: Vec<(String, Vec<AuditEntry>)>,
    /// Those whose beginning is not there.
    cut_off: HashSet<u32>,
    by_partition: HashMap<String, Vec<u32>>,
    /// Entries that fill positions of a partition.
    fillers: HashMap<String, Vec<(u32, u32)>>,
    /// Topics that some group has begun on: `cluster|topic|topic id|topic epoch`.
    begun: HashSet<String>,
}

impl ChainIndex {
    /// Without chains yet; groups have begun on these topics.
    pub fn of(begun: HashSet<String>) -> Self {
        Self { begun, ..Self::default() }
    }

    pub fn add(&mut self, partition: String, key: String, entries: Vec<AuditEntry>, cut_off: bool) {
        let chain = u32::try_from(self.chains.len()).unwrap_or(u32::MAX);
        self.by_partition.entry(partition).or_default().push(chain);
        for (at, entry) in (0..).zip(&entries) {
            for (filled, _) in entry.fills.ranges() {
                self.fillers.entry(filled.to_owned()).or_default().push((chain, at));
            }
        }
        if cut_off {
            self.cut_off.insert(chain);
        }
        self.chains.push((key, entries));
    }

    /// Where an offset lies in each chain of its partition, and in each entry of another that fills it.
    pub fn places(&self, partition: &str, offset: u64) -> Vec<Place> {
        let chains = self.by_partition.get(partition).map_or(&[][..], Vec::as_slice);
        let mut places: Vec<Place> = chains.iter().map(|chain| self.place(*chain, offset)).collect();
        let fillers = self.fillers.get(partition).map_or(&[][..], Vec::as_slice);
        let fills = |at: &&(u32, u32)| {
            self.entry(**at).is_some_and(|entry| entry.fills.holds(partition, Position::Offset(offset)))
        };
        places.extend(fillers.iter().filter(fills).map(|at| Place::In(*at, Fate::Recorded)));
        places
    }

    /// Whether there is a chain of the partition.
    pub fn has_chain(&self, partition: &str) -> bool {
        self.by_partition.contains_key(partition)
    }

    /// Whether a group has begun on the partition's topic, so that records of it may be in flight.
    pub fn has_begun(&self, partition: &str) -> bool {
        partition.rsplit_once('|').is_some_and(|(topic, _)| self.begun.contains(topic))
    }

    fn place(&self, chain: u32, offset: u64) -> Place {
        let Some((_, entries)) = self.chains.get(chain as usize) else { return Place::Below };
        let position = Position::Offset(offset);
        let next = entries.partition_point(|entry| entry.from < position);
        match next.checked_sub(1).and_then(|at| Some((at, entries.get(at)?))) {
            None if self.cut_off.contains(&chain) => Place::Gap,
            None => Place::Below,
            Some((at, entry)) if position <= entry.to => {
                Place::In((chain, u32::try_from(at).unwrap_or(u32::MAX)), entry.fate(offset))
            }
            Some(_) if next == entries.len() => Place::Above,
            Some(_) => Place::Gap,
        }
    }

    pub fn entry(&self, (chain, entry): (u32, u32)) -> Option<&AuditEntry> {
        self.chains.get(chain as usize)?.1.get(entry as usize)
    }

    pub fn entry_mut(&mut self, (chain, entry): (u32, u32)) -> Option<&mut AuditEntry> {
        self.chains.get_mut(chain as usize)?.1.get_mut(entry as usize)
    }

    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut AuditEntry> {
        self.chains.iter_mut().flat_map(|(_, entries)| entries)
    }

    /// The key of a chain.
    pub fn key(&self, chain: u32) -> &str {
        self.chains.get(chain as usize).map_or("", |(key, _)| key)
    }

    /// The entries whose sum cannot be made up.
    pub fn suspects(&self) -> Vec<(u32, u32)> {
        let mut out = Vec::new();
        for (chain, (_, entries)) in (0..).zip(&self.chains) {
            out.extend((0..).zip(entries).filter(|(_, entry)| entry.left_out.is_none()).map(|(at, _)| (chain, at)));
        }
        out
    }
}
