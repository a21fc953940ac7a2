//! The breakers of the process, one for each dependency and kind of call, shared by all who make such calls; and what they
//! tell: an alert when one opens, a log line when it closes, a metric and readiness all the while.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::guard::{Breaker, BreakerSettings, BreakerState, Permit, Settled};

use super::metrics::{ClosedLabel as _, closed_label};
use super::{Alert, Alerts, At, Condition, Dependency};

/// A second of quiet costs a second of work, and of what a drain may take; a longer one is for longer outages.
const SETTINGS: BreakerSettings =
    BreakerSettings { failures: 5, open_min: Duration::from_millis(500), open_max: Duration::from_secs(3) };

closed_label! {
    /// What has a breaker of its own. Tables have two: rights, and what is worn out, differ between writing and reading.
    Guarded {
        /// The dedupe cache.
        Redis = "redis",
        /// Publishing creation requests.
        RequestTopic = "request_topic",
        /// Publishing dead letters.
        DeadLetterTopic = "dead_letter_topic",
        /// Writing wallet_records.
        RecordWrites = "wallet_records_writes",
        /// Reading it.
        RecordReads = "wallet_records_reads",
        /// Writing wallet_inventory.
        WalletWrites = "wallet_inventory_writes",
        /// Reading it.
        WalletReads = "wallet_inventory_reads",
        /// Writing user_wallet_mapping.
        MappingWrites = "user_wallet_mapping_writes",
        /// Reading it.
        MappingReads = "user_wallet_mapping_reads",
        /// Writing the ledger.
        LedgerWrites = "ledger_writes",
        /// Reading it.
        LedgerReads = "ledger_reads",
        /// Reading wallet_requests.
        RequestReads = "wallet_requests_reads",
        /// Transactions, which span tables.
        Transactions = "transactions",
    }
}

impl Guarded {
    /// What readiness calls it.
    fn dependency(self) -> Dependency {
        match self {
            Self::Redis => Dependency::Redis,
            Self::RequestTopic => Dependency::RequestTopic,
            Self::DeadLetterTopic => Dependency::DeadLetterTopic,
            Self::RecordWrites
            | Self::RecordReads
            | Self::WalletWrites
            | Self::WalletReads
            | Self::MappingWrites
            | Self::MappingReads
            | Self::LedgerWrites
            | Self::LedgerReads
            | Self::RequestReads
            | Self::Transactions => Dependency::Tables,
        }
    }

    fn remedy(self) -> &'static str {
        match self.dependency() {
            Dependency::Redis => {
                "the store finds duplicates alone and slower; check the url, the network and the ACL user's rights (MGET \
                 and SET on the prefix)"
            }
            Dependency::RequestTopic | Dependency::DeadLetterTopic => {
                "partitions wait that have something for it; check the brokers, the topic and the right to write to it"
            }
            Dependency::Tables | Dependency::Kafka | Dependency::SourceTopics => {
                "partitions wait that need it; check the table, the network and the rights"
            }
        }
    }
}

/// The breakers in use.
#[derive(Debug)]
pub struct Breakers {
    alerts: Alerts,
    each: Mutex<BTreeMap<Guarded, Arc<Watched>>>,
}

impl Breakers {
    pub(super) fn new(alerts: Alerts) -> Self {
        Self { alerts, each: Mutex::default() }
    }

    /// The breaker of this dependency, the same one for everybody; from now on it is told about.
    pub fn of(&self, guarded: Guarded) -> Arc<Watched> {
        Arc::clone(self.each().entry(guarded).or_insert_with(|| Arc::new(Watched::new(guarded, self.alerts.clone()))))
    }

    /// The states of those in use: 0 closed, 1 half-open, 2 open.
    pub(super) fn states(&self) -> Vec<(&'static str, f64)> {
        let number = |state| match state {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        };
        self.each().iter().map(|(guarded, watched)| (guarded.name(), number(watched.breaker.state()))).collect()
    }

    /// How the dependencies are that have a breaker in use; the reasons of those that are away.
    pub(super) fn conditions(&self) -> BTreeMap<Dependency, Condition> {
        let mut away: BTreeMap<Dependency, Vec<String>> = BTreeMap::new();
        for (guarded, watched) in self.each().iter() {
            away.entry(guarded.dependency()).or_default().extend(watched.away());
        }
        let condition = |dependency, reasons: Vec<String>| match (reasons.is_empty(), dependency) {
            (true, _) => Condition::Ready,
            // Work goes on without the cache.
            (false, Dependency::Redis) => Condition::Degraded(reasons.join("; ")),
            (false, _) => Condition::NotReady(reasons.join("; ")),
        };
        away.into_iter().map(|(dependency, reasons)| (dependency, condition(dependency, reasons))).collect()
    }

    fn each(&self) -> MutexGuard<'_, BTreeMap<Guarded, Arc<Watched>>> {
        self.each.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One dependency's breaker. Each call takes its short lock twice, an outage one more.
#[derive(Debug)]
pub struct Watched {
    guarded: Guarded,
    breaker: Breaker,
    alerts: Alerts,
    /// The failure that opened it last.
    why: Mutex<String>,
}

impl Watched {
    fn new(guarded: Guarded, alerts: Alerts) -> Self {
        Self { guarded, breaker: Breaker::new(SETTINGS), alerts, why: Mutex::default() }
    }

    /// Leave to make one call, whose end is to be told to it.
    ///
    /// # Errors
    ///
    /// Where the dependency is left alone: come back after this long.
    pub fn permit(&self) -> Result<Call<'_>, Duration> {
        self.breaker.permit().map(|permit| Call { watched: self, permit })
    }

    /// Its name, for messages.
    pub fn name(&self) -> &'static str {
        self.guarded.name()
    }

    /// What is wrong and what to do, while it is not closed.
    fn away(&self) -> Option<String> {
        if self.breaker.state() == BreakerState::Closed {
            return None;
        }
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        Some(format!("{} gives no answer ({why}): {}", self.name(), self.guarded.remedy()))
    }
}

/// Leave to make one call. Dropped without a word it counts as neither.
#[must_use]
pub struct Call<'a> {
    watched: &'a Watched,
    permit: Permit<'a>,
}

impl Call<'_> {
    /// It answered, whatever it said.
    pub fn success(self) {
        if self.permit.success() == Settled::Closed {
            tracing::info!(dependency = self.watched.name(), "dependency is back");
        }
    }

    /// It gave no answer, or one that no caller can work with. What that did to the breaker.
    pub fn failure(self, detail: impl fmt::Display) -> Settled {
        let settled = self.permit.failure();
        if settled == Settled::Opened {
            let Watched { guarded, alerts, why, .. } = self.watched;
            *why.lock().unwrap_or_else(PoisonError::into_inner) = detail.to_string();
            let message = format_args!("{} gives no answer ({detail}): {}", guarded.name(), guarded.remedy());
            alerts.raise(Alert::DependencyAway, &At::default(), message);
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_one_alert_and_a_state_that_comes_and_goes() {
        let metrics = Metrics::new().unwrap();
        let watched = metrics.breakers.of(Guarded::RecordWrites);
        metrics.breakers.of(Guarded::RecordReads);
        let state = || {
            let text = metrics.render();
            let line = "recordkeeper_breaker_state{dependency=\"wallet_records_writes\"} ";
            assert!(text.contains("recordkeeper_breaker_state{dependency=\"wallet_records_reads\"} 0\n"));
            text.lines().find_map(|row| row.strip_prefix(line).map(str::to_owned)).unwrap()
        };
        assert_eq!(state(), "0");
        for _ in 0..20 {
            let _ = watched.permit().map(|call| call.failure("cut"));
        }
        assert_eq!(state(), "2");
        let wait = watched.permit().err().unwrap();
        tokio::time::advance(wait).await;
        assert_eq!(state(), "1");
        assert_eq!(watched.permit().unwrap().failure("cut"), Settled::Reopened);
        let wait = watched.permit().err().unwrap();
        tokio::time::advance(wait).await;
        watched.permit().unwrap().success();
        assert_eq!(state(), "0");
        assert!(metrics.render().contains("recordkeeper_alerts_total{alert=\"dependency_away\"} 1\n"));
    }
}
