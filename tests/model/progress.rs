//! From every state, whoever owns the partition (or, where nobody does, the next one) consumes the rest of the log, alone.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use crate::steps::{Action, away};
use crate::world::{EVENTS, Fate, Life, Stage, State, World};

/// More steps than any way to the end has.
const STEPS_MAX: usize = 300;

/// States from which the log is known to be consumed.
#[derive(Debug, Default)]
pub struct KnownGood(Mutex<HashSet<u64>>);

impl World {
    /// Whether the log can still be consumed from here, without faults, by its owner.
    pub fn can_be_consumed(&self, s: &State, known: &KnownGood) -> bool {
        let mut path = Vec::new();
        let mut at = s.clone();
        for _ in 0..STEPS_MAX {
            let mut hasher = DefaultHasher::new();
            at.hash(&mut hasher);
            let fingerprint = hasher.finish();
            let mut known = known.0.lock().unwrap_or_else(PoisonError::into_inner);
            if consumed(&at) || known.contains(&fingerprint) {
                known.extend(path);
                known.insert(fingerprint);
                return true;
            }
            drop(known);
            path.push(fingerprint);
            let next = if read(&at) { self.next_of_run(&at) } else { self.next(&at) };
            let Some(next) = next else { return false };
            at = next;
        }
        false
    }

    /// The owner's next step; where the chain is broken, the operator's, who stops the owner first.
    fn next(&self, s: &State) -> Option<State> {
        let chain = s.ledger.last()?;
        if !chain.is_sound() {
            let mut t = s.clone();
            let Some(owner) = s.owner() else { return self.step(s, Action::EpochBegins(chain.sound_end())) };
            away(&mut t.instances[owner]);
            return Some(t);
        }
        let Some(owner) = s.owner() else {
            let free = s.instances.iter().position(|instance| instance.life != Life::Stopped)?;
            return self.step(s, Action::Assigned(free));
        };
        let Some(lane) = &s.instances[owner].lane else { return self.step(s, Action::Opens(owner)) };
        let mut steps =
            vec![Action::Attests { instance: owner, lost: false }, Action::Commits(owner), Action::Remembers(owner)];
        for (index, batch) in lane.batches.iter().enumerate() {
            for (item, one) in batch.items.iter().enumerate() {
                if batch.stage == Stage::Apply && one.open != 0 && index == 0 {
                    let effect = 1 << one.open.trailing_zeros();
                    steps.push(Action::Applies { instance: owner, item, effect, lost: false });
                } else if one.fate == Fate::Open {
                    steps.push(Action::Inserts { instance: owner, batch: index, item, lost: false });
                }
            }
        }
        steps.extend([Action::Reads { instance: owner, events: 1 }, Action::Reopens(owner)]);
        steps.into_iter().find_map(|step| self.step(s, step))
    }

    /// The next step of those who work on a run, whether they were overtaken or not; where nobody does, of who takes it up.
    fn next_of_run(&self, s: &State) -> Option<State> {
        let mut steps = Vec::new();
        for (process, repairer) in s.repairers.iter().enumerate() {
            let Some(repairer) = repairer else { continue };
            Self::work_steps(process, repairer, &mut steps);
        }
        if s.repairers.iter().all(Option::is_none) {
            steps.push(Action::RepairTakenUp);
        }
        let lost = |step: &Action| matches!(step, Action::RepairAttests { lost: true, .. });
        steps.into_iter().filter(|step| !lost(step)).find_map(|step| self.step(s, step))
    }
}

/// The log is consumed.
fn read(s: &State) -> bool {
    let whole = s.ledger.last().is_some_and(|chain| chain.is_sound() && usize::from(chain.end()) == EVENTS);
    whole && s.committed.is_some_and(|committed| usize::from(committed) == EVENTS)
}

/// So is what a run was begun for.
fn consumed(s: &State) -> bool {
    read(s) && s.run.as_ref().is_none_or(|run| usize::from(run.end()) == EVENTS)
}
