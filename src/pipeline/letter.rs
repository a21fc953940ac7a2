//! Dead letters: the refused event byte for byte, with where it came from and why it was refused in its headers.

use crate::event::{FORMAT, Refusal};
use crate::source::RawBatch;
use crate::topic::{Message, Placement};

use super::item::Item;
use super::parts::Parts;

/// The headers that a dead letter adds begin with this.
pub const HEADER_PREFIX: &str = "recordkeeper-";

/// The letter of one refused item; `None` where the item names no message of the batch (it always does).
pub(super) fn message(parts: &Parts, batch: &RawBatch, item: &Item, refusal: &Refusal) -> Option<Message> {
    let raw = batch.messages.get(item.message)?;
    let owned = |range: &Option<std::ops::Range<usize>>| range.as_ref().map(|range| batch.slice(range).to_vec());
    let partition = &item.origin.partition;
    let mut headers: Vec<(String, Option<Vec<u8>>)> = raw
        .headers
        .iter()
        .map(|(name, value)| (String::from_utf8_lossy(batch.slice(name)).into_owned(), owned(value)))
        .filter(|(name, _)| !name.starts_with(HEADER_PREFIX))
        .collect();
    let mut add =
        |name: &str, value: String| headers.push((format!("{HEADER_PREFIX}{name}"), Some(value.into_bytes())));
    add("format", FORMAT.to_string());
    add("origin-cluster", partition.cluster.clone());
    add("origin-topic", partition.topic.clone());
    add("origin-topic-id", partition.topic_id.clone());
    add("origin-epoch", partition.epoch.to_string());
    add("origin-partition", partition.name.clone());
    add("origin-offset", item.origin.position.to_string());
    add("origin-timestamp", raw.timestamp_ms.map(|ms| ms.to_string()).unwrap_or_default());
    add("group", parts.pipeline.group().to_owned());
    add("pipeline", parts.pipeline.name().to_owned());
    add("route", item.route.as_ref().map(|names| names.route.clone()).unwrap_or_default());
    add("reason", refusal.reason.name().to_owned());
    add("detail", refusal.detail.clone());
    add("class", "permanent".to_owned());
    add("attempt", (item.carried.as_ref().map_or(0, |carried| carried.attempts) + 1).to_string());
    let carried_first_seen = item.carried.as_ref().map(|carried| carried.first_seen.clone());
    add("first-seen", carried_first_seen.unwrap_or_else(|| first_seen(raw.timestamp_ms)));
    add("content-digest", item.content_digest.map(|digest| digest.hex()).unwrap_or_default());
    if let Some(corrects) = item.corrects() {
        add("corrects", corrects.hex());
    }
    Some(Message {
        key: owned(&raw.key),
        value: owned(&raw.value),
        headers,
        placement: Placement::ByBytes(item.origin_text.clone().into_bytes()),
    })
}

/// When the event came; empty where the broker does not say.
fn first_seen(timestamp_ms: Option<i64>) -> String {
    timestamp_ms.and_then(crate::event::time::from_millis).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_at_an_unknown_time_did_not_come_in_1970() {
        assert_eq!(first_seen(Some(1_767_323_045_678)), "2026-01-02T03:04:05.678000Z");
        assert_eq!(first_seen(None), "");
    }
}
