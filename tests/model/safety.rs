//! What must hold in every state.

use recordkeeper::event::{Outcome, Reason};

use crate::chains::{Chain, Entry};
use crate::repair::may_apply;
use crate::world::{EVENTS, Effects, Faults, GROUPS, REQUEST, Run, State, World};

impl World {
    /// What is wrong with a state; `None` where all promises hold.
    pub fn wrong(&self, s: &State) -> Option<String> {
        self.wrong_ledger(s)
            .or_else(|| self.wrong_repair(s))
            .or_else(|| self.wrong_cache(s))
            .or_else(|| self.wrong_order(s))
    }

    fn wrong_ledger(&self, s: &State) -> Option<String> {
        if let Some(wrong) = wrong_chains(&s.ledger) {
            return Some(format!("the ledger has {wrong}"));
        }
        // Also what a process that knows nothing of a later epoch has attested is true.
        let mut sound = s.ledger.iter().flat_map(|chain| &chain.entries).filter(|entry| !entry.damaged);
        if let Some(wrong) = sound.find_map(|entry| self.wrong_entry(s, entry, true, !0)) {
            return Some(wrong);
        }
        if s.went_back {
            return Some("a checkpoint went back".into());
        }
        let early = !s.moved && s.committed.unwrap_or(0) > s.ledger_end();
        early.then(|| "the checkpoint lies above the ledger's end".into())
    }

    fn wrong_repair(&self, s: &State) -> Option<String> {
        let Run { kind, chains } = s.run.as_ref()?;
        if let Some(wrong) = wrong_chains(chains) {
            return Some(format!("the run's ledger has {wrong}"));
        }
        for (epoch, chain) in chains.iter().enumerate() {
            // Whoever goes on was told once for all where the chain before ends.
            if chains.get(epoch + 1).is_some_and(|next| next.begin != chain.end()) {
                return Some(format!("the run's chain of epoch {epoch} grew after it was taken over"));
            }
            if chain.writers.count_ones() > 1 {
                return Some(format!("two processes extend the run's chain of epoch {epoch}"));
            }
        }
        let mut entries = chains.iter().flat_map(|chain| &chain.entries);
        let wrong = entries.find_map(|entry| self.wrong_entry(s, entry, false, may_apply(*kind)))?;
        Some(format!("{kind:?}: {wrong}"))
    }

    /// `asked`: the cache may have settled it.
    fn wrong_entry(&self, s: &State, entry: &Entry, asked: bool, effects: u8) -> Option<String> {
        (entry.from..).zip(&entry.outcomes).find_map(|(at, outcome)| {
            // Then whoever remembered it applied its effects.
            let revisions = if asked && *outcome == Outcome::Duplicate { [0, 1] } else { [entry.revision; 2] };
            let wrong = self.wrong_outcome(s, at, *outcome, revisions, effects)?;
            Some(format!("{at} is attested as {outcome:?}: {wrong}"))
        })
    }

    /// Whether an outcome that a ledger states is false, or not durable.
    fn wrong_outcome(
        &self,
        s: &State,
        at: u8,
        outcome: Outcome,
        revisions: [u8; 2],
        effects: u8,
    ) -> Option<&'static str> {
        let event = self.event(at);
        let record = s.records[usize::from(event.id)];
        let same = record.filter(|record| record.content % 2 == event.content % 2);
        let applied = revisions.iter().any(|revision| {
            self.effects(*revision, at).is_some_and(|wanted| self.missing(s, event.id, wanted) & effects == 0)
        });
        match outcome {
            Outcome::Skipped => None,
            Outcome::Lost if at < s.log_start => None,
            Outcome::Hole | Outcome::Lost => Some("an event stands there"),
            Outcome::Recorded if same.is_none_or(|record| record.origin != at) => Some("its record does not stand"),
            Outcome::Duplicate if same.is_none_or(|record| record.origin == at) => Some("no other one's record stands"),
            Outcome::Recorded | Outcome::Duplicate => (!applied).then_some("effects are missing"),
            Outcome::DeadLettered(_) if s.letters & 1 << at == 0 => Some("its letter is not out"),
            Outcome::DeadLettered(Reason::Conflict) => {
                (record.is_none() || same.is_some()).then_some("nothing conflicts with it")
            }
            Outcome::DeadLettered(Reason::Schema) => {
                revisions.iter().all(|revision| self.effects(*revision, at).is_some()).then_some("the schema takes it")
            }
            Outcome::DeadLettered(_) => Some("nothing refuses it"),
        }
    }

    /// Effects of an identity that nobody applied, as bits.
    fn missing(&self, s: &State, id: u8, wanted: Effects) -> u8 {
        let stands = |group: usize| s.groups[group].version >= wanted.groups[group];
        let groups = (0..GROUPS).filter(|group| !stands(*group)).fold(0, |bits, group| bits | 1 << group);
        groups | if wanted.request && s.sent & 1 << id == 0 { REQUEST } else { 0 }
    }

    fn wrong_cache(&self, s: &State) -> Option<String> {
        for (id, known) in s.cache.iter().enumerate() {
            let Some(known) = known else { continue };
            let stands =
                s.records[id].is_some_and(|record| (record.content, record.origin) == (known.content, known.origin));
            let wanted = self.mapping[usize::from(known.revision)][id].unwrap_or_default();
            if !stands || self.missing(s, id as u8, wanted) != 0 {
                return Some(format!("{id} was remembered before it was done"));
            }
        }
        None
    }

    /// Where nobody else writes and nothing is skipped, the first event of an identity is the one that is recorded.
    fn wrong_order(&self, s: &State) -> Option<String> {
        let Faults { strangers, skips, replays, redrives, deploys, trims, .. } = self.faults;
        if strangers + skips + replays + redrives + deploys + trims + self.begins > 0 {
            return None;
        }
        (0..EVENTS as u8).find_map(|at| {
            let id = self.event(at).id;
            let first = (0..at).all(|earlier| self.event(earlier).id != id);
            let record = s.records[usize::from(id)]?;
            (first && record.origin != at).then(|| format!("{} is recorded, and {at} comes before it", record.origin))
        })
    }
}

/// Each entry goes on from the one before, and each epoch from what is sound of the one before.
fn wrong_chains(chains: &[Chain]) -> Option<&'static str> {
    let mut sound = chains.first().map_or(0, |chain| chain.begin);
    for chain in chains {
        if chain.begin > sound {
            return Some("a hole between two epochs");
        }
        let mut end = chain.begin;
        sound = end;
        for entry in &chain.entries {
            if entry.from != end || entry.to <= entry.from || usize::from(entry.to - entry.from) != entry.outcomes.len()
            {
                return Some("a hole or an overlap");
            }
            end = entry.to;
            if sound == entry.from && !entry.damaged {
                sound = end;
            }
        }
    }
    None
}
