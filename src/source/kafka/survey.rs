//! Where a group begins on a topic: asked once, before its first lane.

use std::time::{Instant, UNIX_EPOCH};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::config::StartPolicy;
use super::context::{Context, Key};
use super::lookup::{CALL, Cluster, RETRY, Topic, committed, watermarks};
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
    let checkpoints: Vec<Option<Position>> = committed(consumer, &keys)?.into_iter().collect::<Result<_, _>>()?;
    let new = || keys.iter().zip(&checkpoints).filter(|(_, checkpoint)| checkpoint.is_none()).map(|(key, _)| key);
    // All of them or none: the start item is written once, and each partition's start is known by its log alone.
    for (topic, number) in new() {
        found
            .readable(topic, *number)
            .map_err(|why| format!("{why} (a group's first start on topic {topic} needs all of its partitions)"))?;
    }
    let by_time = match policy {
        StartPolicy::Earliest | StartPolicy::Latest => None,
        StartPolicy::At(_) if new().next().is_none() => None,
        StartPolicy::At(time) => {
            let ms = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
            let mut list = TopicPartitionList::with_capacity(keys.len());
            for (topic, number) in new() {
                list.add_partition_offset(topic, *number, Offset::Offset(i64::try_from(ms).unwrap_or(i64::MAX)))
                    .map_err(|error| format!("topic {topic}: {error}"))?;
            }
            Some(
                consumer
                    .offsets_for_times(list, CALL)
                    .map_err(|error| format!("offsets of {topic} by time: {error}"))?,
            )
        }
    };
    keys.iter()
        .zip(checkpoints)
        .map(|((topic, number), checkpoint)| {
            let start = match checkpoint {
                Some(position) => position,
                None => {
                    let (low, high) = watermarks(consumer, topic, *number)?;
                    Position::before_offset(match (policy, &by_time) {
                        (StartPolicy::Earliest, _) => low,
                        (StartPolicy::Latest, _) | (StartPolicy::At(_), None) => high,
                        (StartPolicy::At(_), Some(list)) => {
                            let element = list
                                .find_partition(topic, *number)
                                .ok_or_else(|| format!("{topic}/{number}: no answer"))?;
                            element.error().map_err(|error| format!("offset of {topic}/{number} by time: {error}"))?;
                            match element.offset() {
                                Offset::Offset(next) => u64::try_from(next).unwrap_or(low),
                                // Nothing that late yet.
                                Offset::End => high,
                                Offset::Beginning | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => high,
                            }
                        }
                    })
                }
            };
            Ok(Survey { partition: cluster.partition(consumer, topic, &found.id, *number)?, start })
        })
        .collect()
}
