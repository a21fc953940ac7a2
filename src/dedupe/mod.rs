//! The dedupe cache in front of the judge. It may forget; it may never invent.

mod memory;
mod redis;
mod value;

use futures::future::BoxFuture;

use crate::event::Digest;
use crate::redis::Unanswered;

pub use memory::MemoryDedupe;
pub use redis::RedisDedupe;

/// A hash of an event's identity (`source|id`): the first half of its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdentityHash(pub [u8; 16]);

impl IdentityHash {
    /// The hash of a judging record's id.
    pub fn of(record_id: &str) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&Digest::of(record_id.as_bytes()).0[..16]);
        Self(half)
    }
}

/// An event known to be done: recorded, with all of its effects applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its content digest.
    pub content_digest: Digest,
    /// The origin of its record, in the stored form.
    pub origin: String,
}

/// Why the cache gave no answer. Never a reason to stop: everything counts as unknown then.
#[derive(Debug, thiserror::Error)]
pub enum DedupeError {
    /// Not tried: it failed too often a moment ago.
    #[error("dedupe cache is left alone for the moment")]
    Open,
    /// No answer in time, no connection, an error as the answer.
    #[error("dedupe cache gave no answer: {0}")]
    Away(String),
    /// An answer that does not read back.
    #[error("dedupe cache answered nonsense: {0}")]
    Garbled(String),
}

impl From<Unanswered> for DedupeError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Open => Self::Open,
            Unanswered::Away(detail) => Self::Away(detail),
        }
    }
}

/// Remembers what is done. Safe to call from many lanes at once; cancel safe.
pub trait DedupeStore: Send + Sync {
    /// Which of these are known; one answer an id, in order.
    fn look_up<'a>(&'a self, ids: &'a [IdentityHash]) -> BoxFuture<'a, Result<Vec<Option<Known>>, DedupeError>>;

    /// Remembers these for the configured time.
    fn remember<'a>(&'a self, done: &'a [(IdentityHash, Known)]) -> BoxFuture<'a, Result<(), DedupeError>>;
}
