//! From a record to what is stored of it.

use super::schema::Table;
use super::shards::Shards;
use super::size::{self, ITEM_BYTES_MAX, PARTITION_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX};
use super::value::{Attributes, Item, RECORD_DIGEST, Value, record_digest};
use crate::event::{Digest, FORMAT, Record};
use crate::store::{Standing, TooLarge};

/// The length of times in their stored form.
const TIME_BYTES: usize = 27;
/// The length of digests in their stored form.
const HEX_BYTES: usize = 64;

/// What is stored of a record: attributes sorted by name, the digest among them.
pub(crate) fn attributes(record: &Record, shards: Shards, recorded_at: &str) -> (Attributes, Digest, Digest) {
    let key = Digest::of(record.record_id.as_bytes());
    let text = |text: &str| Value::Text(text.to_owned());
    let fields = record.fields.iter().map(|(name, value)| (name.to_string(), Value::Text(value.clone()))).collect();
    let mut out: Attributes = Vec::with_capacity(20);
    out.push(("content_digest", Value::Text(record.content_digest.hex())));
    if let Some(corrects) = &record.corrects {
        out.push(("corrects", Value::Text(corrects.hex())));
    }
    out.push(("correlation_id", text(&record.correlation_id)));
    out.push(("event_id", text(&record.event_id)));
    out.push(("fields", Value::map(fields)));
    out.push(("format", Value::Number(FORMAT.to_string())));
    out.push(("mapping_revision", text(&record.names.mapping_revision)));
    out.push(("occurred_at", text(&record.occurred_at)));
    out.push(("origin", Value::Text(record.origin.text())));
    out.push(("pipeline", text(&record.names.pipeline)));
    out.push(("record_id", text(&record.record_id)));
    out.push(("recorded_at", text(recorded_at)));
    out.push(("route", text(&record.names.route)));
    if record.wallet_id.is_some() {
        out.push(("sort", Value::Text(sort(&record.occurred_at, &key))));
    }
    out.push(("source", text(&record.source)));
    if let Some(traceparent) = &record.traceparent {
        out.push(("traceparent", text(traceparent)));
    }
    out.push(("type", text(&record.kind)));
    if let Some(wallet_id) = &record.wallet_id {
        out.push(("wallet_id", text(wallet_id)));
        out.push(("wallet_shard", Value::Text(wallet_shard(wallet_id, shards.of(&key)))));
    }
    let digest = record_digest(out.iter().map(|(name, value)| (*name, value)));
    let at = out.partition_point(|(name, _)| *name < RECORD_DIGEST);
    out.insert(at, (RECORD_DIGEST, Value::Text(digest.hex())));
    (out, key, digest)
}

/// The index key of one shard of a wallet's records.
pub(crate) fn wallet_shard(wallet_id: &str, shard: u64) -> String {
    format!("{wallet_id}#{shard}")
}

fn sort(occurred_at: &str, key: &Digest) -> String {
    let hex = key.hex();
    format!("{occurred_at}#{}", &hex[..16])
}

/// Whether the record fits, by arithmetic alone: nothing is built.
pub(crate) fn check(record: &Record, shards: Shards) -> Result<(), TooLarge> {
    size::limit(record.record_id.len(), PARTITION_KEY_BYTES_MAX, || "key record_id".to_owned())?;
    let mut bytes = [
        ("content_digest", HEX_BYTES),
        ("correlation_id", record.correlation_id.len()),
        ("event_id", record.event_id.len()),
        ("fields", fields_bytes(record)),
        ("format", size::number_bytes(&FORMAT.to_string())),
        ("mapping_revision", record.names.mapping_revision.len()),
        ("occurred_at", record.occurred_at.len()),
        ("origin", record.origin.text().len()),
        ("pipeline", record.names.pipeline.len()),
        ("record_id", record.record_id.len()),
        ("recorded_at", TIME_BYTES),
        ("route", record.names.route.len()),
        ("source", record.source.len()),
        ("type", record.kind.len()),
        (RECORD_DIGEST, HEX_BYTES),
    ]
    .iter()
    .map(|(name, bytes)| name.len() + bytes)
    .sum::<usize>();
    if record.corrects.is_some() {
        bytes += "corrects".len() + HEX_BYTES;
    }
    if let Some(traceparent) = &record.traceparent {
        bytes += "traceparent".len() + traceparent.len();
    }
    if let Some(wallet_id) = &record.wallet_id {
        let shard = shards.of(&Digest::of(record.record_id.as_bytes()));
        let shard_bytes = wallet_id.len() + 1 + shard.checked_ilog10().unwrap_or(0) as usize + 1;
        size::limit(shard_bytes, PARTITION_KEY_BYTES_MAX, || "index key wallet_shard".to_owned())?;
        let sort_bytes = record.occurred_at.len() + 17;
        size::limit(sort_bytes, SORT_KEY_BYTES_MAX, || "index key sort".to_owned())?;
        bytes += "wallet_id".len() + wallet_id.len() + "wallet_shard".len() + shard_bytes + "sort".len() + sort_bytes;
    }
    size::limit(bytes, ITEM_BYTES_MAX, || format!("item of {}", Table::Records.name()))
}

// A name given twice is stored once, its last value.
fn fields_bytes(record: &Record) -> usize {
    let last_of_its_name = |at: usize| !record.fields[at + 1..].iter().any(|(name, _)| *name == record.fields[at].0);
    let fields = (0..record.fields.len()).filter(|at| last_of_its_name(*at)).map(|at| &record.fields[at]);
    size::map_bytes(fields.map(|(name, value)| (name.as_ref(), value.len())))
}

/// The attributes that [`standing`] reads.
pub(crate) const STANDING: [&str; 6] = ["record_id", "content_digest", "origin", RECORD_DIGEST, "format", "corrects"];

/// What stands in a record's place.
pub(crate) fn standing(item: &Item) -> Result<Standing, String> {
    super::schema::check_format(item)?;
    let text = |name: &str| item.get(name).and_then(Value::text).ok_or(format!("{name} is missing or no text"));
    let digest = |name: &str| Digest::from_hex(text(name)?).ok_or(format!("{name} is no digest"));
    Ok(Standing {
        content_digest: digest("content_digest")?,
        origin: text("origin")?.to_owned(),
        record_digest: digest(RECORD_DIGEST)?,
        corrects: item.contains_key("corrects").then(|| digest("corrects")).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{Origin, Partition, Position, RouteNames};
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = Record> {
        let fields = proptest::collection::vec(("[a-c]{1,2}", ".{0,40}"), 0..6);
        let texts = proptest::collection::vec(".{0,30}", 6);
        (texts, fields, any::<u64>(), proptest::option::of(".{1,20}"), proptest::option::of(".{0,20}")).prop_map(
            |(texts, fields, offset, wallet_id, traceparent)| {
                let corrects = (offset % 2 == 0).then(|| Digest::of(b"before"));
                let partition = Partition {
                    cluster: "c|".into(),
                    topic: "t".into(),
                    topic_id: "i".into(),
                    epoch: 0,
                    name: "3".into(),
                };
                let names = RouteNames { pipeline: "p".into(), route: "r".into(), mapping_revision: texts[5].clone() };
                Record {
                    record_id: format!("{}|{}", texts[0], texts[1]),
                    kind: texts[2].clone(),
                    occurred_at: "2026-01-02T03:04:05.678901Z".into(),
                    source: texts[0].clone(),
                    event_id: texts[1].clone(),
                    fields: fields.into_iter().map(|(name, value)| (Arc::from(name), value)).collect(),
                    content_digest: Digest::of(b"content"),
                    origin: Origin { partition: Arc::new(partition), position: Position::Offset(offset) },
                    names: Arc::new(names),
                    correlation_id: texts[3].clone(),
                    traceparent,
                    corrects,
                    wallet_id,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_stored_passes_its_schema_and_fits_its_digest(record in record(), write in 1u32..1_000) {
            let shards = Shards::new(write, 1_000).unwrap();
            let (attributes, _, digest) = attributes(&record, shards, "2026-01-02T03:04:05.678901Z");
            prop_assert_eq!(Table::Records.check_write(&attributes), Ok(()));
            let item: Item = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            prop_assert_eq!(Table::Records.check_read(&item), Ok(()));
            prop_assert_eq!(record_digest(item.iter().map(|(name, value)| (name.as_str(), value))), digest);
            prop_assert_eq!(standing(&item).unwrap().record_digest, digest);
        }

        #[test]
        fn the_size_is_that_of_what_is_stored(mut record in record(), write in 1u32..1_000, over in 0usize..3) {
            let shards = Shards::new(write, 1_000).unwrap();
            record.fields.push((Arc::from("filler"), String::new()));
            let bytes = |record: &Record| {
                let (attributes, ..) = attributes(record, shards, "2026-01-02T03:04:05.678901Z");
                size::item_bytes(attributes.iter().map(|(name, value)| (*name, value)))
            };
            let room = ITEM_BYTES_MAX - bytes(&record);
            record.fields.last_mut().unwrap().1 = "x".repeat(room + over);
            prop_assert_eq!(bytes(&record), ITEM_BYTES_MAX + over);
            match check(&record, shards) {
                Ok(()) => prop_assert_eq!(over, 0),
                Err(error) => prop_assert_eq!(error.bytes, ITEM_BYTES_MAX + over),
            }
        }
    }
}
