//! Alerts: one ERROR line with a key `alert`, and a count by the same name. Rules and pages are written on these.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::event::Partition;

use super::metrics::{ClosedLabel as _, Counters, closed_label};

closed_label! {
    /// What somebody has to look at. Each name has a runbook.
    Alert {
        /// Two state writes of one version differ; the first stands.
        Tie = "tie",
        /// Another event stands under an event's identity, or another request under its id.
        Conflict = "conflict",
        /// A partition makes no progress while others do.
        StalledPartition = "stalled_partition",
        /// An append to a ledger is refused, and nobody else's entry says why.
        LedgerRefused = "ledger_refused",
        /// A chain of the ledger is broken: its partition is not read.
        LedgerBroken = "ledger_broken",
        /// Another process took over what this one was doing.
        Fenced = "fenced",
        /// Heads of ledger chains cannot be published.
        HeadsUnpublished = "heads_unpublished",
        /// A checkpoint was moved by a tool beyond what the ledger holds, and is not followed.
        IgnoredReset = "ignored_reset",
        /// The log ends below what the ledger or the checkpoint says: it was truncated, or replaced where there are no topic ids.
        LogBehindLedger = "log_behind_ledger",
        /// A topic was made anew under its old name: it is read from its beginning.
        TopicRecreated = "topic_recreated",
        /// The log lost positions before they were read.
        RetentionGap = "retention_gap",
        /// A dependency gives no answer.
        DependencyAway = "dependency_away",
        /// Dead letters cannot be published, or their topic does not hold them.
        DeadLetterTopic = "dead_letter_topic",
        /// The store asked to slow down.
        Throttled = "throttled",
        /// Partitions were taken away before they were drained.
        PartitionsLost = "partitions_lost",
        /// The store refuses an effect of a recorded event for good.
        EffectRejected = "effect_rejected",
        /// Too many of a route's events are refused: the partitions that carry them wait.
        PoisonedRoute = "poisoned_route",
        /// A drain reached its deadline with work left.
        DrainDeadline = "drain_deadline",
        /// The source cannot go on.
        SourceFailed = "source_failed",
    }
}

/// Where something happened, as far as it is known; each part becomes a flat key of the log line.
#[derive(Clone, Copy, Debug, Default)]
pub struct At<'a> {
    /// The topic.
    pub topic: Option<&'a str>,
    /// The partition's name.
    pub partition: Option<&'a str>,
    /// The offset.
    pub offset: Option<u64>,
    /// The event's correlation id.
    pub correlation_id: Option<&'a str>,
}

impl<'a> At<'a> {
    /// A partition.
    pub fn partition(partition: &'a Partition) -> Self {
        Self { topic: Some(&partition.topic), partition: Some(&partition.name), ..Self::default() }
    }
}

/// Raises alerts; cheap to clone.
#[derive(Clone, Debug)]
pub struct Alerts {
    counters: Counters<Alert>,
    /// One for each kind of alert.
    windows: Arc<[Mutex<Window>]>,
}

impl Alerts {
    pub(super) fn new(counters: Counters<Alert>) -> Self {
        Self { counters, windows: Alert::ALL.iter().map(|_| Mutex::default()).collect() }
    }

    /// Counts, and logs one line; of a storm of one kind only the first lines of every ten seconds, the next one of which says
    /// how many were left out. The message names the fault and what to do, never a payload.
    pub fn raise(&self, alert: Alert, at: &At<'_>, message: impl fmt::Display) {
        self.counters.add(alert, 1);
        let admitted = match self.windows.get(alert.index()) {
            Some(window) => window.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now()),
            None => Some(0),
        };
        let Some(left_out) = admitted else { return };
        let At { topic, partition, offset, correlation_id } = *at;
        let left_out = (left_out > 0).then_some(left_out);
        tracing::error!(alert = alert.name(), topic, partition, offset, correlation_id, left_out, "{message}");
    }
}

/// The lines of one kind of alert in the last while.
#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    logged: u32,
    left_out: u64,
}

impl Window {
    const LINES_MAX: u32 = 20;
    const LENGTH: Duration = Duration::from_secs(10);

    /// Whether another line may go out, and how many did not before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= Self::LENGTH) {
            (self.since, self.logged) = (Some(now), 0);
        }
        if self.logged >= Self::LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.logged += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_cut_and_its_size_is_told_afterwards() {
        let (mut window, start) = (Window::default(), Instant::now());
        let admitted = (0..1000).filter(|_| window.admit(start) == Some(0)).count();
        assert_eq!(admitted, Window::LINES_MAX as usize);
        assert_eq!(window.admit(start + Window::LENGTH), Some(980));
        assert_eq!(window.admit(start + Window::LENGTH), Some(0));
    }
}
