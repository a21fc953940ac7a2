//! `redrive`: dead letters are tried again, directly and under a ledger of their own. Nothing is published to source topics.

use std::collections::HashSet;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cli::outside::{again, group_place, places};
use crate::cli::run::{BEATS, Process};
use crate::cli::{EXIT_USAGE, GlobalArgs, backends, check, run, show, wrong};
use crate::config::Settings;
use crate::event::{Position, Reason};
use crate::ledger::{Chain, Fills, Ledger as _, RunItem};
use crate::lock::Lock;
use crate::pipeline::Pipeline;
use crate::pipeline::protocol::{Effects, Purpose};
use crate::source::kafka::KafkaRanges;
use crate::source::range::Range;
use crate::store::dynamodb::{Dynamo, tables};

use super::args::{LetterFilter, RedriveArgs};
use super::corrections::Corrections;
use super::letters::{Found, Letters, Place, Resolved, Selection, look};
use super::list::shown;
use super::spec::RangeSpec;
use super::{Work, as_they_stand, find_run, lock_out, name_of, overtaken, say_unfinished, unlock};

/// The kind of these runs.
const KIND: &str = "redrive";
/// Entries of one page of a run's ledger.
const ENTRIES_PAGE: usize = 100;

/// Said where no letter is left.
const NOTHING: &[u8] = b"nothing to redrive\n";

/// What a redrive was told, as it stands in the ledger table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Spec {
    filter: FilterSpec,
    attempts_max: u32,
    /// The digest of the file of corrected events; empty without one.
    corrected: String,
    ranges: Vec<RangeSpec>,
    /// With a count: the last letter that it chose.
    last: Option<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FilterSpec {
    reason: Vec<String>,
    route: Vec<String>,
    topic: Vec<String>,
    origin: Vec<String>,
    since: Option<String>,
    until: Option<String>,
    key: Option<String>,
    count: Option<u64>,
}

impl From<&LetterFilter> for FilterSpec {
    fn from(filter: &LetterFilter) -> Self {
        Self {
            reason: filter.reason.iter().map(|reason| reason.name().to_owned()).collect(),
            route: filter.route.clone(),
            topic: filter.topic.clone(),
            origin: filter.origin.clone(),
            since: filter.since.map(|time| time.to_string()),
            until: filter.until.map(|time| time.to_string()),
            key: filter.key.clone(),
            count: filter.count,
        }
    }
}

impl FilterSpec {
    fn filter(&self) -> anyhow::Result<LetterFilter> {
        let reason = |name: &String| {
            Reason::from_name(name).ok_or_else(|| anyhow::anyhow!("the run on record names no reason: {name}"))
        };
        let time = |text: &Option<String>| text.as_ref().map(|text| text.parse()).transpose();
        Ok(LetterFilter {
            reason: self.reason.iter().map(reason).collect::<anyhow::Result<_>>()?,
            route: self.route.clone(),
            topic: self.topic.clone(),
            origin: self.origin.clone(),
            since: time(&self.since)?,
            until: time(&self.until)?,
            key: self.key.clone(),
            count: self.count,
        })
    }
}

/// One pipeline's part of a redrive.
struct Planned {
    pipeline: Arc<Pipeline>,
    run: RunItem,
    ranges: Vec<Range>,
    found: Found,
    selection: Selection,
}

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
    let planning = plan_all(args, &name, settings, &pipelines, &dynamo, &corrections);
    if !args.execute {
        let planned = match planning.await? {
            Ok(planned) => planned,
            Err(what) => return wrong(what),
        };
        show(if planned.is_empty() { NOTHING } else { b"nothing was changed: --execute does it\n" })?;
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
    if planned.is_empty() {
        show(NOTHING)?;
        return Ok(ExitCode::SUCCESS);
    }
    for Planned { pipeline, run, ranges, selection, .. } in planned {
        writeln!(std::io::stderr().lock(), "redrive {}: {} letters", run.name, selection.chosen.len())?;
        let feed = connect(settings, &pipeline, ranges.clone())?;
        let work = Work {
            settings,
            pipeline: &pipeline,
            dynamo,
            run: &run,
            purpose: Purpose::Repair(Effects::All),
            ranges,
            rate: args.again.rate,
            beats: BEATS,
            locks,
        };
        if !work.execute(process, Box::new(Letters { feed, selection: Arc::new(selection) })).await? {
            say_unfinished(process, "redrive --execute", &run)?;
        }
    }
    run::show_summary(process, Some(args.again.summary))?;
    Ok(ExitCode::SUCCESS)
}

/// What is to be done in each pipeline, shown to the user; the inner error is the user's.
async fn plan_all(
    args: &RedriveArgs,
    name: &str,
    settings: &Settings,
    pipelines: &[Arc<Pipeline>],
    dynamo: &Dynamo,
    corrections: &Corrections,
) -> anyhow::Result<Result<Vec<Planned>, String>> {
    // Shared by the pipelines.
    let mut left = args.filter.count.unwrap_or(u64::MAX);
    let (mut planned, mut any_resumed) = (Vec::new(), false);
    for pipeline in pipelines {
        match plan(args, name, settings, pipeline.clone(), dynamo, corrections, &mut left).await? {
            Ok((one, resumed)) => {
                planned.extend(one);
                any_resumed |= resumed;
            }
            Err(what) => return Ok(Err(what)),
        }
    }
    let named: HashSet<&String> = planned.iter().flat_map(|one| one.selection.corrected.keys()).collect();
    // Of a run that was begun some may be recorded by now.
    let unknown = corrections.by_origin.keys().find(|origin| !any_resumed && !named.contains(origin));
    if let Some(origin) = unknown {
        return Ok(Err(format!("--corrected: no open dead letter has the origin {origin}")));
    }
    show(shown(&planned.iter().flat_map(|one| &one.found.letters).collect::<Vec<_>>(), 20).as_bytes())?;
    let spent: usize = planned.iter().map(|one| one.selection.spent.len()).sum();
    if spent > 0 {
        let most = args.attempts_max;
        show(format!("{spent} of them were tried {most} times or more and stay where they are\n").as_bytes())?;
    }
    planned.retain(|one| !one.selection.chosen.is_empty());
    Ok(Ok(planned))
}

/// One pipeline's part, and whether its run was begun before; no part where that is done. The inner error is the user's.
async fn plan(
    args: &RedriveArgs,
    name: &str,
    settings: &Settings,
    pipeline: Arc<Pipeline>,
    dynamo: &Dynamo,
    corrections: &Corrections,
    left: &mut u64,
) -> anyhow::Result<Result<(Option<Planned>, bool), String>> {
    let begun = match &args.again.run {
        Some(_) => find_run(dynamo, &pipeline, KIND, name).await?,
        None => None,
    };
    let (given, resumed) = (FilterSpec::from(&args.filter), begun.is_some());
    let (begun, ranges, filter, attempts_max) = match begun {
        Some(run) if run.done => return Ok(Ok((None, true))),
        Some(run) => {
            let spec: Spec = serde_json::from_str(&run.spec)?;
            if args.filter != LetterFilter::default() && given != spec.filter {
                return Ok(Err(format!(
                    "redrive {name} was begun with other filters: leave them out, or begin a new run"
                )));
            }
            if corrections.digest != spec.corrected {
                return Ok(Err(format!(
                    "redrive {name} was begun with another --corrected file, or none: give that one"
                )));
            }
            let ranges = spec.ranges.iter().map(RangeSpec::range).collect::<anyhow::Result<Vec<_>>>()?;
            let ranges = as_they_stand(settings, &pipeline, ranges).await?;
            (Some((run, spec.last)), ranges, spec.filter.filter()?, spec.attempts_max)
        }
        None => {
            let ranges = whole_topic(settings, &pipeline).await?;
            (None, ranges, args.filter.clone(), args.attempts_max)
        }
    };
    let resolved = resolved(dynamo, &pipeline, &ranges, Some(name)).await?;
    let filter = corrections.narrow(filter);
    // Also letters that were written since the run was begun: they stand for their events now.
    let all = whole_topic(settings, &pipeline).await?;
    let mut found = search(settings, &pipeline, &all, filter, resolved).await?;
    found.letters.retain(|letter| {
        let (partition, offset) = letter.place;
        let holds =
            |range: &Range| range.partition.name == partition.to_string() && Position::Offset(offset) <= range.to;
        ranges.iter().any(holds)
    });
    let mut selection = Selection::default();
    let mut last = None;
    found.letters.retain(|letter| {
        if letter.head.attempts >= attempts_max {
            return selection.spent.insert(letter.place);
        }
        let chosen = match &begun {
            Some((_, last)) => last.is_none_or(|last| letter.place <= last),
            None => *left > 0,
        };
        if chosen {
            *left = left.saturating_sub(1);
            last = Some(letter.place);
            selection.chosen.insert(letter.place);
        }
        chosen
    });
    for letter in &found.letters {
        let origin = letter.head.origin.text();
        if let Some(value) = corrections.by_origin.get(&origin) {
            selection.corrected.insert(origin, value.clone());
        }
    }
    let run = match begun {
        Some((run, _)) => run,
        None => {
            let spec = Spec {
                filter: given,
                attempts_max,
                corrected: corrections.digest.clone(),
                ranges: ranges.iter().map(RangeSpec::of).collect(),
                last: last.filter(|_| args.filter.count.is_some()),
            };
            let spec = serde_json::to_string(&spec)?;
            let (kind, pipeline, name) = (KIND.to_owned(), pipeline.name().to_owned(), name.to_owned());
            RunItem { kind, pipeline, name, spec, writer: run::writer(), done: false }
        }
    };
    Ok(Ok((Some(Planned { pipeline, run, ranges, found, selection }), resumed)))
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
) -> anyhow::Result<Found> {
    let mut feed = connect(settings, pipeline, ranges.to_vec())?;
    let (ranges, name) = (ranges.to_vec(), pipeline.name().to_owned());
    let looked = tokio::task::spawn_blocking(move || look(&mut feed, &ranges, &name, &filter, &resolved));
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
    for run in
        runs.iter().filter(|run| run.kind == KIND && run.pipeline == pipeline.name() && Some(run.name.as_str()) != but)
    {
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
