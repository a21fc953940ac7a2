//! Metrics: one declared catalogue, handles registered once, one text to be scraped.
//!
//! Parts get handles from [`Metrics`] and add to them once a batch. Numbers that have to fit together (the outcomes of a
//! pipeline) live in a [`Tally`] and are read under its lock; numbers of partitions go away with the partition.

mod catalogue;
mod exposition;
mod handles;
mod labels;
mod partitions;
mod process;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::store::dynamodb::Table;

use super::{Alerts, Breakers, Dependency, Summary, Tally};
use catalogue::{CATALOGUE, Kind};
use exposition::Exposition;

pub use catalogue::reference;
pub use handles::{CounterGrid, Counters, DedupeMetrics, Gauge, Timers};
pub(crate) use labels::closed_label;
pub use labels::{Append, CallResult, ClosedLabel, End, LockCall, LookUp, Operation, Rebalance, Remembered, Stage};
pub use partitions::{PartitionReading, Partitions};

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The source revision of this build, where it was told.
pub const REVISION: &str = match option_env!("RECORDKEEPER_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The catalogue cannot be registered: a histogram without bounds.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be registered: {0}")]
pub struct MetricsError(#[from] metrics_exporter_prometheus::BuildError);

/// Every metric of the process.
pub struct Metrics {
    /// Raises alerts.
    pub alerts: Alerts,
    /// What is left alone for the moment.
    pub breakers: Arc<Breakers>,
    /// The dedupe cache.
    pub dedupe: DedupeMetrics,
    /// Appends to the ledger.
    pub ledger_appends: Counters<Append>,
    /// Calls about locks.
    pub lock_calls: Counters<LockCall>,
    /// Time in the stages of a batch.
    pub stages: Timers<Stage>,
    /// Calls to the store.
    pub store_calls: CounterGrid<Operation, CallResult>,
    /// Time of calls to the store.
    pub store_call_seconds: Timers<Operation>,
    /// Write calls that were told to slow down.
    pub throttles: Counters<Table>,
    /// Changes of the owned partitions.
    pub rebalances: Counters<Rebalance>,
    /// Message bytes in memory.
    pub lane_bytes: Gauge,
    /// The owned partitions.
    pub partitions: Partitions,
    tallies: Mutex<BTreeMap<String, Arc<Tally>>>,
    recorder: PrometheusRecorder,
    rendered: PrometheusHandle,
}

impl Metrics {
    /// Registers the catalogue. Nothing global is touched: every instance counts for itself.
    pub fn new() -> Result<Self, MetricsError> {
        let mut builder = PrometheusBuilder::new();
        for family in CATALOGUE {
            if let Kind::Histogram(bounds) = family.kind {
                builder = builder.set_buckets_for_metric(Matcher::Full(family.name.to_owned()), bounds)?;
            }
        }
        let recorder = builder.build_recorder();
        handles::describe(&recorder);
        handles::gauge(&recorder, &catalogue::BUILD_INFO, &[VERSION, REVISION]).set(1.0);
        let alerts = Alerts::new(Counters::register(&recorder, &catalogue::ALERTS));
        Ok(Self {
            breakers: Arc::new(Breakers::new(alerts.clone())),
            alerts,
            dedupe: DedupeMetrics::register(&recorder),
            ledger_appends: Counters::register(&recorder, &catalogue::LEDGER_APPENDS),
            lock_calls: Counters::register(&recorder, &catalogue::LOCK_CALLS),
            stages: Timers::register(&recorder, &catalogue::BATCH_SECONDS),
            store_calls: CounterGrid::register(&recorder, &catalogue::STORE_CALLS),
            store_call_seconds: Timers::register(&recorder, &catalogue::STORE_CALL_SECONDS),
            throttles: Counters::register(&recorder, &catalogue::THROTTLES),
            rebalances: Counters::register(&recorder, &catalogue::REBALANCES),
            lane_bytes: handles::gauge(&recorder, &catalogue::LANE_BYTES, &[]),
            partitions: Partitions::default(),
            tallies: Mutex::default(),
            rendered: recorder.handle(),
            recorder,
        })
    }

    /// The tally of one pipeline; the same one for the same name.
    pub fn tally(&self, pipeline: &str) -> Arc<Tally> {
        Arc::clone(self.tallies().entry(pipeline.to_owned()).or_default())
    }

    /// Every pipeline's numbers, each consistent in itself.
    pub fn pipelines(&self) -> Vec<(String, Summary)> {
        self.tallies().iter().map(|(pipeline, tally)| (pipeline.clone(), tally.summary())).collect()
    }

    /// All pipelines together.
    pub fn summary(&self) -> Summary {
        self.tallies().values().map(|tally| tally.summary()).fold(Summary::default(), Summary::plus)
    }

    /// The text of a scrape, in Prometheus' format 0.0.4.
    pub fn render(&self) -> String {
        let mut out = Exposition::after(self.rendered.render());
        self.render_tallies(&mut out);
        self.partitions.render(&mut out);
        out.family(&catalogue::BREAKERS, self.breakers.states().into_iter().map(|(name, state)| ([name], state)));
        process::render(&mut out);
        out.finish()
    }

    /// Folds observations into their histograms. Between two scrapes they pile up, so this is called now and then.
    pub fn upkeep(&self) {
        self.rendered.run_upkeep();
    }

    /// Whether a dependency can be worked with.
    pub(super) fn ready(&self, dependency: Dependency, ready: bool) {
        let gauge = handles::gauge(&self.recorder, &catalogue::READY, &[dependency.name()]);
        gauge.set(if ready { 1.0 } else { 0.0 });
    }

    fn render_tallies(&self, out: &mut Exposition) {
        let counts: Vec<_> = self.tallies().iter().map(|(name, tally)| (name.clone(), tally.counts())).collect();
        let of_pipeline = |number: fn(&super::tally::Counts) -> u64| {
            counts.iter().map(move |(name, counts)| ([name.as_str()], number(counts) as f64))
        };
        out.family(&catalogue::CONSUMED, of_pipeline(|counts| counts.consumed));
        out.family(
            &catalogue::OUTCOMES,
            counts.iter().flat_map(|(name, counts)| {
                End::ALL.iter().map(move |end| ([name.as_str(), end.name()], counts.ended(*end) as f64))
            }),
        );
        out.family(&catalogue::IN_FLIGHT, of_pipeline(|counts| counts.in_flight()));
        out.family(&catalogue::REPEATED, of_pipeline(|counts| counts.settled.repeated));
        out.family(
            &catalogue::DEAD_LETTERS,
            counts.iter().flat_map(|(name, counts)| {
                counts.settled.dead_letters().map(move |(reason, n)| ([name.as_str(), reason.name()], n as f64))
            }),
        );
        out.family(&catalogue::REQUESTS, of_pipeline(|counts| counts.settled.requests));
        out.family(&catalogue::STALE, of_pipeline(|counts| counts.settled.stale));
        out.family(&catalogue::TIES, of_pipeline(|counts| counts.settled.ties));
        out.family(&catalogue::CONFLICTS, of_pipeline(|counts| counts.settled.conflicts));
        out.family(&catalogue::CHECKPOINTS, of_pipeline(|counts| counts.checkpoints));
        out.family(&catalogue::ATTESTED, of_pipeline(|counts| counts.attested));
    }

    fn tallies(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Tally>>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Partition, Reason};
    use crate::telemetry::BatchTally;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn used() -> Metrics {
        let metrics = Metrics::new().unwrap();
        let tally = metrics.tally("p");
        tally.consumed(3);
        tally.settle(&BatchTally { recorded: 1, ..BatchTally::default() });
        metrics.ready(Dependency::Redis, true);
        metrics.breakers.of(crate::telemetry::Guarded::Redis);
        metrics.stages.observe(Stage::Judge, Duration::from_millis(3));
        metrics.store_call_seconds.observe(Operation::BatchExecuteStatement, Duration::from_millis(3));
        let partition =
            Partition { cluster: "c".into(), topic: "t".into(), topic_id: "i".into(), epoch: 0, name: "0".into() };
        metrics.partitions.assigned("g", &partition);
        let poisoned = PartitionReading { poisoned_by: Some("r".into()), ..PartitionReading::default() };
        metrics.partitions.read("g", &partition, poisoned);
        metrics
    }

    #[test]
    fn a_scrape_holds_the_catalogue_and_nothing_else_each_family_once() {
        let text = used().render();
        let declared = |mark: &str| -> Vec<String> {
            text.lines().filter_map(|line| line.strip_prefix(mark)?.split(' ').next().map(str::to_owned)).collect()
        };
        let expected: BTreeSet<String> = CATALOGUE.iter().map(|family| family.name.to_owned()).collect();
        for mark in ["# TYPE ", "# HELP "] {
            let names = declared(mark);
            assert_eq!(names.iter().cloned().collect::<BTreeSet<_>>(), expected);
            assert_eq!(names.len(), expected.len());
        }
        for family in CATALOGUE {
            assert!(text.contains(&format!("# TYPE {} {}\n", family.name, family.kind.name())), "{}", family.name);
        }
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (_, number) = line.rsplit_once(' ').unwrap();
            assert!(number.parse::<f64>().is_ok(), "{line}");
        }
    }

    #[test]
    fn the_closed_labels_are_there_before_anything_happened() {
        let text = Metrics::new().unwrap().render();
        for alert in crate::telemetry::Alert::ALL {
            assert!(text.contains(&format!("recordkeeper_alerts_total{{alert=\"{}\"}} 0\n", alert.name())));
        }
        assert!(text.contains("recordkeeper_store_calls_total{operation=\"query\",result=\"ok\"} 0\n"));
    }

    #[test]
    fn histograms_have_buckets_so_that_instances_add_up() {
        let metrics = used();
        metrics.upkeep();
        let text = metrics.render();
        assert!(text.contains("recordkeeper_batch_seconds_bucket{stage=\"judge\",le=\"0.0025\"} 0\n"), "{text}");
        assert!(text.contains("recordkeeper_batch_seconds_bucket{stage=\"judge\",le=\"0.005\"} 1\n"));
        assert!(text.contains("recordkeeper_batch_seconds_count{stage=\"judge\"} 1\n"));
    }

    /// The numbers of one family in a scrape, added up.
    fn sum(text: &str, family: &str) -> f64 {
        text.lines()
            .filter(|line| line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{')))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
            .sum()
    }

    #[test]
    fn the_sum_rule_holds_at_every_scrape() {
        let metrics = Metrics::new().unwrap();
        std::thread::scope(|scope| {
            let lanes: Vec<_> = (0..3)
                .map(|lane| {
                    let tally = metrics.tally(if lane == 0 { "a" } else { "b" });
                    scope.spawn(move || {
                        for round in 0..2000u64 {
                            tally.consumed(10);
                            let mut batch =
                                BatchTally { recorded: 5, duplicate: 2, skipped: 1, ..BatchTally::default() };
                            batch.dead_letter(Reason::ALL[(round % 12) as usize]);
                            tally.settle(&batch);
                            tally.abandon(1);
                        }
                    })
                })
                .collect();
            let mut scrapes = 0;
            while scrapes < 20 || lanes.iter().any(|lane| !lane.is_finished()) {
                let text = metrics.render();
                let ended = sum(&text, "recordkeeper_outcomes_total") + sum(&text, "recordkeeper_in_flight");
                assert_eq!(sum(&text, "recordkeeper_consumed_total"), ended);
                scrapes += 1;
            }
        });
        let summary = metrics.summary();
        assert_eq!((summary.consumed, summary.in_flight), (3 * 2000 * 9, 0));
    }
}
