//! What can happen in a world: one atomic step of somebody, or a fault.

use std::sync::LazyLock;

use recordkeeper::dedupe::Known;
use recordkeeper::event::{Digest, Outcome, Position, Reason};
use recordkeeper::pipeline::Pending;
use recordkeeper::pipeline::protocol::{self, Effects, Extended, Purpose, Settled, Verdict};
use recordkeeper::store::Standing;

use crate::rules::Rule;
use crate::world::{
    Batch, ELSEWHERE, EVENTS, Entry, Fate, Group, IDS, Instance, Item, LETTER, Lane, Life, REQUEST, Record, Remembered,
    Repair, Stage, State, World,
};

/// One step. Instances, batches and items by index.
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
    RepairStarts { kind: Repair, from: u8 },
    RepairReads,
    RepairInserts,
    RepairApplies(u8),
    RepairRemembers,
    RepairAttests,
    RepairDies,
}

/// Where a lane stands that has `count` events behind it.
pub fn position(count: u8) -> Position {
    Position::before_offset(u64::from(count))
}

/// The inverse.
pub fn count(position: Position) -> u8 {
    u8::try_from(position.next_offset()).unwrap()
}

/// Digests and stored forms of everything that is compared, made once.
struct Forms {
    digests: Vec<Digest>,
    origins: Vec<String>,
    standing: Vec<Vec<Standing>>,
    known: Vec<Vec<Known>>,
}

static FORMS: LazyLock<Forms> = LazyLock::new(|| {
    let digests: Vec<Digest> = (0..8u8).map(|content| Digest::of(&[content])).collect();
    let origins: Vec<String> = (0..=ELSEWHERE).map(|origin| format!("cluster|topic|id|0|0|{origin}")).collect();
    let standing = |digest: &Digest, origin: &String| Standing {
        content_digest: *digest,
        origin: origin.clone(),
        record_digest: *digest,
    };
    let known = |digest: &Digest, origin: &String| Known { content_digest: *digest, origin: origin.clone() };
    Forms {
        standing: digests
            .iter()
            .map(|digest| origins.iter().map(|origin| standing(digest, origin)).collect())
            .collect(),
        known: digests.iter().map(|digest| origins.iter().map(|origin| known(digest, origin)).collect()).collect(),
        digests,
        origins,
    }
});

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
        for instance in 0..s.instances.len() {
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
                let end = self.ledger_end(s);
                possible(s.left.skips > 0 && s.owner().is_none() && usize::from(end) < EVENTS)?;
                let log = (position(s.log_start), position(EVENTS as u8));
                let moved = protocol::move_to(position(end + 1), (position(self.begins), position(end)), log);
                possible(matches!(moved, Ok(protocol::Move::Skip { .. })))?;
                let mut t = s.clone();
                t.left.skips -= 1;
                let outcomes = vec![Outcome::Skipped];
                t.ledger.push(Entry { from: end, to: end + 1, outcomes, revision: s.revision });
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
            Action::RepairStarts { .. }
            | Action::RepairReads
            | Action::RepairInserts
            | Action::RepairApplies(_)
            | Action::RepairRemembers
            | Action::RepairAttests
            | Action::RepairDies => self.repair(s, action),
        }
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

    fn opens(&self, s: &State, instance: usize) -> Option<State> {
        let Instance { life, checkpoint, lane, .. } = &s.instances[instance];
        possible(*life == Life::Owner && lane.is_none())?;
        let (checkpoint, end, log_start) =
            (checkpoint.map(position), position(self.ledger_end(s)), position(s.log_start));
        let begin = s.ledger.first().map_or(end, |entry| position(entry.from));
        let sound = protocol::lane_start(checkpoint, begin, end, log_start);
        let start = if self.off(Rule::StartLower) {
            checkpoint.unwrap_or(end)
        } else if self.off(Rule::StartBelow) {
            checkpoint.unwrap_or(end).max(end)
        } else {
            sound.after
        };
        let mut pending = Pending::new(end);
        if let Some((_, to)) = sound.lost.filter(|_| !self.off(Rule::LossIsAttested)) {
            pending.push(to, Outcome::Lost);
        }
        let mut t = s.clone();
        t.instances[instance].lane = Some(Lane {
            read: count(start),
            batches: Vec::new(),
            processed: count(start),
            pending,
            told: t.instances[instance].checkpoint,
        });
        Some(t)
    }

    fn reads(&self, s: &State, instance: usize, events: u8) -> Option<State> {
        let Instance { life, revision, lane, .. } = &s.instances[instance];
        let lane = lane.as_ref()?;
        let room = lane.batches.len() < self.batches_in_flight && usize::from(lane.read + events) <= EVENTS;
        possible(*life == Life::Owner && room && lane.read >= s.log_start)?;
        let believed = count(lane.pending.ledger_end());
        let items = (lane.read..lane.read + events).map(|at| {
            let attested = if at < believed { s.attested(at) } else { None };
            let asks = protocol::asks_cache(Purpose::Live, attested) || self.off(Rule::RepairUnasked);
            self.prepared(s, *revision, at, attested, asks)
        });
        let mut batch = Batch { stage: Stage::Judge, items: items.collect() };
        let mut t = s.clone();
        self.advance(&mut t, &mut batch, *revision);
        let lane = t.instances[instance].lane.as_mut()?;
        lane.read += events;
        lane.batches.push(batch);
        Some(t)
    }

    /// An event after decode, classify, validate, map, and the look-up.
    pub fn prepared(&self, s: &State, revision: u8, at: u8, attested: Option<Outcome>, asks: bool) -> Item {
        let mapped = self.effects(revision, at).is_some();
        let mut fate = if mapped { Fate::Open } else { Fate::Refused(Reason::Schema) };
        if let Some(attested) =
            attested.filter(|attested| protocol::repair(*attested, mapped) == protocol::Repair::Leave)
        {
            fate = Fate::Left(attested);
        }
        if let (true, Fate::Open, Some(known)) = (asks, fate, s.cache[usize::from(self.event(at).id)]) {
            let digest = &FORMS.digests[usize::from(self.content(at, revision))];
            let origin = &FORMS.origins[usize::from(at)];
            let known = &FORMS.known[usize::from(known.content)][usize::from(known.origin)];
            if protocol::known_is_duplicate(digest, origin, known) {
                fate = Fate::Left(Outcome::Duplicate);
            }
        }
        let mut item = Item { position: at, attested, fate, open: 0 };
        item.open = self.owes(&item, revision);
        item
    }

    /// What the content digest of an event is over.
    pub fn content(&self, at: u8, revision: u8) -> u8 {
        self.event(at).content + if self.off(Rule::DigestOfContent) { 2 * revision } else { 0 }
    }

    /// What is to be done for an event, given its fate.
    pub fn owes(&self, item: &Item, revision: u8) -> u8 {
        match item.fate {
            Fate::Open | Fate::Left(_) => 0,
            Fate::Own { stored: false } | Fate::Copy if self.off(Rule::DoAll) => 0,
            Fate::Own { .. } | Fate::Copy => self.effects(revision, item.position).unwrap_or_default().bits(),
            Fate::Refused(_) if self.off(Rule::LettersFirst) => 0,
            Fate::Refused(_) => {
                if protocol::letter_goes_out(item.attested) {
                    LETTER
                } else {
                    0
                }
            }
        }
    }

    /// The verdict on an event by the record that stands.
    pub fn judged(&self, item: &Item, record: Record, revision: u8) -> Fate {
        let digest = &FORMS.digests[usize::from(self.content(item.position, revision))];
        let origin = &FORMS.origins[usize::from(item.position)];
        let standing = &FORMS.standing[usize::from(record.content)][usize::from(record.origin)];
        match protocol::verdict(digest, &[], origin, standing) {
            Verdict::Recorded { .. } => Fate::Own { stored: false },
            Verdict::Duplicate => Fate::Copy,
            Verdict::Conflict => Fate::Refused(Reason::Conflict),
        }
    }

    fn inserts(&self, s: &State, instance: usize, batch: usize, item: usize, lost: bool) -> Option<State> {
        let revision = s.instances[instance].revision;
        let batches = &s.instances[instance].lane.as_ref()?.batches;
        let earlier = batches[..batch].iter().all(|earlier| earlier.stage != Stage::Judge);
        possible(earlier || self.off(Rule::JudgeInOrder))?;
        let items = &batches[batch].items;
        let one = items[item];
        let id = self.event(one.position).id;
        let open = |other: &Item| other.fate == Fate::Open && self.event(other.position).id == id;
        possible(open(&one) && !items[..item].iter().any(open))?;
        let record = s.records[usize::from(id)];
        possible(!lost || (s.left.lost > 0 && record.is_none()))?;
        let mut t = s.clone();
        let standing = record.unwrap_or(Record { content: self.content(one.position, revision), origin: one.position });
        t.records[usize::from(id)] = Some(standing);
        if lost {
            t.left.lost -= 1;
            return Some(t);
        }
        let mut mine = std::mem::take(&mut t.instances[instance].lane.as_mut()?.batches[batch]);
        let stored = record.is_none();
        mine.items[item].fate = if stored { Fate::Own { stored } } else { self.judged(&one, standing, revision) };
        mine.items[item].open = self.owes(&mine.items[item], revision);
        for follower in mine.items.iter_mut().filter(|follower| open(follower)) {
            follower.fate = if self.off(Rule::JudgedByRecord) {
                let leader = Record { content: self.content(one.position, revision), origin: one.position };
                self.judged(follower, leader, revision)
            } else {
                self.judged(follower, standing, revision)
            };
            follower.open = self.owes(follower, revision);
        }
        self.advance(&mut t, &mut mine, revision);
        t.instances[instance].lane.as_mut()?.batches[batch] = mine;
        Some(t)
    }

    /// Lets a batch go on to its next stage when it is through with one.
    fn advance(&self, t: &mut State, batch: &mut Batch, revision: u8) {
        if batch.stage == Stage::Judge && batch.items.iter().all(|item| item.fate != Fate::Open) {
            batch.stage = Stage::Apply;
            if self.off(Rule::RememberLast) {
                batch.items.iter().for_each(|item| self.remember(t, item, revision));
            }
        }
        if batch.stage == Stage::Apply && batch.items.iter().all(|item| item.open == 0) {
            batch.stage = Stage::Remember;
        }
    }

    fn applies(&self, s: &State, instance: usize, item: usize, effect: u8, lost: bool) -> Option<State> {
        let revision = s.instances[instance].revision;
        let batch = s.instances[instance].lane.as_ref()?.batches.first()?;
        possible(batch.stage == Stage::Apply && batch.items[item].open & effect != 0)?;
        let mut t = s.clone();
        let mut mine = std::mem::take(&mut t.instances[instance].lane.as_mut()?.batches[0]);
        self.apply(&mut t, &mut mine.items[item], effect, revision);
        if lost {
            // An answer whose loss changes nothing is one that came, and was asked for again.
            possible(s.left.lost > 0 && (t.groups != s.groups || t.sent != s.sent || t.letters != s.letters))?;
            t.left.lost -= 1;
            mine.items[item].open |= effect;
        }
        self.advance(&mut t, &mut mine, revision);
        t.instances[instance].lane.as_mut()?.batches[0] = mine;
        Some(t)
    }

    /// Carries one effect out, and takes it off what the item owes.
    pub fn apply(&self, t: &mut State, item: &mut Item, effect: u8, revision: u8) {
        item.open &= !effect;
        let id = self.event(item.position).id;
        match effect {
            REQUEST => t.sent |= 1 << id,
            LETTER => t.letters |= 1 << item.position,
            _ => {
                let group = effect.trailing_zeros() as usize;
                let version = self.effects(revision, item.position).unwrap_or_default().groups[group];
                let standing = if self.off(Rule::VersionByGroup) {
                    t.groups.iter().map(|group| group.version).max().unwrap_or(0)
                } else {
                    t.groups[group].version
                };
                if version > standing {
                    t.groups[group] = Group { version, id };
                } else if version == standing && t.groups[group].id != id && self.off(Rule::TieIsNothing) {
                    item.fate = Fate::Refused(Reason::Rejected);
                    item.open = LETTER;
                }
            }
        }
    }

    /// Remembers an event that is done.
    pub fn remember(&self, t: &mut State, item: &Item, revision: u8) {
        let id = usize::from(self.event(item.position).id);
        if let (Fate::Own { .. } | Fate::Copy, Some(record)) = (item.fate, t.records[id]) {
            t.cache[id] = Some(Remembered { content: record.content, origin: record.origin, revision });
        }
    }

    fn remembers(&self, s: &State, instance: usize) -> Option<State> {
        let revision = s.instances[instance].revision;
        let batch = s.instances[instance].lane.as_ref()?.batches.first()?;
        possible(batch.stage == Stage::Remember)?;
        let mut t = s.clone();
        let batch = t.instances[instance].lane.as_mut()?.batches.remove(0);
        batch.items.iter().for_each(|item| self.remember(&mut t, item, revision));
        let lane = t.instances[instance].lane.as_mut()?;
        for item in &batch.items {
            if lane.processed < item.position {
                lane.pending.push(position(item.position), Outcome::Hole);
            }
            lane.pending.push(position(item.position + 1), settled(item));
            lane.processed = item.position + 1;
        }
        Some(t)
    }

    fn attests(&self, s: &State, instance: usize, lost: bool) -> Option<State> {
        let lane = s.instances[instance].lane.as_ref()?;
        possible(!lane.pending.is_empty() && (!lost || s.left.lost > 0))?;
        let portion = lane.pending.portion();
        let stands = s.ledger.iter().any(|entry| position(entry.from) == portion.from);
        let mut t = s.clone();
        let lane = t.instances[instance].lane.as_mut()?;
        if stands && !self.off(Rule::Fence) {
            possible(!lost)?;
            if self.off(Rule::Reread) {
                t.instances[instance].life = Life::Stopped;
                t.instances[instance].lane = None;
                return Some(t);
            }
            let end = position(self.ledger_end(s));
            match protocol::refused_append(portion.from, "mine", Some((end, "last")), false) {
                Extended::Found | Extended::Others => lane.pending.attested_to(end),
                Extended::Sealed | Extended::Nowhere => panic!("refused, and the chain ends where the lane believed"),
            }
            return Some(t);
        }
        if lost {
            t.left.lost -= 1;
        } else {
            lane.pending.attested_to(portion.to);
        }
        let outcomes = portion.outcomes.runs().iter();
        t.ledger.push(Entry {
            from: count(portion.from),
            to: count(portion.to),
            outcomes: outcomes.flat_map(|run| std::iter::repeat_n(run.outcome, run.count as usize)).collect(),
            revision: s.instances[instance].revision,
        });
        Some(t)
    }

    fn commits(&self, s: &State, instance: usize) -> Option<State> {
        let Instance { life, lane, .. } = &s.instances[instance];
        let lane = lane.as_ref()?;
        let done = if self.off(Rule::AttestFirst) {
            lane.processed
        } else {
            count(protocol::checkpoint(position(lane.processed), lane.pending.ledger_end()))
        };
        possible(lane.told != Some(done))?;
        let mut t = s.clone();
        if *life == Life::Owner {
            t.went_back |= !t.moved && t.committed.is_some_and(|before| before > done);
            (t.committed, t.moved) = (Some(done), false);
            t.instances[instance].lane.as_mut()?.told = Some(done);
        } else {
            // The cluster refuses it: that is how a zombie finds out.
            away(&mut t.instances[instance]);
        }
        Some(t)
    }

    /// Every replay that may be started.
    pub fn replays() -> impl Iterator<Item = Repair> {
        [Effects::None, Effects::State, Effects::All].into_iter().map(Repair::Replay)
    }
}

/// What became of an event that nothing more is to be done for.
pub fn settled(item: &Item) -> Outcome {
    let settled = match item.fate {
        Fate::Own { .. } => Settled::Own,
        Fate::Copy => Settled::Copy,
        Fate::Left(outcome) => Settled::Left(outcome),
        Fate::Refused(reason) => Settled::Refused(reason),
        Fate::Open => unreachable!("a batch went on without a verdict"),
    };
    protocol::outcome(item.attested, settled)
}

/// Nothing is left of what an instance held in memory.
fn away(instance: &mut Instance) {
    *instance = Instance { life: Life::Away, revision: 0, checkpoint: None, lane: None };
}

/// A step that is not possible is none.
pub fn possible(condition: bool) -> Option<()> {
    condition.then_some(())
}
