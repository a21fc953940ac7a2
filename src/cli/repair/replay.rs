//! `replay`: events that were read are read again, through the same pipeline, while `run` goes on.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::cli::outside::{group_place, of_topic, ranges};
use crate::cli::{EXIT_USAGE, GlobalArgs, PlaceArg, backends, check, run, show, wrong};
use crate::config::Settings;
use crate::ledger::RunItem;
use crate::pipeline::protocol::{Effects, Purpose};
use crate::pipeline::{Pipeline, Prepared, delivery};
use crate::source::archive::{ArchiveFile, ArchiveFiles, Location, Objects, Trouble, files_of};
use crate::source::kafka::KafkaRanges;
use crate::source::range::{Feed, Range, RangeSource, read_all};
use crate::store::dynamodb::{Dynamo, tables};

use super::args::{EffectsArg, ReplayArgs};
use super::diff::diff;
use super::spec::RangeSpec;
use super::{Work, as_they_stand, begin, find_run, lock_out, name_of, say_unfinished, unlock};

/// The kind of these runs.
const KIND: &str = "replay";

/// The ledger's table takes 400 KB an item, the rest of it included.
const SPEC_BYTES_MAX: usize = 380_000;

/// What a replay was told, as it stands in the ledger table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Spec {
    effects: EffectsArg,
    ranges: Vec<RangeSpec>,
    /// The files, in the ranges' order; none where a topic is read.
    archive: Vec<String>,
}

/// A replay that is to be done.
struct Planned {
    pipeline: Arc<Pipeline>,
    run: RunItem,
    effects: Effects,
    ranges: Vec<Range>,
    /// Empty where a topic is read.
    files: Vec<ArchiveFile>,
}

impl Planned {
    fn feed(&self, settings: &Settings, objects: &Objects) -> anyhow::Result<Box<dyn Feed>> {
        let engine = &settings.engine;
        if !self.files.is_empty() {
            let (messages, bytes) = (engine.batch_messages_max, engine.batch_bytes_max.as_usize());
            return Ok(Box::new(ArchiveFiles::new(self.files.clone(), objects.clone(), messages, bytes)));
        }
        let protocol = backends::group_protocol(self.pipeline.protocol());
        let config = backends::kafka_source(settings, &self.pipeline, protocol, true);
        Ok(Box::new(KafkaRanges::connect(config, self.ranges.clone()).map_err(anyhow::Error::msg)?))
    }
}

/// Replays a range.
pub async fn replay(global: &GlobalArgs, args: &ReplayArgs) -> Result<ExitCode, anyhow::Error> {
    let loaded = match global.load([]) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let settings = &loaded.settings;
    let Some(pipelines) = check::pipelines(global, settings) else { return Ok(ExitCode::from(EXIT_USAGE)) };
    let dynamo = backends::dynamo(settings, None, 1, None).await?;
    // Until the process listens to signals they end it.
    let looking = backends::objects(settings, CancellationToken::new());
    let planned = match plan(args, settings, pipelines, &dynamo, &looking).await? {
        Ok(found) => found,
        Err(what) => return wrong(what),
    };
    let process = run::start_process(&loaded)?;
    let objects = backends::objects(settings, process.stop.clone());
    let feed = planned.feed(settings, &objects)?;
    if args.diff {
        let source = RangeSource::start(planned.ranges, feed, args.again.rate.0)?;
        return diff(&dynamo, &planned.pipeline, planned.effects, source, args.again.summary, &process.stop).await;
    }
    if planned.run.done {
        show(format!("replay {} is done: nothing to do\n", planned.run.name).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    if planned.effects == Effects::All {
        let (counting, ranges, pipeline) =
            (planned.feed(settings, &objects)?, planned.ranges.clone(), planned.pipeline.clone());
        let stop = process.stop.clone();
        let requests = tokio::task::spawn_blocking(move || count_requests(counting, &ranges, &pipeline, &stop)).await?;
        let requests = requests.map_err(anyhow::Error::msg)?;
        writeln!(std::io::stderr().lock(), "{requests} creation requests go out again, under their ids")?;
    }
    let Planned { pipeline, run, effects, ranges, files } = planned;
    let locks = backends::locks(settings, tables::identity(&dynamo).await?, run::writer(), &process.metrics)?;
    let ours = lock_out(locks.as_ref(), KIND, std::slice::from_ref(&pipeline), &process.stop).await?;
    let positions: u64 = ranges.iter().map(Range::len).sum();
    writeln!(std::io::stderr().lock(), "replay {}: {positions} positions", run.name)?;
    let ended = async {
        let work = Work {
            settings,
            pipeline: &pipeline,
            dynamo: &dynamo,
            run: &run,
            begun: begin(&dynamo, &pipeline, &run).await?,
            sources: if files.is_empty() { std::slice::from_ref(&pipeline) } else { &[] },
            purpose: Purpose::Repair(effects),
            ranges,
            rate: args.again.rate,
            locks: &ours,
        };
        work.execute(&process, feed).await
    };
    let ended = ended.await;
    unlock(ours).await;
    if !ended? {
        say_unfinished(&process, &run)?;
    }
    run::show_summary(&process, Some(args.again.summary))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the ranges once more than needed, so that nobody sends requests without knowing how many.
fn count_requests(
    mut feed: Box<dyn Feed>,
    ranges: &[Range],
    pipeline: &Pipeline,
    stop: &CancellationToken,
) -> Result<u64, String> {
    let mut requests = 0;
    read_all(&mut *feed, ranges, stop, |batch, message| {
        let (origin, headers) = (batch.origin(message), batch.headers(message).collect::<Vec<_>>());
        if let Prepared::Event(mapped) = pipeline.prepare(&delivery(batch, message, &origin, &headers)) {
            requests += u64::from(mapped.request.is_some());
        }
        Ok(())
    })?;
    Ok(requests)
}

/// What is to be done; the inner error is the user's.
async fn plan(
    args: &ReplayArgs,
    settings: &Settings,
    pipelines: Vec<Pipeline>,
    dynamo: &Dynamo,
    objects: &Objects,
) -> anyhow::Result<Result<Planned, String>> {
    let name = name_of(args.again.run.as_ref());
    if args.again.run.is_some() {
        let reads = |pipeline: &Pipeline| args.topic.as_ref().is_none_or(|topic| pipeline.topics().contains(topic));
        let mut begun = Vec::new();
        for (at, pipeline) in pipelines.iter().enumerate().filter(|(_, pipeline)| reads(pipeline)) {
            begun.extend(find_run(dynamo, pipeline, KIND, &name).await?.map(|run| (at, run)));
        }
        match (begun.pop(), begun.is_empty()) {
            (Some((at, run)), true) => {
                let pipeline = pipelines.into_iter().nth(at).context("the pipeline came and went")?;
                return take_up(args, settings, objects, run, Arc::new(pipeline)).await;
            }
            (Some(_), false) => {
                return Ok(Err(format!("several pipelines have a replay {name}: name one with --pipeline")));
            }
            (None, _) => {}
        }
    }
    let files = match look(args.archive.clone(), objects).await? {
        Ok(files) => files,
        Err(what) => return Ok(Err(what)),
    };
    let topic = match (&args.topic, files.iter().find_map(|file| file.first_origin.as_ref())) {
        (Some(topic), _) => topic.clone(),
        (None, Some(origin)) => origin.partition.topic.clone(),
        (None, None) if files.is_empty() => {
            return Ok(Err(format!("no replay {name} was begun: give --topic or --archive to begin it")));
        }
        (None, None) => return Ok(Err("no line of the archive can be read".to_owned())),
    };
    let chosen = match of_topic(&pipelines, &topic) {
        Ok(pipeline) => pipeline.name().to_owned(),
        Err(what) => return Ok(Err(what)),
    };
    let pipeline = pipelines.into_iter().find(|pipeline| pipeline.name() == chosen);
    let pipeline = Arc::new(pipeline.context("the pipeline came and went")?);
    let reads = |file: &&ArchiveFile| {
        file.first_origin.as_ref().is_none_or(|origin| pipeline.topics().contains(&origin.partition.topic))
    };
    if let Some(other) = files.iter().find(|file| !reads(file)) {
        let place = &other.place;
        return Ok(Err(format!(
            "pipeline {chosen} does not read the topic that {place} is of: replay that file by itself"
        )));
    }
    let ranges = if files.is_empty() {
        let group = group_place(settings, &pipeline)?;
        let (from, to) = (args.from.unwrap_or(PlaceArg::Earliest), args.to.unwrap_or(PlaceArg::Latest));
        match ranges(&group, &topic, &args.partition, from, to).await? {
            Ok(ranges) => ranges,
            Err(what) => return Ok(Err(what)),
        }
    } else {
        files.iter().map(|file| file.range.clone()).collect()
    };
    let effects = args.effects.unwrap_or(EffectsArg::State);
    let archive = files.iter().map(|file| file.place.to_string()).collect();
    let spec = serde_json::to_string(&Spec { effects, ranges: ranges.iter().map(RangeSpec::of).collect(), archive })?;
    if spec.len() > SPEC_BYTES_MAX && !args.diff {
        return Ok(Err("these files are more than a run can be told of: name them in parts".to_owned()));
    }
    let (kind, writer) = (KIND.to_owned(), run::writer());
    let run = RunItem { kind, pipeline: chosen, name, spec, writer, done: false };
    Ok(Ok(Planned { pipeline, run, effects: effects.into(), ranges, files }))
}

/// A run that was begun, unless it was told other things than this time.
async fn take_up(
    args: &ReplayArgs,
    settings: &Settings,
    objects: &Objects,
    run: RunItem,
    pipeline: Arc<Pipeline>,
) -> anyhow::Result<Result<Planned, String>> {
    let name = &run.name;
    let spec: Spec = serde_json::from_str(&run.spec)
        .with_context(|| format!("replay {name} was begun by a version that is not understood"))?;
    let ranges: Vec<Range> = spec.ranges.iter().map(RangeSpec::range).collect::<anyhow::Result<_>>()?;
    let other =
        |what: &str| Ok(Err(format!("replay {name} was begun with another {what}: leave it out, or begin a new run")));
    if args.topic.as_ref().is_some_and(|topic| ranges.iter().any(|range| range.partition.topic != *topic)) {
        return other("--topic");
    }
    if args.from.is_some() || args.to.is_some() || !args.partition.is_empty() {
        return other("range (--from, --to, --partition)");
    }
    if args.effects.is_some_and(|effects| effects != spec.effects) {
        return other("--effects");
    }
    // The same files may have been moved.
    let archive = if args.archive.is_empty() {
        let known = spec.archive.iter().map(|place| place.parse().map_err(anyhow::Error::msg));
        known.collect::<anyhow::Result<Vec<Location>>>()?
    } else {
        args.archive.clone()
    };
    let files = match look(archive, objects).await? {
        Ok(files) => files,
        Err(what) => return Ok(Err(what)),
    };
    let held = |file: &ArchiveFile| ranges.iter().any(|range| range.partition == file.range.partition);
    if files.len() != spec.archive.len() || !files.iter().all(held) {
        return Ok(Err(format!("the files are not those that replay {name} was begun with")));
    }
    let ranges = if files.is_empty() { as_they_stand(settings, &pipeline, ranges).await? } else { ranges };
    Ok(Ok(Planned { pipeline, effects: spec.effects.into(), run, ranges, files }))
}

/// Looks over the files; the inner error is the user's.
async fn look(places: Vec<Location>, objects: &Objects) -> anyhow::Result<Result<Vec<ArchiveFile>, String>> {
    let objects = objects.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let mut files = Vec::new();
        for place in places {
            for file in files_of(place.absolute(), &objects)? {
                files.push(ArchiveFile::look(file, &objects)?);
            }
        }
        Ok(files)
    });
    let files: Vec<ArchiveFile> = match looked.await? {
        Ok(files) => files,
        Err(Trouble::Wrong(what)) => return Ok(Err(what)),
        Err(away @ Trouble::Away(_)) => return Err(away.into()),
    };
    let double = |at: usize| files[..at].iter().any(|other| other.range.partition == files[at].range.partition);
    Ok(match (0..files.len()).find(|at| double(*at)) {
        Some(at) => Err(format!("{} is given twice", files[at].place)),
        None => Ok(files),
    })
}
