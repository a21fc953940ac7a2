//! The chains: whether each hangs together.

mod epochs;

use std::collections::{BTreeMap, HashMap};

use crate::event::ids::unescape;
use crate::event::{Digest, Outcome, Position, Reason, SetDigest};
use crate::ledger::{Epoch, Fills, Head, Kept, Outcomes, StartItem};

use super::finding::{Finding, Findings, Kind};
use super::index::ChainIndex;
use super::sums::Sums;
use super::{Audit, Counts, offsets};

/// What an entry says about a position, as far as records are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A judging record stands, and the entry attests it.
    Recorded,
    /// A dead letter since the store refused an effect: the record stands, mostly attested.
    Rejected,
    /// Anything else: no record, unless an instance died between storing and attesting.
    Other,
}

/// An entry as the audit keeps it.
pub(super) struct AuditEntry {
    pub from: Position,
    pub to: Position,
    /// It fits its digest, its range and its neighbours: what it attests counts.
    pub sound: bool,
    pub attested_at: Box<str>,
    pub records: SetDigest,
    pub record_count: u64,
    /// Positions of other chains whose records it attests.
    pub fills: Fills,
    /// Of the positions from the first on: how many have the same fate. Ends, counted from `from`.
    spans: Box<[(u64, Fate)]>,
    pub sums: Sums,
    /// Classes of records that it does not attest; `None` where its sum cannot be made up.
    pub left_out: Option<u32>,
    digest: Digest,
    previous: Digest,
}

impl AuditEntry {
    /// The fate of a position that it holds.
    pub fn fate(&self, offset: u64) -> Fate {
        let index = offset.saturating_sub(self.from.next_offset());
        let at = self.spans.partition_point(|(end, _)| *end <= index);
        self.spans.get(at).map_or(Fate::Other, |(_, fate)| *fate)
    }

    /// The offsets that are called recorded, as ranges, where their records have them as their origin.
    pub fn recorded(&self) -> impl Iterator<Item = std::ops::Range<u64>> + '_ {
        let begin = self.from.next_offset();
        let starts = std::iter::once(0).chain(self.spans.iter().map(|(end, _)| *end));
        let own = self.fills.is_empty();
        let spans = starts.zip(&self.spans).filter(move |(_, (_, fate))| own && *fate == Fate::Recorded);
        spans.map(move |(start, (end, _))| begin + start..begin + end)
    }
}

fn spans(outcomes: &Outcomes) -> Box<[(u64, Fate)]> {
    let mut spans: Vec<(u64, Fate)> = Vec::new();
    let mut end: u64 = 0;
    for run in outcomes.runs() {
        end = end.saturating_add(run.count);
        let fate = match run.outcome {
            Outcome::Recorded => Fate::Recorded,
            Outcome::DeadLettered(Reason::Rejected) => Fate::Rejected,
            Outcome::Duplicate | Outcome::Skipped | Outcome::DeadLettered(_) | Outcome::Hole | Outcome::Lost => {
                Fate::Other
            }
        };
        match spans.last_mut() {
            Some((last, same)) if *same == fate => *last = end,
            _ => spans.push((end, fate)),
        }
    }
    spans.into()
}

/// Takes the items of the ledger's table, in any order.
#[derive(Default)]
pub struct Chains {
    entries: BTreeMap<String, Vec<AuditEntry>>,
    /// Where entries of a chain begin that cannot be read.
    garbled: HashMap<String, Vec<Position>>,
    starts: HashMap<String, StartItem>,
    /// By lineage and number: the later epochs.
    epochs: BTreeMap<(String, u32), Epoch>,
    /// Where chains end for good.
    seals: HashMap<String, Position>,
    /// The furthest of the heads of each chain; two, where they contradict each other.
    heads: BTreeMap<String, Vec<Head>>,
    findings: Findings,
}

impl Chains {
    /// Takes a head whose signature fits. It has to be read before the items are, so that it lies in what they say. The
    /// furthest one of a chain speaks for all below it, since entries name one another.
    pub fn head(&mut self, head: Head) {
        let heads = self.heads.entry(head.chain.clone()).or_default();
        match heads.first().map(|first| first.end.cmp(&head.end)) {
            Some(std::cmp::Ordering::Greater) => {}
            Some(std::cmp::Ordering::Equal) if heads.len() > 1 || heads.iter().any(|one| one.digest == head.digest) => {
            }
            Some(std::cmp::Ordering::Equal) => heads.push(head),
            Some(std::cmp::Ordering::Less) | None => *heads = vec![head],
        }
    }

    /// Takes what is wrong with a line of a file of heads.
    pub fn unsound_head(&mut self, line: u64, what: &str) {
        let detail = format!("line {line} of the heads: {what}");
        self.findings.push(Finding { kind: Kind::HeadUnsound, chain: None, range: None, record: None, detail });
    }

    /// Takes one item.
    pub fn add(&mut self, kept: Kept) {
        match kept {
            Kept::Entry { chain, entry, digest } => {
                let fault = entry.fault(&chain, &digest);
                let sound = fault.is_none();
                if let Some(detail) = fault {
                    let range = Some((entry.from, entry.to));
                    self.findings.push(Finding::of_chain(Kind::EntryAltered, &chain, range, detail));
                }
                self.entries.entry(chain).or_default().push(AuditEntry {
                    from: entry.from,
                    to: entry.to,
                    sound,
                    spans: spans(&entry.outcomes),
                    attested_at: entry.attested_at.into(),
                    records: entry.records,
                    record_count: entry.record_count,
                    fills: entry.fills,
                    sums: Sums::default(),
                    left_out: Some(0),
                    digest,
                    previous: entry.previous,
                });
            }
            Kept::Start { key, item } => drop(self.starts.insert(key, item)),
            Kept::Epoch { key, epoch } => {
                self.epochs.insert((key, epoch.number), epoch);
            }
            Kept::Seal { chain, at } => drop(self.seals.insert(chain, at)),
            Kept::Broken { chain, reason } => {
                let detail = format!("marked as broken: {reason}");
                self.findings.push(Finding::of_chain(Kind::OnRecord, &chain, None, detail));
            }
            Kept::Aside => {}
            Kept::Garbled { key, from, what } => {
                let position = Position::from_sort_key(&from);
                let known = self.garbled.get(&key).zip(position);
                if known.is_some_and(|(known, position)| known.contains(&position)) {
                    return;
                }
                let place = position.map_or(from, |from| format!("the item from offset {}", from.next_offset()));
                let detail = format!("{place}: {what}");
                self.findings.push(Finding::of_chain(Kind::EntryUnreadable, &key, None, detail));
                if let Some(position) = position {
                    self.garbled.entry(key).or_default().push(position);
                }
            }
        }
    }

    /// Checks every chain once all items were taken.
    pub fn check(mut self) -> Audit {
        let mut counts = Counts::default();
        self.close_left_behind();
        let emptied: Vec<String> = self.seals.keys().filter(|key| !self.entries.contains_key(*key)).cloned().collect();
        emptied.iter().for_each(|key| self.check_seal(key, &[]));
        // A group's start item says which topics it has begun on.
        let begun = self.starts.keys().filter_map(|key| key.split_once('|')).map(|(_, of)| of.to_owned()).collect();
        let mut index = ChainIndex::of(begun);
        for (key, mut entries) in std::mem::take(&mut self.entries) {
            entries.sort_by_key(|entry| entry.from);
            let cut_off = self.check_beginning(&key, &entries);
            self.check_links(&key, &mut entries);
            self.check_seal(&key, &entries);
            for head in self.heads.remove(&key).unwrap_or_default() {
                self.check_head(&head, &entries);
            }
            counts.chains += 1;
            counts.entries += entries.len() as u64;
            counts.positions += entries.iter().map(|entry| entry.from.distance_to(entry.to)).sum::<u64>();
            match partition_of(&key) {
                Some(partition) => index.add(partition.to_owned(), key, entries, cut_off),
                None => {
                    let detail = "the key is none of a chain".to_owned();
                    self.findings.push(Finding::of_chain(Kind::EntryUnreadable, &key, None, detail));
                }
            }
        }
        for head in std::mem::take(&mut self.heads).into_values().flatten() {
            self.check_head(&head, &[]);
        }
        Audit::new(index, self.findings, counts)
    }

    /// The first entry begins where the group's start item says, and names no entry before it.
    /// True where something stood before it that is not there, or cannot be read.
    fn check_beginning(&mut self, key: &str, entries: &[AuditEntry]) -> bool {
        let Some(first) = entries.first() else { return false };
        if self.garbled.get(key).is_some_and(|garbled| garbled.iter().any(|from| *from < first.from)) {
            return true;
        }
        let ordered = epoch_of(key)
            .and_then(|(lineage, number)| self.epochs.get(&(lineage.to_owned(), number)))
            .map(|epoch| epoch.begin);
        let begin = ordered.or_else(|| {
            let (topic, partition) = start_key(key).filter(|_| key.ends_with("|0"))?;
            let starts = &self.starts.get(topic)?.starts;
            starts.iter().find(|(name, _)| *name == partition).map(|(_, begin)| *begin)
        });
        let range = Some((first.from, first.to));
        let detail = match begin {
            Some(begin) if begin != first.from => {
                format!("the first entry; the group began with offset {}", begin.next_offset())
            }
            None if !key.ends_with("|0") => "its epoch was never ordered".to_owned(),
            _ if first.sound && first.previous != Digest::of(b"") => {
                "the first entry names another one before it, which is not there".to_owned()
            }
            _ => return false,
        };
        self.findings.push(Finding::of_chain(Kind::Beginning, key, range, detail));
        true
    }

    /// An entry ends where the head says, and has its digest.
    fn check_head(&mut self, head: &Head, entries: &[AuditEntry]) {
        let (offset, at) = (head.end.next_offset(), &head.at);
        let end = entries.last().map_or(Position::Begin, |entry| entry.to);
        let next = entries.partition_point(|entry| entry.from < head.end);
        let holding = next.checked_sub(1).and_then(|place| entries.get(place));
        let (kind, detail) = match holding {
            _ if end < head.end => (
                Kind::ChainCut,
                format!("it ends with offset {}, and held offsets below {offset} at {at}", end.next_offset()),
            ),
            Some(entry) if entry.to == head.end && entry.digest == head.digest => return,
            // In a gap, which was named, or in an altered entry.
            Some(entry) if entry.to < head.end || !entry.sound => return,
            Some(_) | None => {
                (Kind::ChainRewritten, format!("its entry that ends below offset {offset} is not the one of {at}"))
            }
        };
        self.findings.push(Finding::of_chain(kind, &head.chain, None, detail));
    }

    /// Each entry begins where the one before ends, and names its digest. Entries that overlap one before are taken out: what
    /// they attest is attested twice. After an altered entry nothing is said about its end, which may be what was altered.
    fn check_links(&mut self, key: &str, entries: &mut Vec<AuditEntry>) {
        let garbled = self.garbled.get(key).map_or(&[][..], Vec::as_slice);
        let findings = &mut self.findings;
        let mut before: Option<(Position, Position, Digest, bool)> = None;
        entries.retain(|entry| {
            let here = (entry.from, entry.to, entry.digest, entry.sound);
            let Some((before_from, end, digest, sound)) = before else {
                before = Some(here);
                return true;
            };
            let range = Some((entry.from, entry.to));
            let unread = garbled.iter().any(|from| (before_from..entry.from).contains(from));
            if entry.from == end {
                if sound && entry.sound && entry.previous != digest {
                    let detail = "it names another entry than the one before it".to_owned();
                    findings.push(Finding::of_chain(Kind::Link, key, range, detail));
                }
            } else if entry.from > end && sound && !unread {
                let detail = "no entry holds them".to_owned();
                findings.push(Finding::of_chain(Kind::Gap, key, Some((end, entry.from)), detail));
            } else if entry.from < end && sound {
                let detail = format!("the entry before it holds {} already", offsets(entry.from, end.min(entry.to)));
                findings.push(Finding::of_chain(Kind::Overlap, key, range, detail));
                return false;
            }
            before = Some(here);
            true
        });
    }
}

/// How far a chain is sound: entries in order enter.
pub struct SoundPrefix {
    key: String,
    /// Where the chain begins.
    pub begin: Position,
    /// Where its last sound entry ends.
    pub end: Position,
    /// The digest of its last sound entry.
    pub digest: Digest,
    broken: bool,
}

impl SoundPrefix {
    /// Of the chain with this key, which begins above `begin`.
    pub fn new(key: String, begin: Position) -> Self {
        Self { key, begin, end: begin, digest: Digest::of(b""), broken: false }
    }

    /// Takes the next item of the chain.
    pub fn extend(&mut self, kept: &Kept) {
        match kept {
            Kept::Entry { entry, digest, .. }
                if !self.broken
                    && entry.fault(&self.key, digest).is_none()
                    && entry.from == self.end
                    && entry.previous == self.digest =>
            {
                (self.end, self.digest) = (entry.to, *digest);
            }
            _ => self.broken = true,
        }
    }

    /// Where an item of a chain ends, if it is an entry.
    pub fn end_of(kept: &Kept) -> Option<Position> {
        match kept {
            Kept::Entry { entry, .. } => Some(entry.to),
            Kept::Start { .. }
            | Kept::Epoch { .. }
            | Kept::Broken { .. }
            | Kept::Seal { .. }
            | Kept::Aside
            | Kept::Garbled { .. } => None,
        }
    }
}

/// The partition's key out of a chain's: all parts but the first and the last.
pub(super) fn partition_of(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('|')?;
    let (partition, _) = rest.rsplit_once('|')?;
    (partition.split('|').count() == 5).then_some(partition)
}

/// The lineage out of a chain's key, and its epoch.
fn epoch_of(key: &str) -> Option<(&str, u32)> {
    let (lineage, number) = key.rsplit_once('|')?;
    Some((lineage, number.parse().ok()?))
}

/// The key of the start item, and the partition's name.
fn start_key(key: &str) -> Option<(&str, String)> {
    let (rest, _) = key.rsplit_once('|')?;
    let (topic, partition) = rest.rsplit_once('|')?;
    Some((topic, unescape(partition)?))
}
