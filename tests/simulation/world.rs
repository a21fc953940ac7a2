//! What is outside of the product, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use recordkeeper::dedupe::Known;
use recordkeeper::event::{
    Digest, Group, Origin, Outcome, PartitionRef, Position, Reason, SetDigest, StateKey, StateValue, StateWrite,
    Version,
};
use recordkeeper::generate::{Expected, Generated};
use recordkeeper::ledger::{Entry, StartItem};
use recordkeeper::source::Checkpoint;
use tokio::time::Instant;

use crate::wire::{Outages, Trouble, happens};

/// A world, shared by all that happens in it, on one thread.
pub type Shared = Arc<Mutex<World>>;

/// The world, for a moment.
pub fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stored record.
#[derive(Clone, Debug)]
pub struct Stored {
    pub content_digest: Digest,
    pub origin: String,
    pub record_digest: Digest,
}

/// A group of an item as it stands.
pub type GroupState = (Version, Vec<(&'static str, StateValue)>);

/// One partition's log: events by offset; offsets between them are holes.
#[derive(Debug, Default)]
pub struct Log {
    pub events: BTreeMap<u64, Generated>,
    pub end: u64,
}

/// See the module.
pub struct World {
    pub chance: Rng,
    /// Whether each event is written in a transaction.
    pub transactional: bool,
    /// Whether the store refuses some records for good.
    pub picky: bool,
    pub trouble: Trouble,
    pub outages: Outages,
    pub logs: BTreeMap<PartitionRef, Log>,
    pub records: BTreeMap<String, Stored>,
    /// Origins of records that the store refused.
    pub refused: BTreeSet<String>,
    /// Ids and digests of records by origin.
    pub by_origin: BTreeMap<String, Vec<(String, Digest)>>,
    pub states: BTreeMap<(StateKey, Group), GroupState>,
    pub requests: BTreeSet<String>,
    /// Events whose request is on the topic.
    pub asked: BTreeSet<String>,
    /// Reasons by topic, partition and offset.
    pub letters: BTreeMap<(String, String, String), BTreeSet<String>>,
    pub cache: BTreeMap<[u8; 16], Known>,
    pub chains: BTreeMap<PartitionRef, Vec<Entry>>,
    pub starts: BTreeMap<String, StartItem>,
    pub committed: BTreeMap<PartitionRef, Position>,
    /// Whose a partition is: only that member's checkpoints are taken.
    pub owners: BTreeMap<PartitionRef, usize>,
    /// How often a partition was assigned: only checkpoints of the present assignment are taken.
    pub generations: BTreeMap<PartitionRef, u64>,
    /// The last checkpoint of the present assignment; the source leaves out what lies below it.
    pub taken: BTreeMap<PartitionRef, Position>,
    /// Partitions whose checkpoint a tool moved, until the next one is taken.
    pub moved: BTreeSet<PartitionRef>,
    /// The first thing that was wrong.
    pub wrong: Option<String>,
    /// What happened, where it is asked for.
    pub history: Option<Vec<String>>,
    began: Instant,
}

impl World {
    pub fn new(mut chance: Rng, trouble: Trouble, history: bool) -> Self {
        Self {
            transactional: happens(&mut chance, 30),
            picky: happens(&mut chance, 30),
            chance,
            trouble,
            outages: Outages::default(),
            logs: BTreeMap::new(),
            records: BTreeMap::new(),
            refused: BTreeSet::new(),
            by_origin: BTreeMap::new(),
            states: BTreeMap::new(),
            requests: BTreeSet::new(),
            asked: BTreeSet::new(),
            letters: BTreeMap::new(),
            cache: BTreeMap::new(),
            chains: BTreeMap::new(),
            starts: BTreeMap::new(),
            committed: BTreeMap::new(),
            owners: BTreeMap::new(),
            generations: BTreeMap::new(),
            taken: BTreeMap::new(),
            moved: BTreeSet::new(),
            wrong: None,
            history: history.then(Vec::new),
            began: Instant::now(),
        }
    }

    /// Writes down what happened.
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            history.push(format!("{:>9.3} {}", self.began.elapsed().as_secs_f64(), what()));
        }
    }

    /// Writes down what is wrong; the first thing counts.
    pub fn wrong(&mut self, what: impl FnOnce() -> String) {
        if self.wrong.is_none() {
            let what = what();
            self.note(|| format!("WRONG: {what}"));
            self.wrong = Some(what);
        }
    }

    /// Where a partition's chain ends.
    pub fn ledger_end(&self, partition: &PartitionRef) -> Position {
        self.chains.get(partition).and_then(|chain| chain.last()).map_or(Position::Begin, |entry| entry.to)
    }

    /// A new entry stands: it continues its chain, says what the events demand, and all of it is durable.
    pub fn attested(&mut self, partition: &PartitionRef, key: &str, entry: &Entry) {
        let chain = self.chains.entry(partition.clone()).or_default();
        let (end, previous) =
            chain.last().map_or((Position::Begin, Digest::of(b"")), |last| (last.to, last.digest(key)));
        chain.push(entry.clone());
        let (from, to, count) = (entry.from, entry.to, entry.outcomes.len());
        self.note(|| format!("{partition} ({from}, {to}] is attested: {}", entry.outcomes.text()));
        if from != end || entry.previous != previous || count != from.distance_to(to) {
            return self.wrong(|| format!("{partition}: ({from}, {to}] with {count} outcomes after {end}"));
        }
        let mut records = SetDigest::default();
        let mut record_count = 0;
        for offset in from.next_offset()..to.next_offset() {
            let outcome = entry.outcomes.get(offset - from.next_offset()).unwrap_or(Outcome::Lost);
            if let Some(wrong) = self.false_outcome(partition, offset, outcome) {
                self.wrong(|| format!("{partition}/{offset} is attested as {outcome:?}: {wrong}"));
            }
            for (_, digest) in self.by_origin.get(&origin(partition, offset)).into_iter().flatten() {
                records.add(digest);
                record_count += 1;
            }
        }
        if (records, record_count) != (entry.records, entry.record_count) {
            let stated = entry.record_count;
            self.wrong(|| {
                format!("{partition} ({from}, {to}]: {stated} records stated, {record_count} stand, or others")
            });
        }
    }

    /// Why an outcome is not what the event demands, or not durable.
    fn false_outcome(&self, partition: &PartitionRef, offset: u64, outcome: Outcome) -> Option<String> {
        let Some(event) = self.logs[partition].events.get(&offset) else {
            return (outcome != Outcome::Hole).then(|| "no event stands there".to_owned());
        };
        let expected = self.expected(partition, offset, event);
        let demanded = demanded(expected);
        if outcome != demanded {
            return Some(format!("{demanded:?} is demanded"));
        }
        match expected {
            Expected::Duplicate => None,
            Expected::DeadLettered(reason) => {
                let place = (partition.topic.clone(), partition.name.clone(), offset.to_string());
                let out = self.letters.get(&place).is_some_and(|reasons| reasons.contains(reason.name()));
                (!out).then(|| "its dead letter is not out".to_owned())
            }
            Expected::Recorded { state, new_request } => {
                self.not_done(&origin(partition, offset), state.as_ref(), *new_request)
            }
        }
    }

    /// What has to become of an event: what its publisher means, unless the store refused its record.
    fn expected<'a>(&self, partition: &PartitionRef, offset: u64, event: &'a Generated) -> &'a Expected {
        static REFUSED: Expected = Expected::DeadLettered(Reason::Rejected);
        if self.refused.contains(&origin(partition, offset)) { &REFUSED } else { &event.expected }
    }

    /// What is missing of an event that is said to be done.
    fn not_done(&self, origin: &str, state: Option<&StateWrite>, request: bool) -> Option<String> {
        let Some(records) = self.by_origin.get(origin) else { return Some("its record is not stored".to_owned()) };
        if request && !records.iter().any(|(id, _)| self.asked.contains(id)) {
            return Some("its request is not out".to_owned());
        }
        let state = state?;
        let stands = self.states.get(&(state.key.clone(), state.group));
        let applied = stands.is_some_and(|(version, _)| *version >= state.version);
        (!applied).then(|| "its state is not applied".to_owned())
    }

    /// An event is remembered as done: its record stands and its effects are applied.
    pub fn remembered(&mut self, known: &Known) {
        let event = Origin::parse(&known.origin).and_then(|origin| {
            let events = &self.logs.get(&origin.partition)?.events;
            events.get(&origin.position.offset()?).map(|event| event.expected.clone())
        });
        let missing = match event {
            Some(Expected::Recorded { state, new_request }) => {
                self.not_done(&known.origin, state.as_ref(), new_request)
            }
            _ => Some("it is not to be recorded".to_owned()),
        };
        if let Some(missing) = missing {
            self.wrong(|| format!("{} is remembered, but {missing}", known.origin));
        }
    }

    /// A partition is a member's from now on.
    pub fn assign(&mut self, partition: &PartitionRef, member: usize) {
        self.owners.insert(partition.clone(), member);
        *self.generations.entry(partition.clone()).or_default() += 1;
        self.taken.remove(partition);
    }

    /// A member's checkpoint arrives.
    pub fn checkpointed(&mut self, member: usize, checkpoint: &Checkpoint) {
        let Checkpoint { partition, assignment, done: position } = checkpoint;
        let position = *position;
        let current = self.generations.get(partition) == Some(assignment);
        if !current || self.owners.get(partition) != Some(&member) {
            return self.note(|| format!("{partition}: {member}'s checkpoint {position} is refused"));
        }
        if self.taken.get(partition).is_some_and(|taken| *taken > position) {
            return;
        }
        self.taken.insert(partition.clone(), position);
        let end = self.ledger_end(partition);
        let before = self.committed.insert(partition.clone(), position).unwrap_or(Position::Begin);
        self.note(|| format!("{partition} is checkpointed at {position}"));
        let moved = self.moved.remove(partition);
        if position > end {
            self.wrong(|| format!("{partition}: checkpoint {position} above the ledger's end {end}"));
        }
        if position < before && !moved {
            self.wrong(|| format!("{partition}: checkpoint {position} after {before}"));
        }
    }

    /// Whether every event is attested, and checkpointed.
    pub fn consumed(&self) -> bool {
        self.logs.iter().all(|(partition, log)| {
            let last = log.events.keys().next_back().map_or(Position::Begin, |offset| Position::Offset(*offset));
            self.ledger_end(partition) >= last && self.committed.get(partition).is_some_and(|at| *at >= last)
        })
    }

    /// Compares what stands in the end with what the events demand.
    pub fn settle_up(&mut self) {
        let mut states: BTreeMap<(StateKey, Group), GroupState> = BTreeMap::new();
        let (mut records, mut requests) = (0, 0);
        let mut letters = BTreeMap::new();
        for (partition, log) in &self.logs {
            for (offset, event) in &log.events {
                match self.expected(partition, *offset, event) {
                    Expected::Duplicate => {}
                    Expected::DeadLettered(reason) => {
                        let place = (partition.topic.clone(), partition.name.clone(), offset.to_string());
                        letters.insert(place, BTreeSet::from([reason.name().to_owned()]));
                    }
                    Expected::Recorded { state, new_request } => {
                        records += 1;
                        requests += usize::from(*new_request);
                        let Some(state) = state else { continue };
                        let mine = (state.version, state.attributes.clone());
                        let stands = states.entry((state.key.clone(), state.group)).or_insert_with(|| mine.clone());
                        if stands.0 < mine.0 {
                            *stands = mine;
                        }
                    }
                }
            }
        }
        if self.records.len() != records {
            let stored = self.records.len();
            self.wrong(|| format!("{stored} records, {records} are demanded"));
        }
        if self.requests.len() != requests {
            let sent = self.requests.len();
            self.wrong(|| format!("{sent} requests, {requests} are demanded"));
        }
        if self.letters != letters {
            let differing = letters.iter().find(|(place, reasons)| self.letters.get(*place) != Some(*reasons));
            let unasked = self.letters.iter().find(|(place, _)| !letters.contains_key(*place));
            let wrong = format!("letters: demanded {differing:?}, unasked {unasked:?}");
            self.wrong(|| wrong);
        }
        if self.states != states {
            let differing = states.iter().find(|(place, state)| self.states.get(*place) != Some(*state));
            let found = differing.map(|(place, _)| self.states.get(place));
            let wrong = format!("states: demanded {differing:?}, found {found:?}");
            self.wrong(|| wrong);
        }
    }
}

/// The outcome that an event demands.
fn demanded(expected: &Expected) -> Outcome {
    match expected {
        Expected::Recorded { .. } => Outcome::Recorded,
        Expected::Duplicate => Outcome::Duplicate,
        Expected::DeadLettered(reason) => Outcome::DeadLettered(*reason),
    }
}

fn origin(partition: &PartitionRef, offset: u64) -> String {
    Origin { partition: partition.clone(), position: Position::Offset(offset) }.text()
}
