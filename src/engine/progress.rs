//! How a lane gets on, told to whoever watches: written by the lane, read by the coordinator, without a lock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Nothing waits.
const NONE: i64 = i64::MIN;

/// One lane's progress; times in milliseconds since 1970.
#[derive(Debug)]
pub(super) struct Progress {
    /// The time of the oldest message that is not attested.
    oldest_ms: AtomicI64,
    /// When the ledger's end moved last, or work came to a lane without any.
    moved_ms: AtomicI64,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { oldest_ms: AtomicI64::new(NONE), moved_ms: AtomicI64::new(NONE) }
    }

    /// What waits now, by the time of its oldest message.
    pub(super) fn waits(&self, oldest_ms: Option<i64>) {
        let before = self.oldest_ms.swap(oldest_ms.unwrap_or(NONE), Ordering::Relaxed);
        if before == NONE {
            self.moved();
        }
    }

    /// The ledger's end moved.
    pub(super) fn moved(&self) {
        self.moved_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// Age of the oldest message that is not attested, and for how long nothing moved; zero where nothing waits.
    pub(super) fn seconds(&self) -> (f64, f64) {
        let (oldest, moved) = (self.oldest_ms.load(Ordering::Relaxed), self.moved_ms.load(Ordering::Relaxed));
        if oldest == NONE {
            return (0.0, 0.0);
        }
        let since = |ms: i64| now_ms().saturating_sub(ms).max(0) as f64 / 1000.0;
        (since(oldest), since(moved))
    }
}

/// The clock; 0 before 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_without_work_is_neither_late_nor_stalled() {
        let progress = Progress::new();
        assert_eq!(progress.seconds(), (0.0, 0.0));
        progress.waits(Some(now_ms() - 5_000));
        let (late, stalled) = progress.seconds();
        assert!((5.0..60.0).contains(&late) && stalled < 5.0, "{late} {stalled}");
        progress.waits(None);
        assert_eq!(progress.seconds(), (0.0, 0.0));
    }
}
