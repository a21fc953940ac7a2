//! `redrive`: dead letters are tried again, directly and under a ledger of their own. Nothing is published to source topics.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cli::outside::{again, group_place, places};
use crate::cli::run::Process;
use crate::cli::{EXIT_USAGE, GlobalArgs, backends, check, run, show, wrong};
use crate::config::Settings;
use crate::event::Position;
use crate::ledger::{Chain, Fills, Ledger as _, RunItem};
use crate::lock::Lock;
use crate::pipeline::Pipeline;
use crate::pipeline::protocol::{Effects, Purpose};
use crate::source::kafka::KafkaRanges;
use crate::source::range::Range;
use crate::store::dynamodb::{Dynamo, tables};

use super::args::{LetterFilter, RedriveArgs};
use super::corrections::Corrections;
use super::letters::{Found, Letters, Resolved, look};
use super::plan::{Planned, Planning, has_ranges};
use super::{Begun, Work, begin, lock_out, name_of, overtaken, say_unfinished, unlock};

/// The kind of these runs.
pub(super) const KIND: &str = "redrive";
/// Entries of one page of a run's ledger.
const ENTRIES_PAGE: usize = 100;

/// Said where no letter is left.
const NOTHING: &[u8] = b"nothing to redrive\n";

/// Shows which letters would be tried again; with `--execute` tries them.
pub(super) async fn redrive(global: &GlobalArgs, args: &RedriveArgs) -> Result<ExitCode, anyhow::Error> {
    let loaded = match global.load([]) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let settings = &loaded.settings;
    let Some(pipelines) = check::pipelines(global, settings) else { return Ok(ExitCode::from(EXIT_USAGE)) };
    let corrections = match args.corrected.as_deref().map(Corrections::read).transpose() {
        Ok(corrections) => corrections.unwrap_or_default(),
        Err(what) => return wrong(what),
    };
    let dynamo = backends::dynamo(settings, None, 1, None).await?;
    let name = name_of(args.again.run.as_ref());
    let pipelines: Vec<Arc<Pipeline>> = pipelines.into_iter().map(Arc::new).collect();
    let looking = CancellationToken::new();
    let planning = Planning { args, name: &name, settings, dynamo: &dynamo, corrections: &corrections, stop: &looking };
    let planning = planning.all(&pipelines);
    if !args.execute {
        let planned = match planning.await? {
            Ok(planned) => planned,
            Err(what) => return wrong(what),
        };
        show(if planned.iter().all(Planned::is_empty) {
            NOTHING
        } else {
            b"nothing was changed: --execute does it\n"
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let process = run::start_process(&loaded)?;
    let locks = backends::locks(settings, tables::identity(&dynamo).await?, run::writer(), &process.metrics)?;
    let ours = lock_out(locks.as_ref(), KIND, &pipelines, &process.stop).await?;
    // Only now: what another redrive did with the letters is known.
    let planned = tokio::select! {
        planned = planning => planned,
        holder = overtaken(&ours) => Err(anyhow::anyhow!("{holder} does a redrive of these pipelines now")),
        () = process.stop.cancelled() => Err(anyhow::anyhow!("told to stop")),
    };
    looking.cancel();
    let ended = match planned {
        Ok(Ok(planned)) => execute(args, settings, &dynamo, &process, planned, &ours).await,
        Ok(Err(what)) => wrong(what),
        Err(error) => Err(error),
    };
    unlock(ours).await;
    ended
}

/// Tries letters again, one pipeline's after the other's.
async fn execute(
    args: &RedriveArgs,
    settings: &Settings,
    dynamo: &Dynamo,
    process: &Process,
    planned: Vec<Planned>,
    locks: &[Lock<'_>],
) -> anyhow::Result<ExitCode> {
    if planned.iter().all(Planned::is_empty) {
        show(NOTHING)?;
        return Ok(ExitCode::SUCCESS);
    }
    // All of it is on record before any is done: what was not chosen now is not chosen when the run is taken up again.
    let mut begun = Vec::with_capacity(planned.len());
    for one in planned {
        let how = begin(dynamo, &one.pipeline, &one.run).await?;
        begun.push((one, how));
    }
    for (one, _) in begun.iter().filter(|(one, how)| one.is_empty() && *how != Begun::Done) {
        again(|| dynamo.end_run(one.pipeline.group(), &one.run)).await?;
    }
    for (Planned { pipeline, run, ranges, selection, .. }, begun) in
        begun.into_iter().filter(|(one, _)| !one.is_empty())
    {
        writeln!(std::io::stderr().lock(), "redrive {}: {} letters", run.name, selection.chosen.len())?;
        let feed = connect(settings, &pipeline, ranges.clone())?;
        let work = Work {
            settings,
            pipeline: &pipeline,
            dynamo,
            run: &run,
            begun,
            sources: &[],
            purpose: Purpose::Repair(Effects::All),
            ranges,
            rate: args.again.rate,
            locks,
        };
        if !work.execute(process, Box::new(Letters { feed, selection: Arc::new(selection) })).await? {
            say_unfinished(process, &run)?;
        }
    }
    run::show_summary(process, Some(args.again.summary))?;
    Ok(ExitCode::SUCCESS)
}

/// All that the dead-letter topic holds now.
///
/// # Errors
///
/// What is in the way.
pub(super) async fn whole_topic(settings: &Settings, pipeline: &Pipeline) -> anyhow::Result<Vec<Range>> {
    let group = group_place(settings, pipeline)?;
    let places = places(&group, &settings.general.dead_letters_topic, &[]).await?.map_err(anyhow::Error::msg)?;
    let range = |place: crate::source::kafka::Place| Range {
        partition: place.partition,
        from: place.log_start,
        to: place.log_end,
        log_start: place.log_start,
    };
    Ok(places.into_iter().map(range).collect())
}

/// To read ranges of the dead-letter topic.
///
/// # Errors
///
/// Wrong settings.
pub(super) fn connect(settings: &Settings, pipeline: &Pipeline, ranges: Vec<Range>) -> anyhow::Result<KafkaRanges> {
    let config = backends::kafka_source(settings, pipeline, backends::group_protocol(pipeline.protocol()), true);
    KafkaRanges::connect(config, ranges).map_err(anyhow::Error::msg)
}

/// Looks over the ranges on a thread that may wait.
///
/// # Errors
///
/// What cannot be read.
pub(super) async fn search(
    settings: &Settings,
    pipeline: &Pipeline,
    ranges: &[Range],
    filter: LetterFilter,
    resolved: Resolved,
    stop: &CancellationToken,
) -> anyhow::Result<Found> {
    let mut feed = connect(settings, pipeline, ranges.to_vec())?;
    let (ranges, group, name) = (ranges.to_vec(), pipeline.group().to_owned(), pipeline.name().to_owned());
    let stop = stop.clone();
    let looked =
        tokio::task::spawn_blocking(move || look(&mut feed, &ranges, (&group, &name), &filter, &resolved, &stop));
    looked.await?.map_err(anyhow::Error::msg)
}

/// What earlier runs have recorded, other than the one of this name, and what was dismissed.
///
/// # Errors
///
/// Where the ledger cannot be read.
pub(super) async fn resolved(
    dynamo: &Dynamo,
    pipeline: &Pipeline,
    ranges: &[Range],
    but: Option<&str>,
) -> anyhow::Result<Resolved> {
    let group = pipeline.group();
    let mut filled = Fills::default();
    let runs = again(|| dynamo.runs(group)).await?;
    let earlier = |run: &&RunItem| {
        run.kind == KIND && run.pipeline == pipeline.name() && Some(run.name.as_str()) != but && has_ranges(run)
    };
    for run in runs.iter().filter(earlier) {
        let ledger_group: Arc<str> = run.ledger_group(group).into();
        for range in ranges {
            let first = Chain { group: ledger_group.clone(), partition: range.partition.clone(), epoch: 0 };
            // Each taking up of the run began another epoch.
            let latest = again(|| dynamo.opening(&first)).await?.epoch;
            for epoch in 0..=latest {
                let chain = Chain { epoch, ..first.clone() };
                let mut after = Position::Begin;
                loop {
                    let entries = again(|| dynamo.entries(&chain, after, ENTRIES_PAGE)).await?;
                    entries.iter().for_each(|entry| filled.merge(&entry.fills));
                    match entries.last() {
                        Some(last) => after = last.to,
                        None => break,
                    }
                }
            }
        }
    }
    let dismissed = again(|| dynamo.dismissals(group)).await?;
    Ok(Resolved { filled, dismissed: dismissed.into_iter().map(|dismissal| dismissal.origin).collect() })
}
