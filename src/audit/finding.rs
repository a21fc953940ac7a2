//! What an audit finds.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde_json::json;

use crate::event::Position;

/// Findings that are kept to be shown, at most; what is beyond is counted.
const SHOWN_MAX: usize = 10_000;

/// Kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Positions between two entries are in none.
    Gap,
    /// Two entries hold the same positions.
    Overlap,
    /// An entry does not name the digest of the one before it.
    Link,
    /// A chain does not begin where its group did.
    Beginning,
    /// An entry does not fit its own digest, or its outcomes do not fit its range.
    EntryAltered,
    /// An item of the ledger cannot be read.
    EntryUnreadable,
    /// A chain ends below a head that was published of it.
    ChainCut,
    /// A chain has another entry, or none, where a head was published of it.
    ChainRewritten,
    /// A head is not signed by the key, or cannot be read.
    HeadUnsound,
    /// A record does not fit its own digest.
    RecordAltered,
    /// A record cannot be read.
    RecordUnreadable,
    /// A record that no entry knows.
    RecordForeign,
    /// Records of an entry are not there.
    RecordsMissing,
    /// A record is not there, as the source says.
    RecordMissing,
    /// Records of an entry are others than it attested.
    RecordsDiffer,
    /// A record that no entry attests, by right as far as can be told.
    Unattested,
    /// Something could not be held against the source.
    NotCompared,
    /// Something about a chain that is on record: it was marked as broken, or left behind for a new epoch.
    OnRecord,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 18] = [
        Self::Gap,
        Self::Overlap,
        Self::Link,
        Self::Beginning,
        Self::EntryAltered,
        Self::EntryUnreadable,
        Self::ChainCut,
        Self::ChainRewritten,
        Self::HeadUnsound,
        Self::RecordAltered,
        Self::RecordUnreadable,
        Self::RecordForeign,
        Self::RecordsMissing,
        Self::RecordMissing,
        Self::RecordsDiffer,
        Self::Unattested,
        Self::NotCompared,
        Self::OnRecord,
    ];

    /// The name that is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Overlap => "overlap",
            Self::Link => "link",
            Self::Beginning => "beginning",
            Self::EntryAltered => "entry_altered",
            Self::EntryUnreadable => "entry_unreadable",
            Self::ChainCut => "chain_cut",
            Self::ChainRewritten => "chain_rewritten",
            Self::HeadUnsound => "head_unsound",
            Self::RecordAltered => "record_altered",
            Self::RecordUnreadable => "record_unreadable",
            Self::RecordForeign => "record_foreign",
            Self::RecordsMissing => "records_missing",
            Self::RecordMissing => "record_missing",
            Self::RecordsDiffer => "records_differ",
            Self::Unattested => "unattested",
            Self::NotCompared => "not_compared",
            Self::OnRecord => "on_record",
        }
    }

    /// Whether something is wrong; else it is only worth knowing.
    pub fn is_fault(self) -> bool {
        !matches!(self, Self::Unattested | Self::NotCompared | Self::OnRecord)
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The key of the chain.
    pub chain: Option<String>,
    /// The range `(from, to]` of the entry or the gap.
    pub range: Option<(Position, Position)>,
    /// The key of the record.
    pub record: Option<String>,
    /// For a person.
    pub detail: String,
}

impl Finding {
    /// About a chain, or a range of it.
    pub(super) fn of_chain(kind: Kind, chain: &str, range: Option<(Position, Position)>, detail: String) -> Self {
        Self { kind, chain: Some(chain.to_owned()), range, record: None, detail }
    }

    /// About a record, without its detail.
    pub(super) fn of_record(kind: Kind, record_id: &str) -> Self {
        Self { kind, chain: None, range: None, record: Some(record_id.to_owned()), detail: String::new() }
    }

    /// As one JSON object; of a range the first and last offset.
    pub fn json(&self) -> serde_json::Value {
        let mut out = json!({"finding": self.kind.name(), "fault": self.kind.is_fault(), "detail": self.detail});
        if let Some(chain) = &self.chain {
            out["chain"] = json!(chain);
        }
        if let Some((from, to)) = self.range {
            out["first_offset"] = json!(from.next_offset());
            out["last_offset"] = json!(to.offset());
        }
        if let Some(record) = &self.record {
            out["record"] = json!(record);
        }
        out
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if let Some(chain) = &self.chain {
            write!(f, " {chain}")?;
        }
        if let Some((from, to)) = self.range {
            write!(f, " {}", super::offsets(from, to))?;
        }
        if let Some(record) = &self.record {
            write!(f, " {record}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// All findings, as many as can be shown.
#[derive(Debug, Default)]
pub struct Findings {
    shown: Vec<Finding>,
    counts: [u64; Kind::ALL.len()],
    /// Chains that were left behind for a new epoch: what is wrong with them is on record.
    closed: HashSet<String>,
    /// Of each chain the first fault, shown or not.
    faults: BTreeMap<String, String>,
}

impl Findings {
    /// What is found of this chain is on record.
    pub(super) fn close(&mut self, chain: String) {
        let found = self.shown.extract_if(.., |finding| finding.chain.as_ref() == Some(&chain)).collect::<Vec<_>>();
        self.faults.remove(&chain);
        self.closed.insert(chain);
        for finding in found {
            if let Some(count) = self.counts.get_mut(finding.kind as usize) {
                *count -= 1;
            }
            self.push(finding);
        }
    }

    /// Adds one.
    pub fn push(&mut self, mut finding: Finding) {
        if finding.chain.as_ref().is_some_and(|chain| self.closed.contains(chain)) && finding.kind != Kind::OnRecord {
            finding.detail = format!("{}: {}", finding.kind.name(), finding.detail);
            finding.kind = Kind::OnRecord;
        }
        if let Some(count) = self.counts.get_mut(finding.kind as usize) {
            *count += 1;
        }
        if let Some(chain) =
            finding.chain.as_ref().filter(|chain| finding.kind.is_fault() && !self.faults.contains_key(*chain))
        {
            self.faults.insert(chain.clone(), finding.to_string());
        }
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(finding);
        }
    }

    /// Those that are shown, in the order in which they were found.
    pub fn shown(&self) -> &[Finding] {
        &self.shown
    }

    /// The chains that faults name, each with its first fault.
    pub fn faults(&self) -> impl Iterator<Item = (&str, &str)> {
        self.faults.iter().map(|(chain, fault)| (chain.as_str(), fault.as_str()))
    }

    /// How many there are of a kind, shown or not.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(kind as usize).copied().unwrap_or(0)
    }

    /// How many are not shown.
    pub fn left_out(&self) -> u64 {
        self.counts.iter().sum::<u64>() - self.shown.len() as u64
    }

    /// Whether anything is wrong.
    pub fn has_fault(&self) -> bool {
        Kind::ALL.into_iter().any(|kind| kind.is_fault() && self.count(kind) > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chain_that_a_fault_names_is_known_however_many_are_shown() {
        let mut findings = Findings::default();
        let fault = |chain: &str, detail: &str| Finding::of_chain(Kind::Gap, chain, None, detail.to_owned());
        findings.push(fault("left behind", "1"));
        (0..SHOWN_MAX).for_each(|at| findings.push(fault("first", &at.to_string())));
        findings.push(fault("last", "2"));
        findings.push(Finding::of_chain(Kind::OnRecord, "sound", None, "3".to_owned()));
        findings.close("left behind".to_owned());
        let faults: Vec<_> = findings.faults().collect();
        assert_eq!(faults, [("first", "gap first: 0"), ("last", "gap last: 2")]);
    }
}
