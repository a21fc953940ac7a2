//! The steps of an instance that has a lane.

use recordkeeper::event::Outcome;
use recordkeeper::pipeline::Pending;
use recordkeeper::pipeline::protocol::{self, Purpose};

use crate::chains::Append;
use crate::events::settled;
use crate::rules::Rule;
use crate::steps::{away, count, position, possible};
use crate::world::{Batch, EVENTS, Fate, Instance, Item, Lane, Life, Record, Stage, State, World};

impl World {
    pub fn opens(&self, s: &State, instance: usize) -> Option<State> {
        let Instance { life, checkpoint, lane, .. } = &s.instances[instance];
        let epoch = if self.off(Rule::LastEpoch) { 0 } else { s.ledger.len() - 1 };
        let chain = &s.ledger[epoch];
        possible(*life == Life::Owner && lane.is_none() && chain.is_sound())?;
        let (checkpoint, end, log_start) = (checkpoint.map(position), position(chain.end()), position(s.log_start));
        let begin = chain.entries.first().map_or(end, |entry| position(entry.from));
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
            epoch,
            read: count(start),
            batches: Vec::new(),
            processed: count(start),
            pending,
            told: t.instances[instance].checkpoint,
        });
        Some(t)
    }

    pub fn reads(&self, s: &State, instance: usize, events: u8) -> Option<State> {
        let Instance { life, revision, lane, .. } = &s.instances[instance];
        let lane = lane.as_ref()?;
        let room = lane.batches.len() < self.batches_in_flight && usize::from(lane.read + events) <= EVENTS;
        let owner = *life == Life::Owner;
        possible(room && if owner { lane.read >= s.log_start } else { s.left.further > 0 })?;
        let believed = count(lane.pending.ledger_end());
        let held = |at: u8| s.ledger[lane.epoch].holding(at).filter(|_| at < believed);
        // What cannot be read is asked for again and again.
        possible(!(lane.read..lane.read + events).any(|at| held(at).is_some_and(|entry| entry.damaged)))?;
        let items = (lane.read..lane.read + events).map(|at| {
            let attested = held(at).and_then(|entry| entry.outcomes.get(usize::from(at - entry.from)).copied());
            let asks = protocol::asks_cache(Purpose::Live, attested) || self.off(Rule::RepairUnasked);
            self.prepared(s, *revision, at, attested, asks)
        });
        let mut batch = Batch { stage: Stage::Judge, items: items.collect() };
        let mut t = s.clone();
        self.advance(&mut t, &mut batch, *revision);
        t.left.further -= u8::from(!owner);
        let lane = t.instances[instance].lane.as_mut()?;
        lane.read += events;
        lane.batches.push(batch);
        Some(t)
    }

    pub fn inserts(&self, s: &State, instance: usize, batch: usize, item: usize, lost: bool) -> Option<State> {
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

    pub fn applies(&self, s: &State, instance: usize, item: usize, effect: u8, lost: bool) -> Option<State> {
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

    pub fn remembers(&self, s: &State, instance: usize) -> Option<State> {
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

    pub fn attests(&self, s: &State, instance: usize, lost: bool) -> Option<State> {
        possible(!lost || s.left.lost > 0)?;
        let mut t = s.clone();
        let revision = s.instances[instance].revision;
        let lane = t.instances[instance].lane.as_mut()?;
        let append = self.append(&mut t.ledger, lane.epoch, &mut lane.pending, revision, lost)?;
        assert!(append != Append::Sealed, "nobody takes a consumer's chain over");
        t.left.lost -= u8::from(lost);
        if append == Append::Trimmed && self.off(Rule::Reread) {
            t.instances[instance].life = Life::Stopped;
            t.instances[instance].lane = None;
        }
        Some(t)
    }

    pub fn commits(&self, s: &State, instance: usize) -> Option<State> {
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
}
