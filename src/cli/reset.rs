//! `reset`: moves a group to another position of a topic, with a reason, on record in the ledger.

use std::process::ExitCode;
use std::sync::Arc;

use crate::event::{Digest, Outcome, Position, SetDigest};
use crate::guard::failpoint;
use crate::ledger::{Appended, Chain, Entry, Fills, Ledger as _, Order, Outcomes, UNFINISHED_EPOCH};
use crate::pipeline::Pipeline;
use crate::pipeline::protocol::{self, Extended, Move};
use crate::source::kafka::{GroupPlace, Place};
use crate::store::dynamodb::{Dynamo, stored_now};

use super::outside::{again, blocking, check_reason, group_place, of_topic, places, positions};
use super::{EXIT_USAGE, GlobalArgs, PlaceArg, ResetArgs, backends, check, run, show, table, wrong};

/// One partition, and what is to happen to it.
struct Planned {
    chain: Chain,
    place: Place,
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
        Err(what) => return wrong(what),
    };
    let dynamo = backends::dynamo(settings, None, 1, None).await?;
    let group = group_place(settings, pipeline)?;
    let planned = match plan(args, pipeline, &dynamo, &group).await? {
        Ok(planned) => planned,
        Err(what) => return wrong(what),
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

fn check_args(args: &ResetArgs) -> Result<(), String> {
    check_reason(&args.reason)?;
    if matches!(args.to, PlaceArg::Offset(_)) && args.partition.len() != 1 {
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
    let places = match places(group, &args.topic, &args.partition).await? {
        Ok(places) => places,
        Err(what) => return Ok(Err(what)),
    };
    let wanted = positions(group, &places, args.to).await?;
    let mut planned = Vec::with_capacity(places.len());
    for (place, to) in places.into_iter().zip(wanted) {
        let mut chain = Chain { group: pipeline.group().into(), partition: place.partition.clone(), epoch: 0 };
        let opening = again(|| dynamo.opening(&chain)).await?;
        chain.epoch = opening.epoch;
        if let Some(why) = opening.broken {
            let partition = &place.partition;
            return Ok(Err(format!("{partition}: its ledger chain is broken ({why}): see `recordkeeper new-epoch`")));
        }
        if opening.end.as_ref().is_some_and(|end| end.sealed_by.is_some()) {
            return Ok(Err(format!("{}: its ledger chain was {UNFINISHED_EPOCH}", place.partition)));
        }
        let (ledger_begin, ledger_end, previous) = match (opening.end, opening.begin) {
            (Some(end), _) => {
                let first = again(|| dynamo.entries(&chain, Position::Begin, 1)).await?;
                (first.first().map_or(end.position, |entry| entry.from), end.position, end.digest)
            }
            (None, Some(begin)) => (begin, begin, Digest::of(b"")),
            (None, None) => {
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
        let to = if args.to == PlaceArg::Earliest { to.max(ledger_begin) } else { to };
        match protocol::move_to(to, (ledger_begin, ledger_end), (place.log_start, place.log_end)) {
            Ok(what) => planned.push(Planned { chain, place, ledger_end, previous, to, what }),
            Err(why) => {
                let (partition, to) = (&place.partition, to.next_offset());
                return Ok(Err(format!("{partition} cannot be moved to offset {to}: {why}")));
            }
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
    // The checkpoints as they are now: refused where somebody is at work, before anything is written.
    let partitions: Vec<i32> = planned.iter().filter_map(|one| one.place.partition.name.parse().ok()).collect();
    let topic = args.topic.clone();
    let now = blocking(group, move |group| group.places(&topic, &partitions)).await?;
    let checkpoints: Vec<Option<Position>> = now.iter().map(|place| place.checkpoint).collect();
    let stand = now.into_iter().zip(&planned);
    let stand: Vec<_> = stand.map(|(now, one)| (now.partition, now.checkpoint.unwrap_or(one.ledger_end))).collect();
    blocking(group, move |group| group.commit(&stand)).await?;
    // Nobody was at work a moment ago. Who joins now starts below what is skipped here, leaves alone what it finds skipped, and makes
    // the last commit fail.
    for one in &planned {
        let end = again(|| dynamo.end(&one.chain)).await?;
        let moved = end.is_some_and(|end| end.position != one.ledger_end);
        anyhow::ensure!(!moved, "{}: the group worked on meanwhile: look again", one.place.partition);
    }
    for (one, checkpoint) in planned.iter().zip(checkpoints) {
        let order = Order {
            reason: args.reason.clone(),
            ledger_end: one.ledger_end,
            checkpoint,
            to: one.to,
            ordered_at: stored_now(),
            writer: run::writer(),
            nonce: uuid::Uuid::new_v4().simple().to_string(),
        };
        again(|| dynamo.put_order(&one.chain, &order)).await?;
        if let Move::Skip { from, log_start, to } = one.what {
            skip(pipeline, dynamo, one, &order, (from, log_start, to)).await?;
            failpoint::hit("skipped");
        }
    }
    let moved: Vec<_> = planned.into_iter().map(|one| (one.place.partition, one.to)).collect();
    blocking(group, move |group| group.commit(&moved)).await
}

/// Attests `(from, to]` as skipped, and what the log no longer holds as lost. The entry has the order's nonce: it counts no records,
/// though one may stand that an instance stored and did not live to attest.
async fn skip(
    pipeline: &Pipeline,
    dynamo: &Dynamo,
    planned: &Planned,
    order: &Order,
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
        fills: Fills::default(),
        revision: pipeline.revision().to_owned(),
        writer: run::writer(),
        nonce: order.nonce.clone(),
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
    let sealed = end.as_ref().is_some_and(|end| end.sealed_by.is_some());
    match protocol::refused_append(from, &entry.nonce, last, sealed) {
        Extended::Found => Ok(()),
        Extended::Sealed => anyhow::bail!("{}: its chain was taken over: look again", planned.place.partition),
        Extended::Others | Extended::Nowhere => {
            let partition = &planned.place.partition;
            anyhow::bail!(
                "{partition}: the ledger grew meanwhile, by an instance of the group or another order: look again"
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
            Move::Checkpoint if one.to == one.ledger_end => "moves the checkpoint to the ledger's end".to_owned(),
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
