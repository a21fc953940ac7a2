//! `reset`: moves a group to another position of a topic, with a reason, on record in the ledger.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::event::{Digest, Outcome, Position, SetDigest};
use crate::guard::Backoff;
use crate::ledger::{Appended, Chain, Entry, Ledger as _, Order, Outcomes};
use crate::pipeline::Pipeline;
use crate::pipeline::protocol::{self, Extended, Move};
use crate::source::Assignment;
use crate::source::kafka::GroupPlace;
use crate::store::Retry;
use crate::store::dynamodb::{Dynamo, stored_now};

use super::{EXIT_USAGE, GlobalArgs, ResetArgs, ResetTo, backends, check, run, show, table};

/// How often a call that may pass is made.
const TRIES: u32 = 8;

/// One partition, and what is to happen to it.
struct Planned {
    chain: Chain,
    place: Assignment,
    ledger_end: Position,
    /// The digest of the chain's last entry.
    previous: Digest,
    to: Position,
    what: Move,
}

/// Shows what would be moved; with `--execute` moves it.
pub async fn reset(global: &GlobalArgs, args: &ResetArgs) -> Result<ExitCode, anyhow::Error> {
    let loaded = match global.load([]) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let settings = &loaded.settings;
    let Some(pipelines) = check::pipelines(global, settings) else { return Ok(ExitCode::from(EXIT_USAGE)) };
    let pipeline = match of_topic(&pipelines, &args.topic).and_then(|pipeline| check_args(args).map(|()| pipeline)) {
        Ok(pipeline) => pipeline,
        Err(what) => {
            writeln!(std::io::stderr().lock(), "error: {what}")?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let dynamo = backends::dynamo(settings, None, 1, None).await?;
    let group = Arc::new(
        GroupPlace::connect(&backends::kafka_connection(settings), pipeline.group()).map_err(anyhow::Error::msg)?,
    );
    let planned = match plan(args, pipeline, &dynamo, &group).await? {
        Ok(planned) => planned,
        Err(what) => {
            writeln!(std::io::stderr().lock(), "error: {what}")?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let mut shown = Vec::new();
    table::write(&mut shown, &rows(&planned))?;
    show(&shown)?;
    let changed: Vec<Planned> = planned.into_iter().filter(changes).collect();
    if changed.is_empty() {
        show(b"the group stands there already: nothing to do\n")?;
    } else if args.execute {
        execute(args, pipeline, &dynamo, &group, changed).await?;
        show(b"moved, and on record in the ledger\n")?;
    } else {
        show(b"nothing was changed: --execute does it, while no instance of the group runs\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The one pipeline that reads a topic.
fn of_topic<'a>(pipelines: &'a [Pipeline], topic: &str) -> Result<&'a Pipeline, String> {
    let mut reading = pipelines.iter().filter(|pipeline| pipeline.topics().iter().any(|read| read == topic));
    match (reading.next(), reading.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(format!("no pipeline reads topic {topic}: check --topic and --pipeline")),
        (Some(one), Some(other)) => {
            Err(format!("{} and {} read topic {topic}: name one with --pipeline", one.name(), other.name()))
        }
    }
}

fn check_args(args: &ResetArgs) -> Result<(), String> {
    if args.reason.trim().is_empty() || args.reason.len() > 1024 {
        return Err("--reason: say why, in 1 to 1024 bytes; it stays in the ledger".to_owned());
    }
    if matches!(args.to, ResetTo::Offset(_)) && args.partition.len() != 1 {
        return Err("--to OFFSET is an offset of one partition: give exactly one --partition".to_owned());
    }
    Ok(())
}

/// What is to happen to each partition; the inner error is the user's.
async fn plan(
    args: &ResetArgs,
    pipeline: &Pipeline,
    dynamo: &Dynamo,
    group: &Arc<GroupPlace>,
) -> anyhow::Result<Result<Vec<Planned>, String>> {
    let topic = args.topic.clone();
    let mut places = blocking(group, move |group| group.of_topic(&topic)).await?;
    let known: Vec<String> = places.iter().map(|place| place.partition.name.clone()).collect();
    if let Some(unknown) = args.partition.iter().map(u32::to_string).find(|name| !known.contains(name)) {
        return Ok(Err(format!("topic {} has no partition {unknown}: it has {}", args.topic, known.join(", "))));
    }
    places.retain(|place| {
        args.partition.is_empty() || args.partition.iter().any(|it| it.to_string() == place.partition.name)
    });
    let wanted: Vec<Position> = match args.to {
        ResetTo::Earliest => places.iter().map(|place| place.log_start).collect(),
        ResetTo::Latest => places.iter().map(|place| place.log_end).collect(),
        ResetTo::Offset(next) => vec![Position::before_offset(next)],
        ResetTo::Time(time) => {
            let places = places.clone();
            blocking(group, move |group| group.at_time(&places, time.as_millisecond())).await?
        }
    };
    let mut planned = Vec::with_capacity(places.len());
    for (place, to) in places.into_iter().zip(wanted) {
        let chain = Chain { group: pipeline.group().into(), partition: place.partition.clone(), epoch: 0 };
        let end = again(|| dynamo.end(&chain)).await?;
        let (ledger_begin, ledger_end, previous) = match end {
            Some(end) => {
                let first = again(|| dynamo.entries(&chain, Position::Begin, 1)).await?;
                (first.first().map_or(end.position, |entry| entry.from), end.position, end.digest)
            }
            None => {
                let Some(item) = again(|| dynamo.find_start_item(&chain)).await? else {
                    let topic = &args.topic;
                    return Ok(Err(format!(
                        "group {} has not begun on topic {topic}: the pipeline's start policy says where it begins",
                        pipeline.group()
                    )));
                };
                let found = item.starts.iter().find(|(name, _)| *name == place.partition.name);
                let begin = protocol::chain_begin(found.map(|(_, start)| *start), place.log_start);
                (begin, begin, Digest::of(b""))
            }
        };
        // What the group never had is not to be read, wherever the log begins.
        let to = if args.to == ResetTo::Earliest { to.max(ledger_begin) } else { to };
        match protocol::move_to(to, (ledger_begin, ledger_end), (place.log_start, place.log_end)) {
            Ok(what) => planned.push(Planned { chain, place, ledger_end, previous, to, what }),
            Err(why) => return Ok(Err(format!("{} cannot be moved to {to}: {why}", place.partition))),
        }
    }
    Ok(Ok(planned))
}

fn changes(planned: &Planned) -> bool {
    planned.what != Move::Checkpoint || planned.place.checkpoint != Some(planned.to)
}

/// Each order goes on record before it is carried out; then the ledger, then the checkpoints.
async fn execute(
    args: &ResetArgs,
    pipeline: &Pipeline,
    dynamo: &Dynamo,
    group: &Arc<GroupPlace>,
    planned: Vec<Planned>,
) -> anyhow::Result<()> {
    // The checkpoints as they are: refused where somebody is at work, before anything is written.
    let as_they_are =
        planned.iter().map(|one| (one.place.partition.clone(), one.place.checkpoint.unwrap_or(one.ledger_end)));
    let stand: Vec<_> = as_they_are.collect();
    blocking(group, move |group| group.commit(&stand)).await?;
    for one in &planned {
        let order = Order {
            reason: args.reason.clone(),
            ledger_end: one.ledger_end,
            checkpoint: one.place.checkpoint,
            to: one.to,
            ordered_at: stored_now(),
            writer: run::writer(),
            nonce: uuid::Uuid::new_v4().simple().to_string(),
        };
        again(|| dynamo.put_order(&one.chain, &order)).await?;
        if let Move::Skip { from, log_start, to } = one.what {
            skip(pipeline, dynamo, one, (from, log_start, to)).await?;
        }
    }
    let moved: Vec<_> = planned.into_iter().map(|one| (one.place.partition, one.to)).collect();
    blocking(group, move |group| group.commit(&moved)).await
}

/// Attests `(from, to]` as skipped, and what the log no longer holds as lost.
async fn skip(
    pipeline: &Pipeline,
    dynamo: &Dynamo,
    planned: &Planned,
    (from, log_start, to): (Position, Position, Position),
) -> anyhow::Result<()> {
    let mut outcomes = Outcomes::default();
    outcomes.push(Outcome::Lost, from.distance_to(log_start));
    outcomes.push(Outcome::Skipped, from.max(log_start).distance_to(to));
    let entry = Entry {
        from,
        to,
        outcomes,
        records: SetDigest::default(),
        record_count: 0,
        revision: pipeline.revision().to_owned(),
        writer: run::writer(),
        nonce: uuid::Uuid::new_v4().simple().to_string(),
        previous: planned.previous,
        attested_at: stored_now(),
    };
    let appended = again(|| async {
        let verdicts = dynamo.append(&[(&planned.chain, &entry)]).await;
        match verdicts.into_iter().next() {
            Some(Appended::Retry(retry)) => Err(retry),
            Some(verdict) => Ok(verdict),
            None => Ok(Appended::Refused),
        }
    });
    if appended.await? == Appended::Done {
        return Ok(());
    }
    let end = again(|| dynamo.end(&planned.chain)).await?;
    let last = end.as_ref().map(|end| (end.position, end.nonce.as_str()));
    match protocol::refused_append(from, &entry.nonce, last) {
        Extended::Found => Ok(()),
        Extended::Others | Extended::Nowhere => {
            let partition = &planned.place.partition;
            anyhow::bail!(
                "{partition}: the ledger grew meanwhile, so an instance of the group is at work: stop it, then try again"
            )
        }
    }
}

fn rows(planned: &[Planned]) -> Vec<[String; 6]> {
    let head = ["partition", "log", "ledger end", "checkpoint", "to", "what"].map(str::to_owned);
    let next = |position: Position| position.next_offset().to_string();
    let row = |one: &Planned| {
        let what = match one.what {
            Move::Skip { from, to, .. } => format!("skips {} positions", from.distance_to(to)),
            Move::Checkpoint if !changes(one) => "stays".to_owned(),
            Move::Checkpoint => format!("makes sure of {} positions again", one.to.distance_to(one.ledger_end)),
        };
        [
            one.place.partition.to_string(),
            format!("{} to {}", next(one.place.log_start), next(one.place.log_end)),
            next(one.ledger_end),
            one.place.checkpoint.map_or_else(|| "none".to_owned(), next),
            next(one.to),
            what,
        ]
    };
    std::iter::once(head).chain(planned.iter().map(row)).collect()
}

/// Calls until it works, a few times.
async fn again<V, F: Future<Output = Result<V, Retry>>>(call: impl Fn() -> F) -> anyhow::Result<V> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    for _ in 1..TRIES {
        match call().await {
            Ok(value) => return Ok(value),
            Err(retry) => tokio::time::sleep(backoff.next_delay().max(retry.after.unwrap_or_default())).await,
        }
    }
    call().await.map_err(|retry| anyhow::anyhow!("{}", retry.detail))
}

async fn blocking<V: Send + 'static>(
    group: &Arc<GroupPlace>,
    ask: impl FnOnce(&GroupPlace) -> Result<V, String> + Send + 'static,
) -> anyhow::Result<V> {
    let group = group.clone();
    let answer = tokio::task::spawn_blocking(move || ask(&group)).await.context("the question broke off")?;
    answer.map_err(anyhow::Error::msg)
}
