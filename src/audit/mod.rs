//! The audit: do the records and the chains that stand in the tables bear each other out?
//!
//! Items of the ledger's table enter, then every record; [`Finding`]s leave. Memory is bounded by the number of entries: of the
//! records only sums are kept, several an entry. Where sums do not tell which record it is, the records of those entries alone
//! are listed on a second look. Pure: whoever reads the tables feeds it.

mod chains;
mod finding;
mod index;
mod resolve;
mod sums;

use std::collections::HashMap;

use crate::event::{Digest, Position};
use crate::store::dynamodb::KeptRecord;

use chains::{AuditEntry, Fate};
use index::{ChainIndex, Place};
use sums::{Class, Part};

pub use chains::{Chains, SoundPrefix};
pub use finding::{Finding, Findings, Kind};

/// Records that do not fit their digest, and that other differences may be explained by, at most.
const UNSOUND_MAX: usize = 10_000;
/// Records that are listed on the second look, at most, over all entries.
const LISTED_MAX: usize = 200_000;
/// Entries that are held against the source, at most.
const SUSPECTS_MAX: usize = 1_000;
/// Names of pipelines that are told apart.
const PIPELINES_MAX: u8 = 32;

/// A record that does not fit its digest, or cannot be read.
struct Unsound {
    /// The digest that it carries, and the one over what it holds; `None` where it cannot be read.
    digests: Option<(Digest, Digest)>,
    /// Partition and offset, as far as it tells them.
    origin: Option<(String, u64)>,
}

/// What was counted on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Chains of ledger entries.
    pub chains: u64,
    /// Their entries.
    pub entries: u64,
    /// The positions that they hold.
    pub positions: u64,
    /// Records in the table.
    pub records: u64,
    /// Records whose origin lies above where the chains end: not attested yet.
    pub in_flight: u64,
    /// Records whose origin lies in a gap of a chain.
    pub in_gaps: u64,
    /// Records that no chain attests, where that may be so.
    pub unattested: u64,
}

/// An audit whose chains are known.
pub struct Audit {
    chains: ChainIndex,
    findings: Findings,
    counts: Counts,
    pipelines: HashMap<String, u8>,
    unsound: Vec<Unsound>,
    listed: HashMap<(u32, u32), Vec<Listed>>,
    listed_count: usize,
    suspects: Vec<Suspect>,
}

/// An entry whose records differ, to be held against the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The key of its chain.
    pub chain: String,
    /// Its range, `(from, to]`.
    pub range: (Position, Position),
    /// The offsets that it calls recorded, as ranges: first, and just above the last.
    recorded: Vec<(u64, u64)>,
}

impl Suspect {
    /// Whether the entry calls a position recorded.
    pub fn is_recorded(&self, position: Position) -> bool {
        let at = self.recorded.partition_point(|(_, past)| *past < position.next_offset());
        self.recorded.get(at).is_some_and(|(first, _)| *first < position.next_offset())
    }

    /// A finding about it.
    pub fn finding(&self, kind: Kind, detail: String) -> Finding {
        Finding::of_chain(kind, &self.chain, Some(self.range), detail)
    }
}

/// A record of the second look.
struct Listed {
    record_id: String,
    origin: String,
    digest: Digest,
    offset: u64,
    recorded_at: String,
    fate: Fate,
    /// By another chain.
    attested: bool,
}

impl Listed {
    fn is_judge(&self) -> bool {
        is_judge(&self.record_id)
    }
}

/// What an audit found.
pub struct Report {
    /// What is wrong, and what is worth knowing.
    pub findings: Findings,
    /// What was looked at.
    pub counts: Counts,
    /// Entries whose records differ: as many as are worth a look at the source.
    pub suspects: Vec<Suspect>,
}

impl Audit {
    fn new(chains: ChainIndex, findings: Findings, counts: Counts) -> Self {
        Self {
            chains,
            findings,
            counts,
            pipelines: HashMap::new(),
            unsound: Vec::new(),
            listed: HashMap::new(),
            listed_count: 0,
            suspects: Vec::new(),
        }
    }

    /// Takes one record of the first look.
    pub fn record(&mut self, record: &KeptRecord) {
        self.counts.records += 1;
        let origin = split_origin(&record.origin);
        if record.stored != record.computed {
            let detail = format!("it does not fit its own digest; its origin says {}", record.origin);
            self.findings.push(Finding { detail, ..Finding::of_record(Kind::RecordAltered, &record.record_id) });
            let origin = origin.map(|(partition, offset)| (partition.to_owned(), offset));
            self.keep_unsound(Unsound { digests: Some((record.stored, record.computed)), origin });
        }
        let Some((partition, offset)) = origin else {
            let detail = format!("its origin is none: {}", record.origin);
            self.findings.push(Finding { detail, ..Finding::of_record(Kind::RecordUnreadable, &record.record_id) });
            return;
        };
        let pipeline = self.pipeline(&record.pipeline);
        // Before the first entry of a partition all of its records are above where the ledger ends.
        let begun = !self.chains.has_chain(partition) && self.chains.has_begun(partition);
        let (mut covered, mut above, mut in_gap) = (false, begun, false);
        for place in self.chains.places(partition, offset) {
            match place {
                Place::In(at, fate) => {
                    covered = true;
                    let Some(entry) = self.chains.entry_mut(at) else { continue };
                    let part = part_of(entry, fate, record);
                    entry.sums.add(Class { pipeline, part }, &record.stored);
                }
                Place::Above => above = true,
                Place::Gap => in_gap = true,
                Place::Below => {}
            }
        }
        if covered {
        } else if in_gap {
            self.counts.in_gaps += 1;
        } else if above {
            self.counts.in_flight += 1;
        } else if record.stored == record.computed {
            let detail = format!("no chain holds its origin {}", record.origin);
            self.findings.push(Finding { detail, ..Finding::of_record(Kind::RecordForeign, &record.record_id) });
        }
    }

    /// Takes one record that cannot be read.
    pub fn unreadable_record(&mut self, record_id: &str, origin: Option<&str>, what: &str) {
        self.counts.records += 1;
        let finding = Finding { detail: what.to_owned(), ..Finding::of_record(Kind::RecordUnreadable, record_id) };
        self.findings.push(finding);
        let origin = origin.and_then(split_origin).map(|(partition, offset)| (partition.to_owned(), offset));
        self.keep_unsound(Unsound { digests: None, origin });
    }

    fn keep_unsound(&mut self, unsound: Unsound) {
        if self.unsound.len() < UNSOUND_MAX {
            self.unsound.push(unsound);
        }
    }

    fn pipeline(&mut self, name: &str) -> u8 {
        if let Some(pipeline) = self.pipelines.get(name) {
            return *pipeline;
        }
        let next = u8::try_from(self.pipelines.len()).unwrap_or(PIPELINES_MAX).min(PIPELINES_MAX);
        if next < PIPELINES_MAX {
            self.pipelines.insert(name.to_owned(), next);
        }
        next
    }

    /// Compares sums once all records were taken; true where the records have to be taken a second time, since sums alone do
    /// not name what differs.
    pub fn compare(&mut self) -> bool {
        let mut again = false;
        for entry in self.chains.entries_mut() {
            entry.left_out =
                if entry.sound { entry.sums.left_out(&entry.records, entry.record_count) } else { Some(0) };
            again |= entry.left_out != Some(0);
        }
        again
    }

    /// Takes one record of the second look.
    pub fn record_again(&mut self, record: &KeptRecord) {
        let Some((partition, offset)) = split_origin(&record.origin) else { return };
        let pipeline = self.pipeline(&record.pipeline);
        let judge = is_judge(&record.record_id);
        let (mut attested, mut covered, mut recorded) = (false, false, false);
        let mut suspects: Vec<((u32, u32), Fate)> = Vec::new();
        for place in self.chains.places(partition, offset) {
            let Place::In(at, fate) = place else { continue };
            let Some(entry) = self.chains.entry(at) else { continue };
            covered = true;
            recorded |= fate == Fate::Recorded;
            match entry.left_out {
                None => suspects.push((at, fate)),
                Some(left_out) => {
                    let part = part_of(entry, fate, record);
                    attested |= !entry.sums.is_left_out(left_out, Class { pipeline, part });
                }
            }
        }
        for (at, fate) in &suspects {
            if self.listed_count >= LISTED_MAX {
                break;
            }
            self.listed_count += 1;
            self.listed.entry(*at).or_default().push(Listed {
                origin: record.origin.clone(),
                record_id: record.record_id.clone(),
                digest: record.stored,
                offset,
                recorded_at: record.recorded_at.clone(),
                fate: *fate,
                attested,
            });
        }
        if covered && !attested && suspects.is_empty() {
            self.unattested(&record.record_id, &record.origin, recorded && judge);
        }
    }

    /// A record that no sum holds. A judging record at a position that is called recorded cannot be left out by right: it is
    /// foreign. All else may be: a dead letter's own record, one of a skipped range, one added by a later mapping.
    fn unattested(&mut self, record_id: &str, origin: &str, foreign: bool) {
        let (kind, detail) = if foreign {
            (Kind::RecordForeign, format!("the entry that holds its origin {origin} does not attest it"))
        } else {
            self.counts.unattested += 1;
            (Kind::Unattested, format!("no entry attests it; its origin is {origin}"))
        };
        self.findings.push(Finding { detail, ..Finding::of_record(kind, record_id) });
    }

    /// Ends the audit: names what differs in the entries whose sums do not fit.
    pub fn conclude(mut self) -> Report {
        for place in self.chains.suspects() {
            self.resolve(place);
        }
        Report { findings: self.findings, counts: self.counts, suspects: self.suspects }
    }
}

fn part_of(entry: &AuditEntry, fate: Fate, record: &KeptRecord) -> Part {
    let late = *record.recorded_at > *entry.attested_at;
    sums::part(fate, is_judge(&record.record_id), late)
}

/// The judging record has two parts, further ones have three.
fn is_judge(record_id: &str) -> bool {
    record_id.bytes().filter(|byte| *byte == b'|').count() == 1
}

/// The partition's key and the offset.
fn split_origin(origin: &str) -> Option<(&str, u64)> {
    let (partition, offset) = origin.rsplit_once('|')?;
    Some((partition, offset.parse().ok()?))
}

/// The range `(from, to]`, for people: offsets from and to, both included.
fn offsets(from: Position, to: Position) -> String {
    format!("offsets {} to {}", from.next_offset(), to.next_offset().saturating_sub(1))
}

#[cfg(test)]
mod tests;
