//! What epochs and seals say of a chain: where it ends for good, and where the next one goes on.

use crate::audit::finding::{Finding, Kind};
use crate::event::{Digest, Position};
use crate::ledger::EPOCH;

use super::{AuditEntry, Chains, epoch_of};

impl Chains {
    /// The keys under which, above the position, something is missing that may have been written after its place was read: the
    /// epochs of a later chain, and the seal of a chain that another one goes on from.
    pub fn passed_by(&self) -> Vec<(String, Option<Position>)> {
        let later = self.entries.keys().filter_map(|key| epoch_of(key)).filter(|(_, number)| *number > 0);
        let missing = later.filter(|(lineage, number)| !self.epochs.contains_key(&((*lineage).to_owned(), *number)));
        let mut keys: Vec<_> = missing.map(|(lineage, _)| (format!("{EPOCH}{lineage}"), None)).collect();
        keys.dedup();
        for ((lineage, number), _) in self.epochs.iter().filter(|(_, epoch)| epoch.taken_over) {
            let before = format!("{lineage}|{}", number.saturating_sub(1));
            if !self.seals.contains_key(&before) {
                let last = self.entries.get(&before).and_then(|entries| entries.iter().map(|entry| entry.from).max());
                keys.push((before, last));
            }
        }
        keys
    }

    /// What is wrong with a chain that was left behind for a new epoch is on record. One that was taken over was sound, and
    /// sealed.
    pub(super) fn close_left_behind(&mut self) {
        for ((lineage, number), epoch) in &self.epochs {
            let before = format!("{lineage}|{}", number.saturating_sub(1));
            if !epoch.taken_over {
                self.findings.close(before);
            } else if !self.seals.contains_key(&before) {
                let detail = format!("epoch {number} goes on where it was sealed, and the seal is not there");
                self.findings.push(Finding::of_chain(Kind::ChainCut, &before, None, detail));
            }
        }
    }

    /// A sealed chain ends where its seal stands; one that was taken over with the entry that the next epoch names.
    pub(super) fn check_seal(&mut self, key: &str, entries: &[AuditEntry]) {
        let Some(at) = self.seals.get(key).copied() else { return };
        let next = epoch_of(key)
            .and_then(|(lineage, number)| self.epochs.get(&(lineage.to_owned(), number.saturating_add(1))));
        // An operator may begin an epoch anywhere below.
        let named = next.filter(|epoch| epoch.taken_over).map(|epoch| epoch.previous);
        let Some(last) = entries.last() else {
            if named.is_some_and(|named| named != Digest::of(b"")) {
                let detail = "it is sealed, and none of its entries is there".to_owned();
                self.findings.push(Finding::of_chain(Kind::ChainCut, key, None, detail));
            }
            return;
        };
        let (kind, range, detail) = match last.to.cmp(&at) {
            std::cmp::Ordering::Equal if named.is_none_or(|named| named == last.digest) => return,
            std::cmp::Ordering::Equal => {
                let detail = "the epoch that goes on names another entry as the last one before it".to_owned();
                (Kind::Link, (last.from, last.to), detail)
            }
            std::cmp::Ordering::Less => {
                (Kind::Gap, (last.to, at), "no entry holds them, and the chain is sealed above them".to_owned())
            }
            std::cmp::Ordering::Greater => {
                let detail = format!("the chain is sealed at offset {}", at.next_offset());
                (Kind::Overlap, (last.from, last.to), detail)
            }
        };
        if last.sound {
            self.findings.push(Finding::of_chain(kind, key, Some(range), detail));
        }
    }
}
