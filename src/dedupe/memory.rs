//! The dedupe cache in the process itself: bounded, and gone with it.

use std::num::NonZeroUsize;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, ready};
use quick_cache::sync::Cache;
use tokio::time::Instant;

use crate::telemetry::{DedupeMetrics, Metrics};

use super::{DedupeError, DedupeStore, IdentityHash, Known};

/// Holds at most so many ids; the least useful ones make room. Never fails.
#[derive(Debug)]
pub struct MemoryDedupe {
    entries: Cache<IdentityHash, Entry>,
    ttl: Duration,
    metrics: DedupeMetrics,
}

#[derive(Clone, Debug)]
struct Entry {
    known: Known,
    until: Instant,
}

impl MemoryDedupe {
    /// A cache of at most `capacity` ids, each believed for `ttl` after it was last remembered.
    pub fn new(capacity: NonZeroUsize, ttl: Duration, metrics: &Metrics) -> Self {
        Self { entries: Cache::new(capacity.get()), ttl, metrics: metrics.dedupe.clone() }
    }

    fn known_at(&self, id: &IdentityHash, now: Instant) -> Option<Known> {
        self.entries.get(id).filter(|entry| now < entry.until).map(|entry| entry.known)
    }
}

impl DedupeStore for MemoryDedupe {
    fn look_up<'a>(&'a self, ids: &'a [IdentityHash]) -> BoxFuture<'a, Result<Vec<Option<Known>>, DedupeError>> {
        let now = Instant::now();
        let answers: Vec<_> = ids.iter().map(|id| self.known_at(id, now)).collect();
        self.metrics.answered(&answers, 0);
        ready(Ok(answers)).boxed()
    }

    fn remember<'a>(&'a self, done: &'a [(IdentityHash, Known)]) -> BoxFuture<'a, Result<(), DedupeError>> {
        let until = Instant::now() + self.ttl;
        for (id, known) in done {
            self.entries.insert(*id, Entry { known: known.clone(), until });
        }
        self.metrics.remembered(done.len());
        ready(Ok(())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Digest;

    fn known(of: u64) -> Known {
        Known { content_digest: Digest::of(&of.to_be_bytes()), origin: format!("c|t|i|0|0|{of}") }
    }

    fn id(of: u64) -> IdentityHash {
        IdentityHash::of(&format!("source|{of}"), "revision")
    }

    #[tokio::test]
    async fn an_id_is_believed_until_its_time_is_over() {
        let ttl = Duration::from_secs(3600);
        let dedupe = MemoryDedupe::new(NonZeroUsize::MIN, ttl, &Metrics::new().unwrap());
        let before = Instant::now();
        dedupe.remember(&[(id(1), known(1))]).await.unwrap();
        assert_eq!(dedupe.known_at(&id(1), before + ttl - Duration::from_millis(1)), Some(known(1)));
        assert_eq!(dedupe.known_at(&id(1), Instant::now() + ttl), None);
    }

    #[tokio::test]
    async fn it_stays_within_its_bound() {
        let capacity = NonZeroUsize::new(100).unwrap();
        let dedupe = MemoryDedupe::new(capacity, Duration::from_secs(3600), &Metrics::new().unwrap());
        for of in 0..1000 {
            dedupe.remember(&[(id(of), known(of))]).await.unwrap();
        }
        let ids: Vec<_> = (0..1000).map(id).collect();
        let answers = dedupe.look_up(&ids).await.unwrap();
        assert!(answers.iter().flatten().count() <= capacity.get());
        assert!(answers.iter().flatten().count() > 0);
        for (of, answer) in answers.into_iter().enumerate() {
            assert!(answer.is_none_or(|answer| answer == known(of as u64)));
        }
    }
}
