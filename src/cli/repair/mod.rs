//! Runs that read again: `replay` and `redrive`. Each keeps a ledger of its own, which says where it goes on after a crash.

pub mod args;
mod corrections;
mod diff;
mod letters;
pub mod list;
mod plan;
mod progress;
mod redrive;
pub mod replay;
mod spec;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::engine::{Coordinator, Ending};
use crate::event::{PartitionRef, Position};
use crate::ledger::{Chain, Fence, Ledger as _, Opening, RunItem};
use crate::lock::{Lock, Locks, Taken};
use crate::pipeline::Pipeline;
use crate::pipeline::protocol::Purpose;
use crate::source::range::{Feed, Range, RangeSource};
use crate::store::dynamodb::{Dynamo, tables};
use crate::telemetry::{Alert, At};

use super::lanes::Lanes;
use super::outside::{again, group_place, places};
use super::run::{self, Process};
use super::{backends, ready};
use args::{RateArg, RunName};
use progress::Progress;

/// A name for a run that was given none: when it began.
fn name_of(given: Option<&RunName>) -> String {
    given.map_or_else(|| jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%6fZ").to_string(), |name| name.0.clone())
}

/// The run that was begun under this name.
///
/// # Errors
///
/// Where the ledger cannot be read.
async fn find_run(dynamo: &Dynamo, pipeline: &Pipeline, kind: &str, name: &str) -> anyhow::Result<Option<RunItem>> {
    let runs = again(|| dynamo.runs(pipeline.group())).await?;
    let same = |run: &RunItem| run.kind == kind && run.pipeline == pipeline.name() && run.name == name;
    Ok(runs.into_iter().find(same))
}

/// Ranges that were noted earlier, as their logs stand now: some of it may be gone.
///
/// # Errors
///
/// What is in the way: the topic was made anew, or is gone.
async fn as_they_stand(settings: &Settings, pipeline: &Pipeline, ranges: Vec<Range>) -> anyhow::Result<Vec<Range>> {
    let group = group_place(settings, pipeline)?;
    let mut now = Vec::with_capacity(ranges.len());
    for range in ranges {
        let number = range.partition.name.parse().with_context(|| format!("{} is no partition", range.partition))?;
        let found = places(&group, &range.partition.topic, &[number]).await?.map_err(anyhow::Error::msg)?;
        let place = found.into_iter().find(|place| place.partition == range.partition).with_context(|| {
            format!("topic {} was made anew since the run was begun: begin a new one", range.partition.topic)
        })?;
        anyhow::ensure!(place.log_end >= range.to, "topic {} was cut since the run was begun", range.partition.topic);
        now.push(Range { log_start: place.log_start, ..range });
    }
    Ok(now)
}

/// How far a run had come when this process turned to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    /// It surely begins with this process.
    Now,
    /// By another process, or by a call of this one whose answer was lost.
    Before,
    /// It is done.
    Done,
}

/// Puts a run on record.
///
/// # Errors
///
/// Where the ledger does not answer; where a run of this name was told other things.
async fn begin(dynamo: &Dynamo, pipeline: &Pipeline, run: &RunItem) -> anyhow::Result<Begun> {
    let (standing, begun) = again(|| dynamo.begin_run(pipeline.group(), run)).await?;
    anyhow::ensure!(standing.spec == run.spec, "a run {} was begun meanwhile, and told other things", run.name);
    Ok(match (standing.done, begun) {
        (true, _) => Begun::Done,
        (false, true) => Begun::Now,
        (false, false) => Begun::Before,
    })
}

/// The command that takes a run up again.
fn take_up(run: &RunItem) -> String {
    let RunItem { kind, name, .. } = run;
    let execute = if kind == redrive::KIND { " --execute" } else { "" };
    format!("`recordkeeper {kind}{execute} --run {name}` goes on where the ledger ends")
}

/// A run about to be worked on, and on record.
struct Work<'a> {
    settings: &'a Settings,
    pipeline: &'a Arc<Pipeline>,
    dynamo: &'a Dynamo,
    run: &'a RunItem,
    begun: Begun,
    /// The pipelines whose topics have to be there: none where archives or letters are read.
    sources: &'a [Arc<Pipeline>],
    purpose: Purpose,
    ranges: Vec<Range>,
    rate: RateArg,
    /// What keeps others from the same.
    locks: &'a [Lock<'a>],
}

impl Work<'_> {
    /// Each range's chain, in its first epoch, and where it begins.
    fn chains(&self) -> Vec<(Chain, Position)> {
        let group: Arc<str> = self.run.ledger_group(self.pipeline.group()).into();
        let chain = |range: &Range| Chain { group: group.clone(), partition: range.partition.clone(), epoch: 0 };
        self.ranges.iter().map(|range| (chain(range), range.from)).collect()
    }

    /// The run's own epochs: the first ones where this process began it, or else the next, with the chains of whoever worked on it
    /// before sealed.
    async fn take_over(&self) -> anyhow::Result<BTreeMap<PartitionRef, u32>> {
        let chains = self.chains();
        let partitions = chains.iter().map(|(chain, _)| chain.partition.clone());
        if self.begun == Begun::Now {
            return Ok(partitions.map(|partition| (partition, 0)).collect());
        }
        // Not on the word of a lock that ended meanwhile.
        for lock in self.locks {
            if let Ok(Some(holder)) = lock.confirm().await {
                anyhow::bail!("{}", self.overtaken_by(&holder));
            }
        }
        let writer = run::writer();
        match again(|| self.dynamo.take_over(&chains, &writer)).await? {
            Fence::Tokens(tokens) => Ok(partitions.zip(tokens).collect()),
            Fence::Refused(why) => anyhow::bail!("run {} cannot be taken up: {why}", self.run.name),
        }
    }

    fn overtaken_by(&self, holder: &str) -> String {
        format!("{holder} does a {} of this pipeline now: {}", self.run.kind, take_up(self.run))
    }

    /// How many positions each range's chain holds already.
    async fn done_before(&self) -> anyhow::Result<u64> {
        let mut done = 0;
        for (chain, begin) in self.chains() {
            let Opening { begin: begun, end, .. } = again(|| self.dynamo.opening(&chain)).await?;
            done += end.map(|end| end.position).or(begun).map_or(0, |end| begin.distance_to(end));
        }
        Ok(done)
    }

    /// Takes the run over and makes ready to read its ranges. `None` where the process is to end.
    async fn open(
        &mut self,
        process: &Process,
        feed: Box<dyn Feed>,
    ) -> anyhow::Result<Option<(Coordinator, Progress)>> {
        let (settings, pipeline, dynamo, run) = (self.settings, self.pipeline, self.dynamo, self.run);
        let deadline = settings.engine.start_deadline;
        let waiting = ready::wait(settings, dynamo, self.sources, &process.readiness, &process.stop);
        let topics = tokio::time::timeout(deadline, waiting)
            .await
            .with_context(|| format!("not ready within {deadline:?}: the log names what is missing"))?;
        let Some(topics) = topics else { return Ok(None) };
        let cache = backends::dedupe(settings, tables::identity(dynamo).await?, &process.metrics)?;
        let tokens = self.take_over().await?;
        let total: u64 = self.ranges.iter().map(Range::len).sum();
        let progress = Progress::new(run, total, self.done_before().await?, process.metrics.clone());
        let source = RangeSource::start(std::mem::take(&mut self.ranges), feed, self.rate.0)?;
        let ledger_group = run.ledger_group(pipeline.group());
        let lanes = Lanes {
            settings,
            credentials: None,
            pipeline,
            topics: &topics,
            cache: &cache,
            group: &ledger_group,
            tokens: Some(Arc::new(tokens)),
            purpose: self.purpose,
            pipelines: 1,
            until_idle: true,
        };
        Ok(Some((lanes.start(process, Box::new(source)).await?, progress)))
    }

    /// Reads the ranges through the pipeline. True where it came to their end; then that is on record.
    ///
    /// # Errors
    ///
    /// What is missing at the start, or cannot be read; that another process has taken over.
    async fn execute(mut self, process: &Process, feed: Box<dyn Feed>) -> anyhow::Result<bool> {
        if self.begun == Begun::Done {
            return Ok(true);
        }
        let (dynamo, run, locks) = (self.dynamo, self.run, self.locks);
        let opened = tokio::select! {
            opened = self.open(process, feed) => opened?,
            holder = overtaken(locks) => None.with_context(|| self.overtaken_by(&holder))?,
        };
        let Some((coordinator, progress)) = opened else { return Ok(false) };
        let mut working = std::pin::pin!(coordinator.run(process.stop.clone()));
        let (ending, overtaken) = tokio::select! {
            ending = &mut working => (ending, None),
            holder = overtaken(locks) => {
                process.stop.cancel();
                (working.await, Some(holder))
            }
            never = progress.show() => match never {},
        };
        progress.end();
        if let Some(holder) = overtaken {
            anyhow::bail!("{}", self.overtaken_by(&holder));
        }
        match ending? {
            Ending::Drained if !process.stop.is_cancelled() => {
                again(|| dynamo.end_run(self.pipeline.group(), run)).await?;
                Ok(true)
            }
            Ending::Drained => Ok(false),
            Ending::Left(partitions) => {
                let message = format_args!("{}: not drained in time: {}", run.name, partitions.join(", "));
                process.metrics.alerts.raise(Alert::DrainDeadline, &At::default(), message);
                Ok(false)
            }
        }
    }
}

/// Keeps other processes from the same kind of runs of these pipelines; nothing where Redis does not answer, or is not used.
///
/// # Errors
///
/// Where another process has the lock.
async fn lock_out<'a>(
    locks: Option<&'a Locks>,
    kind: &str,
    pipelines: &[Arc<Pipeline>],
    stop: &CancellationToken,
) -> anyhow::Result<Vec<Lock<'a>>> {
    let Some(locks) = locks else { return Ok(Vec::new()) };
    let mut ours = Vec::with_capacity(pipelines.len());
    for pipeline in pipelines {
        let name = pipeline.name();
        let lock = format!("{kind}|{name}");
        let taken = tokio::select! {
            taken = locks.take(&lock) => Ok(taken),
            holder = overtaken(&ours) => Err(format!("{holder} does a {kind} of one of the pipelines now")),
            () = stop.cancelled() => Err("told to stop".to_owned()),
        };
        let refused = match taken {
            Ok(Taken::Ours(lock)) => {
                ours.push(lock);
                continue;
            }
            Ok(Taken::Unknown(why)) => {
                tracing::warn!("no lock: nothing keeps another process from a {kind} of pipeline {name}: redis: {why}");
                continue;
            }
            Ok(Taken::Held(holder)) => {
                format!("a {kind} of pipeline {name} is under way in {holder}: wait until it ends, or stop it")
            }
            Err(why) => why,
        };
        unlock(ours).await;
        anyhow::bail!(refused);
    }
    Ok(ours)
}

/// Keeps these locks, and ends only when somebody else has one of them: who.
async fn overtaken(locks: &[Lock<'_>]) -> String {
    if locks.is_empty() {
        std::future::pending::<()>().await;
    }
    futures::future::select_all(locks.iter().map(|lock| Box::pin(lock.keep()))).await.0
}

/// Gives locks back; one that is not answered ends by itself.
async fn unlock(locks: Vec<Lock<'_>>) {
    for lock in locks {
        if let Err(unanswered) = lock.release().await {
            tracing::info!("a lock ends by itself: redis: {unanswered}");
        }
    }
}

/// Says how a run can be taken up again.
fn say_unfinished(process: &Process, run: &RunItem) -> anyhow::Result<()> {
    run::show_summary(process, None)?;
    anyhow::bail!("stopped before its end: {}", take_up(run))
}
