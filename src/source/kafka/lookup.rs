//! What must be asked of the cluster before a partition can be read: ids, committed offsets, the log's ends. Blocking
//! calls with deadlines, on a thread of their own, so that the reader keeps polling. A partition that cannot be looked up
//! holds up neither the others nor other questions for longer than one call.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::context::{Context, Key};
use super::line::{Asked, Line, Question};
use super::lists::list_of;
use super::native;
use super::round::{Prepared, Round, trouble};
use super::wake::Wake;
use crate::event::{Partition, PartitionRef, Position};
use crate::source::Assignment;

/// One call's deadline.
pub(super) const CALL: Duration = Duration::from_secs(10);
/// Pause between two tries of one lookup.
pub(super) const RETRY: Duration = Duration::from_millis(500);

/// What comes back.
pub(super) enum Answer {
    /// Where these partitions stand.
    Assignments(Vec<(Asked, Assignment)>),
    /// What is in the way, and that it is tried again.
    Trouble(String),
    Healthy,
    /// Offsets that the group's other members have not committed yet.
    Others(u64),
}

/// The cluster's id, asked once, and the topic epochs that an operator set.
pub(super) struct Cluster {
    id: OnceLock<String>,
    epochs: BTreeMap<String, u32>,
}

impl Cluster {
    pub(super) fn new(epochs: BTreeMap<String, u32>) -> Self {
        Self { id: OnceLock::new(), epochs }
    }

    fn id(&self, consumer: &BaseConsumer<Context>) -> Result<String, String> {
        if let Some(id) = self.id.get() {
            return Ok(id.clone());
        }
        let id =
            consumer.client().fetch_cluster_id(CALL).ok_or("the cluster does not tell its id: is it reachable?")?;
        Ok(self.id.get_or_init(|| id).clone())
    }

    pub(super) fn partition(
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
            epoch: self.epochs.get(topic).copied().unwrap_or(0),
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
    let mut line = Line::default();
    while listen(&mut line, questions) {
        let Some(question) = line.next(Instant::now()) else { continue };
        let mut told = Vec::new();
        match question {
            Question::Probe(topics) => told.push(probe(consumer, &topics)),
            Question::Others { topics, ours } => {
                told.push(others(consumer, &topics, &ours).map_or_else(Answer::Trouble, Answer::Others));
            }
            Question::Assignments(asked) => {
                let round = Round::of(prepare(consumer, cluster, asked), |key| watermarks(consumer, &key.0, key.1));
                if !round.found.is_empty() {
                    told.push(Answer::Assignments(round.found));
                }
                told.extend(trouble(&round.failed).map(Answer::Trouble));
                let now = Instant::now();
                line.push(Question::Assignments(round.untried), now);
                line.push(
                    Question::Assignments(round.failed.into_iter().map(|(asked, _)| asked).collect()),
                    now + RETRY,
                );
            }
        }
        for answer in told {
            if answers.send(answer).is_err() {
                return;
            }
        }
        reader.wake();
    }
}

/// Waits until there is a question to be put, and lets in all that have come. False when nobody can ask any more.
fn listen(line: &mut Line, questions: &Receiver<Question>) -> bool {
    let heard = match line.due_in(Instant::now()) {
        None => questions.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(pause) => questions.recv_timeout(pause),
    };
    let now = Instant::now();
    match heard {
        Ok(question) => line.push(question, now),
        Err(RecvTimeoutError::Timeout) => {}
        Err(RecvTimeoutError::Disconnected) => return false,
    }
    while let Ok(question) = questions.try_recv() {
        line.push(question, now);
    }
    true
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
        for ((topic, number), committed) in keys.iter().zip(committed(consumer, &keys).map_err(no_checkpoints)?) {
            let committed = committed?;
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

/// All that a topic and the group can tell of these partitions at once, or why one cannot be read for now.
fn prepare(
    consumer: &BaseConsumer<Context>,
    cluster: &Cluster,
    asked: Vec<Asked>,
) -> Vec<(Asked, Result<Prepared, String>)> {
    let names: BTreeSet<&str> = asked.iter().map(|asked| asked.key.0.as_str()).collect();
    let topics: BTreeMap<String, Result<Topic, String>> =
        names.into_iter().map(|name| (name.to_owned(), Topic::look_up(consumer, name))).collect();
    let partition = |(topic, number): &Key| {
        let found = topics.get(topic).ok_or_else(|| format!("topic {topic}: no answer"))?.as_ref()?;
        found.readable(topic, *number)?;
        cluster.partition(consumer, topic, &found.id, *number)
    };
    let partitions: Vec<Result<PartitionRef, String>> = asked.iter().map(|asked| partition(&asked.key)).collect();
    let there = asked.iter().zip(&partitions).filter(|(_, partition)| partition.is_ok());
    let keys: Vec<Key> = there.map(|(asked, _)| asked.key.clone()).collect();
    let mut committed = match committed(consumer, &keys) {
        Ok(each) => each,
        Err(error) => vec![Err(no_checkpoints(error)); keys.len()],
    }
    .into_iter();
    let seed = |partition: Result<PartitionRef, String>| {
        let partition = partition?;
        let checkpoint = committed.next().ok_or_else(|| format!("{partition}: no answer"))??;
        Ok(Prepared { partition, checkpoint })
    };
    asked.into_iter().zip(partitions.into_iter().map(seed)).collect()
}

/// What a topic says of itself.
pub(super) struct Topic {
    pub(super) id: String,
    /// Its partitions, and which of them have a leader now.
    pub(super) partitions: BTreeMap<i32, bool>,
}

impl Topic {
    /// # Errors
    /// What is in the way, for people.
    pub(super) fn look_up(consumer: &BaseConsumer<Context>, topic: &str) -> Result<Self, String> {
        let metadata = consumer.fetch_metadata(Some(topic), CALL).map_err(|error| format!("topic {topic}: {error}"))?;
        let found = metadata.topics().first().ok_or_else(|| topic_trouble(topic, RDKafkaErrorCode::UnknownTopic))?;
        if let Some(error) = found.error() {
            return Err(topic_trouble(topic, error.into()));
        }
        let partitions = found.partitions().iter().map(|partition| (partition.id(), partition.leader() >= 0)).collect();
        let broker = metadata.brokers().first().ok_or("the cluster tells of no broker")?.id();
        let id = match native::topic_id(consumer.client(), topic, broker, CALL) {
            Ok(id) => id,
            // Brokers before 2.8 have no topic ids; an operator's epoch stands in for them.
            Err(RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion) => String::new(),
            Err(code) => return Err(topic_trouble(topic, code)),
        };
        if consumer.context().reads_another_log(topic, &id) {
            return Err(format!("topic {topic} is being made anew: brokers and client do not name the same one yet"));
        }
        Ok(Self { id, partitions })
    }

    /// Says at once what librdkafka would find out by waiting for its whole deadline.
    pub(super) fn readable(&self, topic: &str, number: i32) -> Result<(), String> {
        match self.partitions.get(&number) {
            Some(true) => Ok(()),
            Some(false) => {
                Err(format!("partition {topic}/{number} has no leader: bring back the brokers that hold it"))
            }
            None => Err(format!("partition {topic}/{number} is not known to the cluster (yet)")),
        }
    }
}

/// A checkpoint, or why it cannot be told.
pub(super) type Committed = Result<Option<Position>, String>;

/// What is said where the group's checkpoints cannot be told.
pub(super) fn no_checkpoints(error: KafkaError) -> String {
    format!("committed offsets: {error}")
}

/// The checkpoints of these partitions, in their order; an error of one is its own.
pub(super) fn committed(consumer: &BaseConsumer<Context>, keys: &[Key]) -> Result<Vec<Committed>, KafkaError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = TopicPartitionList::with_capacity(keys.len());
    for (topic, number) in keys {
        list.add_partition(topic, *number);
    }
    let list = consumer.committed_offsets(list, CALL)?;
    let one = |(topic, number): &Key| {
        let element = list.find_partition(topic, *number).ok_or_else(|| format!("{topic}/{number}: no answer"))?;
        element.error().map_err(|error| format!("committed offset of {topic}/{number}: {error}"))?;
        match element.offset() {
            Offset::Offset(next) => Ok(Some(Position::before_offset(u64::try_from(next).unwrap_or(0)))),
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => Ok(None),
        }
    };
    Ok(keys.iter().map(one).collect())
}

/// The first offset of each of these partitions whose message is not older than `ms` (since 1970); `None` where nothing is
/// that late yet.
pub(super) fn offsets_at(consumer: &BaseConsumer<Context>, keys: &[Key], ms: i64) -> Result<Vec<Option<u64>>, String> {
    let wanted = list_of(keys.iter().map(|key| (key, Offset::Offset(ms.max(0)))));
    let found = consumer.offsets_for_times(wanted, CALL).map_err(|error| format!("offsets by time: {error}"))?;
    let one = |(topic, number): &Key| {
        let element = found.find_partition(topic, *number).ok_or_else(|| format!("{topic}/{number}: no answer"))?;
        element.error().map_err(|error| format!("offset of {topic}/{number} by time: {error}"))?;
        match element.offset() {
            Offset::Offset(next) => Ok(u64::try_from(next).ok()),
            Offset::End | Offset::Beginning | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => Ok(None),
        }
    };
    keys.iter().map(one).collect()
}

pub(super) fn watermarks(consumer: &BaseConsumer<Context>, topic: &str, number: i32) -> Result<(u64, u64), String> {
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
