//! Opening a lane: where it begins, from the ledger, the checkpoint and what the log still holds.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::event::{Digest, Outcome, PartitionRef, Position};
use crate::guard::Backoff;
use crate::ledger::{Chain, StartItem};
use crate::pipeline::{Again, Parts, Pending, protocol, settle};
use crate::source::{Assignment, Survey};
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

/// Finds where the lane begins. Asks for as long as it takes; dropping it gives up. `None` once nobody listens any more.
pub(super) async fn open(
    parts: Parts,
    assignment: &Assignment,
    surveys: &[Survey],
    progress: Arc<Progress>,
    outbox: &mpsc::Sender<FromWorker>,
) -> Option<Opened> {
    let chain = Chain { group: parts.group.clone(), partition: assignment.partition.clone(), epoch: 0 };
    let (ledger_end, previous) = match ask(&parts, || parts.ledger.end(&chain)).await? {
        Some(end) => (end.position, end.digest),
        None => (first_end(&parts, &chain, assignment, surveys).await?, Digest::of(b"")),
    };
    let alerts = parts.metrics.alerts.clone();
    let at = At::partition(&assignment.partition);
    // Whoever had the partition before may have read on since the source looked at the log, so it looks again.
    let log_end = match assignment.log_end {
        earlier if ledger_end > earlier => fresh_log_end(&assignment.partition, outbox).await?,
        earlier => earlier,
    };
    let named = assignment.checkpoint.unwrap_or(ledger_end).max(ledger_end);
    if named > log_end {
        let reason = format!(
            "not read: ledger or checkpoint name {named}, the log ends at {log_end}. The topic was made anew or its log was \
             truncated; give the pipeline's source another topic epoch"
        );
        alerts.raise(Alert::LogBehindLedger, &at, &reason);
        return Some(Opened::Unread(format!("{} is {reason}", assignment.partition)));
    }
    let ledger_begin = match assignment.checkpoint {
        Some(checkpoint) if checkpoint < ledger_end => {
            let first = ask(&parts, || parts.ledger.entries(&chain, Position::Begin, 1)).await?;
            first.first().map_or(ledger_end, |entry| entry.from)
        }
        _ => ledger_end,
    };
    let start = protocol::lane_start(assignment.checkpoint, ledger_begin, ledger_end, assignment.log_start);
    if let Some(checkpoint) = start.reset_ignored {
        let message = format_args!(
            "checkpoint {checkpoint} lies outside of what the ledger holds, {ledger_begin} to {ledger_end}, and is not followed"
        );
        alerts.raise(Alert::IgnoredReset, &at, message);
    }
    let mut pending = Pending::new(ledger_end);
    if let Some((from, to)) = start.lost {
        alerts.raise(Alert::RetentionGap, &at, format_args!("positions ({from}, {to}] were lost to retention"));
        pending.push(to, Outcome::Lost);
    }
    let lane = Lane::new(parts, chain, pending, previous, start.after, progress);
    Some(Opened::Lane(Rc::new(lane), start.after))
}

/// Where a chain without entries ends: at the start item's position, or, for a partition that appeared later, at the log's
/// start.
async fn first_end(parts: &Parts, chain: &Chain, assignment: &Assignment, surveys: &[Survey]) -> Option<Position> {
    let starts = surveys.iter().map(|survey| (survey.partition.name.clone(), survey.start)).collect();
    let proposed = StartItem { starts };
    let item = ask(parts, || parts.ledger.start_item(chain, &proposed)).await?;
    let name = &assignment.partition.name;
    let found = item.starts.iter().find(|(partition, _)| partition == name).map(|(_, start)| *start);
    Some(found.unwrap_or(assignment.log_start))
}

/// Asks the ledger until it answers.
async fn ask<'a, V>(
    parts: &Parts,
    call: impl Fn() -> futures::future::BoxFuture<'a, Result<V, crate::store::Retry>>,
) -> Option<V> {
    let answers = settle(
        parts,
        &[()],
        |_| {
            let answer = call();
            async move { vec![answer.await] }
        },
        |answer| answer.as_ref().err().map(|retry| Again { after: retry.after, detail: retry.detail.clone() }),
    )
    .await;
    answers.into_iter().next().and_then(Result::ok)
}

/// Has the source look at the log's end until it can tell.
async fn fresh_log_end(partition: &PartitionRef, outbox: &mpsc::Sender<FromWorker>) -> Option<Position> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        let (reply, answer) = oneshot::channel();
        outbox.send(FromWorker::LogEnd { partition: partition.clone(), reply }).await.ok()?;
        match answer.await.ok()?.await {
            Ok(end) => return Some(end),
            Err(why) => tracing::warn!(%partition, "the log's end is not known yet: {why}"),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}
