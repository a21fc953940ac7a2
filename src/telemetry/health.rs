//! Whether the process lives (its own loops move) and whether it is ready (what it depends on can be worked with).
//!
//! An outage of others never makes it dead: a restart would mend nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::Metrics;
use super::metrics::{ClosedLabel as _, closed_label};

closed_label! {
    /// What the process depends on.
    Dependency {
        /// The brokers.
        Kafka = "kafka",
        /// The topics that are read.
        SourceTopics = "source_topics",
        /// Where creation requests go.
        RequestTopic = "request_topic",
        /// Where dead letters go.
        DeadLetterTopic = "dead_letter_topic",
        /// Its tables and indexes, and the right to use them.
        Tables = "tables",
        /// The dedupe cache.
        Redis = "redis",
    }
}

/// How a dependency is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It can be worked with.
    Ready,
    /// It cannot, but work goes on without it. Says what is wrong and what to do.
    Degraded(String),
    /// It cannot, and work waits for it. Says what is wrong and what to do.
    NotReady(String),
}

/// The condition of every dependency that is used.
pub struct Readiness {
    metrics: Arc<Metrics>,
    inner: Mutex<Conditions>,
}

#[derive(Default)]
struct Conditions {
    draining: bool,
    /// What each teller last said of each dependency.
    of: BTreeMap<Dependency, BTreeMap<String, Condition>>,
}

impl Condition {
    fn rank(&self) -> u8 {
        match self {
            Self::Ready => 0,
            Self::Degraded(_) => 1,
            Self::NotReady(_) => 2,
        }
    }

    /// The worst of what the tellers say, with the reasons of all who say it.
    fn worst(told: &BTreeMap<String, Self>) -> Self {
        let rank = told.values().map(Self::rank).max().unwrap_or(0);
        let reasons =
            told.iter().filter(|(_, condition)| condition.rank() == rank).filter_map(|(teller, condition)| {
                match condition {
                    Self::Ready => None,
                    Self::Degraded(reason) | Self::NotReady(reason) if teller.is_empty() => Some(reason.clone()),
                    Self::Degraded(reason) | Self::NotReady(reason) => Some(format!("{teller}: {reason}")),
                }
            });
        let reasons = reasons.collect::<Vec<_>>().join("; ");
        match rank {
            0 => Self::Ready,
            1 => Self::Degraded(reasons),
            _ => Self::NotReady(reasons),
        }
    }
}

/// What /readyz answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether work can be done.
    pub ready: bool,
    /// Whether the process is on its way out.
    pub draining: bool,
    /// Every dependency.
    pub dependencies: Vec<DependencyReport>,
}

/// One dependency in a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DependencyReport {
    /// Its name.
    pub name: &'static str,
    /// `ready`, `degraded` or `not_ready`.
    pub state: &'static str,
    /// What is wrong and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Readiness {
    /// Not ready until every expected dependency is; without any, never.
    pub fn new(metrics: Arc<Metrics>, expected: &[Dependency]) -> Self {
        let readiness = Self { metrics, inner: Mutex::default() };
        for dependency in expected {
            readiness.set(*dependency, Condition::NotReady("not looked at yet; wait a moment".to_owned()));
        }
        readiness
    }

    /// The process's latest word on a dependency.
    pub fn set(&self, dependency: Dependency, condition: Condition) {
        self.tell(dependency, "", condition);
    }

    /// The latest word of one pipeline on a dependency that each pipeline has for itself. The worst word counts; that of the
    /// process only until a pipeline has spoken.
    pub fn tell(&self, dependency: Dependency, pipeline: &str, condition: Condition) {
        let mut inner = self.inner();
        let told = inner.of.entry(dependency).or_default();
        if !pipeline.is_empty() {
            told.remove("");
        }
        told.insert(pipeline.to_owned(), condition);
        self.metrics.ready(dependency, Condition::worst(told) == Condition::Ready);
    }

    /// Takes in what the breakers say of the dependencies that are behind one.
    pub fn read_breakers(&self) {
        for (dependency, condition) in self.metrics.breakers.conditions() {
            self.set(dependency, condition);
        }
    }

    /// From now on not ready: no new work is wanted.
    pub fn drain(&self) {
        self.inner().draining = true;
    }

    /// All of it, at this moment.
    pub fn report(&self) -> Report {
        let inner = self.inner();
        let dependencies: Vec<_> = inner
            .of
            .iter()
            .map(|(dependency, told)| {
                let (state, reason) = match Condition::worst(told) {
                    Condition::Ready => ("ready", None),
                    Condition::Degraded(reason) => ("degraded", Some(reason)),
                    Condition::NotReady(reason) => ("not_ready", Some(reason)),
                };
                DependencyReport { name: dependency.name(), state, reason }
            })
            .collect();
        let waits = inner.of.values().any(|told| matches!(Condition::worst(told), Condition::NotReady(_)));
        Report { ready: !waits && !inner.draining && !inner.of.is_empty(), draining: inner.draining, dependencies }
    }

    fn inner(&self) -> MutexGuard<'_, Conditions> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loops of the process that have to keep moving.
#[derive(Debug)]
pub struct Heartbeats {
    began: Instant,
    loops: Mutex<Vec<(&'static str, Duration, Weak<AtomicU64>)>>,
}

impl Heartbeats {
    /// None yet.
    pub fn new() -> Self {
        Self { began: Instant::now(), loops: Mutex::default() }
    }

    /// A loop that touches its heartbeat at least every `bound` while it is well, whatever its dependencies do. It ends
    /// with its handle.
    pub fn register(&self, name: &'static str, bound: Duration) -> Heartbeat {
        let touched = Arc::new(AtomicU64::new(millis_since(self.began, Instant::now())));
        self.loops().push((name, bound, Arc::downgrade(&touched)));
        Heartbeat { began: self.began, touched }
    }

    /// The loops that hang, and for how long.
    pub fn hung(&self) -> Vec<(&'static str, Duration)> {
        self.hung_at(Instant::now())
    }

    fn hung_at(&self, now: Instant) -> Vec<(&'static str, Duration)> {
        let now = millis_since(self.began, now);
        let mut hung = Vec::new();
        self.loops().retain(|(name, bound, touched)| {
            let Some(touched) = touched.upgrade() else { return false };
            let silent = Duration::from_millis(now.saturating_sub(touched.load(Ordering::Relaxed)));
            if silent > *bound {
                hung.push((*name, silent));
            }
            true
        });
        hung
    }

    fn loops(&self) -> MutexGuard<'_, Vec<(&'static str, Duration, Weak<AtomicU64>)>> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self::new()
    }
}

/// One loop's sign of life.
#[derive(Debug)]
pub struct Heartbeat {
    began: Instant,
    touched: Arc<AtomicU64>,
}

impl Heartbeat {
    /// The loop is alive. Cheap: one store.
    pub fn touch(&self) {
        self.touched.store(millis_since(self.began, Instant::now()), Ordering::Relaxed);
    }
}

fn millis_since(began: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(began).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Guarded;

    fn readiness(expected: &[Dependency]) -> Readiness {
        Readiness::new(Arc::new(Metrics::new().unwrap()), expected)
    }

    #[test]
    fn one_pipeline_s_word_does_not_hide_another_s() {
        let readiness = readiness(&[Dependency::Kafka]);
        readiness.tell(Dependency::Kafka, "wallets", Condition::NotReady("away".to_owned()));
        readiness.tell(Dependency::Kafka, "ethereum", Condition::Ready);
        let report = readiness.report();
        assert_eq!((report.ready, report.dependencies[0].reason.as_deref()), (false, Some("wallets: away")));
        readiness.tell(Dependency::Kafka, "wallets", Condition::Ready);
        assert!(readiness.report().ready);
    }

    #[test]
    fn ready_only_when_all_that_is_expected_is() {
        let readiness = readiness(&[Dependency::Kafka, Dependency::Redis]);
        assert!(!readiness.report().ready);
        readiness.set(Dependency::Kafka, Condition::Ready);
        assert!(!readiness.report().ready);
        readiness.set(Dependency::Redis, Condition::Degraded("away; see the network".to_owned()));
        let report = readiness.report();
        assert!(report.ready, "work goes on without the cache");
        assert_eq!(report.dependencies[1].reason.as_deref(), Some("away; see the network"));
        let text = readiness.metrics.render();
        assert!(text.contains("recordkeeper_ready{dependency=\"kafka\"} 1\n"));
        assert!(text.contains("recordkeeper_ready{dependency=\"redis\"} 0\n"));
        readiness.drain();
        assert!(!readiness.report().ready);
    }

    #[test]
    fn what_is_away_behind_its_breaker_is_named_and_the_cache_alone_is_no_reason_to_wait() {
        let readiness = readiness(&[Dependency::Kafka]);
        readiness.set(Dependency::Kafka, Condition::Ready);
        let fail = |guarded| {
            let watched = readiness.metrics.breakers.of(guarded);
            for _ in 0..20 {
                let _ = watched.permit().map(|call| call.failure("cut"));
            }
        };
        let state = |report: &Report, name| {
            let found = report.dependencies.iter().find(|dependency| dependency.name == name);
            found.map(|dependency| (dependency.state, dependency.reason.clone().unwrap_or_default()))
        };
        fail(Guarded::Redis);
        readiness.read_breakers();
        let report = readiness.report();
        assert!(report.ready && state(&report, "redis").unwrap().0 == "degraded", "{report:?}");
        assert_eq!(state(&report, "tables"), None, "nothing is said of what nobody uses");

        readiness.metrics.breakers.of(Guarded::RecordReads);
        fail(Guarded::LedgerWrites);
        readiness.read_breakers();
        let report = readiness.report();
        let (word, reason) = state(&report, "tables").unwrap();
        assert!(!report.ready && word == "not_ready");
        assert!(reason.contains("ledger_writes") && reason.contains("cut") && !reason.contains("record"), "{reason}");
    }

    #[test]
    fn nothing_expected_is_not_ready() {
        assert!(!readiness(&[]).report().ready);
    }

    #[test]
    fn a_silent_loop_hangs_and_a_finished_one_does_not() {
        let heartbeats = Heartbeats::new();
        let bound = Duration::from_secs(30);
        let poll = heartbeats.register("poll", bound);
        let done = heartbeats.register("done", bound);
        drop(done);
        let now = Instant::now();
        assert_eq!(heartbeats.hung_at(now + bound), []);
        let hung = heartbeats.hung_at(now + bound * 2);
        assert_eq!(hung.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["poll"]);
        poll.touch();
        assert_eq!(heartbeats.hung(), []);
    }
}
