//! Publishes generated events to Kafka: topics made when absent, acks=all, idempotent, each to its own partition.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use tokio::time::{Instant, sleep};

use super::GenerateError;
use super::event::{TRANSACTION_TOPIC, WALLET_TOPIC};
use super::stream::Generated;

/// How long metadata, topics and the last acknowledgements may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a message may wait for its acknowledgement, in milliseconds.
const DELIVERY_MS: &str = "30000";
/// Between two looks at what is still out.
const PAUSE: Duration = Duration::from_millis(10);

/// What became of the messages handed over.
#[derive(Debug, Default)]
struct Deliveries {
    acknowledged: AtomicU64,
    failed: Mutex<Option<String>>,
}

struct Reports(Arc<Deliveries>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.0.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                let mut failed = self.0.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// A producer for the two source topics.
pub struct KafkaSink {
    producer: ThreadedProducer<Reports>,
    deliveries: Arc<Deliveries>,
    handed_over: u64,
}

impl KafkaSink {
    /// Connects, makes the source topics that are absent, and checks that each has `partitions` partitions.
    ///
    /// `options` are librdkafka's own names and values, `bootstrap.servers` among them. Fails within half a minute where
    /// the brokers cannot be reached, or a topic has another number of partitions.
    pub async fn connect(options: &[(String, String)], partitions: u32) -> Result<Self, GenerateError> {
        let mut config = ClientConfig::new();
        // Topics are made on purpose, or not at all.
        config.set("allow.auto.create.topics", "false");
        for (name, value) in options {
            config.set(name, value);
        }
        make_topics(&config, partitions).await?;
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "20")
            .set("message.timeout.ms", DELIVERY_MS)
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "65536");
        let deliveries = Arc::new(Deliveries::default());
        let producer = config.create_with_context(Reports(Arc::clone(&deliveries))).map_err(kafka_error)?;
        Ok(Self { producer, deliveries, handed_over: 0 })
    }

    /// Hands one event over; waits while the producer's own queue is full. Fails with the first delivery that failed.
    pub async fn send(&mut self, event: &Generated) -> Result<(), GenerateError> {
        self.first_failure()?;
        let mut headers = OwnedHeaders::new_with_capacity(event.headers.len());
        for (key, value) in &event.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(event.topic)
            .partition(event.partition as i32)
            .key(&event.key)
            .headers(headers);
        if let Some(value) = &event.value {
            record = record.payload(value);
        }
        let deadline = Instant::now() + 2 * DEADLINE;
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    self.handed_over += 1;
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    record = back;
                    sleep(PAUSE).await;
                    self.first_failure()?;
                }
                Err((error, _)) => return Err(kafka_error(error)),
            }
        }
    }

    /// Waits until everything handed over is acknowledged, as long as a message may wait for that.
    pub async fn finish(self) -> Result<(), GenerateError> {
        let deadline = Instant::now() + 2 * DEADLINE;
        while self.acknowledged() < self.handed_over {
            self.first_failure()?;
            if Instant::now() > deadline {
                let left = self.handed_over - self.acknowledged();
                return Err(GenerateError::Kafka(format!("{left} messages were not acknowledged in time")));
            }
            sleep(PAUSE).await;
        }
        self.first_failure()
    }

    /// How many messages are acknowledged by all in-sync replicas.
    pub fn acknowledged(&self) -> u64 {
        self.deliveries.acknowledged.load(Ordering::Relaxed)
    }

    fn first_failure(&self) -> Result<(), GenerateError> {
        match self.deliveries.failed.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            None => Ok(()),
            Some(error) => Err(GenerateError::Kafka(format!("a message was not acknowledged: {error}"))),
        }
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        // A sink that is given up must not keep the process waiting for what is still queued.
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    }
}

async fn make_topics(config: &ClientConfig, partitions: u32) -> Result<(), GenerateError> {
    let admin: AdminClient<DefaultClientContext> = config.create().map_err(kafka_error)?;
    let names = [WALLET_TOPIC, TRANSACTION_TOPIC];
    let topics = names.map(|name| NewTopic::new(name, partitions as i32, TopicReplication::Fixed(-1)));
    let options = AdminOptions::new().request_timeout(Some(DEADLINE)).operation_timeout(Some(DEADLINE));
    let servers = config.get("bootstrap.servers").unwrap_or_default();
    let answers = admin.create_topics(&topics, &options).await.map_err(|error| {
        GenerateError::Kafka(format!("no answer from {servers}: {error}; check --bootstrap-servers and its security"))
    })?;
    for result in answers {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(GenerateError::Kafka(format!("cannot create topic {topic}: {code}"))),
        }
    }
    let admin = Arc::new(admin);
    let deadline = Instant::now() + DEADLINE;
    for name in names {
        // A new topic is known to all brokers only after a moment.
        loop {
            let found = partitions_of(&admin, name).await?;
            if found == partitions {
                break;
            }
            if found > 0 {
                return Err(GenerateError::Usage(format!(
                    "topic {name} has {found} partitions and --partitions is {partitions}: give --partitions {found}"
                )));
            }
            if Instant::now() > deadline {
                return Err(GenerateError::Kafka(format!("topic {name} did not appear in time")));
            }
            sleep(10 * PAUSE).await;
        }
    }
    Ok(())
}

/// How many partitions the brokers say that the topic has; 0 where they do not know it (yet).
async fn partitions_of(
    admin: &Arc<AdminClient<DefaultClientContext>>,
    name: &'static str,
) -> Result<u32, GenerateError> {
    let admin = Arc::clone(admin);
    let fetch = move || {
        admin.inner().fetch_metadata(Some(name), DEADLINE).map(|found| {
            found
                .topics()
                .iter()
                .filter(|topic| topic.name() == name && topic.error().is_none())
                .map(|topic| topic.partitions().len())
                .sum::<usize>()
        })
    };
    let found = tokio::task::spawn_blocking(fetch).await.map_err(|error| GenerateError::Kafka(error.to_string()))?;
    Ok(found.map_err(kafka_error)? as u32)
}

fn kafka_error(error: KafkaError) -> GenerateError {
    GenerateError::Kafka(error.to_string())
}
