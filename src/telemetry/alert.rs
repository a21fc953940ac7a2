//! Alerts: one ERROR line with a key `alert`, and a count by the same name. Rules and pages are written on these.

use std::fmt;

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
        /// A route refuses so many events that its partitions are paused.
        Poison = "poison",
        /// The ledger was extended by someone else.
        LedgerRefused = "ledger_refused",
        /// A checkpoint was moved forward by a tool and is not followed.
        IgnoredReset = "ignored_reset",
        /// The log ends below what the ledger or the checkpoint says: the topic was made anew, or truncated.
        LogBehindLedger = "log_behind_ledger",
        /// The log lost positions before they were read.
        RetentionGap = "retention_gap",
        /// A dependency gives no answer.
        DependencyAway = "dependency_away",
        /// Dead letters cannot be published, or their topic does not hold them.
        DeadLetterTopic = "dead_letter_topic",
        /// The store keeps asking to slow down.
        Throttled = "throttled",
        /// Partitions were taken away before they were drained.
        PartitionsLost = "partitions_lost",
        /// The store refuses an effect of a recorded event for good.
        EffectRejected = "effect_rejected",
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
}

impl Alerts {
    pub(super) fn new(counters: Counters<Alert>) -> Self {
        Self { counters }
    }

    /// Logs one line and counts. The message names the fault and what to do, never a payload.
    pub fn raise(&self, alert: Alert, at: &At<'_>, message: impl fmt::Display) {
        self.counters.add(alert, 1);
        let At { topic, partition, offset, correlation_id } = *at;
        tracing::error!(alert = alert.name(), topic, partition, offset, correlation_id, "{message}");
    }
}
