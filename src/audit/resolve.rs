//! What differs in an entry whose sum cannot be made up of its records, now that they are listed.

use std::collections::HashSet;

use crate::event::{Digest, SetDigest};

use super::chains::Fate;
use super::finding::{Finding, Kind};
use super::{Audit, Listed, SUSPECTS_MAX, Suspect};

/// Records among which every choice is tried.
const CHOICES_MAX: usize = 14;
/// Offsets or keys that a finding names.
const NAMED_MAX: usize = 10;

impl Audit {
    /// Names what differs in one entry.
    pub(super) fn resolve(&mut self, place: (u32, u32)) {
        let mut listed = self.listed.remove(&place).unwrap_or_default();
        let Some(entry) = self.chains.entry(place) else { return };
        let (range, expected, expected_count) = ((entry.from, entry.to), entry.records, entry.record_count);
        let partition = super::chains::partition_of(self.chains.key(place.0)).unwrap_or_default().to_owned();
        let here = |unsound: &&super::Unsound| {
            let at = unsound.origin.as_ref().filter(|(named, _)| *named == partition);
            at.is_some_and(|(_, offset)| entry.from.next_offset() <= *offset && *offset < entry.to.next_offset())
        };
        let unreadable: HashSet<u64> = self
            .unsound
            .iter()
            .filter(here)
            .filter(|unsound| unsound.digests.is_none())
            .filter_map(|unsound| unsound.origin.as_ref().map(|(_, offset)| *offset))
            .collect();
        let judged: HashSet<u64> = listed.iter().filter(|one| one.is_judge()).map(|one| one.offset).collect();
        let bare: Vec<u64> =
            entry.recorded().flatten().filter(|offset| !judged.contains(offset)).take(NAMED_MAX + 1).collect();

        let found = sum(&listed);
        if self.explained(&found, &expected, listed.len() as u64, expected_count) {
            return;
        }
        if !unreadable.is_empty()
            && listed.len() + unreadable.len() >= usize::try_from(expected_count).unwrap_or(usize::MAX)
            && bare.iter().all(|offset| unreadable.contains(offset))
        {
            return;
        }
        let extra = (listed.len() as u64).checked_sub(expected_count).and_then(|extra| usize::try_from(extra).ok());
        if let Some(left_out) = extra.filter(|extra| *extra > 0).and_then(|extra| {
            let mut difference = found;
            difference.remove_set(&expected);
            choose(&mut listed, extra, &difference)
        }) {
            for one in left_out.into_iter().filter(|one| !one.attested) {
                let foreign = one.fate == Fate::Recorded && one.is_judge();
                self.unattested(&one.record_id, &one.origin, foreign);
            }
            return;
        }
        // Further records that another group's chain attests are that group's.
        listed.retain(|one| !one.attested || one.is_judge());
        let counted = format!("{} records are there, {expected_count} are attested", listed.len());
        let (kind, detail) = if !bare.is_empty() {
            (Kind::RecordsMissing, format!("{counted}; no record of offsets {}", named(bare.iter())))
        } else if (listed.len() as u64) < expected_count {
            (Kind::RecordsMissing, format!("{counted}; further records are missing"))
        } else {
            let keys = named(listed.iter().map(|one| &one.record_id));
            (
                Kind::RecordsDiffer,
                format!("{counted}, and their sum differs: altered together with its digest is one of {keys}"),
            )
        };
        let chain = self.chains.key(place.0).to_owned();
        if self.suspects.len() < SUSPECTS_MAX {
            let recorded = entry.recorded().map(|offsets| (offsets.start, offsets.end)).collect();
            self.suspects.push(Suspect { chain: chain.clone(), range, recorded });
        }
        self.findings.push(Finding::of_chain(kind, &chain, Some(range), detail));
    }

    /// Whether a record that is named already as altered makes up the difference: it moved here or away, or its digest alone
    /// was altered.
    fn explained(&self, found: &SetDigest, expected: &SetDigest, count: u64, expected_count: u64) -> bool {
        self.unsound.iter().filter_map(|unsound| unsound.digests).any(|(stored, computed)| {
            let mut moved_here = *expected;
            moved_here.add(&stored);
            let mut moved_away = *found;
            moved_away.add(&stored);
            let mut as_computed = *found;
            as_computed.remove_set(&SetDigest::of(&stored));
            as_computed.add(&computed);
            (moved_here == *found && count == expected_count + 1)
                || (moved_away == *expected && count + 1 == expected_count)
                || (as_computed == *expected && count == expected_count)
        })
    }
}

fn sum(listed: &[Listed]) -> SetDigest {
    let mut sum = SetDigest::default();
    listed.iter().for_each(|one| sum.add(&one.digest));
    sum
}

/// The `extra` records whose digests add up to `difference`: one of all, the last stored ones among those that may be left out,
/// or any few of these. They are taken out of `listed`.
fn choose(listed: &mut Vec<Listed>, extra: usize, difference: &SetDigest) -> Option<Vec<Listed>> {
    if extra == 1 {
        let at = listed.iter().position(|one| SetDigest::of(&one.digest) == *difference)?;
        return Some(vec![listed.swap_remove(at)]);
    }
    // Those that may be left out come last, the last stored ones at the end.
    listed.sort_by(|a, b| {
        let may = |one: &Listed| one.fate != Fate::Recorded || !one.is_judge();
        may(a).cmp(&may(b)).then_with(|| a.recorded_at.cmp(&b.recorded_at))
    });
    if listed.get(listed.len() - extra..).is_some_and(|last| sum(last) == *difference) {
        return Some(listed.split_off(listed.len() - extra));
    }
    let from = listed.partition_point(|one| one.fate == Fate::Recorded && one.is_judge());
    let choices: Vec<Digest> = listed.get(from..)?.iter().map(|one| one.digest).collect();
    if choices.len() > CHOICES_MAX {
        return None;
    }
    let chosen = (0u32..1 << choices.len()).find(|mask| {
        let mut sum = SetDigest::default();
        for (_, digest) in choices.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0) {
            sum.add(digest);
        }
        mask.count_ones() as usize == extra && sum == *difference
    })?;
    let mut out = Vec::new();
    for (at, one) in listed.split_off(from).into_iter().enumerate() {
        if chosen & (1 << at) != 0 {
            out.push(one);
        } else {
            listed.push(one);
        }
    }
    Some(out)
}

/// A list for people, cut.
fn named<T: std::fmt::Display>(all: impl ExactSizeIterator<Item = T>) -> String {
    let left_out = all.len().saturating_sub(NAMED_MAX);
    let mut out = all.take(NAMED_MAX).map(|one| one.to_string()).collect::<Vec<_>>().join(", ");
    if left_out > 0 {
        out.push_str(" and more");
    }
    out
}
