//! What must be asked of the cluster before a partition can be read: ids, committed offsets, the log's ends. Blocking
//! calls with deadlines, on a thread of their own, so that the reader keeps polling.

use std::collections::HashSet;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, UNIX_EPOCH};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::config::StartPolicy;
use super::context::{Context, Key};
use super::native;
use super::wake::Wake;
use crate::event::{Partition, PartitionRef, Position};
use crate::source::{Assignment, Survey};

/// One call's deadline.
const CALL: Duration = Duration::from_secs(10);
/// Pause between two tries of one lookup.
const RETRY: Duration = Duration::from_millis(500);

/// What the reader asks.
pub(super) enum Question {
    /// Where these partitions stand. Tried again until answered or no longer wanted.
    Assignments { keys: Vec<Key>, wanted: Arc<AtomicBool> },
    /// Whether the cluster answers and these topics exist.
    Probe(Vec<String>),
    /// How much of these topics' partitions the group has not committed, without those that are ours.
    Others { topics: Vec<String>, ours: HashSet<Key> },
}

/// What comes back.
pub(super) enum Answer {
    Assignments {
        found: Vec<(Key, Assignment)>,
        wanted: Arc<AtomicBool>,
    },
    /// What is in the way, and that it is tried again.
    Trouble(String),
    Healthy,
    /// Offsets that the group's other members have not committed yet.
    Others(u64),
}

/// The cluster's id, asked once.
#[derive(Default)]
pub(super) struct Cluster(OnceLock<String>);

impl Cluster {
    fn id(&self, consumer: &BaseConsumer<Context>) -> Result<String, String> {
        if let Some(id) = self.0.get() {
            return Ok(id.clone());
        }
        let id =
            consumer.client().fetch_cluster_id(CALL).ok_or("the cluster does not tell its id: is it reachable?")?;
        Ok(self.0.get_or_init(|| id).clone())
    }

    fn partition(
        &self,
        consumer: &BaseConsumer<Context>,
        topic: &str,
        id: &str,
        number: i32,
    ) -> Result<PartitionRef, String> {
        Ok(Arc::new(Partition {
            cluster: self.id(consumer)?,
            topic: topic.to_owned(),
            topic_id: id.to_owned(),
            epoch: 0,
            name: number.to_string(),
        }))
    }
}

/// Answers questions until nobody can ask any more.
pub(super) fn run(
    consumer: &BaseConsumer<Context>,
    cluster: &Cluster,
    questions: &Receiver<Question>,
    answers: &Sender<Answer>,
    reader: &Wake,
) {
    while let Ok(question) = questions.recv() {
        let answer = match question {
            Question::Probe(topics) => probe(consumer, &topics),
            Question::Others { topics, ours } => match others(consumer, &topics, &ours) {
                Ok(left) => Answer::Others(left),
                Err(why) => Answer::Trouble(why),
            },
            Question::Assignments { keys, wanted } => loop {
                match assignments(consumer, cluster, &keys) {
                    Ok(found) => break Answer::Assignments { found, wanted },
                    Err(why) if wanted.load(Ordering::Relaxed) => {
                        let told = answers.send(Answer::Trouble(why));
                        reader.wake();
                        if told.is_err() {
                            return;
                        }
                        std::thread::sleep(RETRY);
                    }
                    Err(_) => break Answer::Assignments { found: Vec::new(), wanted },
                }
            },
        };
        if answers.send(answer).is_err() {
            return;
        }
        reader.wake();
    }
}

fn probe(consumer: &BaseConsumer<Context>, topics: &[String]) -> Answer {
    for topic in topics {
        let metadata = match consumer.fetch_metadata(Some(topic), CALL) {
            Ok(metadata) => metadata,
            Err(error) => return Answer::Trouble(format!("no answer from the cluster about topic {topic}: {error}")),
        };
        for found in metadata.topics() {
            if let Some(error) = found.error() {
                return Answer::Trouble(topic_trouble(topic, error.into()));
            }
        }
    }
    Answer::Healthy
}

fn others(consumer: &BaseConsumer<Context>, topics: &[String], ours: &HashSet<Key>) -> Result<u64, String> {
    let mut left = 0;
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), CALL).map_err(|error| format!("topic {topic}: {error}"))?;
        let found = metadata.topics().first().ok_or_else(|| topic_trouble(topic, RDKafkaErrorCode::UnknownTopic))?;
        let numbers = found.partitions().iter().map(|partition| (topic.clone(), partition.id()));
        let keys: Vec<Key> = numbers.filter(|key| !ours.contains(key)).collect();
        for ((topic, number), committed) in keys.iter().zip(committed(consumer, &keys)?) {
            let (low, high) = watermarks(consumer, topic, *number)?;
            left += high.saturating_sub(committed.map_or(low, Position::next_offset).max(low));
        }
    }
    Ok(left)
}

/// What to do about a topic that cannot be read.
pub(super) fn topic_trouble(topic: &str, code: RDKafkaErrorCode) -> String {
    match code {
        RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownPartition => {
            format!("topic {topic} does not exist: create topic {topic} (recordkeeper tables create --topics)")
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            format!("topic {topic} may not be read: grant Read and Describe on topic {topic}")
        }
        other => format!("topic {topic}: {other}"),
    }
}

fn assignments(
    consumer: &BaseConsumer<Context>,
    cluster: &Cluster,
    keys: &[Key],
) -> Result<Vec<(Key, Assignment)>, String> {
    let topics: BTreeSet<&str> = keys.iter().map(|(topic, _)| topic.as_str()).collect();
    let mut ids = BTreeMap::new();
    for topic in topics {
        ids.insert(topic, topic_id(consumer, topic)?);
    }
    let committed = committed(consumer, keys)?;
    let mut found = Vec::with_capacity(keys.len());
    for (key, checkpoint) in keys.iter().zip(committed) {
        let (topic, number) = (key.0.as_str(), key.1);
        let (low, high) = watermarks(consumer, topic, number)?;
        let id = ids.get(topic).map_or("", String::as_str);
        let assignment = Assignment {
            partition: cluster.partition(consumer, topic, id, number)?,
            checkpoint,
            log_start: Position::before_offset(low),
            log_end: Position::before_offset(high),
        };
        found.push((key.clone(), assignment));
    }
    Ok(found)
}

fn topic_id(consumer: &BaseConsumer<Context>, topic: &str) -> Result<String, String> {
    let metadata = consumer.fetch_metadata(Some(topic), CALL).map_err(|error| format!("topic {topic}: {error}"))?;
    let broker = metadata.brokers().first().ok_or("the cluster tells of no broker")?.id();
    match native::topic_id(consumer.client(), topic, broker, CALL) {
        Ok(id) => Ok(id),
        // Brokers before 2.8 have no topic ids; an operator's epoch stands in for them.
        Err(RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion) => Ok(String::new()),
        Err(code) => Err(topic_trouble(topic, code)),
    }
}

/// The checkpoints of these partitions, in their order.
fn committed(consumer: &BaseConsumer<Context>, keys: &[Key]) -> Result<Vec<Option<Position>>, String> {
    let mut list = TopicPartitionList::with_capacity(keys.len());
    for (topic, number) in keys {
        list.add_partition(topic, *number);
    }
    let list = consumer.committed_offsets(list, CALL).map_err(|error| format!("committed offsets: {error}"))?;
    keys.iter()
        .map(|(topic, number)| {
            let element = list.find_partition(topic, *number).ok_or_else(|| format!("{topic}/{number}: no answer"))?;
            element.error().map_err(|error| format!("committed offset of {topic}/{number}: {error}"))?;
            match element.offset() {
                Offset::Offset(next) => Ok(Some(Position::before_offset(u64::try_from(next).unwrap_or(0)))),
                Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => Ok(None),
            }
        })
        .collect()
}

fn watermarks(consumer: &BaseConsumer<Context>, topic: &str, number: i32) -> Result<(u64, u64), String> {
    let (low, high) = consumer
        .fetch_watermarks(topic, number, CALL)
        .map_err(|error: KafkaError| format!("offsets of {topic}/{number}: {error}"))?;
    Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
}

/// The last position of a partition that can be read now.
///
/// # Errors
/// What is in the way, for people.
pub(super) fn log_end(consumer: &BaseConsumer<Context>, partition: &Partition) -> Result<Position, String> {
    let number = partition.name.parse().map_err(|_| format!("{partition} is no partition of Kafka"))?;
    watermarks(consumer, &partition.topic, number).map(|(_, high)| Position::before_offset(high))
}

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
    let metadata = consumer.fetch_metadata(Some(topic), CALL).map_err(|error| format!("topic {topic}: {error}"))?;
    let found = metadata.topics().first().ok_or_else(|| topic_trouble(topic, RDKafkaErrorCode::UnknownTopic))?;
    if let Some(error) = found.error() {
        return Err(topic_trouble(topic, error.into()));
    }
    let mut keys: Vec<Key> = found.partitions().iter().map(|partition| (topic.to_owned(), partition.id())).collect();
    keys.sort();
    let id = topic_id(consumer, topic)?;
    let committed = committed(consumer, &keys)?;
    let by_time = match policy {
        StartPolicy::Earliest | StartPolicy::Latest => None,
        StartPolicy::At(time) => {
            let ms = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
            let mut list = TopicPartitionList::with_capacity(keys.len());
            for (topic, number) in &keys {
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
        .zip(committed)
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
            Ok(Survey { partition: cluster.partition(consumer, topic, &id, *number)?, start })
        })
        .collect()
}
