//! The dedupe cache in front of the judge. It may forget; it may never invent.

mod memory;
mod redis;
mod value;

use futures::future::BoxFuture;

use sha2::{Digest as _, Sha256};

use crate::event::Digest;
use crate::redis::Unanswered;

pub use memory::MemoryDedupe;
pub use redis::RedisDedupe;

/// A hash of an event's identity (`source|id`) and of what its route makes of it: the first half of a SHA-256. What another route,
/// or another mapping, has done says nothing of what this one has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdentityHash(pub [u8; 16]);

impl IdentityHash {
    /// The hash of a judging record's id and its route's revision.
    pub fn of(record_id: &str, mapping_revision: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [record_id, mapping_revision] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finalize()[..16]);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_route_has_done_says_nothing_of_another() {
        let of = IdentityHash::of;
        assert_eq!(of("source|1", "revision"), of("source|1", "revision"));
        assert_ne!(of("source|1", "revision"), of("source|1", "another"));
        assert_ne!(of("source|1", "revision"), of("source|1r", "evision"));
    }
}
