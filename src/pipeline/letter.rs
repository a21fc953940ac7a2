//! Dead letters: the refused event byte for byte, with where it came from and why it was refused in its headers.

use std::collections::HashMap;
use std::sync::Arc;

use crate::event::{Digest, FORMAT, Origin, Partition, Position, Reason, Refusal};
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
    if !item.corrects().is_empty() {
        add("corrects", item.corrects().iter().map(Digest::hex).collect::<Vec<_>>().join(","));
    }
    Some(Message {
        key: owned(&raw.key),
        value: owned(&raw.value),
        headers,
        placement: Placement::ByBytes(item.origin_text.clone().into_bytes()),
    })
}

/// What a dead letter says of itself, in its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterHead {
    /// Where its event was read first.
    pub origin: Origin,
    /// The broker's time of its event, in milliseconds since 1970, where there is one.
    pub timestamp_ms: Option<i64>,
    /// The group that read it.
    pub group: String,
    /// The pipeline that refused it.
    pub pipeline: String,
    /// The route; empty where classification did not get that far.
    pub route: String,
    /// Why.
    pub reason: Reason,
    /// What exactly, for a person.
    pub detail: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it came first, in the stored form; empty where that is unknown.
    pub first_seen: String,
    /// The content digest, where decoding got that far.
    pub content_digest: Option<Digest>,
    /// The content digests of the forms that it corrects, the first one first.
    pub corrects: Vec<Digest>,
}

impl LetterHead {
    /// Reads the headers of a message of the dead-letter topic.
    ///
    /// # Errors
    ///
    /// What makes it no dead letter of this format.
    pub fn read<'a>(headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Result<Self, String> {
        let mut found: HashMap<&str, &str> = HashMap::new();
        for (name, value) in headers {
            if let Some(name) = name.strip_prefix(HEADER_PREFIX) {
                let value = std::str::from_utf8(value.unwrap_or_default());
                found.insert(name, value.map_err(|_| format!("header {HEADER_PREFIX}{name} is no UTF-8"))?);
            }
        }
        let text =
            |name: &str| found.get(name).copied().ok_or_else(|| format!("header {HEADER_PREFIX}{name} is missing"));
        fn number<N: std::str::FromStr>(text: &str, name: &str) -> Result<N, String> {
            text.parse().map_err(|_| format!("header {HEADER_PREFIX}{name} is no number"))
        }
        let format: u32 = number(text("format")?, "format")?;
        if format != FORMAT {
            return Err(format!("format {format} is not {FORMAT}: read it with another version"));
        }
        let partition = Partition {
            cluster: text("origin-cluster")?.to_owned(),
            topic: text("origin-topic")?.to_owned(),
            topic_id: text("origin-topic-id")?.to_owned(),
            epoch: number(text("origin-epoch")?, "origin-epoch")?,
            name: text("origin-partition")?.to_owned(),
        };
        let position = Position::Offset(number(text("origin-offset")?, "origin-offset")?);
        let reason = text("reason")?;
        let timestamp_ms = match text("origin-timestamp")? {
            "" => None,
            timestamp => Some(number(timestamp, "origin-timestamp")?),
        };
        let digests = |name: &str| {
            let texts = found.get(name).copied().unwrap_or_default().split(',').filter(|text| !text.is_empty());
            let digests: Option<Vec<Digest>> = texts.map(Digest::from_hex).collect();
            digests.ok_or_else(|| format!("header {HEADER_PREFIX}{name} is no digest"))
        };
        let (content_digest, corrects) = (digests("content-digest")?.into_iter().next(), digests("corrects")?);
        Ok(Self {
            origin: Origin { partition: Arc::new(partition), position },
            timestamp_ms,
            group: text("group")?.to_owned(),
            pipeline: text("pipeline")?.to_owned(),
            route: text("route")?.to_owned(),
            reason: Reason::from_name(reason).ok_or_else(|| format!("reason {reason} is unknown"))?,
            detail: found.get("detail").copied().unwrap_or_default().to_owned(),
            attempts: number(text("attempt")?, "attempt")?,
            first_seen: text("first-seen")?.to_owned(),
            content_digest,
            corrects,
        })
    }
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
