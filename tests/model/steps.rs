//! What can happen in a world: one atomic step of somebody, or a fault.

use recordkeeper::event::{Outcome, Position};
use recordkeeper::pipeline::protocol::{self, Effects};

use crate::chains::{Chain, Entry};
use crate::rules::Rule;
use crate::world::{ELSEWHERE, EVENTS, IDS, Instance, Life, Record, Repair, State, World};

/// One step. Instances, batches, items, entries and processes of a run by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    CacheFlushed,
    StrangerStores,
    Deployed,
    CheckpointMoved(Option<u8>),
    SkipOrdered,
    Trimmed(u8),
    Assigned(usize),
    Dies(usize),
    Opens(usize),
    Reopens(usize),
    Reads { instance: usize, events: u8 },
    Inserts { instance: usize, batch: usize, item: usize, lost: bool },
    Applies { instance: usize, item: usize, effect: u8, lost: bool },
    Remembers(usize),
    Attests { instance: usize, lost: bool },
    Commits(usize),
    Damaged(usize),
    EpochBegins(u8),
    EpochCommits,
    RepairStarts { kind: Repair, from: u8 },
    RepairTakenUp,
    RepairSeals(usize),
    RepairBegins(usize),
    RepairOpens(usize),
    RepairReads(usize),
    RepairInserts(usize),
    RepairApplies { process: usize, effect: u8 },
    RepairRemembers(usize),
    RepairAttests { process: usize, lost: bool },
    RepairDies(usize),
}

/// Where a lane stands that has `count` events behind it.
pub fn position(count: u8) -> Position {
    Position::before_offset(u64::from(count))
}

/// The inverse.
pub fn count(position: Position) -> u8 {
    u8::try_from(position.next_offset()).unwrap()
}
impl World {
    /// Every step that may be possible; [`World::step`] tells.
    pub fn steps(&self, s: &State, out: &mut Vec<Action>) {
        out.extend([Action::CacheFlushed, Action::StrangerStores, Action::Deployed, Action::SkipOrdered]);
        if s.left.trims > 0 {
            out.extend((s.log_start + 1..=EVENTS as u8).map(Action::Trimmed));
        }
        if s.left.resets > 0 {
            out.extend((0..=EVENTS as u8).map(|to| Action::CheckpointMoved(Some(to))));
            out.push(Action::CheckpointMoved(None));
        }
        if s.left.damages > 0 {
            out.extend((0..s.ledger.last().map_or(0, |chain| chain.entries.len())).map(Action::Damaged));
        }
        if self.faults.damages > 0 {
            out.extend((self.begins..=EVENTS as u8).map(Action::EpochBegins));
            out.push(Action::EpochCommits);
        }
        for instance in 0..self.instances {
            out.extend([Action::Assigned(instance), Action::Dies(instance), Action::Opens(instance)]);
            out.push(Action::Reopens(instance));
            let Some(lane) = &s.instances[instance].lane else { continue };
            out.extend([1, 2].map(|events| Action::Reads { instance, events }));
            for (index, batch) in lane.batches.iter().enumerate() {
                for item in 0..batch.items.len() {
                    for lost in [false, true] {
                        out.push(Action::Inserts { instance, batch: index, item, lost });
                        let open = if index == 0 { batch.items[item].open } else { 0 };
                        let effects = (0..8).map(|bit| 1 << bit).filter(|effect| open & effect != 0);
                        out.extend(effects.map(|effect| Action::Applies { instance, item, effect, lost }));
                    }
                }
            }
            out.push(Action::Remembers(instance));
            out.extend([false, true].map(|lost| Action::Attests { instance, lost }));
            out.push(Action::Commits(instance));
        }
        self.repair_steps(s, out);
    }

    /// The state after a step; `None` where the step is not possible.
    pub fn step(&self, s: &State, action: Action) -> Option<State> {
        match action {
            Action::CacheFlushed => {
                possible(s.left.flushes > 0 && s.cache != [None; IDS])?;
                let mut t = s.clone();
                t.left.flushes -= 1;
                t.cache = [None; IDS];
                Some(t)
            }
            Action::StrangerStores => {
                possible(s.left.strangers > 0 && s.records[0].is_none())?;
                let mut t = s.clone();
                t.left.strangers -= 1;
                t.records[0] = Some(Record { content: 1, origin: ELSEWHERE });
                Some(t)
            }
            Action::Deployed => {
                possible(s.left.deploys > 0)?;
                let mut t = s.clone();
                t.left.deploys -= 1;
                t.revision = 1;
                Some(t)
            }
            Action::CheckpointMoved(to) => {
                possible(s.left.resets > 0 && s.owner().is_none() && to != s.committed)?;
                let mut t = s.clone();
                t.left.resets -= 1;
                (t.committed, t.moved) = (to, true);
                Some(t)
            }
            Action::SkipOrdered => {
                let chain = s.ledger.last()?;
                let end = chain.end();
                let free = chain.is_sound() && s.owner().is_none();
                possible(s.left.skips > 0 && free && usize::from(end) < EVENTS)?;
                let log = (position(s.log_start), position(EVENTS as u8));
                let moved = protocol::move_to(position(end + 1), (position(self.begins), position(end)), log);
                possible(matches!(moved, Ok(protocol::Move::Skip { .. })))?;
                let mut t = s.clone();
                t.left.skips -= 1;
                let outcomes = vec![Outcome::Skipped];
                let skip = Entry { from: end, to: end + 1, outcomes, revision: s.revision, damaged: false };
                t.ledger.last_mut()?.entries.push(skip);
                t.committed = Some(end + 1);
                Some(t)
            }
            Action::Trimmed(to) => {
                possible(s.left.trims > 0 && to > s.log_start)?;
                let mut t = s.clone();
                t.left.trims -= 1;
                t.log_start = to;
                Some(t)
            }
            Action::Assigned(instance) => self.assigned(s, instance),
            Action::Dies(instance) => {
                possible(s.left.crashes > 0 && matches!(s.instances[instance].life, Life::Owner | Life::Zombie))?;
                let mut t = s.clone();
                t.left.crashes -= 1;
                away(&mut t.instances[instance]);
                Some(t)
            }
            Action::Opens(instance) => self.opens(s, instance),
            Action::Reopens(instance) => {
                // What it was to read is gone: the source looks anew, once the lane has drained.
                let lane = s.instances[instance].lane.as_ref()?;
                let drained = lane.batches.is_empty() && lane.pending.is_empty();
                possible(s.instances[instance].life == Life::Owner && drained && lane.read < s.log_start)?;
                let mut t = s.clone();
                t.instances[instance].checkpoint = t.committed;
                t.instances[instance].lane = None;
                Some(t)
            }
            Action::Reads { instance, events } => self.reads(s, instance, events),
            Action::Inserts { instance, batch, item, lost } => self.inserts(s, instance, batch, item, lost),
            Action::Applies { instance, item, effect, lost } => self.applies(s, instance, item, effect, lost),
            Action::Remembers(instance) => self.remembers(s, instance),
            Action::Attests { instance, lost } => self.attests(s, instance, lost),
            Action::Commits(instance) => self.commits(s, instance),
            Action::Damaged(entry) => {
                let mut t = s.clone();
                t.left.damages = t.left.damages.checked_sub(1)?;
                t.ledger.last_mut()?.entries[entry].damaged = true;
                Some(t)
            }
            Action::EpochBegins(begin) => self.epoch_begins(s, begin),
            Action::EpochCommits => {
                possible(s.owner().is_none())?;
                let mut t = s.clone();
                t.committed = Some(t.ordered.take()?);
                t.moved = true;
                Some(t)
            }
            Action::RepairStarts { .. }
            | Action::RepairTakenUp
            | Action::RepairSeals(_)
            | Action::RepairBegins(_)
            | Action::RepairOpens(_)
            | Action::RepairReads(_)
            | Action::RepairInserts(_)
            | Action::RepairApplies { .. }
            | Action::RepairRemembers(_)
            | Action::RepairAttests { .. }
            | Action::RepairDies(_) => self.repair(s, action),
        }
    }

    /// An operator leaves a broken chain behind. Nobody reads the partition: whoever opens it finds its chain broken.
    fn epoch_begins(&self, s: &State, begin: u8) -> Option<State> {
        let chain = s.ledger.last()?;
        let read = s.instances.iter().any(|instance| instance.life == Life::Owner && instance.lane.is_some());
        possible(!chain.is_sound() && !read)?;
        let sound = if self.off(Rule::SoundBegin) { chain.end() } else { chain.sound_end() };
        possible((chain.begin..=sound).contains(&begin))?;
        let mut t = s.clone();
        t.ledger.push(Chain::new(begin));
        (t.ordered, t.moved) = (Some(begin), true);
        Some(t)
    }

    fn assigned(&self, s: &State, instance: usize) -> Option<State> {
        let owner = s.owner();
        let free = owner.is_none() || (s.left.moves > 0 && owner != Some(instance));
        possible(free && s.instances[instance].life != Life::Stopped)?;
        let mut t = s.clone();
        if let Some(owner) = owner {
            t.left.moves -= 1;
            t.instances[owner].life = Life::Zombie;
        }
        t.instances[instance] =
            Instance { life: Life::Owner, revision: s.revision, checkpoint: s.committed, lane: None };
        Some(t)
    }

    /// Every replay that may be started.
    pub fn replays() -> impl Iterator<Item = Repair> {
        [Effects::None, Effects::State, Effects::All].into_iter().map(Repair::Replay)
    }
}
/// Nothing is left of what an instance held in memory.
pub fn away(instance: &mut Instance) {
    *instance = Instance { life: Life::Away, revision: 0, checkpoint: None, lane: None };
}

/// A step that is not possible is none.
pub fn possible(condition: bool) -> Option<()> {
    condition.then_some(())
}
