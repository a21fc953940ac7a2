//! Replay and redrive: the same steps for one event at a time, with a ledger of their own, which another process may take over.

use recordkeeper::event::Outcome;
use recordkeeper::pipeline::Pending;
use recordkeeper::pipeline::protocol::{self, Effects, Purpose};

use crate::chains::{Append, Chain};
use crate::events::settled;
use crate::rules::Rule;
use crate::steps::{Action, position, possible};
use crate::world::{EVENTS, Fate, Hold, LETTER, REQUEST, Record, Repair, Repairer, Run, RunLane, Stage, State, World};

impl World {
    /// Every step of a replay or redrive that may be possible.
    pub fn repair_steps(&self, s: &State, out: &mut Vec<Action>) {
        if s.run.is_none() {
            let replays = Self::replays().flat_map(|kind| [0, EVENTS as u8 - 1].map(|from| (kind, from)));
            if s.left.replays > 0 {
                out.extend(replays.map(|(kind, from)| Action::RepairStarts { kind, from }));
            }
            out.push(Action::RepairStarts { kind: Repair::Redrive, from: 0 });
            return;
        }
        out.push(Action::RepairTakenUp);
        for (process, repairer) in s.repairers.iter().enumerate() {
            let Some(repairer) = repairer else { continue };
            out.push(Action::RepairDies(process));
            Self::work_steps(process, repairer, out);
        }
    }

    /// What a process that works on a run may do next.
    pub fn work_steps(process: usize, repairer: &Repairer, out: &mut Vec<Action>) {
        match (&repairer.lane, repairer.hold) {
            (None, Hold::Looked { .. }) => out.push(Action::RepairSeals(process)),
            (None, Hold::Sealed { .. }) => out.push(Action::RepairBegins(process)),
            (None, Hold::Token(_)) => out.push(Action::RepairOpens(process)),
            (Some(lane), _) => {
                out.extend([false, true].map(|lost| Action::RepairAttests { process, lost }));
                out.extend([Action::RepairReads(process), Action::RepairInserts(process)]);
                out.push(Action::RepairRemembers(process));
                let open = lane.item.map_or(0, |item| item.open);
                let effects = (0..8).map(|bit| 1 << bit).filter(|effect| open & effect != 0);
                out.extend(effects.map(|effect| Action::RepairApplies { process, effect }));
            }
        }
    }

    /// See [`World::step`].
    pub fn repair(&self, s: &State, action: Action) -> Option<State> {
        match action {
            Action::RepairStarts { kind, from } => Self::repair_starts(s, kind, from),
            Action::RepairTakenUp => self.taken_up(s),
            Action::RepairSeals(process) => self.seals(s, process),
            Action::RepairBegins(process) => self.begins_epoch(s, process),
            Action::RepairOpens(process) => self.opens_run(s, process),
            Action::RepairReads(process) => self.reads_run(s, process),
            Action::RepairInserts(process)
            | Action::RepairApplies { process, .. }
            | Action::RepairRemembers(process) => self.repairs(s, process, action),
            Action::RepairAttests { process, lost } => self.attests_run(s, process, lost),
            Action::RepairDies(process) => {
                let mut t = s.clone();
                t.left.crashes = t.left.crashes.checked_sub(1)?;
                t.repairers[process] = None;
                Some(t)
            }
            _ => None,
        }
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
        t.run = Some(Run { kind, chains: vec![Chain::new(from)] });
        t.repairers[0] = Some(Repairer { revision: s.revision, hold: Hold::Token(0), lane: None });
        Some(t)
    }

    /// The chains that a run extends.
    fn run_chains<'a>(&self, s: &'a State, run: &'a Run) -> &'a [Chain] {
        if self.off(Rule::OwnLedger) { &s.ledger } else { &run.chains }
    }

    /// Another process takes an unfinished run up, and looks where its chain ends.
    fn taken_up(&self, s: &State) -> Option<State> {
        let run = s.run.as_ref()?;
        possible(usize::from(run.end()) < EVENTS)?;
        let process = s.repairers.iter().position(Option::is_none)?;
        let mut t = s.clone();
        if s.repairers.iter().any(Option::is_some) {
            t.left.takeovers = t.left.takeovers.checked_sub(1)?;
        }
        t.repairers[process] = Some(Repairer { revision: s.revision, hold: looked(run), lane: None });
        Some(t)
    }

    /// Where the chain went on in another epoch meanwhile, another process takes the run over, and this one ends.
    fn seals(&self, s: &State, process: usize) -> Option<State> {
        let run = s.run.as_ref()?;
        let Hold::Looked { epoch, end } = s.repairers[process].as_ref()?.hold else { return None };
        let mut t = s.clone();
        let chain = &mut t.run.as_mut()?.chains[epoch];
        let refused = chain.stands(end);
        let hold = if refused && !self.off(Rule::SealAgain) {
            (run.chains.len() == epoch + 1).then(|| looked(run))
        } else {
            chain.seal = Some(end).filter(|_| !refused && !self.off(Rule::Seal));
            Some(Hold::Sealed { epoch, end })
        };
        match hold {
            Some(hold) => t.repairers[process].as_mut()?.hold = hold,
            None => t.repairers[process] = None,
        }
        Some(t)
    }

    fn begins_epoch(&self, s: &State, process: usize) -> Option<State> {
        let Hold::Sealed { epoch, end } = s.repairers[process].as_ref()?.hold else { return None };
        let mut t = s.clone();
        let chains = &mut t.run.as_mut()?.chains;
        let next = if self.off(Rule::NextEpoch) { epoch } else { epoch + 1 };
        if chains.len() == next {
            chains.push(Chain::new(if self.off(Rule::BeginAtSeal) { end + 1 } else { end }));
        } else if !self.off(Rule::EpochOnce) && !self.off(Rule::NextEpoch) {
            t.repairers[process] = None;
            return Some(t);
        }
        t.repairers[process].as_mut()?.hold = Hold::Token(next);
        Some(t)
    }

    fn opens_run(&self, s: &State, process: usize) -> Option<State> {
        let repairer = s.repairers[process].as_ref()?;
        let Hold::Token(token) = repairer.hold else { return None };
        possible(repairer.lane.is_none())?;
        let chains = self.run_chains(s, s.run.as_ref()?);
        let epoch = chains.len() - 1;
        let chain = &chains[epoch];
        let mut t = s.clone();
        if chain.seal.is_some() || (token != epoch && !self.off(Rule::TokenHeld)) {
            t.repairers[process] = None;
            return Some(t);
        }
        let (next, pending) = (chain.end(), Pending::new(position(chain.end())));
        t.repairers[process].as_mut()?.lane = Some(RunLane { epoch, next, stage: Stage::Judge, item: None, pending });
        Some(t)
    }

    fn reads_run(&self, s: &State, process: usize) -> Option<State> {
        let (kind, mut t) = (s.run.as_ref()?.kind, s.clone());
        let repairer = t.repairers[process].as_mut()?;
        let lane = repairer.lane.as_mut()?;
        possible(lane.item.is_none() && usize::from(lane.next) < EVENTS)?;
        let at = match kind {
            Repair::Replay(_) => Some(lane.next),
            Repair::Redrive => (lane.next..EVENTS as u8).find(|at| s.letters & 1 << at != 0),
        };
        let Some(at) = at else {
            // No letter is left.
            lane.pending.push(position(EVENTS as u8), Outcome::Skipped);
            lane.next = EVENTS as u8;
            return Some(t);
        };
        let asks = protocol::asks_cache(purpose(kind), None) || self.off(Rule::RepairUnasked);
        let prepared = self.prepared(s, repairer.revision, at, None, asks);
        lane.stage = if prepared.fate == Fate::Open { Stage::Judge } else { Stage::Apply };
        lane.item = Some(prepared);
        Some(t)
    }

    fn repairs(&self, s: &State, process: usize, action: Action) -> Option<State> {
        let (kind, mut t) = (s.run.as_ref()?.kind, s.clone());
        let mut repairer = t.repairers[process].take()?;
        let revision = repairer.revision;
        let lane = repairer.lane.as_mut()?;
        let item = lane.item.as_mut()?;
        match action {
            Action::RepairInserts(_) => {
                possible(item.fate == Fate::Open)?;
                let id = usize::from(self.event(item.position).id);
                let mine = Record { content: self.content(item.position, revision), origin: item.position };
                item.fate = match s.records[id] {
                    None => Fate::Own { stored: true },
                    Some(standing) => self.judged(item, standing, revision),
                };
                t.records[id].get_or_insert(mine);
                item.open = self.owes(item, revision) & may_apply(kind);
                lane.stage = Stage::Apply;
            }
            Action::RepairApplies { effect, .. } => {
                possible(lane.stage == Stage::Apply && item.open & effect != 0)?;
                self.apply(&mut t, item, effect, revision);
            }
            Action::RepairRemembers(_) => {
                possible(lane.stage == Stage::Apply && item.open == 0)?;
                if purpose(kind).remembers() || self.off(Rule::WholeReplayRemembers) {
                    self.remember(&mut t, item, revision);
                }
                // What lies between two letters is none that is tried again.
                lane.pending.push(position(item.position), Outcome::Skipped);
                lane.pending.push(position(item.position + 1), settled(item));
                lane.next = item.position + 1;
                lane.item = None;
            }
            _ => return None,
        }
        t.repairers[process] = Some(repairer);
        Some(t)
    }

    fn attests_run(&self, s: &State, process: usize, lost: bool) -> Option<State> {
        possible(!lost || s.left.lost > 0)?;
        let mut t = s.clone();
        let repairer = t.repairers[process].as_mut()?;
        let lane = repairer.lane.as_mut()?;
        let chains = if self.off(Rule::OwnLedger) { &mut t.ledger } else { &mut t.run.as_mut()?.chains };
        let append = self.append(chains, lane.epoch, &mut lane.pending, repairer.revision, lost)?;
        match append {
            Append::Done => {
                chains[lane.epoch].writers |= 1 << process;
                t.left.lost -= u8::from(lost);
            }
            Append::Trimmed => {}
            Append::Sealed => t.repairers[process] = None,
        }
        Some(t)
    }
}

impl Run {
    /// Where its ledger ends.
    pub fn end(&self) -> u8 {
        self.chains.last().map_or(0, Chain::end)
    }
}

/// How a run's last chain stands to one who takes it up.
fn looked(run: &Run) -> Hold {
    let epoch = run.chains.len() - 1;
    let (end, sealed) = (run.end(), run.chains[epoch].seal.is_some());
    if sealed { Hold::Sealed { epoch, end } } else { Hold::Looked { epoch, end } }
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
