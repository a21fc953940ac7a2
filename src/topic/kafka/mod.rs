//! A Kafka topic to publish to: idempotent, acknowledged by all in-sync replicas, placed as Java's clients place.
//!
//! In: messages. Out: one verdict a message, once it is durable or the delivery deadline has passed. What can fail at
//! connect: the cluster is away, the topic is missing, a setting is wrong ([`TopicError`]).

mod murmur2;
mod report;
pub mod topics;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use super::{Message, Placement, Published, Topic};
use crate::source::kafka::{Context, KafkaConnection, setting_fault};
use topics::Admin;

pub use murmur2::partition_of;
pub use report::TopicReport;

/// Why a topic cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The cluster does not answer, for now.
    #[error("the cluster cannot be asked about topic {topic}: {why}")]
    Unavailable {
        /// The topic.
        topic: String,
        /// What librdkafka says.
        why: String,
    },
    /// The topic is not there.
    #[error("topic {0} does not exist: create topic {0} (recordkeeper tables create --topics)")]
    Missing(String),
    /// A setting or a permission; no retry helps.
    #[error("topic {topic} cannot be used: {why}")]
    Refused {
        /// The topic.
        topic: String,
        /// What is wrong, and what to do.
        why: String,
    },
}

/// Everything a topic is told.
#[derive(Clone, Debug)]
pub struct KafkaTopicConfig {
    /// The cluster.
    pub connection: KafkaConnection,
    /// The topic's name.
    pub topic: String,
    /// A message not acknowledged within this time is given back as [`Published::Retry`].
    pub delivery_deadline: Duration,
    /// Messages that wait inside librdkafka at most; more wait outside, within the deadline.
    pub queue_messages_max: usize,
    /// The largest message that is sent, by [`Message::bytes`].
    pub message_bytes_max: usize,
    /// How messages are measured against the topic's own limit.
    pub measured: Measured,
    /// Further librdkafka settings, passed through; those that this rests on are refused.
    pub options: BTreeMap<String, String>,
}

/// How a message is measured against the topic's `max.message.bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// Here, before compression: what is too large is told before anything is sent, whatever it would compress to.
    BeforeCompression,
    /// By the broker, after compression with zstd: where an event stood compressed, its copy fits, too.
    ByBroker,
}

/// librdkafka's default for `batch.size`; a larger one would make batches that the topic refuses as a whole.
const BATCH_BYTES: usize = 1_000_000;
/// How old the number of partitions may be.
const PARTITIONS_AGE: Duration = Duration::from_secs(60);
const METADATA: Duration = Duration::from_secs(10);
/// Pause before a full queue is tried again.
const QUEUE_FULL: Duration = Duration::from_millis(20);
/// What librdkafka may take beyond the delivery deadline to say that it has passed.
const REPORT_GRACE: Duration = Duration::from_secs(2);

/// Settings that the promise of [`Published::Durable`] or the placement rests on.
const OWNED: &[&str] = &[
    "bootstrap.servers",
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "message.max.bytes",
    "queue.buffering.max.messages",
    "transactional.id",
    "partitioner",
    "allow.auto.create.topics",
];

/// One topic of one cluster.
pub struct KafkaTopic {
    topic: String,
    client: ClientConfig,
    connection: KafkaConnection,
    admin: Admin,
    // A std mutex: held to clone the handle or to replace it, never across an await. librdkafka's idempotent producer is
    // of no use after a fatal error and is then made anew.
    producer: Arc<Mutex<FutureProducer<Context>>>,
    partitions: AtomicI32,
    counted: Mutex<Instant>,
    bytes_max: usize,
    measured: Measured,
    deadline: Duration,
}

impl KafkaTopic {
    /// Finds the topic, its partitions and its largest message.
    ///
    /// # Errors
    /// [`TopicError`]; only [`TopicError::Unavailable`] is worth another try.
    pub async fn connect(config: KafkaTopicConfig) -> Result<Self, TopicError> {
        let topic = config.topic;
        if let Some(name) = OWNED.iter().find(|name| config.options.contains_key(**name)) {
            let why = format!("librdkafka setting {name} may not be set, durability rests on it: remove it");
            return Err(TopicError::Refused { topic, why });
        }
        let admin = Admin::connect(&config.connection, &topic)?;
        let report = admin.report(&topic).await?;
        let topic_bytes_max = report.bytes_max();
        let (bytes_max, compression) = match config.measured {
            Measured::BeforeCompression => (topic_bytes_max.min(config.message_bytes_max), "lz4"),
            Measured::ByBroker => (config.message_bytes_max, "zstd"),
        };
        let mut client = config.connection.client_config();
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", compression)
            .set("linger.ms", "5")
            .set("message.timeout.ms", config.delivery_deadline.as_millis().max(1).to_string())
            .set("queue.buffering.max.messages", config.queue_messages_max.max(1).to_string())
            // librdkafka counts without the batch's frame, the topic with it: the check here or the broker has the last word.
            .set("message.max.bytes", bytes_max.saturating_add(4096).clamp(1000, 1_000_000_000).to_string())
            .set("batch.size", BATCH_BYTES.min(topic_bytes_max).to_string())
            .set("enable.metrics.push", "false");
        for (name, value) in &config.options {
            client.set(name, value);
        }
        let producer = make_producer(&client, &config.connection, &topic)?;
        let partitions = i32::try_from(report.partitions).unwrap_or(i32::MAX);
        Ok(Self {
            topic,
            client,
            connection: config.connection,
            admin,
            producer: Arc::new(Mutex::new(producer)),
            partitions: AtomicI32::new(partitions),
            counted: Mutex::new(Instant::now()),
            bytes_max,
            measured: config.measured,
            deadline: config.delivery_deadline,
        })
    }

    /// What the cluster says about the topic now.
    ///
    /// # Errors
    /// [`TopicError`], as at connect.
    pub async fn check(&self) -> Result<TopicReport, TopicError> {
        self.admin.report(&self.topic).await
    }

    fn producer(&self) -> FutureProducer<Context> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A new producer in place of one that librdkafka has given up. To make one and to end one (which waits for its thread)
    /// takes a while: not on a thread that others wait for.
    async fn replace_if_dead(&self, used: FutureProducer<Context>) {
        let Some((code, why)) = used.client().fatal_error() else { return };
        tracing::warn!(topic = self.topic, "the producer is made anew after a fatal error: {code}: {why}");
        let (client, connection, topic) = (self.client.clone(), self.connection.clone(), self.topic.clone());
        let current = Arc::clone(&self.producer);
        let replaced = tokio::task::spawn_blocking(move || {
            let new = make_producer(&client, &connection, &topic)?;
            let mut producer = current.lock().unwrap_or_else(PoisonError::into_inner);
            // Another call may have done it already; then the new one goes.
            let gone = match producer.client().fatal_error() {
                Some(_) => std::mem::replace(&mut *producer, new),
                None => new,
            };
            drop(producer);
            drop((gone, used));
            Ok::<_, TopicError>(())
        });
        match replaced.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(topic = self.topic, "{error}"),
            Err(error) => tracing::error!(topic = self.topic, "the producer could not be made anew: {error}"),
        }
    }

    /// Topics grow: the number of partitions is asked again now and then; the old one serves where nobody answers.
    async fn refresh_partitions(&self, producer: &FutureProducer<Context>) {
        {
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            if counted.elapsed() < PARTITIONS_AGE {
                return;
            }
            *counted = Instant::now();
        }
        let (producer, topic, patience) = (producer.clone(), self.topic.clone(), METADATA.min(self.deadline));
        let asked =
            tokio::task::spawn_blocking(move || topics::partition_count(producer.client(), &topic, patience)).await;
        match asked {
            Ok(Ok(count)) => self.partitions.store(count, Ordering::Relaxed),
            Ok(Err(error)) => {
                tracing::warn!(topic = self.topic, "the number of partitions could not be asked: {error}")
            }
            Err(error) => tracing::warn!(topic = self.topic, "the number of partitions could not be asked: {error}"),
        }
    }

    fn partition(&self, message: &Message) -> i32 {
        let bytes = match &message.placement {
            Placement::ByKey => message.key.as_deref().unwrap_or_default(),
            Placement::ByBytes(bytes) => bytes,
        };
        partition_of(bytes, self.partitions.load(Ordering::Relaxed))
    }

    async fn enqueue(
        &self,
        producer: &FutureProducer<Context>,
        message: &Message,
        until: Instant,
    ) -> Result<DeliveryFuture, Published> {
        let (bytes, most, topic) = (message.bytes(), self.bytes_max, &self.topic);
        if bytes > most {
            return Err(Published::Rejected(match self.measured {
                Measured::BeforeCompression => {
                    format!("{bytes} bytes are more than the {most} that topic {topic} may be sent")
                }
                Measured::ByBroker => format!(
                    "{bytes} bytes are more than the {most} that may be sent to topic {topic}: raise \
                     kafka.message_bytes_max"
                ),
            }));
        }
        loop {
            let record = FutureRecord {
                topic: &self.topic,
                partition: Some(self.partition(message)),
                payload: message.value.as_deref(),
                key: message.key.as_deref(),
                timestamp: None,
                headers: headers(message),
            };
            match producer.send_result(record) {
                Ok(delivery) => return Ok(delivery),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if Instant::now() < until => {
                    tokio::time::sleep(QUEUE_FULL).await;
                }
                Err((error, _)) => return Err(self.verdict(&error)),
            }
        }
    }

    /// By code: what the topic will never take is rejected, all else is worth another try.
    fn verdict(&self, error: &KafkaError) -> Published {
        let topic = &self.topic;
        match error.rdkafka_error_code() {
            Some(code @ RDKafkaErrorCode::MessageSizeTooLarge) => {
                Published::Rejected(format!("topic {topic}: {code}: raise its max.message.bytes"))
            }
            Some(
                code @ (RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::InvalidTimestamp),
            ) => Published::Rejected(format!("topic {topic}: {code}")),
            Some(_) | None => retry(error.to_string()),
        }
    }
}

impl Topic for KafkaTopic {
    fn publish<'a>(&'a self, messages: &'a [&'a Message]) -> BoxFuture<'a, Vec<Published>> {
        Box::pin(async move {
            let until = Instant::now() + self.deadline;
            let producer = self.producer();
            self.refresh_partitions(&producer).await;
            let mut under_way = Vec::with_capacity(messages.len());
            for message in messages {
                under_way.push(self.enqueue(&producer, message, until).await);
            }
            let give_up = tokio::time::Instant::from_std(until + REPORT_GRACE);
            let mut verdicts = Vec::with_capacity(under_way.len());
            for delivery in under_way {
                verdicts.push(match delivery {
                    Err(verdict) => verdict,
                    Ok(delivery) => match tokio::time::timeout_at(give_up, delivery).await {
                        Ok(Ok(Ok(_))) => Published::Durable,
                        Ok(Ok(Err((error, _)))) => self.verdict(&error),
                        Ok(Err(_)) => retry("the producer was replaced".to_owned()),
                        Err(_) => retry("no acknowledgement within the delivery deadline".to_owned()),
                    },
                });
            }
            self.replace_if_dead(producer).await;
            verdicts
        })
    }

    fn bytes_max(&self) -> usize {
        self.bytes_max
    }
}

/// What the cluster says about a topic, also one that is only read.
///
/// # Errors
///
/// [`TopicError`]: the topic is missing, or the cluster gives no answer.
pub async fn describe(connection: &KafkaConnection, topic: &str) -> Result<TopicReport, TopicError> {
    Admin::connect(connection, topic)?.report(topic).await
}

fn make_producer(
    client: &ClientConfig,
    connection: &KafkaConnection,
    topic: &str,
) -> Result<FutureProducer<Context>, TopicError> {
    client
        .create_with_context(Context::new(connection))
        .map_err(|error| TopicError::Refused { topic: topic.to_owned(), why: setting_fault(&error) })
}

fn retry(detail: String) -> Published {
    Published::Retry { after: None, detail }
}

fn headers(message: &Message) -> Option<OwnedHeaders> {
    if message.headers.is_empty() {
        return None;
    }
    let headers = OwnedHeaders::new_with_capacity(message.headers.len());
    Some(
        message
            .headers
            .iter()
            .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: value.as_ref() })),
    )
}
