//! Opening a lane: where it begins, from the ledger, the checkpoint and what the log still holds.

use std::rc::Rc;
use std::sync::Arc;

use futures::TryFutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::event::{Digest, Outcome, Partition, Position};
use crate::ledger::{Chain, StartItem, UNFINISHED_EPOCH};
use crate::pipeline::protocol::{self, Purpose};
use crate::pipeline::{Again, Parts, Pending, ask};
use crate::source::Assignment;
use crate::store::Retry;
use crate::telemetry::{Alert, At};

use super::lane::Lane;
use super::progress::Progress;
use super::worker::FromWorker;

/// What came of opening a lane.
pub(super) enum Opened {
    /// A lane, to be read from just above this position on.
    Lane(Rc<Lane>, Position),
    /// The partition must not be read, for this reason; an alert went out.
    Unread(String),
}

/// Finds where the lane begins. Asks ledger and source for as long as it takes, and alerts meanwhile; dropping it gives up.
pub(super) async fn open(
    parts: Parts,
    assignment: &Assignment,
    progress: Arc<Progress>,
    outbox: &mpsc::Sender<FromWorker>,
) -> Option<Opened> {
    let partition = &assignment.partition;
    let mut chain = Chain { group: parts.group.clone(), partition: assignment.partition.clone(), epoch: 0 };
    let alerts = parts.metrics.alerts.clone();
    let at = At::partition(partition);
    let opening = ask_ledger(&parts, || parts.ledger.opening(&chain)).await?;
    chain.epoch = opening.epoch;
    let sealed = opening.end.as_ref().is_some_and(|end| end.sealed_by.is_some());
    // Taken over in another epoch than this one, it was taken from us since.
    let ours = parts.tokens.as_ref().is_none_or(|tokens| tokens.get(partition) == Some(&opening.epoch));
    if sealed || !ours {
        let reason = match parts.tokens {
            Some(_) => "taken over by another process: this one may not go on",
            None => UNFINISHED_EPOCH,
        };
        alerts.raise(Alert::Fenced, &at, reason);
        return Some(Opened::Unread(format!("{partition} was {reason}")));
    }
    if let Some(why) = opening.broken {
        let reason = format!(
            "not read: its ledger chain {} is broken: {why}. Look with `recordkeeper verify`, then begin a new one with \
             `recordkeeper new-epoch`",
            chain.key()
        );
        alerts.raise(Alert::LedgerBroken, &at, &reason);
        return Some(Opened::Unread(format!("{partition} is {reason}")));
    }
    let (ledger_end, previous) = match (opening.end, opening.begin) {
        (Some(end), _) => (end.position, end.digest),
        (None, Some(begin)) => (begin, Digest::of(b"")),
        (None, None) => (first_end(&parts, &chain, assignment, outbox).await?, Digest::of(b"")),
    };
    let checkpoint = match assignment.checkpoint {
        Some(checkpoint) if checkpoint > ledger_end => {
            let item = ask_ledger(&parts, || parts.ledger.find_start_item(&chain)).await?;
            // Under this name the group had a place in another log before, and the cluster may still tell of it.
            let replaced = item.is_some_and(|item| item.starts.is_empty());
            Some(checkpoint).filter(|_| !replaced)
        }
        other => other,
    };
    // Whoever had the partition before may have read on since the source looked at the log, so it looks again.
    let log_end = match assignment.log_end {
        earlier if ledger_end > earlier => {
            ask_source(&parts, outbox, |reply| FromWorker::LogEnd { partition: partition.clone(), reply }).await?
        }
        earlier => earlier,
    };
    if let Some(named) = protocol::beyond_log(checkpoint, ledger_end, log_end) {
        let (named, end) = (named.next_offset(), log_end.next_offset());
        let reason = format!(
            "not read: ledger or checkpoint stand at offset {named}, the log ends at offset {end}: it was truncated, or replaced \
             where there are no topic ids. Give the topic its next epoch in source.kafka.topic_epochs"
        );
        alerts.raise(Alert::LogBehindLedger, &at, &reason);
        return Some(Opened::Unread(format!("{partition} is {reason}")));
    }
    let ledger_begin = match checkpoint {
        Some(checkpoint) if checkpoint < ledger_end => {
            let first = ask_ledger(&parts, || parts.ledger.entries(&chain, Position::Begin, 1)).await?;
            first.first().map_or(ledger_end, |entry| entry.from)
        }
        _ => ledger_end,
    };
    let start = protocol::lane_start(checkpoint, ledger_begin, ledger_end, assignment.log_start);
    if let Some(checkpoint) = start.reset_ignored {
        let (side, edge) = if checkpoint > ledger_end {
            ("above where the ledger ends", ledger_end)
        } else {
            ("below where the ledger begins", ledger_begin)
        };
        let (checkpoint, edge) = (checkpoint.next_offset(), edge.next_offset());
        let message = format_args!(
            "the checkpoint, offset {checkpoint}, lies {side}, offset {edge}, and is not followed: a group is moved by \
             `recordkeeper reset`"
        );
        alerts.raise(Alert::IgnoredReset, &at, message);
    }
    let mut pending = Pending::new(ledger_end);
    if let Some((from, to)) = start.lost {
        alerts.raise(Alert::RetentionGap, &at, format_args!("positions ({from}, {to}] were lost to retention"));
        pending.push(to, Outcome::Lost);
    }
    let lane = Lane::new(parts, chain, pending, previous, start.after, assignment, progress);
    Some(Opened::Lane(Rc::new(lane), start.after))
}

/// Where a chain without entries ends, by the start item; the first lane of a topic inserts it.
async fn first_end(
    parts: &Parts,
    chain: &Chain,
    assignment: &Assignment,
    outbox: &mpsc::Sender<FromWorker>,
) -> Option<Position> {
    let partition = &assignment.partition;
    let item = match ask_ledger(parts, || parts.ledger.find_start_item(chain)).await? {
        Some(item) => item,
        None => {
            let proposed = match replaces_another(parts, chain).await? {
                true => StartItem::default(),
                false => {
                    let survey = |reply| FromWorker::Survey { partition: partition.clone(), reply };
                    let surveys = ask_source(parts, outbox, survey).await?;
                    let starts = surveys.iter().map(|survey| (survey.partition.name.clone(), survey.start));
                    StartItem { starts: starts.collect() }
                }
            };
            ask_ledger(parts, || parts.ledger.start_item(chain, &proposed)).await?
        }
    };
    let found = item.starts.iter().find(|(name, _)| *name == partition.name).map(|(_, start)| *start);
    Some(protocol::chain_begin(found, assignment.log_start))
}

/// Whether the topic's log replaced another one that the group read under this name; an alert went out then. A run that reads
/// again names its logs itself.
async fn replaces_another(parts: &Parts, chain: &Chain) -> Option<bool> {
    if parts.purpose != Purpose::Live {
        return Some(false);
    }
    let replaces = ask_ledger(parts, || parts.ledger.begin_log(chain)).await?;
    if replaces {
        let Partition { topic, topic_id, epoch, .. } = &*chain.partition;
        let message = format_args!(
            "the topic was made anew (id {topic_id}, topic epoch {epoch}): it is read from its beginning, whatever the group's \
             checkpoints say; what nobody read of the earlier one is gone"
        );
        parts.metrics.alerts.raise(Alert::TopicRecreated, &At { topic: Some(topic), ..At::default() }, message);
    }
    Some(replaces)
}

/// Asks the ledger until it answers.
async fn ask_ledger<'a, V>(parts: &Parts, question: impl Fn() -> BoxFuture<'a, Result<V, Retry>>) -> Option<V> {
    ask(parts, || question().map_err(Again::from)).await
}

/// Asks the source, by way of the coordinator that owns it, until it answers.
async fn ask_source<V, A: Future<Output = Result<V, String>>>(
    parts: &Parts,
    outbox: &mpsc::Sender<FromWorker>,
    question: impl Fn(oneshot::Sender<A>) -> FromWorker,
) -> Option<V> {
    ask(parts, || async {
        let (reply, answer) = oneshot::channel();
        let asked = outbox.send(question(reply)).await;
        let answer = match (asked, answer.await) {
            (Ok(()), Ok(answer)) => answer.await,
            _ => Err("the source is closed".to_owned()),
        };
        answer.map_err(|detail| Again { after: None, detail })
    })
    .await
}
