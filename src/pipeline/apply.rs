//! Step 3 of the protocol: everything else that a judged event asks for, whoever stored its record, and the dead letters.
//!
//! Further records, states, requests and letters go out side by side. All of it is idempotent, so doing it again after a
//! crash or a redelivery is harmless.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::event::{Digest, Group, Origin, Reason, Record, Refusal, StateKey, StateWrite};
use crate::source::RawBatch;
use crate::store::{Changed, Inserted};
use crate::telemetry::{Alert, At, BatchTally};
use crate::topic::{Message, Published, Topic};

use super::fold::fold;
use super::item::{Fate, Item};
use super::judge::{again, count_unchanged, insert};
use super::letter;
use super::parts::Parts;
use super::poison::Poisoned;
use super::protocol;
use super::request::message as request_message;
use super::settle::{Again, settle};

/// Applies the effects of all live items and publishes the letters of all refused ones. Where one of these is of a poisoned
/// route none goes out, and the batch stays in `hold`.
pub(super) async fn apply<H: Future<Output = ()>>(
    parts: &Parts,
    batch: &RawBatch,
    items: &mut [Item],
    tally: &mut BatchTally,
    hold: impl Fn(Poisoned) -> H,
) {
    let poisoned = parts.poison.as_ref().and_then(|poison| poison.count(parts, items));
    let goes_out = |index: &usize| poisoned.is_none() && needs_letter(&items[*index]);
    let refused: Vec<usize> = (0..items.len()).filter(goes_out).collect();
    let view: &[Item] = items;
    let (records, states, requests, ()) = tokio::join!(
        further_records(parts, view),
        states(parts, view),
        requests(parts, view),
        letters(parts, batch, view, &refused),
    );
    for (index, digest) in records.digests {
        items[index].digests.push(digest);
    }
    tally.stale += states.folded_away;
    for (index, change) in &states.changes {
        count_unchanged(parts, &items[*index], change, tally);
    }
    tally.requests += requests.acknowledged;
    let mut rejected: Vec<usize> = Vec::new();
    for (index, detail) in records.rejected.into_iter().chain(states.rejected).chain(requests.rejected) {
        let item = &mut items[index];
        if matches!(item.fate, Fate::Live { .. }) {
            let message = format_args!("an effect is refused for good, its record stands: {detail}");
            parts.metrics.alerts.raise(Alert::EffectRejected, &item.at(), message);
            item.fate = Fate::Refused(Refusal::new(Reason::Rejected, detail));
            rejected.push(index);
        }
    }
    rejected.retain(|index| needs_letter(&items[*index]));
    let spoiled = || parts.poison.as_ref().and_then(|poison| poison.spoil(parts, items, &rejected));
    if let Some(poisoned) = poisoned.or_else(spoiled) {
        hold(poisoned).await;
    }
    letters(parts, batch, items, &rejected).await;
}

fn needs_letter(item: &Item) -> bool {
    matches!(item.fate, Fate::Refused(_)) && protocol::letter_goes_out(item.attested)
}

struct FurtherRecords {
    /// By item: the digest of a further record of its own.
    digests: Vec<(usize, Digest)>,
    /// By item: why a record was refused for good.
    rejected: Vec<(usize, String)>,
}

async fn further_records(parts: &Parts, items: &[Item]) -> FurtherRecords {
    // Copies of an event share their further records, each of which is written once.
    let mut owners: Vec<(usize, usize)> = Vec::new();
    let mut records: Vec<Cow<'_, Record>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut rejected = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Fate::Live { mapped, standing, own, written: false, .. } = &item.fate else { continue };
        // A further record carries the judging record's origin, whoever writes it.
        let foreign = if *own { None } else { Origin::parse(&standing.origin) };
        for record in mapped.records.iter().skip(1) {
            let place = match places.entry(&record.record_id) {
                Entry::Occupied(place) => *place.get(),
                Entry::Vacant(place) => {
                    records.push(match (&foreign, own) {
                        (_, true) => Cow::Borrowed(record),
                        (Some(origin), false) => Cow::Owned(Record { origin: origin.clone(), ..record.clone() }),
                        (None, false) => {
                            let detail = format!("the judging record's origin is unreadable: {}", standing.origin);
                            rejected.push((index, detail));
                            continue;
                        }
                    });
                    *place.insert(records.len() - 1)
                }
            };
            owners.push((index, place));
        }
    }
    let borrowed: Vec<&Record> = records.iter().map(Cow::as_ref).collect();
    let verdicts = if borrowed.is_empty() { Vec::new() } else { insert(parts, &borrowed).await };
    let mut digests: Vec<(usize, Digest)> = Vec::new();
    for (index, place) in owners {
        let item = &items[index];
        match verdicts.get(place) {
            // Of an event's copies, only the one under whose origin its records stand attests them.
            Some(Inserted::Stored { record_digest }) if matches!(item.fate, Fate::Live { own: true, .. }) => {
                digests.push((index, *record_digest));
            }
            Some(Inserted::Present(standing)) if standing.origin == item.origin_text => {
                digests.push((index, standing.record_digest));
            }
            Some(Inserted::Rejected(detail)) => rejected.push((index, detail.clone())),
            Some(Inserted::Stored { .. } | Inserted::Present(_) | Inserted::Retry(_)) | None => {}
        }
    }
    FurtherRecords { digests, rejected }
}

#[derive(Default)]
struct States {
    /// Changes below a higher version of the same batch.
    folded_away: u64,
    /// By item: what the store, or folding, said.
    changes: Vec<(usize, Changed)>,
    /// By item: why the store refused it for good.
    rejected: Vec<(usize, String)>,
}

/// Folded state writes. Where the highest version of a group is refused for good, the next one is written in its place: what
/// stands in the end must not depend on what was in one batch.
async fn states(parts: &Parts, items: &[Item]) -> States {
    let mut open: Vec<(usize, &StateWrite)> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        if let Fate::Live { mapped, written: false, .. } = &item.fate {
            open.extend(mapped.states.iter().map(|write| (index, write)));
        }
    }
    let mut states = States::default();
    // Each round but the last leaves out at least one event.
    while !open.is_empty() {
        let folded = fold(open.iter().copied());
        let writes: Vec<&StateWrite> = folded.iter().map(|folded| folded.write).collect();
        let verdicts = settle(
            parts,
            &writes,
            |open| async move { parts.store.change(&open).await },
            |verdict| match verdict {
                Changed::Retry(retry) => Some(again(retry)),
                Changed::Applied | Changed::Same | Changed::Stale | Changed::Tie | Changed::Rejected(_) => None,
            },
        )
        .await;
        let mut refused: HashMap<(&StateKey, Group), usize> = HashMap::new();
        for (folded, verdict) in folded.into_iter().zip(verdicts) {
            if let Changed::Rejected(detail) = verdict {
                refused.insert((&folded.write.key, folded.write.group), folded.event);
                states.rejected.push((folded.event, detail));
                continue;
            }
            states.folded_away += folded.stale;
            states.changes.extend(folded.ties.into_iter().map(|event| (event, Changed::Tie)));
            states.changes.push((folded.event, verdict));
        }
        open.retain(|(event, write)| refused.get(&(&write.key, write.group)).is_some_and(|refused| refused != event));
    }
    states
}

struct Requests {
    acknowledged: u64,
    /// By item: why the topic refused it for good.
    rejected: Vec<(usize, String)>,
}

/// Publishes creation requests.
async fn requests(parts: &Parts, items: &[Item]) -> Requests {
    let mut owners = Vec::new();
    let mut messages = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Fate::Live { mapped, .. } = &item.fate else { continue };
        if let (Some(request), Some(judge)) = (&mapped.request, mapped.records.first()) {
            owners.push(index);
            messages.push(request_message(request, &judge.occurred_at));
        }
    }
    let verdicts = publish(parts, parts.requests.as_ref(), &messages).await;
    let mut requests = Requests { acknowledged: 0, rejected: Vec::new() };
    for (index, verdict) in owners.into_iter().zip(verdicts) {
        match verdict {
            Published::Durable => requests.acknowledged += 1,
            Published::Rejected(detail) => requests.rejected.push((index, detail)),
            Published::Retry { .. } => {}
        }
    }
    requests
}

/// Publishes the letters of these items. A letter is never given up: one that the topic refuses for good is asked again,
/// with an alert, so that the source stops at that position and nothing is lost.
async fn letters(parts: &Parts, batch: &RawBatch, items: &[Item], indices: &[usize]) {
    let messages: Vec<Message> = indices
        .iter()
        .filter_map(|index| {
            let item = &items[*index];
            let Fate::Refused(refusal) = &item.fate else { return None };
            letter::message(parts, batch, item, refusal)
        })
        .collect();
    if messages.is_empty() {
        return;
    }
    let references: Vec<&Message> = messages.iter().collect();
    settle(
        parts,
        &references,
        |open| async move { parts.letters.publish(&open).await },
        |verdict| match verdict {
            Published::Durable => None,
            Published::Retry { after, detail } => Some(Again { after: *after, detail: detail.clone() }),
            Published::Rejected(detail) => {
                let message = format_args!("the dead-letter topic refuses a letter, the partition waits: {detail}");
                parts.metrics.alerts.raise(Alert::DeadLetterTopic, &At::partition(&parts.partition), message);
                Some(Again { after: None, detail: detail.clone() })
            }
        },
    )
    .await;
}

async fn publish(parts: &Parts, topic: &dyn Topic, messages: &[Message]) -> Vec<Published> {
    if messages.is_empty() {
        return Vec::new();
    }
    let references: Vec<&Message> = messages.iter().collect();
    settle(
        parts,
        &references,
        |open| async move { topic.publish(&open).await },
        |verdict| match verdict {
            Published::Retry { after, detail } => Some(Again { after: *after, detail: detail.clone() }),
            Published::Durable | Published::Rejected(_) => None,
        },
    )
    .await
}
