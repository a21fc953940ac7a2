//! What is in the world, and what may go wrong in it.

use recordkeeper::event::{Outcome, Reason};
use recordkeeper::pipeline::{Pending, protocol};

use crate::chains::Chain;
use crate::rules::Rule;

/// Events on the log.
pub const EVENTS: usize = 3;
/// Identities that they have.
pub const IDS: usize = 2;
/// Groups of the one wallet's state.
pub const GROUPS: usize = 2;
/// The origin of a record that came from another topic.
pub const ELSEWHERE: u8 = 9;

/// One event of the log.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Its identity.
    pub id: u8,
    /// What was sent.
    pub content: u8,
}

/// What a mapping makes of an identity's events beside the record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effects {
    /// The version written to each group of the wallet; 0 for none.
    pub groups: [u8; GROUPS],
    /// A creation request.
    pub request: bool,
}

impl Effects {
    /// As bits: one a group, then the request.
    pub fn bits(self) -> u8 {
        let groups =
            self.groups.iter().enumerate().fold(0, |bits, (group, version)| bits | u8::from(*version > 0) << group);
        groups | if self.request { REQUEST } else { 0 }
    }
}

/// The request among an item's effects.
pub const REQUEST: u8 = 1 << GROUPS;
/// The dead letter among an item's effects.
pub const LETTER: u8 = 1 << (GROUPS + 1);

/// How often each fault may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// An instance dies.
    pub crashes: u8,
    /// The cache loses everything.
    pub flushes: u8,
    /// A record of the first identity is stored from another topic, and nobody ever comes back for its effects.
    pub strangers: u8,
    /// A partition moves away from a living owner.
    pub moves: u8,
    /// The checkpoint is moved by a tool, either way, or expires.
    pub resets: u8,
    /// An operator orders a position to be skipped, on record.
    pub skips: u8,
    /// A call is carried out and its answer is lost.
    pub lost: u8,
    /// The second mapping is deployed: instances that start from then on use it.
    pub deploys: u8,
    /// A replay is started.
    pub replays: u8,
    /// A redrive is started.
    pub redrives: u8,
    /// Retention takes the log's oldest events away.
    pub trims: u8,
    /// An instance that lost the partition begins a batch of what it had fetched.
    pub further: u8,
    /// An entry of the group's chain is altered.
    pub damages: u8,
    /// A run is taken up while another process works on it.
    pub takeovers: u8,
}

/// A world to explore.
#[derive(Clone, Debug)]
pub struct World {
    /// What is on the log.
    pub log: [Event; EVENTS],
    /// By revision and identity; `None` where the revision's schema refuses it.
    pub mapping: [[Option<Effects>; IDS]; 2],
    /// Where the group began: what lies below is not its own.
    pub begins: u8,
    /// How many instances the group has; where none, a run works alone.
    pub instances: usize,
    /// Batches that a lane has under way at most.
    pub batches_in_flight: usize,
    /// What may go wrong.
    pub faults: Faults,
    /// Which rule is not kept.
    pub off: Option<Rule>,
}

impl World {
    /// What a revision makes of the event at a position.
    pub fn effects(&self, revision: u8, position: u8) -> Option<Effects> {
        self.mapping[usize::from(revision)][usize::from(self.event(position).id)]
    }

    /// The event at a position.
    pub fn event(&self, position: u8) -> Event {
        self.log[usize::from(position)]
    }

    /// Whether a rule is switched off.
    pub fn off(&self, rule: Rule) -> bool {
        self.off == Some(rule)
    }
}

/// A judging record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub content: u8,
    pub origin: u8,
}

/// What the cache knows of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Remembered {
    pub content: u8,
    pub origin: u8,
    /// Not in the product: by which mapping its effects were applied.
    pub revision: u8,
}

/// A group of the wallet's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Group {
    /// 0 where it was never written.
    pub version: u8,
    /// Whose content stands there.
    pub id: u8,
}

/// One event on its way through a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    pub position: u8,
    pub attested: Option<Outcome>,
    pub fate: Fate,
    /// Effects, and the letter, that nobody has acknowledged yet.
    pub open: u8,
}

/// How far an event has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Not judged yet.
    Open,
    /// Its own record stands; stored by this very insert.
    Own {
        stored: bool,
    },
    /// Another one's record of the same content stands.
    Copy,
    /// Nothing more to do.
    Left(Outcome),
    Refused(Reason),
}

/// Where a batch stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stage {
    #[default]
    Judge,
    Apply,
    Remember,
}

/// Consecutive events on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Batch {
    pub stage: Stage,
    pub items: Vec<Item>,
}

/// An open lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    /// Which chain it extends.
    pub epoch: usize,
    /// The next event to read.
    pub read: u8,
    /// Oldest first.
    pub batches: Vec<Batch>,
    /// Everything below is durable.
    pub processed: u8,
    /// Done and not attested.
    pub pending: Pending,
    /// The last checkpoint that it gave.
    pub told: Option<u8>,
}

/// What an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    /// Not there, or dead.
    Away,
    /// The partition is its own.
    Owner,
    /// The partition was taken from it, and it has not noticed.
    Zombie,
    /// Given up for good; only where a rule is off.
    Stopped,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    pub life: Life,
    pub revision: u8,
    /// The checkpoint that it was told when it got the partition.
    pub checkpoint: Option<u8>,
    pub lane: Option<Lane>,
}

/// What a repair may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repair {
    /// A replay that applies these effects.
    Replay(protocol::Effects),
    /// Dead letters once more.
    Redrive,
}

/// A replay or redrive, on record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    pub kind: Repair,
    /// Its own ledger.
    pub chains: Vec<Chain>,
}

/// How far a process has taken a run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hold {
    /// It saw where the chain of this epoch ends.
    Looked { epoch: usize, end: u8 },
    /// That chain is sealed there.
    Sealed { epoch: usize, end: u8 },
    /// This epoch is its own.
    Token(usize),
}

/// A process that works on the run; one event at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repairer {
    pub revision: u8,
    pub hold: Hold,
    pub lane: Option<RunLane>,
}

/// An open lane of a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunLane {
    /// Which chain it extends.
    pub epoch: usize,
    /// The next event to read.
    pub next: u8,
    pub stage: Stage,
    pub item: Option<Item>,
    /// Done and not attested.
    pub pending: Pending,
}

/// The state of a world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub instances: [Instance; 2],
    pub run: Option<Run>,
    /// Whoever works on it, or believes so.
    pub repairers: [Option<Repairer>; 2],
    /// By identity.
    pub records: [Option<Record>; IDS],
    pub groups: [Group; GROUPS],
    /// Identities whose request is on the topic, as bits.
    pub sent: u8,
    /// Positions whose dead letter is out, as bits.
    pub letters: u8,
    /// By identity.
    pub cache: [Option<Remembered>; IDS],
    /// By epoch.
    pub ledger: Vec<Chain>,
    /// Where an operator's new epoch begins, until the checkpoint is moved there.
    pub ordered: Option<u8>,
    pub committed: Option<u8>,
    /// Events below are gone from the log.
    pub log_start: u8,
    /// Whether a tool moved the checkpoint, and nobody has set it right since.
    pub moved: bool,
    /// Whether a checkpoint was taken below an earlier one.
    pub went_back: bool,
    /// The mapping that is deployed.
    pub revision: u8,
    pub left: Faults,
}

impl State {
    /// Nothing read, nothing stored.
    pub fn new(world: &World) -> Self {
        let away = Instance { life: Life::Away, revision: 0, checkpoint: None, lane: None };
        Self {
            instances: [away.clone(), away],
            run: None,
            repairers: [None, None],
            records: [None; IDS],
            groups: [Group::default(); GROUPS],
            sent: 0,
            letters: 0,
            cache: [None; IDS],
            ledger: vec![Chain::new(world.begins)],
            ordered: None,
            committed: None,
            log_start: 0,
            moved: false,
            went_back: false,
            revision: 0,
            left: world.faults,
        }
    }

    /// Where the ledger ends.
    pub fn ledger_end(&self) -> u8 {
        self.ledger.last().map_or(0, Chain::end)
    }

    /// Whoever has the partition.
    pub fn owner(&self) -> Option<usize> {
        self.instances.iter().position(|instance| instance.life == Life::Owner)
    }
}
