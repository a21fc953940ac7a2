//! A circuit breaker: a dependency that fails again and again is left alone for a while, then tried by one call.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Backoff;

/// When a breaker opens and for how long.
#[derive(Clone, Copy, Debug)]
pub struct BreakerSettings {
    /// So many failures in a row open it; at least one.
    pub failures: u32,
    /// It stays open at least this long.
    pub open_min: Duration,
    /// The jittered addition to `open_min` starts at up to `open_min`, doubles with each failed trial, and ends here.
    pub open_max: Duration,
}

/// A trial that nobody came for within this time after it was due: nobody waits for the dependency any more, and how it is
/// will be seen by the next call.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Every call; or nobody made one for long.
    Closed,
    /// One call, as a trial.
    HalfOpen,
    /// None.
    Open,
}

/// What the end of a call did to its breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing that others would see.
    Unchanged,
    /// One failure too many: calls are refused from now on. To be reported.
    Opened,
    /// The trial failed: refused for longer.
    Reopened,
    /// The trial succeeded: the dependency is back. To be reported.
    Closed,
}

/// Counts failures in a row over all callers. Its calls take one short lock.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// Changes with every phase, so that a call that began in an earlier one decides nothing in a later one.
    generation: u64,
    backoff: Backoff,
}

#[derive(Debug)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant },
    Trial,
}

impl Inner {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }

    fn open(&mut self, now: Instant, settings: &BreakerSettings) {
        let until = now + settings.open_min + self.backoff.next_delay();
        self.enter(Phase::Open { until });
    }
}

impl Breaker {
    /// Closed at first.
    pub fn new(settings: BreakerSettings) -> Self {
        let backoff = Backoff::new(settings.open_min, settings.open_max);
        Self { settings, inner: Mutex::new(Inner { phase: Phase::Closed { failures: 0 }, generation: 0, backoff }) }
    }

    /// Leave to make one call. The permit is to be told how the call ended; dropping it (a cancelled call, or one that
    /// taught nothing) counts as neither.
    ///
    /// # Errors
    ///
    /// Where the dependency is left alone: how long it is until the next trial is due, or worth asking for.
    pub fn permit(&self) -> Result<Permit<'_>, Duration> {
        self.permit_at(Instant::now())
    }

    /// For metrics and status pages.
    pub fn state(&self) -> BreakerState {
        self.state_at(Instant::now())
    }

    fn permit_at(&self, now: Instant) -> Result<Permit<'_>, Duration> {
        let mut inner = self.lock();
        match inner.phase {
            Phase::Closed { .. } => {}
            Phase::Open { until } if now >= until => inner.enter(Phase::Trial),
            Phase::Open { until } => return Err(until.duration_since(now)),
            // How long the trial takes is not known.
            Phase::Trial => return Err(self.settings.open_min),
        }
        Ok(Permit { breaker: self, generation: inner.generation, settled: false })
    }

    fn state_at(&self, now: Instant) -> BreakerState {
        match self.lock().phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { until } if now < until => BreakerState::Open,
            Phase::Open { until } if now >= until + FORGOTTEN => BreakerState::Closed,
            Phase::Open { .. } | Phase::Trial => BreakerState::HalfOpen,
        }
    }

    fn succeeded(&self, generation: u64) -> Settled {
        let mut inner = self.lock();
        if inner.generation != generation {
            return Settled::Unchanged;
        }
        match &mut inner.phase {
            Phase::Closed { failures } => {
                *failures = 0;
                Settled::Unchanged
            }
            Phase::Trial => {
                inner.backoff.reset();
                inner.enter(Phase::Closed { failures: 0 });
                Settled::Closed
            }
            Phase::Open { .. } => Settled::Unchanged,
        }
    }

    fn failed(&self, generation: u64, now: Instant) -> Settled {
        let mut inner = self.lock();
        if inner.generation != generation {
            return Settled::Unchanged;
        }
        match &mut inner.phase {
            Phase::Closed { failures } => {
                *failures += 1;
                if *failures < self.settings.failures {
                    return Settled::Unchanged;
                }
                inner.open(now, &self.settings);
                Settled::Opened
            }
            Phase::Trial => {
                inner.open(now, &self.settings);
                Settled::Reopened
            }
            Phase::Open { .. } => Settled::Unchanged,
        }
    }

    /// A trial that was cancelled taught nothing: the next caller makes another.
    fn abandoned(&self, generation: u64) {
        let mut inner = self.lock();
        if inner.generation == generation && matches!(inner.phase, Phase::Trial) {
            inner.enter(Phase::Open { until: Instant::now() });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to make one call.
#[derive(Debug)]
#[must_use]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    generation: u64,
    settled: bool,
}

impl Permit<'_> {
    /// The dependency answered.
    pub fn success(mut self) -> Settled {
        self.settled = true;
        self.breaker.succeeded(self.generation)
    }

    /// The dependency did not answer, or not with what it should.
    pub fn failure(self) -> Settled {
        self.failure_at(Instant::now())
    }

    fn failure_at(mut self, now: Instant) -> Settled {
        self.settled = true;
        self.breaker.failed(self.generation, now)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.breaker.abandoned(self.generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BreakerSettings =
        BreakerSettings { failures: 3, open_min: Duration::from_secs(1), open_max: Duration::from_secs(30) };

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new(SETTINGS);
        let ends: Vec<_> = (0..3).map(|_| breaker.permit_at(now).unwrap().failure_at(now)).collect();
        assert_eq!(ends, [Settled::Unchanged, Settled::Unchanged, Settled::Opened]);
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_does_not_let_them_add_up() {
        let now = Instant::now();
        let breaker = Breaker::new(SETTINGS);
        for _ in 0..10 {
            let _ = breaker.permit_at(now).unwrap().failure_at(now);
            let _ = breaker.permit_at(now).unwrap().failure_at(now);
            assert_eq!(breaker.permit_at(now).unwrap().success(), Settled::Unchanged);
        }
        assert_eq!(breaker.state_at(now), BreakerState::Closed);
        assert_eq!(opened(now).state_at(now), BreakerState::Open);
    }

    #[test]
    fn open_refuses_for_its_time_then_lets_one_trial_through() {
        let now = Instant::now();
        let breaker = opened(now);
        let almost = now + Duration::from_millis(999);
        let wait = breaker.permit_at(almost).unwrap_err();
        assert!(wait >= Duration::from_millis(1) && wait <= Duration::from_millis(1001), "{wait:?}");
        assert!(breaker.permit_at(almost + wait).is_ok(), "the trial is due when it was said to be");

        let breaker = opened(now);
        let later = now + Duration::from_secs(2);
        assert_eq!(breaker.state_at(later), BreakerState::HalfOpen);
        let trial = breaker.permit_at(later).unwrap();
        assert_eq!(breaker.permit_at(later).unwrap_err(), SETTINGS.open_min, "one trial at a time");
        assert_eq!(trial.success(), Settled::Closed);
        assert!(breaker.permit_at(later).is_ok() && breaker.permit_at(later).is_ok());
    }

    #[test]
    fn a_failed_trial_opens_it_again_for_at_most_the_longest_time() {
        let mut now = Instant::now();
        let breaker = opened(now);
        for _ in 0..20 {
            now += SETTINGS.open_min + SETTINGS.open_max;
            assert_eq!(breaker.permit_at(now).unwrap().failure_at(now), Settled::Reopened);
            assert!(breaker.permit_at(now + SETTINGS.open_min / 2).is_err());
        }
    }

    #[test]
    fn a_cancelled_trial_does_not_block_the_next_one() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + Duration::from_secs(2);
        drop(breaker.permit_at(later).unwrap());
        assert!(breaker.permit_at(later).is_ok());
    }

    #[test]
    fn a_cancelled_call_is_no_failure() {
        let breaker = Breaker::new(SETTINGS);
        (0..10).for_each(|_| drop(breaker.permit().unwrap()));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn an_outage_that_nobody_waits_for_is_not_told_for_ever() {
        let now = Instant::now();
        let breaker = opened(now);
        assert_eq!(breaker.state_at(now + FORGOTTEN), BreakerState::HalfOpen);
        let later = now + FORGOTTEN + SETTINGS.open_min * 2;
        assert_eq!(breaker.state_at(later), BreakerState::Closed);
        assert_eq!(breaker.permit_at(later).unwrap().failure_at(later), Settled::Reopened, "the first call is a trial");
        assert_eq!(breaker.state_at(later), BreakerState::Open);
    }

    #[test]
    fn a_call_from_before_the_outage_decides_nothing_after_it() {
        let now = Instant::now();
        let breaker = Breaker::new(SETTINGS);
        let (slow_success, slow_failure) = (breaker.permit_at(now).unwrap(), breaker.permit_at(now).unwrap());
        for _ in 0..3 {
            let _ = breaker.permit_at(now).unwrap().failure_at(now);
        }
        assert_eq!(slow_success.success(), Settled::Unchanged);
        assert_eq!(breaker.state_at(now), BreakerState::Open);
        let later = now + Duration::from_secs(2);
        let trial = breaker.permit_at(later).unwrap();
        assert_eq!(slow_failure.failure_at(later), Settled::Unchanged);
        assert_eq!(trial.success(), Settled::Closed);
    }
}
