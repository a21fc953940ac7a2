//! Entries whose records differ, held against the source as far as it still has their events: names records by their keys.

use std::collections::HashSet;
use std::io::Write as _;
use std::time::Duration;

use crate::audit::{Finding, Findings, Kind, Suspect};
use crate::config::Settings;
use crate::event::{Position, Record};
use crate::ledger::Chain;
use crate::pipeline::{Pipeline, Prepared, delivery};
use crate::source::kafka::KafkaRanges;
use crate::source::range::{Range, RangeSource};
use crate::source::{RawBatch, Source as _, SourceEvent};
use crate::store::Retry;
use crate::store::dynamodb::Dynamo;

use super::backends;
use super::outside::{again, blocking, group_place};

/// How long the source may take for its next messages.
const DEADLINE: Duration = Duration::from_secs(30);

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
    let group = group_place(settings, pipeline)?;
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
    let from = from.max(place.log_start);
    let range = Range { partition: place.partition, from, to: to.min(place.log_end).max(from), log_start: from };
    let protocol = backends::group_protocol(pipeline.protocol());
    let feed = KafkaRanges::connect(backends::kafka_source(settings, pipeline, protocol, true), vec![range.clone()]);
    let feed = feed.map_err(anyhow::Error::msg)?;
    let mut source = RangeSource::start(vec![range.clone()], Box::new(feed), None)?;
    source.start(&range.partition, from);
    loop {
        match tokio::time::timeout(DEADLINE, source.next()).await {
            Err(_) => return Ok(Err(format!("nothing was read within {DEADLINE:?}"))),
            Ok(Err(error)) => return Ok(Err(error.to_string())),
            Ok(Ok(SourceEvent::Batch(batch))) => compare_batch(pipeline, dynamo, suspect, &batch, findings).await?,
            Ok(Ok(SourceEvent::EndOfInput)) => return Ok(Ok(())),
            Ok(Ok(SourceEvent::Assigned(_) | SourceEvent::Revoked { .. } | SourceEvent::Health { .. })) => {}
        }
    }
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
        let (origin, headers) = (batch.origin(raw), batch.headers(raw).collect::<Vec<_>>());
        match pipeline.prepare(&delivery(batch, raw, &origin, &headers)) {
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
            None => (Kind::RecordMissing, format!("the source has its event at offset {origin}")),
            Some(found) if found.differs.is_empty() => continue,
            Some(found) if !found.same_mapping && found.standing.content_digest == record.content_digest => {
                (Kind::NotCompared, format!("another mapping made it of its event at offset {origin}"))
            }
            Some(found) => {
                let names = found.differs.join(", ");
                (Kind::RecordAltered, format!("it differs from its event at offset {origin} in {names}"))
            }
        };
        findings.push(Finding { record: Some(record.record_id.clone()), ..suspect.finding(kind, detail) });
    }
    Ok(())
}
