//! A member of a group as a test drives it.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use recordkeeper::event::{PartitionRef, Position};
use recordkeeper::source::kafka::{KafkaConnection, KafkaSource, KafkaSourceConfig, StartPolicy};
use recordkeeper::source::{Assignment, Checkpoint, RawBatch, RawMessage, Source, SourceError, SourceEvent};
use recordkeeper::telemetry::Heartbeats;

use super::World;

/// Nothing here takes longer, on a busy machine either.
pub const PATIENCE: Duration = Duration::from_secs(40);

pub fn config(world: &World) -> KafkaSourceConfig {
    KafkaSourceConfig {
        connection: KafkaConnection::plaintext(&world.bootstrap),
        group: world.group.clone(),
        topic_epochs: std::collections::BTreeMap::new(),
        topics: vec![world.topic.clone()],
        start: StartPolicy::Earliest,
        protocol: world.protocol,
        group_instance_id: None,
        options: BTreeMap::from([("topic.metadata.refresh.interval.ms".into(), "500".into())]),
        batch_messages_max: 100,
        batch_bytes_max: 100_000,
        batches_max: 4,
        linger: Duration::from_millis(2),
        until_end: false,
        max_poll_interval: Duration::from_secs(60),
        drain_deadline: Duration::from_secs(30),
    }
}

/// A message as read, by partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub partition: String,
    pub offset: u64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

pub struct Member {
    pub source: Box<KafkaSource>,
    pub owned: Vec<PartitionRef>,
    /// By partition: its last assignment.
    numbers: BTreeMap<PartitionRef, u64>,
    pub read: Vec<Read>,
    health: String,
}

impl Member {
    pub fn join(config: KafkaSourceConfig) -> Self {
        let heartbeat = Heartbeats::new().register("reader", PATIENCE);
        let source = Box::new(KafkaSource::connect(config, heartbeat).unwrap());
        Self { source, owned: Vec::new(), numbers: BTreeMap::new(), read: Vec::new(), health: String::new() }
    }

    /// Checkpoints of the last assignment of each partition.
    pub fn checkpoint(&mut self, done: &[(PartitionRef, Position)]) {
        let of_last = |(partition, done): &(PartitionRef, Position)| {
            let assignment = self.numbers[partition];
            Checkpoint { partition: partition.clone(), assignment, done: *done }
        };
        let done: Vec<Checkpoint> = done.iter().map(of_last).collect();
        self.source.checkpoint(&done);
    }

    pub async fn event(&mut self) -> Result<SourceEvent, SourceError> {
        let event = tokio::time::timeout(PATIENCE, self.source.next()).await;
        let event = event.unwrap_or_else(|_| panic!("no event in time; health: {}", self.health));
        if let Ok(SourceEvent::Health { detail, .. }) = &event {
            self.health.clone_from(detail);
        }
        event
    }

    /// The next event that is no health.
    pub async fn news(&mut self) -> SourceEvent {
        loop {
            match self.event().await.unwrap() {
                SourceEvent::Health { .. } => {}
                other => return other,
            }
        }
    }

    /// Starts what is assigned at its checkpoint, else at the log's start.
    pub fn start(&mut self, assigned: &[Assignment]) {
        for assignment in assigned {
            self.source.start(&assignment.partition, assignment.checkpoint.unwrap_or(assignment.log_start));
            self.owned.push(assignment.partition.clone());
            self.numbers.insert(assignment.partition.clone(), assignment.number);
        }
    }

    pub fn take(&mut self, batch: &RawBatch) {
        assert!(!batch.messages.is_empty());
        self.read.extend(batch.messages.iter().map(|message| as_read(batch, message)));
    }

    /// Handles one event as a well-behaved engine does.
    pub async fn step(&mut self) -> Option<SourceEvent> {
        match self.news().await {
            SourceEvent::Assigned(assigned) => self.start(&assigned),
            SourceEvent::Batch(batch) => self.take(&batch),
            SourceEvent::Revoked { partitions, ack, .. } => {
                self.owned.retain(|partition| !partitions.contains(partition));
                ack.send(()).unwrap_or_default();
            }
            other => return Some(other),
        }
        None
    }

    pub async fn read_until(&mut self, count: usize) {
        while self.read.len() < count {
            assert!(self.step().await.is_none());
        }
    }

    /// The first assignment, not started.
    pub async fn assigned(&mut self) -> Vec<Assignment> {
        match self.news().await {
            SourceEvent::Assigned(assigned) => assigned,
            other => panic!("{other:?}"),
        }
    }

    pub async fn close(self) {
        self.source.close(Duration::from_secs(30)).await;
    }
}

fn as_read(batch: &RawBatch, message: &RawMessage) -> Read {
    let bytes = |range: &Option<std::ops::Range<usize>>| range.as_ref().map(|range| batch.slice(range).to_vec());
    let Position::Offset(offset) = message.position else { panic!("a message at the beginning") };
    Read {
        partition: batch.partition.name.clone(),
        offset,
        key: bytes(&message.key),
        value: bytes(&message.value),
        headers: message
            .headers
            .iter()
            .map(|(name, value)| (String::from_utf8(batch.slice(name).to_vec()).unwrap(), bytes(value)))
            .collect(),
    }
}

pub fn producer(bootstrap: &str, settings: &[(&str, &str)]) -> FutureProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("linger.ms", "2").set("acks", "all");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config.create().unwrap()
}

/// Writes `values` to one partition, in order.
pub async fn write(world: &World, partition: i32, values: impl IntoIterator<Item = String>) {
    write_with(&producer(&world.bootstrap, &[]), world, partition, values).await;
}

pub async fn write_with(
    producer: &FutureProducer,
    world: &World,
    partition: i32,
    values: impl IntoIterator<Item = String>,
) {
    let mut sent = Vec::new();
    for value in values {
        let record = FutureRecord::<[u8], str>::to(&world.topic).partition(partition).payload(&value);
        sent.push(producer.send_result(record).map_err(|(error, _)| error).unwrap());
    }
    for delivery in sent {
        delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
    }
}

pub async fn write_one(world: &World, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) {
    let headers =
        headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: *value }));
    let record = FutureRecord {
        topic: &world.topic,
        partition: Some(0),
        payload: value,
        key,
        timestamp: None,
        headers: Some(headers),
    };
    producer(&world.bootstrap, &[]).send(record, Duration::from_secs(10)).await.map_err(|(error, _)| error).unwrap();
}

pub fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

/// The values read of one partition, as text.
pub fn values(read: &[Read], partition: &str) -> Vec<String> {
    let of_it = read.iter().filter(|message| message.partition == partition);
    of_it.map(|message| String::from_utf8(message.value.clone().unwrap()).unwrap()).collect()
}
