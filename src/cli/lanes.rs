//! From a pipeline and the settings to the engine that runs it, whatever the source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Settings;
use crate::dedupe::DedupeStore;
use crate::engine::{Coordinator, Hosting, LaneLimits, Limits, WorkerParts};
use crate::event::PartitionRef;
use crate::pipeline::protocol::Purpose;
use crate::pipeline::{Parts, Patience, Pipeline};
use crate::source::Source;
use crate::store::dynamodb::StaticCredentials;
use crate::telemetry::Guarded;
use crate::topic::GuardedTopic;

use super::ready::Topics;
use super::run::{BEATS, Process};
use super::{backends, run};

/// What a pipeline's lanes are made of.
pub(super) struct Lanes<'a> {
    /// Settings.
    pub settings: &'a Settings,
    /// Credentials of the embedded store.
    pub credentials: Option<StaticCredentials>,
    /// What to run.
    pub pipeline: &'a Arc<Pipeline>,
    /// Where requests and letters go.
    pub topics: &'a Topics,
    /// The cache in front of the judge.
    pub cache: &'a Arc<dyn DedupeStore>,
    /// Whose ledger is kept.
    pub group: &'a str,
    /// See [`Parts::tokens`].
    pub tokens: Option<Arc<BTreeMap<PartitionRef, u32>>>,
    /// What for.
    pub purpose: Purpose,
    /// How many pipelines share the process.
    pub pipelines: usize,
    /// Whether the run ends with its input.
    pub until_idle: bool,
}

impl Lanes<'_> {
    /// Starts workers and whatever hands them out what the source brings.
    ///
    /// # Errors
    ///
    /// Wrong settings, or no threads left.
    pub async fn start(self, process: &Process, source: Box<dyn Source>) -> anyhow::Result<Coordinator> {
        let Self { settings, pipeline, topics, cache, pipelines, until_idle, .. } = self;
        let engine = &settings.engine;
        let workers = (engine.worker_threads.0 / pipelines).max(1);
        let writer = run::writer();
        let guarded = |topic, guarded| Arc::new(GuardedTopic::new(topic, process.metrics.breakers.of(guarded)));
        // What is read again was refused before.
        let poison = backends::poison(engine).filter(|_| self.purpose == Purpose::Live);
        let heads = backends::heads(settings).map_err(anyhow::Error::msg)?;
        let mut parts = Vec::with_capacity(workers);
        for _ in 0..workers {
            let (credentials, share) = (self.credentials.clone(), workers * pipelines);
            let dynamo = Arc::new(backends::dynamo(settings, credentials, share, Some(&process.metrics)).await?);
            let parts_of_lane = Parts {
                group: self.group.into(),
                tokens: self.tokens.clone(),
                purpose: self.purpose,
                // Each lane sets its own.
                partition: Arc::new(crate::event::Partition::default()),
                pipeline: pipeline.clone(),
                dedupe: cache.clone(),
                store: dynamo.clone(),
                ledger: dynamo,
                requests: guarded(topics.requests.clone(), Guarded::RequestTopic),
                letters: guarded(topics.letters.clone(), Guarded::DeadLetterTopic),
                metrics: process.metrics.clone(),
                tally: process.metrics.tally(pipeline.name()),
                poison: poison.clone(),
                patience: Patience {
                    initial: Duration::from_millis(50),
                    ceiling: Duration::from_secs(5),
                    stalled_after: 8,
                },
            };
            parts.push(WorkerParts {
                parts: parts_of_lane,
                lane_limits: LaneLimits { batches_in_flight_max: engine.batches_in_flight },
                attest_interval: engine.attest_interval,
                heads: heads.clone(),
                writer: writer.clone(),
                heartbeat: process.heartbeats.register("worker", BEATS),
            });
        }
        let limits = Limits {
            lane_bytes_max: engine.lane_bytes_max.as_usize(),
            memory_bytes_max: engine.memory_bytes_max.as_usize() / pipelines,
            drain_deadline: engine.drain_deadline,
            until_idle,
        };
        let heartbeat = process.heartbeats.register("coordinator", BEATS);
        Ok(Coordinator::start(source, parts, limits, process.readiness.clone(), heartbeat, Hosting::Threads)?)
    }
}
