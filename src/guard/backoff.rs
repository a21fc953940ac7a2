//! Delays between attempts: exponential, with full jitter, up to a ceiling.

use std::time::Duration;

/// Delays that grow from attempt to attempt. Each is uniform between zero and the doubled bound of the one before, so
/// that many instances that failed together do not come back together.
#[derive(Debug)]
pub struct Backoff {
    base: Duration,
    ceiling: Duration,
    attempts: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// The first delay is at most `base`, every delay at most `ceiling`.
    pub fn new(base: Duration, ceiling: Duration) -> Self {
        Self { base, ceiling, attempts: 0, random: fastrand::Rng::new() }
    }

    /// The same with delays that are repeated exactly by the same seed.
    pub fn with_seed(base: Duration, ceiling: Duration, seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), ..Self::new(base, ceiling) }
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let bound = self.base.saturating_mul(1 << self.attempts.min(31)).min(self.ceiling);
        self.attempts = self.attempts.saturating_add(1);
        bound.mul_f64(self.random.f64())
    }

    /// After a success: the next delay is a first one again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: Duration = Duration::from_millis(100);
    const CEILING: Duration = Duration::from_secs(5);

    proptest! {
        #[test]
        fn a_delay_stays_under_its_doubling_bound_and_the_ceiling(seed: u64, attempts in 1u32..80) {
            let mut backoff = Backoff::with_seed(BASE, CEILING, seed);
            for attempt in 0..attempts {
                let bound = BASE.saturating_mul(1 << attempt.min(31)).min(CEILING);
                prop_assert!(backoff.next_delay() <= bound);
            }
            backoff.reset();
            prop_assert!(backoff.next_delay() <= BASE);
        }
    }

    #[test]
    fn delays_spread_and_grow() {
        let longest = |skipped: u32| {
            (0..200)
                .map(|seed| {
                    let mut backoff = Backoff::with_seed(BASE, CEILING, seed);
                    for _ in 0..skipped {
                        backoff.next_delay();
                    }
                    backoff.next_delay()
                })
                .max()
                .unwrap()
        };
        assert!(longest(0) > BASE / 2);
        assert!(longest(3) > BASE * 4);
        assert!(longest(40) > CEILING / 2);
    }

    #[test]
    fn a_seed_repeats_its_delays() {
        let delays = |seed| {
            let mut backoff = Backoff::with_seed(BASE, CEILING, seed);
            [backoff.next_delay(), backoff.next_delay(), backoff.next_delay()]
        };
        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
    }
}
