//! A group's place on a topic, read and moved from outside of the group, for tools. Calls block, some for as long as librdkafka
//! takes: their callers keep the deadline.

use std::collections::BTreeMap;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::KafkaConnection;
use super::context::{Context, Key};
use super::lists::{list_of, offset_of};
use super::lookup::{Cluster, Committed, RETRY, Topic, committed, no_checkpoints, offsets_at, watermarks};
use crate::event::{PartitionRef, Position};

/// How often a coordinator is asked that may just have moved.
const COORDINATOR_TRIES: u32 = 4;

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
    brokers: String,
}

impl GroupPlace {
    /// Without joining the group; with the topic epochs that an operator set.
    ///
    /// # Errors
    ///
    /// Settings that librdkafka refuses, by name.
    pub fn connect(connection: &KafkaConnection, group: &str, epochs: BTreeMap<String, u32>) -> Result<Self, String> {
        let mut config = connection.client_config();
        config.set("group.id", group).set("enable.auto.commit", "false");
        let consumer = BaseConsumer::from_config_and_context(&config, Context::new(connection))
            .map_err(|error| super::setting_fault(&error))?;
        Ok(Self { consumer, cluster: Cluster::new(epochs), brokers: connection.bootstrap_servers.clone() })
    }

    /// Where the cluster is, as configured.
    pub fn brokers(&self) -> &str {
        &self.brokers
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
        keys.iter().zip(self.committed(&keys)?).map(place).collect()
    }

    /// Asks again where the group's coordinator has just moved or is not ready: librdkafka finds it, and answers with the error.
    fn committed(&self, keys: &[Key]) -> Result<Vec<Committed>, String> {
        for _ in 1..COORDINATOR_TRIES {
            match committed(&self.consumer, keys) {
                Err(error) if error.rdkafka_error_code().is_some_and(coordinator_moves) => std::thread::sleep(RETRY),
                answer => return answer.map_err(no_checkpoints),
            }
        }
        committed(&self.consumer, keys).map_err(no_checkpoints)
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

fn coordinator_moves(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::CoordinatorLoadInProgress
    )
}

fn key(partition: &PartitionRef) -> Result<Key, String> {
    let number = partition.name.parse().map_err(|_| format!("{partition} is no partition of Kafka"))?;
    Ok((partition.topic.clone(), number))
}
