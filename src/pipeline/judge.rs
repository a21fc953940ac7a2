//! Steps 1 and 2 of the protocol: look up, judge.

use std::collections::HashMap;

use crate::dedupe::{IdentityHash, Known};
use crate::event::{Outcome, Reason, Record, Refusal, StateWrite};
use crate::store::{Changed, Inserted, Retry, Standing, Transacted, Transaction};
use crate::telemetry::{Alert, BatchTally};

use super::item::{Fate, Item};
use super::parts::Parts;
use super::protocol::{self, Verdict};
use super::settle::{Again, settle};

fn hash_of(judge: &Record) -> IdentityHash {
    IdentityHash::of(&judge.record_id, &judge.names.mapping_revision)
}

/// Asks the cache for the open events; what it knows from another origin is a duplicate, all else stays open.
pub(super) async fn look_up(parts: &Parts, items: &mut [Item]) {
    let asked: Vec<usize> = (0..items.len())
        .filter(|index| {
            matches!(items[*index].fate, Fate::Open(_)) && protocol::asks_cache(parts.purpose, items[*index].attested)
        })
        .collect();
    let ids: Vec<IdentityHash> = asked.iter().filter_map(|index| items[*index].judge()).map(hash_of).collect();
    if ids.is_empty() {
        return;
    }
    let answers = match parts.dedupe.look_up(&ids).await {
        Ok(answers) if answers.len() == ids.len() => answers,
        Ok(answers) => {
            tracing::warn!(asked = ids.len(), answered = answers.len(), "dedupe cache answered out of step, ignored");
            return;
        }
        Err(error) => {
            // Counted by the cache itself. Everything counts as unknown: the judge decides.
            tracing::debug!(%error, "events are judged without the dedupe cache");
            return;
        }
    };
    for (index, known) in asked.into_iter().zip(answers) {
        let item = &mut items[index];
        let (Some(known), Fate::Open(mapped)) = (known, &item.fate) else { continue };
        if protocol::known_is_duplicate(&mapped.content_digest, &item.origin_text, &known) {
            item.fate = Fate::Settled(Outcome::Duplicate);
        }
    }
}

/// Gives every open event its verdict. Of several events of one identity the first is inserted; the others are judged by the
/// record that stands after it.
pub(super) async fn judge(parts: &Parts, items: &mut [Item], tally: &mut BatchTally) {
    // A round settles at least the first event of each identity; a further round is needed only where that one was
    // refused by the store, so that nothing stands for the others to be judged by.
    loop {
        let mut first: HashMap<&str, usize> = HashMap::new();
        let mut followers: Vec<(usize, usize)> = Vec::new();
        let mut batched: Vec<usize> = Vec::new();
        let mut transactions: Vec<usize> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let Fate::Open(mapped) = &item.fate else { continue };
            let Some(judge) = mapped.records.first() else { continue };
            match first.get(judge.record_id.as_str()) {
                Some(leader) => followers.push((index, *leader)),
                None => {
                    first.insert(&judge.record_id, index);
                    if mapped.transactional { &mut transactions } else { &mut batched }.push(index);
                }
            }
        }
        if batched.is_empty() && transactions.is_empty() {
            return;
        }
        insert_judges(parts, items, &batched, tally).await;
        for index in transactions {
            transact(parts, &mut items[index], tally).await;
        }
        for (index, leader) in followers {
            let Some(standing) = standing_after(&items[leader]) else { continue };
            take_verdict(parts, &mut items[index], standing, tally);
        }
    }
}

/// The record that stands under an item's identity, once it was judged.
fn standing_after(leader: &Item) -> Option<Standing> {
    match &leader.fate {
        Fate::Live { standing, .. } => Some(standing.clone()),
        Fate::Refused(_) => leader.conflicting.clone(),
        Fate::Open(_) | Fate::Settled(_) => None,
    }
}

async fn insert_judges(parts: &Parts, items: &mut [Item], indices: &[usize], tally: &mut BatchTally) {
    let judges: Vec<&Record> = indices
        .iter()
        .filter_map(|index| match &items[*index].fate {
            Fate::Open(mapped) => mapped.records.first(),
            Fate::Live { .. } | Fate::Settled(_) | Fate::Refused(_) => None,
        })
        .collect();
    let verdicts = insert(parts, &judges).await;
    for (index, verdict) in indices.iter().zip(verdicts) {
        let item = &mut items[*index];
        match verdict {
            Inserted::Stored { record_digest } => stored(item, record_digest, false),
            Inserted::Present(standing) => take_verdict(parts, item, standing, tally),
            Inserted::Rejected(detail) => item.fate = Fate::Refused(Refusal::new(Reason::Rejected, detail)),
            Inserted::Retry(_) => {}
        }
    }
}

/// Inserts until each record has a final verdict.
pub(super) async fn insert(parts: &Parts, records: &[&Record]) -> Vec<Inserted> {
    settle(
        parts,
        records,
        |open| async move { parts.store.insert(&open).await },
        |verdict| match verdict {
            Inserted::Retry(retry) => Some(again(retry)),
            Inserted::Stored { .. } | Inserted::Present(_) | Inserted::Rejected(_) => None,
        },
    )
    .await
}

/// What a store's retry means for [`settle`].
pub(super) fn again(retry: &Retry) -> Again {
    retry.clone().into()
}

fn stored(item: &mut Item, record_digest: crate::event::Digest, written: bool) {
    let Fate::Open(mapped) = std::mem::replace(&mut item.fate, Fate::Settled(Outcome::Recorded)) else { return };
    let corrects = mapped.records.first().and_then(|judge| judge.corrects);
    let (content_digest, origin) = (mapped.content_digest, item.origin_text.clone());
    let standing = Standing { content_digest, origin, record_digest, corrects };
    item.digests.push(record_digest);
    item.fate = Fate::Live { mapped, standing, own: true, repeated: false, written };
}

fn take_verdict(parts: &Parts, item: &mut Item, standing: Standing, tally: &mut BatchTally) {
    let Fate::Open(mapped) = std::mem::replace(&mut item.fate, Fate::Settled(Outcome::Duplicate)) else { return };
    let digest = mapped.content_digest;
    item.fate = match protocol::verdict(&digest, item.corrects(), &item.origin_text, &standing) {
        Verdict::Recorded { repeated } => {
            item.digests.push(standing.record_digest);
            Fate::Live { mapped, standing, own: true, repeated, written: false }
        }
        Verdict::Duplicate => Fate::Live { mapped, standing, own: false, repeated: false, written: false },
        // A letter stays open for the run that corrects it: that one applies what is to be applied.
        Verdict::Corrected if item.carried.is_some() && standing.origin == item.origin_text => {
            Fate::Settled(Outcome::Skipped)
        }
        Verdict::Corrected => Fate::Settled(Outcome::Duplicate),
        Verdict::Conflict => {
            tally.conflicts += 1;
            let message = format_args!("another event stands under its identity, from {}", standing.origin);
            parts.metrics.alerts.raise(Alert::Conflict, &item.at(), message);
            let detail = format!(
                "an event of this source and id with content digest {} was recorded from {}",
                standing.content_digest, standing.origin
            );
            item.conflicting = Some(standing);
            Fate::Refused(Refusal::new(Reason::Conflict, detail))
        }
    };
}

/// Judge, further records and states of one event in one transaction; states that are stale or tied are left out and
/// counted. Where the judge stands already, the event goes on as a batched one would.
async fn transact(parts: &Parts, item: &mut Item, tally: &mut BatchTally) {
    let Fate::Open(mapped) = &item.fate else { return };
    let mut states: Vec<StateWrite> = mapped.states.clone();
    // Each round either ends or leaves out at least one state.
    loop {
        let verdicts = settle(
            parts,
            &[Transaction { records: &mapped.records, states: &states }],
            |open| async move {
                let mut verdicts = Vec::with_capacity(open.len());
                for transaction in open {
                    verdicts.push(parts.store.transact(transaction).await);
                }
                verdicts
            },
            |verdict| match verdict {
                Transacted::Retry(retry) => Some(again(retry)),
                Transacted::Done { .. }
                | Transacted::Present(_)
                | Transacted::Unchanged(_)
                | Transacted::Rejected(_) => None,
            },
        )
        .await;
        match verdicts.into_iter().next() {
            Some(Transacted::Done { record_digests }) => {
                let mut digests = record_digests.into_iter();
                if let Some(judge) = digests.next() {
                    stored(item, judge, true);
                    item.digests.extend(digests);
                }
                return;
            }
            Some(Transacted::Present(standing)) => return take_verdict(parts, item, standing, tally),
            Some(Transacted::Rejected(detail)) => {
                item.fate = Fate::Refused(Refusal::new(Reason::Rejected, detail));
                return;
            }
            Some(Transacted::Unchanged(left_out)) if !left_out.is_empty() => {
                let mut gone: Vec<usize> = Vec::new();
                for (state, change) in left_out {
                    count_unchanged(parts, item, &change, tally);
                    gone.push(state);
                }
                let mut index = 0;
                states.retain(|_| {
                    index += 1;
                    !gone.contains(&(index - 1))
                });
            }
            Some(Transacted::Unchanged(_) | Transacted::Retry(_)) | None => {
                item.fate = Fate::Refused(Refusal::new(
                    Reason::Rejected,
                    "the store refused the transaction and named no cause",
                ));
                return;
            }
        }
    }
}

/// Remembers what is done: judged, with all of its effects applied.
pub(super) async fn remember(parts: &Parts, items: &[Item]) {
    if !parts.purpose.remembers() {
        return;
    }
    let done: Vec<(IdentityHash, Known)> = items
        .iter()
        .filter_map(|item| {
            let Fate::Live { mapped, standing, .. } = &item.fate else { return None };
            let judge = mapped.records.first()?;
            let known = Known { content_digest: standing.content_digest, origin: standing.origin.clone() };
            Some((hash_of(judge), known))
        })
        .collect();
    if done.is_empty() {
        return;
    }
    if let Err(error) = parts.dedupe.remember(&done).await {
        tracing::debug!(%error, "the dedupe cache takes nothing");
    }
}

/// Counts a state write that changed nothing, and alerts on a tie.
pub(super) fn count_unchanged(parts: &Parts, item: &Item, change: &Changed, tally: &mut BatchTally) {
    match change {
        Changed::Stale => tally.stale += 1,
        Changed::Tie => {
            tally.ties += 1;
            parts.metrics.alerts.raise(
                Alert::Tie,
                &item.at(),
                "a state of this version stands with other content; it stays",
            );
        }
        Changed::Applied | Changed::Same | Changed::Retry(_) | Changed::Rejected(_) => {}
    }
}
