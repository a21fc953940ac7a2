//! What tools share that look at a group, its log and its ledger from outside.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::config::Settings;
use crate::event::Position;
use crate::guard::Backoff;
use crate::pipeline::Pipeline;
use crate::source::kafka::{GroupPlace, Place};
use crate::source::range::Range;
use crate::store::Retry;

use super::{PlaceArg, backends};

/// How often a call that may pass is made.
const TRIES: u32 = 8;
/// How long the cluster may take for one question.
const CLUSTER_DEADLINE: Duration = Duration::from_secs(60);

/// The one pipeline that reads a topic.
pub(super) fn of_topic<'a>(pipelines: &'a [Pipeline], topic: &str) -> Result<&'a Pipeline, String> {
    let mut reading = pipelines.iter().filter(|pipeline| pipeline.topics().iter().any(|read| read == topic));
    match (reading.next(), reading.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(format!("no pipeline reads topic {topic}: check --topic and --pipeline")),
        (Some(one), Some(other)) => {
            Err(format!("{} and {} read topic {topic}: name one with --pipeline", one.name(), other.name()))
        }
    }
}

/// A look at the pipeline's group from outside.
///
/// # Errors
///
/// Wrong settings.
pub(super) fn group_place(settings: &Settings, pipeline: &Pipeline) -> anyhow::Result<Arc<GroupPlace>> {
    let (connection, epochs) = (backends::kafka_connection(settings), pipeline.topic_epochs().clone());
    GroupPlace::connect(&connection, pipeline.group(), epochs).map(Arc::new).map_err(anyhow::Error::msg)
}

/// A reason that a person gives stays in the ledger.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn check_reason(reason: &str) -> Result<(), String> {
    let given = !reason.trim().is_empty() && reason.len() <= 1024;
    if given { Ok(()) } else { Err("--reason: say why, in 1 to 1024 bytes; it stays in the ledger".to_owned()) }
}

/// The chosen partitions of a topic, or all, and how each one's log stands; the inner error is the user's.
///
/// # Errors
///
/// What is in the way.
pub(super) async fn places(
    group: &Arc<GroupPlace>,
    topic: &str,
    chosen: &[u32],
) -> anyhow::Result<Result<Vec<Place>, String>> {
    let name = topic.to_owned();
    let known = blocking(group, move |group| group.partitions(&name)).await?;
    let numbers: Vec<i32> = chosen.iter().filter_map(|number| i32::try_from(*number).ok()).collect();
    if numbers.len() < chosen.len() || numbers.iter().any(|number| !known.contains(number)) {
        return Ok(Err(format!("--partition: topic {topic} has the partitions {known:?}")));
    }
    if let Some(number) = (1..numbers.len()).find(|at| numbers[..*at].contains(&numbers[*at])).map(|at| numbers[at]) {
        return Ok(Err(format!("--partition: {number} is given twice")));
    }
    let (name, numbers) = (topic.to_owned(), if numbers.is_empty() { known } else { numbers });
    blocking(group, move |group| group.places(&name, &numbers)).await.map(Ok)
}

/// The position just below what an argument names, in each of these partitions.
///
/// # Errors
///
/// What is in the way.
pub(super) async fn positions(
    group: &Arc<GroupPlace>,
    places: &[Place],
    named: PlaceArg,
) -> anyhow::Result<Vec<Position>> {
    Ok(match named {
        PlaceArg::Earliest => places.iter().map(|place| place.log_start).collect(),
        PlaceArg::Latest => places.iter().map(|place| place.log_end).collect(),
        PlaceArg::Offset(next) => places.iter().map(|_| Position::before_offset(next)).collect(),
        PlaceArg::Time(time) => {
            let places = places.to_vec();
            blocking(group, move |group| group.at_time(&places, time.as_millisecond())).await?
        }
    })
}

/// The ranges of a topic between two places, as the log stands now; the inner error is the user's.
///
/// # Errors
///
/// What is in the way.
pub(super) async fn ranges(
    group: &Arc<GroupPlace>,
    topic: &str,
    chosen: &[u32],
    from: PlaceArg,
    to: PlaceArg,
) -> anyhow::Result<Result<Vec<Range>, String>> {
    let by_offset = [from, to].iter().any(|place| matches!(place, PlaceArg::Offset(_)));
    if by_offset && chosen.len() != 1 {
        return Ok(Err("an offset is one of one partition: give exactly one --partition".to_owned()));
    }
    let places = match places(group, topic, chosen).await? {
        Ok(places) => places,
        Err(what) => return Ok(Err(what)),
    };
    let (begin, end) = (positions(group, &places, from).await?, positions(group, &places, to).await?);
    let mut ranges = Vec::with_capacity(places.len());
    for ((place, from), to) in places.into_iter().zip(begin).zip(end) {
        let Place { partition, log_start, log_end, .. } = place;
        if from < log_start || from.max(to) > log_end {
            let (first, next) = (log_start.next_offset(), log_end.next_offset());
            return Ok(Err(format!("{partition} holds offsets from {first} on, below {next}: ask for those")));
        }
        if to < from {
            return Ok(Err(format!("{partition}: --to lies before --from")));
        }
        ranges.push(Range { partition, from, to, log_start });
    }
    if ranges.iter().all(Range::is_empty) {
        return Ok(Err(format!("nothing stands in this range of {topic}")));
    }
    Ok(Ok(ranges))
}

/// Calls until it works, a few times.
///
/// # Errors
///
/// What the last call said.
pub(super) async fn again<V, F: Future<Output = Result<V, Retry>>>(call: impl Fn() -> F) -> anyhow::Result<V> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    for _ in 1..TRIES {
        match call().await {
            Ok(value) => return Ok(value),
            Err(retry) => tokio::time::sleep(backoff.next_delay().max(retry.after.unwrap_or_default())).await,
        }
    }
    call().await.map_err(|retry| anyhow::anyhow!("{}", retry.detail))
}

/// Asks the cluster, within a deadline.
///
/// # Errors
///
/// What is in the way.
pub(super) async fn blocking<V: Send + 'static>(
    group: &Arc<GroupPlace>,
    ask: impl FnOnce(&GroupPlace) -> Result<V, String> + Send + 'static,
) -> anyhow::Result<V> {
    let (place, group) = (group, group.clone());
    let asked = tokio::task::spawn_blocking(move || ask(&group));
    let answer = tokio::time::timeout(CLUSTER_DEADLINE, asked).await;
    let answer = answer.context("it does not answer").and_then(|answer| answer.context("the question broke off"));
    answer
        .and_then(|answer| answer.map_err(anyhow::Error::msg))
        .with_context(|| format!("the cluster at {}", place.brokers()))
}
