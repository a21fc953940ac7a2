//! A group's place on a topic, read and moved from outside of the group. Blocking calls with deadlines, for tools.

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};

use super::KafkaConnection;
use super::context::{Context, Key};
use super::lists::{list_of, offset_of};
use super::lookup::{Cluster, Topic, committed, offsets_at, watermarks};
use crate::event::{PartitionRef, Position};
use crate::source::Assignment;

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
        let consumer = BaseConsumer::from_config_and_context(&config, Context::new(connection))
            .map_err(|error| super::setting_fault(&error))?;
        Ok(Self { consumer, cluster: Cluster::default() })
    }

    /// Checkpoint and log ends of every partition of the topic.
    ///
    /// # Errors
    ///
    /// What is in the way, for people.
    pub fn of_topic(&self, topic: &str) -> Result<Vec<Assignment>, String> {
        let found = Topic::look_up(&self.consumer, topic)?;
        let keys: Vec<Key> = found.partitions.keys().map(|number| (topic.to_owned(), *number)).collect();
        let place = |((topic, number), checkpoint): (&Key, Result<Option<Position>, String>)| {
            found.readable(topic, *number)?;
            let (low, high) = watermarks(&self.consumer, topic, *number)?;
            Ok(Assignment {
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
    pub fn at_time(&self, places: &[Assignment], ms: i64) -> Result<Vec<Position>, String> {
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
        self.consumer.commit(&list_of(keys.iter().zip(offsets)), CommitMode::Sync).map_err(|error| {
            format!(
                "the cluster takes no checkpoints ({error}): stop every instance of the group, wait for its session \
                     timeout where one was killed, and try again"
            )
        })
    }
}

fn key(partition: &PartitionRef) -> Result<Key, String> {
    let number = partition.name.parse().map_err(|_| format!("{partition} is no partition of Kafka"))?;
    Ok((partition.topic.clone(), number))
}
