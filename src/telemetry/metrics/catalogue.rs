//! Every metric, declared once: what is registered, exposed and documented comes from here.

use crate::event::Reason;
use crate::store::dynamodb::Table;
use crate::telemetry::{Alert, Dependency, Guarded};

use super::labels::{Append, CallResult, End, LockCall, LookUp, Operation, Rebalance, Remembered, Stage, names};

/// A metric with all of its series.
#[derive(Debug)]
pub(crate) struct Family {
    /// Its full name.
    pub(crate) name: &'static str,
    /// How its numbers behave.
    pub(crate) kind: Kind,
    /// What one of it is.
    pub(crate) unit: &'static str,
    /// Its labels in order.
    pub(crate) labels: &'static [Label],
    /// What it says, in one sentence.
    pub(crate) help: &'static str,
}

/// How a metric's numbers behave.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by upper bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A label and what it can say.
#[derive(Debug)]
pub(crate) struct Label {
    pub(crate) name: &'static str,
    pub(crate) values: Values,
}

/// Where a label's values come from.
#[derive(Debug)]
pub(crate) enum Values {
    /// From the code.
    Closed(fn() -> Vec<&'static str>),
    /// From configuration or the broker, never from an event.
    Named(&'static str),
}

const fn closed(name: &'static str, values: fn() -> Vec<&'static str>) -> Label {
    Label { name, values: Values::Closed(values) }
}

const fn named(name: &'static str, of: &'static str) -> Label {
    Label { name, values: Values::Named(of) }
}

const PIPELINE: Label = named("pipeline", "the pipelines that are run");
const GROUP: Label = named("group", "the consumer groups of the pipelines that are run");
const TOPIC: Label = named("topic", "the topics of the pipelines that are run");
const PARTITION: Label = named("partition", "the partitions that are owned now");

const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

macro_rules! families {
    ($($id:ident = $name:literal, $kind:expr, $unit:literal, [$($label:expr),*], $help:literal;)+) => {
        $(pub(crate) static $id: Family =
            Family { name: $name, kind: $kind, unit: $unit, labels: &[$($label),*], help: $help };)+

        /// All of them, in the order of the reference.
        pub(crate) static CATALOGUE: &[&Family] = &[$(&$id),+];
    };
}

families! {
    CONSUMED = "recordkeeper_consumed_total", Kind::Counter, "positions", [PIPELINE],
        "Source positions taken up. Always the sum of all recordkeeper_outcomes_total and recordkeeper_in_flight.";
    OUTCOMES = "recordkeeper_outcomes_total", Kind::Counter, "positions", [PIPELINE, closed("outcome", names::<End>)],
        "Source positions by how they ended. Abandoned ones were let go unfinished with their partition and are read again by its next owner.";
    IN_FLIGHT = "recordkeeper_in_flight", Kind::Gauge, "positions", [PIPELINE],
        "Source positions taken up and not ended.";
    REPEATED = "recordkeeper_repeated_total", Kind::Counter, "positions", [PIPELINE],
        "Recorded positions whose record stood already under the same origin: redelivered ones.";
    DEAD_LETTERS = "recordkeeper_dead_letters_total", Kind::Counter, "positions", [PIPELINE, closed("reason", names::<Reason>)],
        "Dead-lettered positions by reason.";
    REQUESTS = "recordkeeper_requests_total", Kind::Counter, "messages", [PIPELINE],
        "Wallet-creation requests acknowledged by the broker; an id may be among them more than once.";
    STALE = "recordkeeper_stale_total", Kind::Counter, "writes", [PIPELINE],
        "State writes that changed nothing because a higher version stands.";
    TIES = "recordkeeper_ties_total", Kind::Counter, "writes", [PIPELINE],
        "State writes that changed nothing because the same version stands with other content.";
    CONFLICTS = "recordkeeper_conflicts_total", Kind::Counter, "events", [PIPELINE],
        "Events whose identity, or whose request's id, stands with other content.";
    CHECKPOINTS = "recordkeeper_checkpoints_total", Kind::Counter, "checkpoints", [PIPELINE],
        "Checkpoints handed to the source.";
    ATTESTED = "recordkeeper_attested_total", Kind::Counter, "positions", [PIPELINE],
        "Positions that stand in a ledger entry of this instance.";
    LEDGER_APPENDS = "recordkeeper_ledger_appends_total", Kind::Counter, "appends", [closed("result", names::<Append>)],
        "Appends to the ledger by result.";
    LOCK_CALLS = "recordkeeper_lock_calls_total", Kind::Counter, "calls", [closed("result", names::<LockCall>)],
        "Calls about a lock by result.";
    BATCH_SECONDS = "recordkeeper_batch_seconds", Kind::Histogram(SECONDS), "seconds", [closed("stage", names::<Stage>)],
        "Time that a batch spent in a stage.";
    STORE_CALLS = "recordkeeper_store_calls_total", Kind::Counter, "calls", [closed("operation", names::<Operation>), closed("result", names::<CallResult>)],
        "Calls to the store by operation and result; what became of the items in them is told by their outcomes.";
    STORE_CALL_SECONDS = "recordkeeper_store_call_seconds", Kind::Histogram(SECONDS), "seconds", [closed("operation", names::<Operation>)],
        "Time that a call to the store took.";
    THROTTLES = "recordkeeper_throttles_total", Kind::Counter, "calls", [closed("table", names::<Table>)],
        "Write calls that the store refused in whole or in part to slow a table's writers down; they do slow down then.";
    DEDUPE_LOOKUPS = "recordkeeper_dedupe_lookups_total", Kind::Counter, "ids", [closed("result", names::<LookUp>)],
        "Ids by what the dedupe cache said; away, open and garbled count as unknown: the store decides.";
    DEDUPE_REMEMBERED = "recordkeeper_dedupe_remembered_total", Kind::Counter, "ids", [closed("result", names::<Remembered>)],
        "Ids given to the dedupe cache by result.";
    BREAKERS = "recordkeeper_breaker_state", Kind::Gauge, "0, 1 or 2", [closed("dependency", names::<Guarded>)],
        "0 while calls are made; 2 while a dependency is left alone because it gave no answer several times in a row; 1 while one call tries it.";
    LAG = "recordkeeper_lag", Kind::Gauge, "messages", [GROUP, TOPIC, PARTITION],
        "Messages between the last attested position and the end of an owned partition; gone with the partition.";
    LAG_SECONDS = "recordkeeper_lag_seconds", Kind::Gauge, "seconds", [GROUP, TOPIC, PARTITION],
        "Age of the oldest message of an owned partition that is not attested; 0 where all are.";
    STALLED_SECONDS = "recordkeeper_partition_stalled_seconds", Kind::Gauge, "seconds", [GROUP, TOPIC, PARTITION],
        "Time since an owned partition with work last moved; 0 where there is no work.";
    ASSIGNED = "recordkeeper_assigned_partitions", Kind::Gauge, "partitions", [GROUP],
        "Partitions that this instance owns.";
    PAUSED = "recordkeeper_paused_partitions", Kind::Gauge, "partitions", [GROUP],
        "Owned partitions that are not read at the moment.";
    POISONED = "recordkeeper_poisoned_partitions", Kind::Gauge, "partitions", [GROUP, named("route", "the routes of the pipelines that are run, and `unclassified`")],
        "Owned partitions that wait before the next dead letter of a route too many of whose events are refused.";
    REBALANCES = "recordkeeper_rebalances_total", Kind::Counter, "rebalances", [closed("kind", names::<Rebalance>)],
        "Changes of the owned partitions.";
    LANE_BYTES = "recordkeeper_lane_bytes", Kind::Gauge, "bytes", [],
        "Message bytes held in memory by all lanes.";
    READY = "recordkeeper_ready", Kind::Gauge, "1 or 0", [closed("dependency", names::<Dependency>)],
        "1 while a dependency can be worked with.";
    ALERTS = "recordkeeper_alerts_total", Kind::Counter, "alerts", [closed("alert", names::<Alert>)],
        "Alerts by name; each is also one ERROR line with the same key, of a storm only the first of every ten seconds.";
    BUILD_INFO = "recordkeeper_build_info", Kind::Gauge, "always 1", [named("version", "the build"), named("revision", "the build")],
        "The version and the source revision that run.";
    PROCESS_CPU = "process_cpu_seconds_total", Kind::Counter, "seconds", [],
        "CPU time that the process used, user and system.";
    PROCESS_MEMORY = "process_resident_memory_bytes", Kind::Gauge, "bytes", [],
        "Memory of the process that is in RAM.";
    PROCESS_START = "process_start_time_seconds", Kind::Gauge, "seconds", [],
        "When the process started, since 1970.";
    PROCESS_FDS = "process_open_fds", Kind::Gauge, "file descriptors", [],
        "Open files and sockets of the process.";
}

/// The reference of all metrics and alerts, as Markdown: the text of docs/metrics.md.
pub fn reference() -> String {
    use std::fmt::Write as _;

    let mut out = String::from(
        "# Metrics\n\nGenerated from the code (src/telemetry/metrics/catalogue.rs); a test keeps it so. Served as \
         `/metrics` on the admin port.\n\nAt every scrape, for every pipeline: `recordkeeper_consumed_total` = the sum of \
         `recordkeeper_outcomes_total` over `outcome` + `recordkeeper_in_flight`.\n\n| name | kind | unit | labels | \
         meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for family in CATALOGUE {
        let labels: Vec<String> = family.labels.iter().map(described).collect();
        // A String takes every write.
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} |",
            family.name,
            family.kind.name(),
            family.unit,
            labels.join("<br>"),
            family.help
        );
    }
    out.push_str("\n## Upper bounds of the histograms\n\n");
    for family in CATALOGUE {
        if let Kind::Histogram(bounds) = family.kind {
            let bounds: Vec<String> = bounds.iter().map(f64::to_string).collect();
            let _ = writeln!(out, "- `{}`: {} {}", family.name, bounds.join(", "), family.unit);
        }
    }
    out
}

fn described(label: &Label) -> String {
    match label.values {
        Values::Closed(values) => format!("`{}`: {}", label.name, values().join(", ")),
        Values::Named(of) => format!("`{}`: from {of}", label.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_convention() {
        for family in CATALOGUE {
            let ours = family.name.starts_with("recordkeeper_") || family.name.starts_with("process_");
            assert!(ours, "{}", family.name);
            assert_eq!(family.name.ends_with("_total"), matches!(family.kind, Kind::Counter), "{}", family.name);
            assert!(family.help.ends_with('.'), "{}", family.name);
            if family.unit == "seconds" || family.unit == "bytes" {
                let name = family.name.trim_end_matches("_total");
                assert!(name.ends_with(family.unit), "{}", family.name);
            }
        }
        let mut names: Vec<_> = CATALOGUE.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
    }

    #[test]
    fn the_committed_reference_is_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(committed == reference(), "docs/metrics.md is stale: run the test again with UPDATE_DOCS=1");
    }
}
