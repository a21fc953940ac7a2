//! `new-epoch`: leaves a partition's broken chain behind, on record, and begins a new one.

use std::process::ExitCode;
use std::sync::Arc;

use crate::audit::SoundPrefix;
use crate::event::Position;
use crate::ledger::{Chain, Epoch, Ledger as _};
use crate::pipeline::protocol;
use crate::source::kafka::{GroupPlace, Place};
use crate::store::dynamodb::Dynamo;

use super::outside::{again, blocking, check_reason, group_place, of_topic};
use super::{EXIT_USAGE, GlobalArgs, NewEpochArgs, backends, check, run, show, wrong};

/// Entries that are read at a time.
const PAGE: usize = 1_000;

/// What is to happen.
struct Planned {
    /// The chain that is left behind.
    chain: Chain,
    place: Place,
    /// As far as it is sound.
    sound: SoundPrefix,
    /// Where its last entry that can be read ends.
    end: Position,
    begin: Position,
}

/// Shows where a new chain would begin; with `--execute` begins it.
pub async fn new_epoch(global: &GlobalArgs, args: &NewEpochArgs) -> Result<ExitCode, anyhow::Error> {
    let loaded = match global.load([]) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let settings = &loaded.settings;
    let Some(pipelines) = check::pipelines(global, settings) else { return Ok(ExitCode::from(EXIT_USAGE)) };
    let chosen = of_topic(&pipelines, &args.topic).and_then(|pipeline| check_reason(&args.reason).map(|()| pipeline));
    let pipeline = match chosen {
        Ok(pipeline) => pipeline,
        Err(what) => return wrong(what),
    };
    let dynamo = backends::dynamo(settings, None, 1, None).await?;
    let group = group_place(settings, pipeline)?;
    let planned = match plan(args, pipeline.group(), &dynamo, &group).await? {
        Ok(planned) => planned,
        Err(what) => return wrong(what),
    };
    let next = |position: Position| position.next_offset();
    let text = format!(
        "{}: the chain of epoch {} ends with offset {}, and is sound up to offset {}\n\
         the chain of epoch {} begins with offset {}: {} positions are read again\n",
        planned.place.partition,
        planned.chain.epoch,
        next(planned.end),
        next(planned.sound.end),
        planned.chain.epoch.saturating_add(1),
        next(planned.begin),
        planned.begin.distance_to(planned.end),
    );
    show(text.as_bytes())?;
    if !args.execute {
        show(b"nothing was changed: --execute does it, while no instance of the group runs\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    execute(args, &dynamo, &group, planned).await?;
    show(b"begun, and on record in the ledger\n")?;
    Ok(ExitCode::SUCCESS)
}

/// Where the new chain would begin; the inner error is the user's.
async fn plan(
    args: &NewEpochArgs,
    group_name: &str,
    dynamo: &Dynamo,
    group: &Arc<GroupPlace>,
) -> anyhow::Result<Result<Planned, String>> {
    let (topic, wanted) = (args.topic.clone(), i32::try_from(args.partition).unwrap_or(-1));
    let known = blocking(group, move |group| group.partitions(&topic)).await?;
    if !known.contains(&wanted) {
        return Ok(Err(format!("--partition: topic {} has the partitions {known:?}", args.topic)));
    }
    let topic = args.topic.clone();
    let places = blocking(group, move |group| group.places(&topic, &[wanted])).await?;
    let Some(place) = places.into_iter().next() else { anyhow::bail!("the cluster names no such partition") };
    let mut chain = Chain { group: group_name.into(), partition: place.partition.clone(), epoch: 0 };
    let opening = again(|| dynamo.opening(&chain)).await?;
    chain.epoch = opening.epoch;
    let item = again(|| dynamo.find_start_item(&chain)).await?;
    let starts = item.map(|item| item.starts).unwrap_or_default();
    let start = starts.iter().find(|(name, _)| *name == place.partition.name).map(|(_, start)| *start);
    let mut sound: Option<SoundPrefix> = None;
    let (mut after, mut end, key) = (None, None, chain.key());
    loop {
        let page = again(|| dynamo.kept_items(&key, after, PAGE)).await?;
        // What has no place in the order comes last, and is not sound.
        let Some(last) = page.iter().rev().find_map(|(from, _)| *from) else { break };
        after = Some(last);
        for (from, kept) in &page {
            let first = from.unwrap_or(Position::Begin);
            let begin = opening.begin.or(start.filter(|_| chain.epoch == 0)).unwrap_or(first);
            sound.get_or_insert_with(|| SoundPrefix::new(chain.key(), begin)).extend(kept);
            end = end.max(SoundPrefix::end_of(kept));
        }
    }
    let Some(sound) = sound else {
        return Ok(Err(format!(
            "{}: the chain of epoch {} has no entry: there is nothing to leave behind",
            place.partition, chain.epoch
        )));
    };
    let begin = args.from.map_or(sound.end, Position::before_offset);
    if begin < sound.begin || begin > sound.end {
        let (low, high) = (sound.begin.next_offset(), sound.end.next_offset());
        return Ok(Err(format!(
            "--from: the chain is sound from offset {low} up to offset {high}; begin there or between"
        )));
    }
    let end = end.unwrap_or(sound.end);
    // Where it would begin there must be something to read, as for any lane.
    if protocol::beyond_log(None, begin, place.log_end).is_some() {
        let log_end = place.log_end.next_offset();
        return Ok(Err(format!("the log ends at offset {log_end}: the topic was made anew or its log was truncated")));
    }
    Ok(Ok(Planned { chain, place, sound, end, begin }))
}

/// The old chain is sealed, so that whoever comes meanwhile does not extend it; then the epoch goes on record, then the checkpoint moves
/// to where it begins.
async fn execute(
    args: &NewEpochArgs,
    dynamo: &Dynamo,
    group: &Arc<GroupPlace>,
    planned: Planned,
) -> anyhow::Result<()> {
    let partition = planned.place.partition.clone();
    // Refused where somebody is at work, before anything is written.
    let stands = vec![(partition.clone(), planned.place.checkpoint.unwrap_or(planned.begin))];
    blocking(group, move |group| group.commit(&stands)).await?;
    let writer = run::writer();
    let ours = again(|| dynamo.leave_behind(&planned.chain, &writer)).await?;
    anyhow::ensure!(ours, "{partition}: somebody else began an epoch meanwhile: look again");
    let epoch = Epoch {
        number: planned.chain.epoch.saturating_add(1),
        begin: planned.begin,
        previous: planned.sound.digest,
        reason: args.reason.clone(),
        taken_over: false,
        writer,
        nonce: uuid::Uuid::new_v4().simple().to_string(),
    };
    let begun = again(|| dynamo.put_epoch(&planned.chain, &epoch)).await?;
    anyhow::ensure!(begun, "{partition}: somebody else began epoch {} meanwhile: look again", epoch.number);
    let begin = vec![(partition, planned.begin)];
    blocking(group, move |group| group.commit(&begin)).await
}
