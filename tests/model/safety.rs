//! What must hold in every state.

use recordkeeper::event::{Outcome, Reason};

use crate::repair::may_apply;
use crate::world::{EVENTS, Effects, Faults, GROUPS, REQUEST, State, World};

impl World {
    /// What is wrong with a state; `None` where all promises hold.
    pub fn wrong(&self, s: &State) -> Option<String> {
        self.wrong_ledger(s)
            .or_else(|| self.wrong_repair(s))
            .or_else(|| self.wrong_cache(s))
            .or_else(|| self.wrong_order(s))
    }

    fn wrong_ledger(&self, s: &State) -> Option<String> {
        let mut end = self.begins;
        for entry in &s.ledger {
            if entry.from != end || entry.to <= entry.from || usize::from(entry.to - entry.from) != entry.outcomes.len()
            {
                return Some("the ledger has a hole or an overlap".into());
            }
            end = entry.to;
            for (at, outcome) in (entry.from..).zip(&entry.outcomes) {
                // A position settled by the cache had its effects applied by whoever remembered it.
                let revisions = if *outcome == Outcome::Duplicate { [0, 1] } else { [entry.revision; 2] };
                if let Some(wrong) = self.wrong_outcome(s, at, *outcome, revisions, !0) {
                    return Some(format!("{at} is attested as {outcome:?}: {wrong}"));
                }
            }
        }
        if s.went_back {
            return Some("a checkpoint went back".into());
        }
        (!s.moved && s.committed.unwrap_or(0) > end).then(|| "the checkpoint lies above the ledger's end".into())
    }

    fn wrong_repair(&self, s: &State) -> Option<String> {
        s.repaired.iter().find_map(|repaired| {
            let revisions = [repaired.revision; 2];
            let wrong =
                self.wrong_outcome(s, repaired.position, repaired.outcome, revisions, may_apply(repaired.kind))?;
            Some(format!("{repaired:?}: {wrong}"))
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
