//! Where records and states are kept.
//!
//! A [`RecordStore`] takes whole batches and gives one verdict an item, in the items' order and number. Nothing is an
//! error of the call as a whole: where a call fails, each of its items is told so.

pub mod dynamodb;

use std::time::Duration;

use futures::future::BoxFuture;

use crate::event::{Digest, Record, StateWrite};

/// What stands in the store under a record's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its content digest.
    pub content_digest: Digest,
    /// Its origin, in the stored form.
    pub origin: String,
    /// Its digest over every other stored attribute.
    pub record_digest: Digest,
    /// The content digest of the event that it was made of, where a person corrected that.
    pub corrects: Option<Digest>,
}

/// Try again: nothing is known to have been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// What kind of trouble.
    pub cause: RetryCause,
    /// Not before this long.
    pub after: Option<Duration>,
    /// For a person: names the table and what the store said.
    pub detail: String,
}

/// Kinds of trouble that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryCause {
    /// The store asked to slow down.
    Throttled,
    /// Another writer was in the way.
    Contended,
    /// No answer, a server's fault, an answer that makes no sense.
    Unavailable,
    /// Not allowed, or the table is missing: somebody has to mend it, nothing is lost meanwhile.
    Refused,
}

impl RetryCause {
    /// The name used in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Contended => "contended",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
        }
    }
}

/// Verdict on inserting a record if its key is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// Absent before, now stored.
    Stored {
        /// As stored.
        record_digest: Digest,
    },
    /// Something stands there (also this very record, after a lost answer).
    Present(Standing),
    /// Unknown.
    Retry(Retry),
    /// Refused for good.
    Rejected(String),
}

/// Verdict on a versioned write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// A lower version stood there, or nothing.
    Applied,
    /// The same version with the same content stands there.
    Same,
    /// A higher version stands there.
    Stale,
    /// The same version with other content stands there.
    Tie,
    /// Unknown.
    Retry(Retry),
    /// Refused for good.
    Rejected(String),
}

/// All that an event of a transactional route writes.
#[derive(Clone, Copy, Debug)]
pub struct Transaction<'a> {
    /// The judge first, then the further records.
    pub records: &'a [Record],
    /// States, at most one a key.
    pub states: &'a [StateWrite],
}

/// Verdict on a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transacted {
    /// All of it is stored; the records' digests in order.
    Done {
        /// As stored.
        record_digests: Vec<Digest>,
    },
    /// Nothing was written: the judge stands already.
    Present(Standing),
    /// Nothing was written: these states (by index) are stale, tied or the same already.
    Unchanged(Vec<(usize, Changed)>),
    /// Unknown, or another writer was in the way.
    Retry(Retry),
    /// Refused for good.
    Rejected(String),
}

/// An item or a key over the store's limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {bytes} bytes, at most {limit} are allowed")]
pub struct TooLarge {
    /// What is too large, such as `item of wallet_records` or `key wallet_id`.
    pub what: String,
    /// Its size by the store's own rule.
    pub bytes: usize,
    /// The limit.
    pub limit: usize,
}

/// Keeps records and states. Called a batch at a time; safe to call from many lanes at once; not cancel safe (a call that
/// is dropped may have written).
pub trait RecordStore: Send + Sync {
    /// Whether the record fits, by the store's own rule and before anything is written.
    fn check_record(&self, record: &Record) -> Result<(), TooLarge>;

    /// Whether the state fits.
    fn check_state(&self, write: &StateWrite) -> Result<(), TooLarge>;

    /// Inserts each record if its key is absent. Ids are unique within a call.
    fn insert<'a>(&'a self, records: &'a [&'a Record]) -> BoxFuture<'a, Vec<Inserted>>;

    /// Applies each write if its group's version is lower than the write's. Key and group are unique within a call.
    fn change<'a>(&'a self, writes: &'a [&'a StateWrite]) -> BoxFuture<'a, Vec<Changed>>;

    /// All or nothing.
    fn transact<'a>(&'a self, transaction: Transaction<'a>) -> BoxFuture<'a, Transacted>;
}
