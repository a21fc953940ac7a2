//! `replay`: events that were read are read again, through the same pipeline, while `run` goes on.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cli::outside::{of_topic, places, positions};
use crate::cli::{EXIT_USAGE, GlobalArgs, PlaceArg, backends, check, run};
use crate::config::Settings;
use crate::ledger::RunItem;
use crate::pipeline::Pipeline;
use crate::pipeline::protocol::{Effects, Purpose};
use crate::source::kafka::{GroupPlace, KafkaRanges};
use crate::source::range::Range;
use crate::store::dynamodb::Dynamo;

use super::args::{EffectsArg, ReplayArgs};
use super::spec::RangeSpec;
use super::{Work, find_run, name_of, say_unfinished};

/// The kind of these runs.
const KIND: &str = "replay";

/// What a replay was told, as it stands in the ledger table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Spec {
    effects: String,
    ranges: Vec<RangeSpec>,
}

/// A replay that is to be done.
struct Planned {
    run: RunItem,
    effects: Effects,
    ranges: Vec<Range>,
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
    let (pipeline, planned) = match plan(args, settings, pipelines, &dynamo).await? {
        Ok(found) => found,
        Err(what) => {
            writeln!(std::io::stderr().lock(), "error: {what}")?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    if planned.run.done {
        writeln!(std::io::stdout().lock(), "replay {} is done: nothing to do", planned.run.name)?;
        return Ok(ExitCode::SUCCESS);
    }
    let process = run::start_process(&loaded)?;
    let Planned { run, effects, ranges } = planned;
    writeln!(
        std::io::stderr().lock(),
        "replay {}: {} positions",
        run.name,
        ranges.iter().map(Range::len).sum::<u64>()
    )?;
    let config = backends::kafka_source(settings, &pipeline, backends::group_protocol(pipeline.protocol()), true);
    let feed = KafkaRanges::connect(config, ranges.clone()).map_err(anyhow::Error::msg)?;
    let work = Work {
        settings,
        pipeline: &pipeline,
        dynamo: &dynamo,
        run: &run,
        purpose: Purpose::Repair(effects),
        ranges,
        rate: args.again.rate,
    };
    if !work.execute(&process, feed).await? {
        say_unfinished(&process, KIND, &run)?;
    }
    run::show_summary(&process, Some(args.again.summary))?;
    Ok(ExitCode::SUCCESS)
}

/// What is to be done; the inner error is the user's.
async fn plan(
    args: &ReplayArgs,
    settings: &Settings,
    pipelines: Vec<Pipeline>,
    dynamo: &Dynamo,
) -> anyhow::Result<Result<(Arc<Pipeline>, Planned), String>> {
    let name = name_of(args.again.run.as_ref());
    let mut begun = None;
    if args.again.run.is_some() {
        for pipeline in &pipelines {
            if let Some(run) = find_run(dynamo, pipeline.group(), KIND, &name).await? {
                begun = Some((pipeline.name().to_owned(), run));
            }
        }
    }
    let chosen = match (&begun, &args.topic) {
        (Some((name, _)), _) => name.clone(),
        (None, Some(topic)) => match of_topic(&pipelines, topic) {
            Ok(pipeline) => pipeline.name().to_owned(),
            Err(what) => return Ok(Err(what)),
        },
        (None, None) => return Ok(Err(format!("no replay {name} was begun: give --topic to begin it"))),
    };
    let Some(pipeline) = pipelines.into_iter().find(|pipeline| pipeline.name() == chosen).map(Arc::new) else {
        return Ok(Err(format!("no pipeline {chosen}")));
    };
    if let Some((_, run)) = begun {
        return Ok(take_up(args, run).await?.map(|planned| (pipeline, planned)));
    }
    let topic = args.topic.clone().unwrap_or_default();
    let ranges = match ranges(args, settings, &pipeline, &topic).await? {
        Ok(ranges) => ranges,
        Err(what) => return Ok(Err(what)),
    };
    let effects = args.effects.unwrap_or(EffectsArg::State);
    let spec = Spec { effects: effects_name(effects).to_owned(), ranges: ranges.iter().map(RangeSpec::of).collect() };
    let spec = serde_json::to_string(&spec)?;
    let run = RunItem { kind: KIND.to_owned(), name, spec, writer: run::writer(), done: false };
    Ok(Ok((pipeline, Planned { run, effects: effects.into(), ranges })))
}

/// A run that was begun, unless it was told other things than this time.
async fn take_up(args: &ReplayArgs, run: RunItem) -> anyhow::Result<Result<Planned, String>> {
    let spec: Spec = serde_json::from_str(&run.spec)?;
    let ranges: Vec<Range> = spec.ranges.iter().map(RangeSpec::range).collect::<anyhow::Result<_>>()?;
    let name = &run.name;
    let other =
        |what: &str| Ok(Err(format!("replay {name} was begun with another {what}: leave it out, or begin a new run")));
    if args.topic.as_ref().is_some_and(|topic| ranges.iter().any(|range| range.partition.topic != *topic)) {
        return other("--topic");
    }
    if args.from.is_some() || args.to.is_some() || !args.partition.is_empty() {
        return Ok(Err(format!("replay {name} was begun with its range: leave out --from, --to and --partition")));
    }
    if args.effects.is_some_and(|effects| effects_name(effects) != spec.effects) {
        return other("--effects");
    }
    let Some(effects) = [EffectsArg::None, EffectsArg::State, EffectsArg::All]
        .into_iter()
        .find(|effects| effects_name(*effects) == spec.effects)
    else {
        anyhow::bail!("replay {name} was begun with effects that this version does not know: {}", spec.effects)
    };
    Ok(Ok(Planned { run, effects: effects.into(), ranges }))
}

/// The ranges that the arguments name, as the log stands now.
async fn ranges(
    args: &ReplayArgs,
    settings: &Settings,
    pipeline: &Pipeline,
    topic: &str,
) -> anyhow::Result<Result<Vec<Range>, String>> {
    let (from, to) = (args.from.unwrap_or(PlaceArg::Earliest), args.to.unwrap_or(PlaceArg::Latest));
    let by_offset = [from, to].iter().any(|place| matches!(place, PlaceArg::Offset(_)));
    if by_offset && args.partition.len() != 1 {
        return Ok(Err("an offset is one of one partition: give exactly one --partition".to_owned()));
    }
    let connection = backends::kafka_connection(settings);
    let group = Arc::new(GroupPlace::connect(&connection, pipeline.group()).map_err(anyhow::Error::msg)?);
    let places = match places(&group, topic, &args.partition).await? {
        Ok(places) => places,
        Err(what) => return Ok(Err(what)),
    };
    let (begin, end) = (positions(&group, &places, from).await?, positions(&group, &places, to).await?);
    let mut ranges = Vec::with_capacity(places.len());
    for ((place, from), to) in places.into_iter().zip(begin).zip(end) {
        let partition = &place.partition;
        if from < place.log_start || from.max(to) > place.log_end {
            let (first, next) = (place.log_start.next_offset(), place.log_end.next_offset());
            return Ok(Err(format!("{partition} holds offsets from {first} on, below {next}: ask for those")));
        }
        if to < from {
            return Ok(Err(format!("{partition}: --to lies before --from")));
        }
        ranges.push(Range { partition: place.partition, from, to, log_start: place.log_start });
    }
    if ranges.iter().all(Range::is_empty) {
        return Ok(Err(format!("nothing stands in this range of {topic}")));
    }
    Ok(Ok(ranges))
}

fn effects_name(effects: EffectsArg) -> &'static str {
    match effects {
        EffectsArg::None => "none",
        EffectsArg::State => "state",
        EffectsArg::All => "all",
    }
}
