//! Entries whose records differ, held against the source as far as it still has their events: names records by their keys.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::Arc;

use crate::audit::{Finding, Findings, Kind, Suspect};
use crate::config::Settings;
use crate::event::{Origin, Position, Record};
use crate::ledger::Chain;
use crate::pipeline::{Delivery, Pipeline, Prepared};
use crate::source::RawBatch;
use crate::source::kafka::GroupPlace;
use crate::store::Retry;
use crate::store::dynamodb::{Compared, Dynamo};

use super::again::again;
use super::backends;
use super::reset::blocking;

/// Offsets that are read at a time.
const SLICE: u64 = 500;

/// Compares each suspect, one after the other; what cannot be compared is said.
pub(super) async fn compare(
    settings: &Settings,
    pipelines: &[Pipeline],
    dynamo: &Dynamo,
    suspects: &[Suspect],
    findings: &mut Findings,
) -> anyhow::Result<()> {
    for suspect in suspects {
        writeln!(std::io::stderr().lock(), "source: {}", suspect.chain)?;
        let compared = compare_one(settings, pipelines, dynamo, suspect, findings).await?;
        if let Err(why) = compared {
            let detail = format!("not compared with the source: {why}");
            findings.push(suspect.finding(Kind::NotCompared, detail));
        }
    }
    Ok(())
}

/// The inner error is why the source cannot tell.
async fn compare_one(
    settings: &Settings,
    pipelines: &[Pipeline],
    dynamo: &Dynamo,
    suspect: &Suspect,
    findings: &mut Findings,
) -> anyhow::Result<Result<(), String>> {
    let Some(chain) = Chain::from_key(&suspect.chain) else { return Ok(Err("its chain's key is none".to_owned())) };
    let topic = chain.partition.topic.clone();
    let reads = |pipeline: &&Pipeline| pipeline.group() == &*chain.group && pipeline.topics().contains(&topic);
    let Some(pipeline) = pipelines.iter().find(reads) else {
        return Ok(Err(format!("no pipeline reads topic {topic} in group {}", chain.group)));
    };
    let Ok(number) = chain.partition.name.parse::<i32>() else {
        return Ok(Err("its partition is none of Kafka".to_owned()));
    };
    let group = GroupPlace::connect(&backends::kafka_connection(settings), &chain.group).map_err(anyhow::Error::msg)?;
    let group = Arc::new(group);
    let place = match blocking(&group, move |group| group.places(&topic, &[number])).await {
        Ok(places) => places.into_iter().next().filter(|place| place.partition == chain.partition),
        Err(error) => return Ok(Err(format!("{error:#}"))),
    };
    let Some(place) = place else { return Ok(Err("the topic was made anew".to_owned())) };
    let (from, to) = suspect.range;
    if place.log_start > from {
        let detail = format!("the source no longer holds offsets below {}", place.log_start.next_offset());
        findings.push(suspect.finding(Kind::NotCompared, detail));
    }
    let past = to.min(place.log_end).next_offset();
    let mut next = from.max(place.log_start).next_offset();
    while next < past {
        let (partition, end) = (place.partition.clone(), past.min(next.saturating_add(SLICE)));
        let batch = match blocking(&group, move |group| group.read(&partition, next, end)).await {
            Ok(batch) => batch,
            Err(error) => return Ok(Err(format!("{error:#}"))),
        };
        compare_batch(pipeline, dynamo, suspect, &batch, findings).await?;
        next = end;
    }
    Ok(Ok(()))
}

async fn compare_batch(
    pipeline: &Pipeline,
    dynamo: &Dynamo,
    suspect: &Suspect,
    batch: &RawBatch,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let (mut records, mut refused): (Vec<Record>, Vec<Position>) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for raw in batch.messages.iter().filter(|raw| suspect.is_recorded(raw.position)) {
        let origin = Origin { partition: batch.partition.clone(), position: raw.position };
        let headers: Vec<_> = raw
            .headers
            .iter()
            .map(|(name, value)| {
                let name = std::str::from_utf8(batch.slice(name)).unwrap_or_default();
                (name, value.as_ref().map(|value| batch.slice(value)))
            })
            .collect();
        let delivery = Delivery {
            origin: &origin,
            timestamp_ms: raw.timestamp_ms,
            key: raw.key.as_ref().map(|key| batch.slice(key)),
            value: raw.value.as_ref().map(|value| batch.slice(value)),
            headers: &headers,
        };
        match pipeline.prepare(&delivery) {
            Prepared::Event(mapped) => {
                records.extend(mapped.records.into_iter().filter(|record| seen.insert(record.record_id.clone())));
            }
            Prepared::Skipped | Prepared::Refused { .. } => refused.push(raw.position),
        }
    }
    for position in refused {
        let detail = format!("offset {position}: today's pipeline makes no record of it");
        findings.push(suspect.finding(Kind::NotCompared, detail));
    }
    let wanted: Vec<&Record> = records.iter().collect();
    let compared = again(|| async { dynamo.compare_records(&wanted).await.map_err(Retry::from) }).await?;
    for (record, compared) in wanted.iter().zip(compared) {
        let origin = record.origin.position;
        let (kind, detail) = match compared {
            Compared::Same => continue,
            Compared::Missing => (Kind::RecordMissing, format!("the source has its event at offset {origin}")),
            Compared::Differs(names) => {
                let names = names.join(", ");
                (Kind::RecordAltered, format!("it differs from its event at offset {origin} in {names}"))
            }
            Compared::OtherMapping => {
                (Kind::NotCompared, format!("another mapping made it of its event at offset {origin}"))
            }
        };
        findings.push(Finding { record: Some(record.record_id.clone()), ..suspect.finding(kind, detail) });
    }
    Ok(())
}
