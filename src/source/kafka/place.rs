//! A group's place on a topic, read and moved from outside of the group, for tools. Calls block, some for as long as librdkafka
//! takes: their callers keep the deadline.

use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::KafkaConnection;
use super::context::{Context, Key};
use super::lists::{list_of, offset_of};
use super::lookup::{Cluster, Topic, committed, offsets_at, watermarks};
use super::slot::copy;
use crate::event::{PartitionRef, Position};
use crate::source::RawBatch;

/// The longest that one read may take.
const READ: Duration = Duration::from_secs(30);
/// Between two looks at the clock.
const POLL: Duration = Duration::from_millis(100);

/// Where a group and a partition's log stand.
#[derive(Clone, Debug)]
pub struct Place {
    /// The partition.
    pub partition: PartitionRef,
    /// What was checkpointed; `None` where nothing was, or it expired.
    pub checkpoint: Option<Position>,
    /// The log holds nothing at or below.
    pub log_start: Position,
    /// The last position that can be read.
    pub log_end: Position,
}

/// See the module.
pub struct GroupPlace {
    consumer: BaseConsumer<Context>,
    cluster: Cluster,
}

impl GroupPlace {
    /// Without joining the group.
    ///
    /// # Errors
    ///
    /// Settings that librdkafka refuses, by name.
    pub fn connect(connection: &KafkaConnection, group: &str) -> Result<Self, String> {
        let mut config = connection.client_config();
        config.set("group.id", group).set("enable.auto.commit", "false");
        // For reading: the end is told, and an offset that the log no longer holds is an error.
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "error");
        let consumer = BaseConsumer::from_config_and_context(&config, Context::new(connection))
            .map_err(|error| super::setting_fault(&error))?;
        Ok(Self { consumer, cluster: Cluster::default() })
    }

    /// The numbers of the topic's partitions.
    ///
    /// # Errors
    ///
    /// What is in the way, for people.
    pub fn partitions(&self, topic: &str) -> Result<Vec<i32>, String> {
        Ok(Topic::look_up(&self.consumer, topic)?.partitions.into_keys().collect())
    }

    /// Checkpoint and log ends of these partitions of the topic.
    ///
    /// # Errors
    ///
    /// What is in the way, for people.
    pub fn places(&self, topic: &str, numbers: &[i32]) -> Result<Vec<Place>, String> {
        let found = Topic::look_up(&self.consumer, topic)?;
        let keys: Vec<Key> = numbers.iter().map(|number| (topic.to_owned(), *number)).collect();
        for number in numbers {
            found.readable(topic, *number)?;
        }
        let place = |((topic, number), checkpoint): (&Key, Result<Option<Position>, String>)| {
            let (low, high) = watermarks(&self.consumer, topic, *number)?;
            Ok(Place {
                partition: self.cluster.partition(&self.consumer, topic, &found.id, *number)?,
                checkpoint: checkpoint?,
                log_start: Position::before_offset(low),
                log_end: Position::before_offset(high),
            })
        };
        keys.iter().zip(committed(&self.consumer, &keys)?).map(place).collect()
    }

    /// Just below the first message of each partition that is not older than `ms` (since 1970); the log's end where there is none.
    ///
    /// # Errors
    ///
    /// What is in the way, for people.
    pub fn at_time(&self, places: &[Place], ms: i64) -> Result<Vec<Position>, String> {
        let keys: Vec<Key> = places.iter().map(|place| key(&place.partition)).collect::<Result<_, _>>()?;
        let found = offsets_at(&self.consumer, &keys, ms)?.into_iter().zip(places);
        Ok(found.map(|(next, place)| next.map_or(place.log_end, Position::before_offset)).collect())
    }

    /// Reads the messages of the offsets `from` to just below `past`, as far as the log has some there. One read at a time.
    ///
    /// # Errors
    ///
    /// What is in the way, for people.
    pub fn read(&self, partition: &PartitionRef, from: u64, past: u64) -> Result<RawBatch, String> {
        let place = key(partition)?;
        let list = list_of([(&place, offset_of(from))]);
        self.consumer.assign(&list).map_err(|error| format!("{partition} cannot be read: {error}"))?;
        let read = self.read_assigned(partition, past);
        self.consumer.unassign().map_err(|error| format!("{partition} cannot be given back: {error}"))?;
        read
    }

    fn read_assigned(&self, partition: &PartitionRef, past: u64) -> Result<RawBatch, String> {
        let mut batch = RawBatch { partition: partition.clone(), bytes: Vec::new(), messages: Vec::new() };
        let deadline = Instant::now() + READ;
        let mut trouble = "no answer".to_owned();
        while Instant::now() < deadline {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let offset = u64::try_from(message.offset()).unwrap_or(u64::MAX);
                    if offset < past {
                        batch.messages.push(copy(&message, offset, &mut batch.bytes));
                    }
                    if offset.saturating_add(1) >= past {
                        return Ok(batch);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(batch),
                // Most pass by themselves.
                Some(Err(error)) => trouble = error.to_string(),
                None => {}
            }
        }
        Err(format!("{partition} was not read up to offset {past} within {READ:?}: {trouble}"))
    }

    /// Moves the group's checkpoints. The cluster refuses it while the group has members.
    ///
    /// # Errors
    ///
    /// What is in the way, for people.
    pub fn commit(&self, checkpoints: &[(PartitionRef, Position)]) -> Result<(), String> {
        let keys: Vec<Key> = checkpoints.iter().map(|(partition, _)| key(partition)).collect::<Result<_, _>>()?;
        let offsets = checkpoints.iter().map(|(_, to)| offset_of(to.next_offset()));
        self.consumer.commit(&list_of(keys.iter().zip(offsets)), CommitMode::Sync).map_err(|error| match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::RebalanceInProgress
                | RDKafkaErrorCode::StaleMemberEpoch
                | RDKafkaErrorCode::FencedMemberEpoch,
            ) => format!(
                "the group has members ({error}): stop every instance, wait for its session timeout where one was killed, and \
                 try again"
            ),
            _ => format!("the cluster takes no checkpoints: {error}"),
        })
    }
}

fn key(partition: &PartitionRef) -> Result<Key, String> {
    let number = partition.name.parse().map_err(|_| format!("{partition} is no partition of Kafka"))?;
    Ok((partition.topic.clone(), number))
}
