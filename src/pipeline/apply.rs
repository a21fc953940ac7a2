//! Step 3 of the protocol: everything else that a judged event asks for, whoever stored its record, and the dead letters.
//!
//! Further records, states, requests and letters go out side by side. All of it is idempotent, so doing it again after a
//! crash or a redelivery is harmless.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::event::{Origin, Reason, Record, Refusal, StateWrite};
use crate::source::RawBatch;
use crate::store::{Changed, Inserted};
use crate::telemetry::{Alert, At, BatchTally};
use crate::topic::{Message, Published, Topic};

use super::fold::fold;
use super::item::{Fate, Item};
use super::judge::{again, count_unchanged, insert};
use super::letter;
use super::parts::Parts;
use super::request::message as request_message;
use super::settle::{Again, settle};

/// Applies the effects of all live items and publishes the letters of all refused ones.
pub(super) async fn apply(parts: &Parts, batch: &RawBatch, items: &mut [Item], tally: &mut BatchTally) {
    let refused: Vec<usize> = (0..items.len()).filter(|index| needs_letter(&items[*index])).collect();
    let view: &[Item] = items;
    let (records, states, requests, ()) = tokio::join!(
        further_records(parts, view),
        states(parts, view),
        requests(parts, view),
        letters(parts, batch, view, &refused),
    );
    for (index, digests) in records.digests {
        items[index].digests.extend(digests);
    }
    tally.stale += states.folded_away;
    for (index, change) in &states.changes {
        count_unchanged(parts, &items[*index], change, tally);
    }
    let refused_states = states.changes.into_iter().filter_map(|(index, change)| match change {
        Changed::Rejected(detail) => Some((index, detail)),
        Changed::Applied | Changed::Same | Changed::Stale | Changed::Tie | Changed::Retry(_) => None,
    });
    tally.requests += requests.acknowledged;
    let mut rejected: Vec<usize> = Vec::new();
    for (index, detail) in records.rejected.into_iter().chain(refused_states).chain(requests.rejected) {
        let item = &mut items[index];
        if matches!(item.fate, Fate::Live { .. }) {
            let message = format_args!("an effect is refused for good, its record stands: {detail}");
            parts.metrics.alerts.raise(Alert::EffectRejected, &item.at(), message);
            item.fate = Fate::Refused(Refusal::new(Reason::Rejected, detail));
            rejected.push(index);
        }
    }
    rejected.retain(|index| needs_letter(&items[*index]));
    letters(parts, batch, items, &rejected).await;
}

/// A refusal goes out unless the ledger holds an outcome for the position: then that outcome stays.
fn needs_letter(item: &Item) -> bool {
    matches!(item.fate, Fate::Refused(_)) && item.attested.is_none()
}

struct FurtherRecords {
    /// By item: digests of its own further records.
    digests: Vec<(usize, Vec<crate::event::Digest>)>,
    /// By item: why a record was refused for good.
    rejected: Vec<(usize, String)>,
}

async fn further_records(parts: &Parts, items: &[Item]) -> FurtherRecords {
    let mut owners: Vec<usize> = Vec::new();
    let mut records: Vec<Cow<'_, Record>> = Vec::new();
    let mut seen: HashMap<&str, ()> = HashMap::new();
    let mut rejected = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Fate::Live { mapped, standing, own, written: false, .. } = &item.fate else { continue };
        // A further record carries the judging record's origin, whoever writes it.
        let foreign = if *own { None } else { Origin::parse(&standing.origin) };
        for record in mapped.records.iter().skip(1) {
            if seen.insert(&record.record_id, ()).is_some() {
                continue;
            }
            match (&foreign, own) {
                (_, true) => records.push(Cow::Borrowed(record)),
                (Some(origin), false) => records.push(Cow::Owned(Record { origin: origin.clone(), ..record.clone() })),
                (None, false) => {
                    rejected.push((index, format!("the judging record's origin is unreadable: {}", standing.origin)));
                    continue;
                }
            }
            owners.push(index);
        }
    }
    let borrowed: Vec<&Record> = records.iter().map(Cow::as_ref).collect();
    let verdicts = if borrowed.is_empty() { Vec::new() } else { insert(parts, &borrowed).await };
    let mut digests: Vec<(usize, Vec<crate::event::Digest>)> = Vec::new();
    for (index, verdict) in owners.into_iter().zip(verdicts) {
        let item = &items[index];
        let own = matches!(item.fate, Fate::Live { own: true, .. });
        let digest = match verdict {
            Inserted::Stored { record_digest } if own => record_digest,
            Inserted::Present(standing) if standing.origin == item.origin_text => standing.record_digest,
            Inserted::Stored { .. } | Inserted::Present(_) | Inserted::Retry(_) => continue,
            Inserted::Rejected(detail) => {
                rejected.push((index, detail));
                continue;
            }
        };
        match digests.last_mut() {
            Some((last, list)) if *last == index => list.push(digest),
            _ => digests.push((index, vec![digest])),
        }
    }
    FurtherRecords { digests, rejected }
}

struct States {
    /// Changes below a higher version of the same batch.
    folded_away: u64,
    /// By item: what the store, or folding, said.
    changes: Vec<(usize, Changed)>,
}

/// Folded state writes.
async fn states(parts: &Parts, items: &[Item]) -> States {
    let changes = items.iter().enumerate().flat_map(|(index, item)| {
        let states = match &item.fate {
            Fate::Live { mapped, written: false, .. } => mapped.states.as_slice(),
            Fate::Live { .. } | Fate::Open(_) | Fate::Settled(_) | Fate::Refused(_) => &[],
        };
        states.iter().map(move |write| (index, write))
    });
    let folded = fold(changes);
    let mut changes: Vec<(usize, Changed)> = folded.ties.iter().map(|index| (*index, Changed::Tie)).collect();
    let writes: Vec<&StateWrite> = folded.writes.iter().map(|folded| folded.write).collect();
    if writes.is_empty() {
        return States { folded_away: folded.stale, changes };
    }
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
    changes.extend(folded.writes.iter().map(|folded| folded.event).zip(verdicts));
    States { folded_away: folded.stale, changes }
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
            Published::Retry(_) => {}
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
            Published::Retry(detail) => Some(Again { after: None, detail: detail.clone() }),
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
            Published::Retry(detail) => Some(Again { after: None, detail: detail.clone() }),
            Published::Durable | Published::Rejected(_) => None,
        },
    )
    .await
}
