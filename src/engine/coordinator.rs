//! Between one source and its workers: hands out partitions and batches, holds the source back where memory runs out,
//! takes checkpoints to it, and ends lanes on revocation and shutdown alike.

mod assign;
mod ending;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::event::PartitionRef;
use crate::guard::failpoint;
use crate::pipeline::Poisoned;
use crate::source::{Assignment, RawBatch, Source, SourceError, SourceEvent};
use crate::telemetry::metrics::{PartitionReading, Rebalance};
use crate::telemetry::{Condition, Dependency, Heartbeat, Metrics, Readiness, Tally};

use super::lane::{Mode, held_bytes};
use super::owned::{Owned, Revocation};
use super::worker::{FromWorker, Hosting, SharedSurvey, ToWorker, Worker, WorkerParts};

/// How long a source may take to say good-bye once all is drained.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// Between two looks after the coordinator's own house.
const BEAT: Duration = Duration::from_secs(1);

/// What a coordinator may hold, and how long it may take to let go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one partition between read and settled; above, the partition is paused.
    pub lane_bytes_max: usize,
    /// The same over all partitions; above, each partition that delivers is paused, until half of it is free or it holds nothing.
    pub memory_bytes_max: usize,
    /// From the order to end until lanes are given up.
    pub drain_deadline: Duration,
    /// Whether the run ends with its input, so that a partition that must not be read fails it.
    pub until_idle: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything read is durable and attested; what the source could not checkpoint in time is only read again.
    Drained,
    /// These partitions were given up at the deadline; the next owner reads what was left again.
    Left(Vec<String>),
}

/// See the module.
pub struct Coordinator {
    source: Box<dyn Source>,
    workers: Vec<Worker>,
    from_workers: mpsc::Receiver<FromWorker>,
    limits: Limits,
    readiness: Arc<Readiness>,
    heartbeat: Heartbeat,
    group: Arc<str>,
    pipeline: String,
    metrics: Arc<Metrics>,
    tally: Arc<Tally>,
    owned: BTreeMap<PartitionRef, Owned>,
    bytes: usize,
    /// By topic: the last survey, under way or done.
    surveys: BTreeMap<String, SharedSurvey>,
    /// Assignments of partitions whose earlier lane has not ended yet.
    waiting: BTreeMap<PartitionRef, Assignment>,
    revocations: Vec<Revocation>,
    given_up: Vec<String>,
    ending: Option<Mode>,
    deadline: Option<Instant>,
    failure: Option<SourceError>,
}

impl Coordinator {
    /// Starts one worker for each element of `parts`.
    ///
    /// # Errors
    ///
    /// Where the system has no threads left.
    pub fn start(
        source: Box<dyn Source>,
        parts: Vec<WorkerParts>,
        limits: Limits,
        readiness: Arc<Readiness>,
        heartbeat: Heartbeat,
        hosting: Hosting,
    ) -> std::io::Result<Self> {
        let (outbox, from_workers) = mpsc::channel(256);
        let seams = parts.first().map(|first| first.parts.clone()).ok_or(std::io::ErrorKind::InvalidInput)?;
        let workers = parts
            .into_iter()
            .enumerate()
            .map(|(index, parts)| Worker::start(format!("worker-{index}"), parts, outbox.clone(), hosting))
            .collect::<std::io::Result<_>>()?;
        Ok(Self {
            source,
            workers,
            from_workers,
            limits,
            readiness,
            heartbeat,
            group: seams.group,
            pipeline: seams.pipeline.name().to_owned(),
            metrics: seams.metrics,
            tally: seams.tally,
            owned: BTreeMap::new(),
            bytes: 0,
            surveys: BTreeMap::new(),
            waiting: BTreeMap::new(),
            revocations: Vec::new(),
            given_up: Vec::new(),
            ending: None,
            deadline: None,
            failure: None,
        })
    }

    /// Works until `stop`, the end of the input, or a source that cannot go on; then drains within the deadline.
    ///
    /// # Errors
    ///
    /// The source's, after what was in flight had its time to drain.
    pub async fn run(mut self, stop: CancellationToken) -> Result<Ending, SourceError> {
        let mut beat = tokio::time::interval(BEAT);
        while self.ending.is_none() || !self.owned.is_empty() {
            let deadline = self.next_deadline();
            tokio::select! {
                biased;
                () = stop.cancelled(), if self.ending != Some(Mode::Drain) => self.end(Mode::Drain),
                Some(message) = self.from_workers.recv() => self.hear(message),
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => self.give_up(),
                _ = beat.tick() => {
                    self.heartbeat.touch();
                    self.read_gauges();
                    self.bury_dead_workers();
                }
                event = self.source.next(), if self.failure.is_none() => match event {
                    Ok(event) => self.take(event),
                    Err(error) => self.fail(error),
                },
            }
        }
        for revocation in self.revocations.drain(..) {
            // The source no longer waits: as good as acknowledged.
            let _ = revocation.ack.send(());
        }
        self.source.close(self.limits.drain_deadline.min(CLOSE_DEADLINE)).await;
        // A worker that still tells something must not wait for room.
        drop(self.from_workers);
        futures::future::join_all(self.workers.into_iter().map(Worker::stop)).await;
        match self.failure {
            Some(error) => Err(error),
            None if self.given_up.is_empty() => Ok(Ending::Drained),
            None => Ok(Ending::Left(self.given_up)),
        }
    }

    fn tell_readiness(&self, dependency: Dependency, condition: Condition) {
        self.readiness.tell(dependency, &self.pipeline, condition);
    }

    /// Nothing helps but a new start: drains what still can.
    fn fail(&mut self, error: SourceError) {
        self.tell_readiness(Dependency::Kafka, Condition::NotReady(error.to_string()));
        self.failure.get_or_insert(error);
        self.end(Mode::Drain);
    }

    fn read_gauges(&self) {
        self.metrics.lane_bytes.set(self.bytes as f64);
        let lags: BTreeMap<PartitionRef, u64> = self.source.lags().into_iter().collect();
        for (partition, owned) in &self.owned {
            let (lag_seconds, stalled_seconds) = owned.progress.seconds();
            let lag = lags.get(partition).copied().unwrap_or(owned.behind);
            let (paused, poisoned_by) = (owned.paused, owned.poisoned_by.clone());
            let reading = PartitionReading { lag, lag_seconds, stalled_seconds, paused, poisoned_by };
            self.metrics.partitions.read(&self.group, partition, reading);
        }
    }

    fn take(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Assigned(assignments) => {
                self.metrics.rebalances.add(Rebalance::Assigned, 1);
                for assignment in assignments {
                    self.assign(assignment);
                }
            }
            SourceEvent::Batch(batch) => self.deliver(batch),
            SourceEvent::Revoked { partitions, lost, ack } => {
                self.metrics.rebalances.add(if lost { Rebalance::Lost } else { Rebalance::Revoked }, 1);
                self.revoke(partitions, ack);
            }
            SourceEvent::EndOfInput if self.ending.is_none() => self.end(Mode::Finish),
            SourceEvent::EndOfInput => {}
            SourceEvent::Health { ready, detail } => {
                let condition = if ready { Condition::Ready } else { Condition::NotReady(detail) };
                self.tell_readiness(Dependency::Kafka, condition);
            }
        }
    }

    fn deliver(&mut self, batch: RawBatch) {
        let held = held_bytes(&batch);
        let partition = batch.partition.clone();
        let over = self.bytes + held > self.limits.memory_bytes_max;
        let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.started && !owned.draining) else {
            return;
        };
        owned.bytes += held;
        self.bytes += held;
        if !owned.paused && (over || owned.bytes > self.limits.lane_bytes_max) {
            owned.paused = true;
            self.source.pause(&partition);
        }
        let worker = owned.worker;
        self.tell(worker, ToWorker::Batch(batch));
    }

    fn hear(&mut self, message: FromWorker) {
        match message {
            FromWorker::LogEnd { partition, reply } => {
                // A lane that was told to end asks no more.
                let _ = reply.send(self.source.log_end(&partition));
            }
            FromWorker::Survey { partition, reply } => {
                let _ = reply.send(self.survey(&partition));
            }
            FromWorker::Unread { partition, reason } => self.unread(&partition, reason),
            FromWorker::Fenced { partition, reason } => {
                self.fail(SourceError::Fatal(format!("{partition} was {reason}")));
                // Nothing of ours can be attested any more: there is nothing to drain.
                self.deadline = Some(Instant::now());
            }
            FromWorker::Start { partition, after } => {
                // A lane that was told to drain meanwhile must not start what is assigned after it.
                let running = |owned: &&mut Owned| self.ending.is_none() && !owned.draining;
                if let Some(owned) = self.owned.get_mut(&partition).filter(running) {
                    owned.started = true;
                    self.source.start(&partition, after);
                }
            }
            FromWorker::Poisoned { partition, poisoned } => self.poisoned(&partition, poisoned),
            FromWorker::Freed { partition, bytes } => self.freed(&partition, bytes),
            FromWorker::Checkpoint { done } => {
                self.source.checkpoint(&done);
                self.tally.checkpointed(done.len() as u64);
                failpoint::hit("checkpointed");
            }
            FromWorker::Ended { partition, complete } => self.ended(&partition, complete),
        }
    }

    /// Goes on with the other partitions, and is not ready while it has this one.
    fn unread(&mut self, partition: &PartitionRef, reason: String) {
        let Some(owned) = self.owned.get_mut(partition) else { return };
        owned.unread = true;
        if self.limits.until_idle {
            self.given_up.push(partition.to_string());
            self.fail(SourceError::Fatal(reason));
        } else {
            self.tell_readiness(Dependency::SourceTopics, Condition::NotReady(reason));
        }
    }

    /// Reads no more of it and goes on with the other partitions; only a run that is to end when all is read cannot.
    fn poisoned(&mut self, partition: &PartitionRef, Poisoned { route, reason }: Poisoned) {
        let Some(owned) = self.owned.get_mut(partition) else { return };
        owned.poisoned_by = Some(route);
        if !owned.paused {
            owned.paused = true;
            self.source.pause(partition);
        }
        if self.limits.until_idle {
            self.given_up.push(partition.to_string());
            self.fail(SourceError::Fatal(format!("{partition} waits: {reason}")));
        }
    }

    fn freed(&mut self, partition: &PartitionRef, bytes: usize) {
        if let Some(owned) = self.owned.get_mut(partition) {
            self.bytes = self.bytes.saturating_sub(bytes);
            owned.bytes = owned.bytes.saturating_sub(bytes);
        }
        self.give_room();
    }

    /// Resumes what may be read again. Only from half of a limit on, so that a partition is not paused again at once; but one that
    /// holds nothing in any case, because what others hold may stay for ever.
    fn give_room(&mut self) {
        if self.ending.is_some() {
            return;
        }
        let room = self.bytes <= self.limits.memory_bytes_max / 2;
        for (partition, owned) in &mut self.owned {
            let held_back = owned.draining || owned.poisoned_by.is_some();
            let may_hold_more = owned.bytes == 0 || (room && owned.bytes <= self.limits.lane_bytes_max / 2);
            if owned.paused && !held_back && may_hold_more {
                owned.paused = false;
                self.source.resume(partition);
            }
        }
    }

    fn by_worker(&self, partitions: Vec<PartitionRef>, message: impl Fn(Vec<PartitionRef>) -> ToWorker) {
        let mut by_worker: BTreeMap<usize, Vec<PartitionRef>> = BTreeMap::new();
        for partition in partitions {
            if let Some(owned) = self.owned.get(&partition) {
                by_worker.entry(owned.worker).or_default().push(partition);
            }
        }
        for (worker, partitions) in by_worker {
            self.tell(worker, message(partitions));
        }
    }

    fn tell(&self, worker: usize, message: ToWorker) {
        // A worker ends only after its coordinator dropped it.
        if let Some(worker) = self.workers.get(worker) {
            let _ = worker.inbox.send(message);
        }
    }
}
