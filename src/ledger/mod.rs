//! The ledger: one chain of entries for each group and partition, telling what became of every position.
//!
//! What enters are [`Entry`] values that continue a chain; what leaves is where chains end. An append is conditional on
//! where its writer believes the chain ends, so writers can only extend one contiguous chain.

mod dynamodb;
mod entry;
mod fence;
mod fills;
mod head;
mod runs;
mod standing;

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::event::ids::{escape_into, unescape};
use crate::event::{Digest, Partition, PartitionRef, Position};
use crate::store::Retry;

pub use dynamodb::read_kept;
pub use entry::{Entry, Outcomes, Run};
pub use fence::Fence;
pub use fills::Fills;
pub use head::{Head, HeadKey, Heads};
pub use runs::{Dismissal, RunItem};
pub use standing::EPOCH;

/// Which chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// The consumer group.
    pub group: Arc<str>,
    /// The partition.
    pub partition: PartitionRef,
    /// Zero, unless a broken chain was left behind for a new one.
    pub epoch: u32,
}

impl Chain {
    /// The chain's key: `group|cluster|topic|topic id|topic epoch|partition|ledger epoch`, parts escaped.
    pub fn key(&self) -> String {
        let mut key = self.lineage();
        key.push('|');
        key.push_str(&self.epoch.to_string());
        key
    }

    /// The inverse of [`Chain::key`]; `None` for any other text.
    pub fn from_key(key: &str) -> Option<Self> {
        let parts: Vec<String> = key.split('|').map(unescape).collect::<Option<_>>()?;
        let [group, cluster, topic, topic_id, topic_epoch, name, epoch] = <[String; 7]>::try_from(parts).ok()?;
        let partition = Partition { cluster, topic, topic_id, epoch: topic_epoch.parse().ok()?, name };
        Some(Self { group: group.into(), partition: Arc::new(partition), epoch: epoch.parse().ok()? })
    }

    /// What the chains of all epochs share: the key without its last part.
    pub fn lineage(&self) -> String {
        let mut key = String::with_capacity(128);
        escape_into(&mut key, &self.group);
        key.push('|');
        key.push_str(&self.partition.key());
        key
    }
}

/// An epoch of a partition's ledger, on record for ever: a person left a broken chain behind for a new one, or another process
/// took a run over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// One for the first one after the beginning.
    pub number: u32,
    /// Its chain begins just above this.
    pub begin: Position,
    /// The digest of the last sound entry of the chain before, at or above `begin`.
    pub previous: Digest,
    /// Why, in the words of who gave the order.
    pub reason: String,
    /// The chain before was sealed and is as sound as any other; else it was left behind.
    pub taken_over: bool,
    /// Which process wrote it.
    pub writer: String,
    /// Fresh for each epoch.
    pub nonce: String,
}

/// How a chain stands when a lane opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The epoch that it is in.
    pub epoch: u32,
    /// Where its chain begins, after the first epoch.
    pub begin: Option<Position>,
    /// Its end; `None` where it has no entry and is not sealed.
    pub end: Option<ChainEnd>,
    /// Why it must not be extended.
    pub broken: Option<String>,
}

/// The end of a chain: the last entry's end, digest and nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainEnd {
    /// The last position that an entry holds.
    pub position: Position,
    /// The last entry's digest; the next entry names it as the previous one.
    pub digest: Digest,
    /// The last entry's nonce: equal to one's own after a lost answer.
    pub nonce: String,
    /// Which process sealed it, if one did: it can never be extended.
    pub sealed_by: Option<String>,
}

/// Where a group began on a topic: one item a group and topic, first writer wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartItem {
    /// The partitions of that moment by name, and where each one's chain begins. None at all where the topic's log replaced
    /// another one: its partitions are read from where their logs begin.
    pub starts: Vec<(String, Position)>,
}

/// An order about a partition of a group, on record for ever: a person moved its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Why, in the words of who gave it.
    pub reason: String,
    /// Where the chain ended.
    pub ledger_end: Position,
    /// Where the checkpoint stood.
    pub checkpoint: Option<Position>,
    /// The group goes on just above this.
    pub to: Position,
    /// When, in the stored form.
    pub ordered_at: String,
    /// Which process wrote it.
    pub writer: String,
    /// Fresh for each order.
    pub nonce: String,
}

/// An item of the ledger's table, as an audit meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// An entry and the digest that it carries, which may not be its own.
    Entry {
        /// The key of its chain.
        chain: String,
        /// What it says.
        entry: Box<Entry>,
        /// What stands as its digest.
        digest: Digest,
    },
    /// A start item.
    Start {
        /// `group|cluster|topic|topic id|topic epoch`, parts escaped.
        key: String,
        /// What it says.
        item: StartItem,
    },
    /// An epoch of a lineage.
    Epoch {
        /// The lineage.
        key: String,
        /// What it says.
        epoch: Epoch,
    },
    /// A chain that was marked as broken.
    Broken {
        /// Its key.
        chain: String,
        /// Why.
        reason: String,
    },
    /// The end of a chain that cannot be extended any more.
    Seal {
        /// The key of the chain.
        chain: String,
        /// Where its last entry ends.
        at: Position,
    },
    /// An order, or the tables' metadata: nothing that a chain consists of.
    Aside,
    /// It cannot be read.
    Garbled {
        /// Its partition key.
        key: String,
        /// Its sort key.
        from: String,
        /// Why.
        what: String,
    },
}

/// Said of a group's chain that is sealed and goes on in no epoch.
pub const UNFINISHED_EPOCH: &str =
    "sealed by a `recordkeeper new-epoch` that broke off before its epoch was on record: give that command again";

/// Verdict on an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The chain now ends with this entry.
    Done,
    /// An entry that begins there stands already: read the end, then go on from it.
    Refused,
    /// Unknown.
    Retry(Retry),
}

/// Keeps chains. Reads are consistent. Safe to call from many lanes at once; not cancel safe.
pub trait Ledger: Send + Sync {
    /// The end of the chain; `None` where it has no entry.
    fn end<'a>(&'a self, chain: &'a Chain) -> BoxFuture<'a, Result<Option<ChainEnd>, Retry>>;

    /// How the chain stands, whatever epoch is given: its epoch, its end, and whether it is broken, as far as a mark and its
    /// last entries tell. A ledger that knows no epochs and no marks has the default.
    fn opening<'a>(&'a self, chain: &'a Chain) -> BoxFuture<'a, Result<Opening, Retry>> {
        Box::pin(async { Ok(Opening { epoch: 0, begin: None, end: self.end(chain).await?, broken: None }) })
    }

    /// Entries that hold positions above `after`, in order, at most `limit`.
    fn entries<'a>(
        &'a self,
        chain: &'a Chain,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Entry>, Retry>>;

    /// Appends each entry if none begins where it begins. One verdict an entry, in order; chains are unique in a call.
    fn append<'a>(&'a self, entries: &'a [(&'a Chain, &'a Entry)]) -> BoxFuture<'a, Vec<Appended>>;

    /// Inserts the start item unless there is one, and returns the one that stands. The partition gives cluster, topic,
    /// topic id and epoch; its name does not matter.
    fn start_item<'a>(&'a self, chain: &'a Chain, proposed: &'a StartItem) -> BoxFuture<'a, Result<StartItem, Retry>>;

    /// Writes down that the group reads this log of the topic; true where it read another one under the topic's name before.
    /// A ledger that knows one log of each topic only has the default.
    fn begin_log<'a>(&'a self, _chain: &'a Chain) -> BoxFuture<'a, Result<bool, Retry>> {
        Box::pin(std::future::ready(Ok(false)))
    }

    /// The start item, if there is one.
    fn find_start_item<'a>(&'a self, chain: &'a Chain) -> BoxFuture<'a, Result<Option<StartItem>, Retry>>;
}
