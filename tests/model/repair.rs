//! Replay and redrive: the same steps for one event at a time, with a ledger of their own.

use recordkeeper::pipeline::protocol::{self, Effects, Purpose};

use crate::events::settled;
use crate::rules::Rule;
use crate::steps::{Action, possible};
use crate::world::{EVENTS, Entry, Fate, LETTER, REQUEST, Record, Repair, Repaired, Repairer, Stage, State, World};

impl World {
    /// Every step of a replay or redrive that may be possible.
    pub fn repair_steps(&self, s: &State, out: &mut Vec<Action>) {
        if s.repairer.is_none() {
            let replays = Self::replays().flat_map(|kind| [0, EVENTS as u8 - 1].map(|from| (kind, from)));
            if s.left.replays > 0 {
                out.extend(replays.map(|(kind, from)| Action::RepairStarts { kind, from }));
            }
            out.push(Action::RepairStarts { kind: Repair::Redrive, from: 0 });
            return;
        }
        out.extend([Action::RepairReads, Action::RepairInserts, Action::RepairRemembers, Action::RepairAttests]);
        out.push(Action::RepairDies);
        out.extend((0..8).map(|bit| Action::RepairApplies(1 << bit)));
    }

    /// See [`World::step`].
    pub fn repair(&self, s: &State, action: Action) -> Option<State> {
        if let Action::RepairStarts { kind, from } = action {
            return Self::repair_starts(s, kind, from);
        }
        let mut t = s.clone();
        let mut repairer = t.repairer.take()?;
        let revision = repairer.revision;
        match (action, &mut repairer.item) {
            (Action::RepairReads, item @ None) => {
                let at = match repairer.kind {
                    Repair::Replay(_) => Some(repairer.next),
                    Repair::Redrive => (repairer.next..EVENTS as u8).find(|at| s.letters & 1 << at != 0),
                };
                let at = at.filter(|at| usize::from(*at) < EVENTS)?;
                let asks = protocol::asks_cache(purpose(repairer.kind), None) || self.off(Rule::RepairUnasked);
                let prepared = self.prepared(s, revision, at, None, asks);
                repairer.stage = if prepared.fate == Fate::Open { Stage::Judge } else { Stage::Apply };
                *item = Some(prepared);
            }
            (Action::RepairInserts, Some(item)) => {
                possible(item.fate == Fate::Open)?;
                let id = usize::from(self.event(item.position).id);
                let mine = Record { content: self.content(item.position, revision), origin: item.position };
                item.fate = match s.records[id] {
                    None => Fate::Own { stored: true },
                    Some(standing) => self.judged(item, standing, revision),
                };
                t.records[id].get_or_insert(mine);
                item.open = self.owes(item, revision) & may_apply(repairer.kind);
                repairer.stage = Stage::Apply;
            }
            (Action::RepairApplies(effect), Some(item)) => {
                possible(repairer.stage == Stage::Apply && item.open & effect != 0)?;
                self.apply(&mut t, item, effect, revision);
            }
            (Action::RepairRemembers, Some(item)) => {
                possible(repairer.stage == Stage::Apply && item.open == 0)?;
                if purpose(repairer.kind).remembers() || self.off(Rule::WholeReplayRemembers) {
                    self.remember(&mut t, item, revision);
                }
                repairer.stage = Stage::Remember;
            }
            (Action::RepairAttests, Some(item)) => {
                possible(repairer.stage == Stage::Remember)?;
                let (at, outcome) = (item.position, settled(item));
                t.repaired.push(Repaired { kind: repairer.kind, position: at, outcome, revision });
                if self.off(Rule::OwnLedger) && self.ledger_end(&t) == at {
                    t.ledger.push(Entry { from: at, to: at + 1, outcomes: vec![outcome], revision });
                }
                repairer.next = at + 1;
                repairer.item = None;
            }
            (Action::RepairDies, item @ Some(_)) => {
                possible(s.left.crashes > 0)?;
                t.left.crashes -= 1;
                *item = None;
            }
            _ => return None,
        }
        t.repairer = Some(repairer);
        Some(t)
    }

    fn repair_starts(s: &State, kind: Repair, from: u8) -> Option<State> {
        let mut t = s.clone();
        match kind {
            Repair::Replay(_) => t.left.replays = t.left.replays.checked_sub(1)?,
            Repair::Redrive => {
                possible(s.letters != 0)?;
                t.left.redrives = t.left.redrives.checked_sub(1)?;
            }
        }
        t.repairer = Some(Repairer { kind, revision: s.revision, next: from, stage: Stage::Judge, item: None });
        Some(t)
    }
}

fn purpose(kind: Repair) -> Purpose {
    Purpose::Repair(match kind {
        Repair::Replay(effects) => effects,
        Repair::Redrive => Effects::All,
    })
}

/// The effects that a repair applies.
pub fn may_apply(kind: Repair) -> u8 {
    match purpose(kind).effects() {
        Effects::None => LETTER,
        Effects::State => !REQUEST,
        Effects::All => !0,
    }
}
