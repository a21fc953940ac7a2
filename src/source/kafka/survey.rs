//! Where a group begins on a topic: asked once, before its first lane.

use std::time::{Instant, UNIX_EPOCH};

use rdkafka::consumer::BaseConsumer;

use super::config::StartPolicy;
use super::context::{Context, Key};
use super::lookup::{Cluster, RETRY, Topic, committed, no_checkpoints, offsets_at, watermarks};
use crate::event::Position;
use crate::source::Survey;

/// For every partition of the topic: the checkpoint found, else where the policy points.
///
/// # Errors
/// What is in the way, for people.
pub(super) fn survey(
    consumer: &BaseConsumer<Context>,
    cluster: &Cluster,
    topic: &str,
    policy: StartPolicy,
    deadline: Instant,
) -> Result<Vec<Survey>, String> {
    loop {
        let tried = survey_once(consumer, cluster, topic, policy);
        if tried.is_ok() || Instant::now() + RETRY >= deadline {
            return tried;
        }
        std::thread::sleep(RETRY);
    }
}

fn survey_once(
    consumer: &BaseConsumer<Context>,
    cluster: &Cluster,
    topic: &str,
    policy: StartPolicy,
) -> Result<Vec<Survey>, String> {
    let found = Topic::look_up(consumer, topic)?;
    let keys: Vec<Key> = found.partitions.keys().map(|number| (topic.to_owned(), *number)).collect();
    let checkpoints: Vec<Option<Position>> =
        committed(consumer, &keys).map_err(no_checkpoints)?.into_iter().collect::<Result<_, _>>()?;
    let new = || keys.iter().zip(&checkpoints).filter(|(_, checkpoint)| checkpoint.is_none()).map(|(key, _)| key);
    // All of them or none: the start item is written once, and each partition's start is known by its log alone.
    for (topic, number) in new() {
        found
            .readable(topic, *number)
            .map_err(|why| format!("{why} (a group's first start on topic {topic} needs all of its partitions)"))?;
    }
    let new_keys: Vec<Key> = new().cloned().collect();
    let mut by_time = match policy {
        StartPolicy::At(time) if !new_keys.is_empty() => {
            let ms = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
            offsets_at(consumer, &new_keys, i64::try_from(ms).unwrap_or(i64::MAX))?
        }
        StartPolicy::At(_) | StartPolicy::Earliest | StartPolicy::Latest => vec![None; new_keys.len()],
    }
    .into_iter();
    keys.iter()
        .zip(checkpoints)
        .map(|((topic, number), checkpoint)| {
            let start = match checkpoint {
                Some(position) => position,
                None => {
                    let (low, high) = watermarks(consumer, topic, *number)?;
                    let at_time = by_time.next().flatten();
                    Position::before_offset(match policy {
                        StartPolicy::Earliest => low,
                        StartPolicy::Latest => high,
                        // Nothing that late yet: the end.
                        StartPolicy::At(_) => at_time.unwrap_or(high),
                    })
                }
            };
            Ok(Survey { partition: cluster.partition(consumer, topic, &found.id, *number)?, start })
        })
        .collect()
}
