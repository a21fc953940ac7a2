//! How fast one table is written to: additive increase, multiplicative decrease.
//!
//! Without a ceiling there is no limit until the store first asks to slow down. What is spent is what the store charges:
//! refused conditions count like writes that went through.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Never slower than this, in write units a second: enough to find out that the store takes writes again.
const RATE_MIN: f64 = 25.0;
/// What is left of the rate after a cut.
const CUT: f64 = 0.5;
/// Answers that say "slow down" within this time of a cut belong to writes sent before it.
const CUT_INTERVAL: Duration = Duration::from_millis(500);
/// The rate grows by this part of what it was when cut, every second.
const GROWTH: f64 = 0.05;
/// After so long without a cut what held the writes back is over, and the rate grows by a part of itself.
const CALM: Duration = Duration::from_secs(5);
/// This part, every second: from the lowest rate to a thousand units in some ten seconds.
const GROWTH_IN_CALM: f64 = 0.5;
/// How much may be saved up, in seconds of the rate.
const BURST_SECONDS: f64 = 0.25;

/// A table's write budget. Cheap; called once a call, not once an item.
#[derive(Debug)]
pub(crate) struct Budget {
    ceiling: Option<f64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Units a second; `None` = no limit.
    rate: Option<f64>,
    /// Units a second that the rate grows by each second.
    growth: f64,
    /// What may be spent now; below zero = a debt to be waited for.
    balance: f64,
    at: Instant,
    last_cut: Option<Instant>,
    window_start: Instant,
    window_units: f64,
    /// Units a second in the last full window.
    observed: f64,
}

impl Budget {
    /// A budget that never exceeds `ceiling` write units a second.
    pub(crate) fn new(ceiling: Option<u32>, now: Instant) -> Self {
        let ceiling = ceiling.map(|units| f64::from(units).max(1.0));
        let state = State {
            rate: ceiling,
            growth: 0.0,
            balance: ceiling.map_or(0.0, |rate| rate * BURST_SECONDS),
            at: now,
            last_cut: None,
            window_start: now,
            window_units: 0.0,
            observed: 0.0,
        };
        Self { ceiling, state: Mutex::new(state) }
    }

    /// How long to wait before the next call may be sent.
    pub(crate) fn delay(&self, now: Instant) -> Duration {
        let mut state = self.state();
        self.advance(&mut state, now);
        match state.rate {
            Some(rate) if state.balance < 0.0 => Duration::from_secs_f64(-state.balance / rate),
            _ => Duration::ZERO,
        }
    }

    /// A call of so many units is sent.
    pub(crate) fn spend(&self, units: usize, now: Instant) {
        let units = units as f64;
        let mut state = self.state();
        self.advance(&mut state, now);
        state.balance -= units;
        state.window_units += units;
    }

    /// The store asked to slow down. Gives whether the rate was cut; not where it was a moment ago.
    pub(crate) fn throttled(&self, now: Instant) -> bool {
        let mut state = self.state();
        self.advance(&mut state, now);
        if state.last_cut.is_some_and(|cut| now.duration_since(cut) < CUT_INTERVAL) {
            return false;
        }
        let measured = state.observed.max(state.window_units / (now - state.window_start).as_secs_f64().max(1.0));
        let before = state.rate.map_or(measured, |rate| rate.min(measured.max(RATE_MIN)));
        let floor = self.ceiling.map_or(RATE_MIN, |ceiling| RATE_MIN.min(ceiling));
        state.rate = Some((before * CUT).max(floor));
        state.growth = (before * GROWTH).max(1.0);
        state.balance = state.balance.min(0.0);
        state.last_cut = Some(now);
        true
    }

    fn advance(&self, state: &mut State, now: Instant) {
        let seconds = now.saturating_duration_since(state.at).as_secs_f64();
        state.at = now;
        let window = now.saturating_duration_since(state.window_start).as_secs_f64();
        if window >= 1.0 {
            state.observed = state.window_units / window;
            state.window_units = 0.0;
            state.window_start = now;
        }
        match state.rate {
            Some(rate) => {
                let calm = state.last_cut.is_some_and(|cut| now.saturating_duration_since(cut) >= CALM);
                let growth = if calm { state.growth.max(rate * GROWTH_IN_CALM) } else { state.growth };
                let grown = rate + growth * seconds;
                let rate = self.ceiling.map_or(grown, |ceiling| grown.min(ceiling));
                state.rate = Some(rate);
                state.balance = (state.balance + rate * seconds).min(rate * BURST_SECONDS);
            }
            None => state.balance = 0.0,
        }
    }

    // A panic while holding the lock leaves numbers that are still numbers.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends calls of 25 units as fast as the budget allows for `seconds`; the store takes `allowed` units a second and asks
    /// to slow down beyond. Gives what was sent in the last second.
    fn drive(budget: &Budget, start: Instant, seconds: u64, allowed: f64) -> f64 {
        let (mut now, end) = (start, start + Duration::from_secs(seconds));
        let (mut second, mut sent, mut last) = (0, 0.0, 0.0);
        while now < end {
            let wait = budget.delay(now);
            now += wait.max(Duration::from_millis(1));
            if (now - start).as_secs() != second {
                (second, last, sent) = ((now - start).as_secs(), sent, 0.0);
            }
            budget.spend(25, now);
            sent += 25.0;
            if sent > allowed {
                budget.throttled(now);
            }
        }
        last
    }

    /// A budget after a storm, and when that was over.
    fn cut_to_the_lowest() -> (Budget, Instant) {
        let mut now = Instant::now();
        let budget = Budget::new(None, now);
        for _ in 0..100 {
            budget.throttled(now);
            now += CUT_INTERVAL;
        }
        (budget, now)
    }

    #[tokio::test]
    async fn without_a_ceiling_nothing_waits_until_the_store_says_so() {
        let now = Instant::now();
        let budget = Budget::new(None, now);
        budget.spend(1_000_000, now);
        assert_eq!(budget.delay(now), Duration::ZERO);
        budget.throttled(now);
        budget.spend(1_000, now);
        assert!(budget.delay(now) > Duration::ZERO);
    }

    #[tokio::test]
    async fn a_ceiling_is_kept() {
        let now = Instant::now();
        let budget = Budget::new(Some(1_000), now);
        let sent = drive(&budget, now, 10, f64::MAX);
        assert!((900.0..=1_100.0).contains(&sent), "{sent}");
    }

    #[tokio::test]
    async fn the_rate_finds_what_the_store_takes() {
        let now = Instant::now();
        let budget = Budget::new(None, now);
        let sent = drive(&budget, now, 60, 1_000.0);
        assert!((400.0..=1_300.0).contains(&sent), "{sent}");
    }

    #[tokio::test]
    async fn a_rate_that_was_cut_to_the_lowest_comes_back_within_seconds() {
        let (budget, now) = cut_to_the_lowest();
        let sent = drive(&budget, now, 20, 2_000.0);
        assert!(sent >= 500.0, "{sent}");
    }

    #[tokio::test]
    async fn the_rate_never_starves() {
        let (budget, _) = cut_to_the_lowest();
        assert!(budget.state().rate.is_some_and(|rate| rate >= RATE_MIN));
    }
}
