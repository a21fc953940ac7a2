//! Asking again until every item has a final verdict.

use std::time::Duration;

use crate::guard::Backoff;
use crate::store::Retry;
use crate::telemetry::{Alert, At};

use super::parts::Parts;

/// How patiently a lane asks its dependencies again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The first wait.
    pub initial: Duration,
    /// No wait is longer, unless the dependency asks for more.
    pub ceiling: Duration,
    /// After this many answers in a row that settled nothing, the partition counts as stalled and an alert goes out; the
    /// lane goes on asking, since giving up would lose the position.
    pub stalled_after: u32,
}

/// Why an item is to be asked again.
#[derive(Clone, Debug)]
pub struct Again {
    /// Not before this long.
    pub after: Option<Duration>,
    /// For a person.
    pub detail: String,
}

impl From<Retry> for Again {
    fn from(retry: Retry) -> Self {
        Self { after: retry.after, detail: retry.detail }
    }
}

/// Asks one question until it is answered, as [`settle`] does for many; so there always is an answer in the end.
pub async fn ask<V, F: Future<Output = Result<V, Again>>>(parts: &Parts, mut question: impl FnMut() -> F) -> Option<V> {
    let again = |answer: &Result<V, Again>| answer.as_ref().err().cloned();
    let put = |_| {
        let answer = question();
        async { vec![answer.await] }
    };
    settle(parts, &[()], put, again).await.into_iter().next().and_then(Result::ok)
}

/// Calls `ask` with all items, then with those that are to be asked again, until none is left. Ends only with one final
/// verdict for each item, in their order; the caller bounds it by dropping it (a lane that is given up does). What an
/// item means must not depend on being asked once.
pub async fn settle<T: Copy, V, F: Future<Output = Vec<V>>>(
    parts: &Parts,
    items: &[T],
    mut ask: impl FnMut(Vec<T>) -> F,
    again: impl Fn(&V) -> Option<Again>,
) -> Vec<V> {
    let (partition, patience) = (&*parts.partition, &parts.patience);
    let mut verdicts: Vec<Option<V>> = items.iter().map(|_| None).collect();
    let mut open: Vec<usize> = (0..items.len()).collect();
    let mut backoff = Backoff::new(patience.initial, patience.ceiling);
    let mut unmoved = 0;
    while !open.is_empty() {
        let asked = open.len();
        let answers = ask(open.iter().filter_map(|index| items.get(*index).copied()).collect()).await;
        let mut wait = None::<Duration>;
        let mut reason = None;
        if answers.len() == asked {
            let mut left = Vec::new();
            for (index, answer) in open.into_iter().zip(answers) {
                match again(&answer) {
                    Some(trouble) => {
                        wait = wait.max(trouble.after);
                        reason.get_or_insert(trouble.detail);
                        left.push(index);
                    }
                    None => {
                        if let Some(place) = verdicts.get_mut(index) {
                            *place = Some(answer);
                        }
                    }
                }
            }
            open = left;
        } else {
            reason = Some(format!("{} verdicts for {asked} items", answers.len()));
        }
        if open.is_empty() {
            break;
        }
        let detail = reason.unwrap_or_default();
        if open.len() < asked {
            unmoved = 0;
            backoff.reset();
        } else {
            unmoved += 1;
        }
        if unmoved == patience.stalled_after {
            let message = format_args!("{} items are not taken: {detail}", open.len());
            parts.metrics.alerts.raise(Alert::StalledPartition, &At::partition(partition), message);
        } else {
            tracing::debug!(%partition, left = open.len(), detail, "asking again");
        }
        tokio::time::sleep(backoff.next_delay().max(wait.unwrap_or_default())).await;
    }
    verdicts.into_iter().flatten().collect()
}
