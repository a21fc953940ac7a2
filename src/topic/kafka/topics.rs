//! Asking about topics and making those that are absent.

use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataBroker};

use super::{TopicError, TopicReport};
use crate::source::kafka::{Context, KafkaConnection, setting_fault};

/// One call's deadline.
const CALL: Duration = Duration::from_secs(10);
/// How long the cluster may take to make a topic.
const CREATE: Duration = Duration::from_secs(30);

/// A topic that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas each; the cluster's default where `None`.
    pub replication: Option<i32>,
    /// Topic settings by Kafka's names (`max.message.bytes`).
    pub settings: Vec<(String, String)>,
}

/// Makes the topics that are absent and returns their names; what exists is left as it is.
///
/// # Errors
/// The first topic that could not be made, and why; those before it are made.
pub async fn create_missing(connection: &KafkaConnection, wanted: &[TopicSpec]) -> Result<Vec<String>, TopicError> {
    let Some(first) = wanted.first() else { return Ok(Vec::new()) };
    let admin = Admin::connect(connection, &first.name)?;
    let topics: Vec<NewTopic<'_>> = wanted
        .iter()
        .map(|spec| {
            // -1 asks for the cluster's default.
            let replication = TopicReplication::Fixed(spec.replication.unwrap_or(-1));
            let topic = NewTopic::new(&spec.name, spec.partitions, replication);
            spec.settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
        })
        .collect();
    let options = AdminOptions::new().request_timeout(Some(CREATE)).operation_timeout(Some(CREATE));
    let made = admin.client.create_topics(&topics, &options).await.map_err(|error| fault(&first.name, &error))?;
    let mut names = Vec::new();
    for result in made {
        match result {
            Ok(name) => names.push(name),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                let remedy = match code {
                    RDKafkaErrorCode::InvalidReplicationFactor => {
                        ": set kafka.new_topic_replication to no more than the cluster has brokers"
                    }
                    _ => "",
                };
                return Err(TopicError::Refused { topic, why: format!("it could not be created: {code}{remedy}") });
            }
        }
    }
    Ok(names)
}

/// A client for questions.
pub(super) struct Admin {
    client: std::sync::Arc<AdminClient<Context>>,
}

impl Admin {
    pub(super) fn connect(connection: &KafkaConnection, topic: &str) -> Result<Self, TopicError> {
        let client = connection
            .client_config()
            .create_with_context(Context::new(connection))
            .map_err(|error| TopicError::Refused { topic: topic.to_owned(), why: setting_fault(&error) })?;
        Ok(Self { client: std::sync::Arc::new(client) })
    }

    pub(super) async fn report(&self, topic: &str) -> Result<TopicReport, TopicError> {
        let (client, name) = (std::sync::Arc::clone(&self.client), topic.to_owned());
        let metadata = tokio::task::spawn_blocking(move || client.inner().fetch_metadata(Some(&name), CALL))
            .await
            .map_err(|error| TopicError::Unavailable { topic: topic.to_owned(), why: error.to_string() })?
            .map_err(|error| fault(topic, &error))?;
        let (partitions, replication) = shape(&metadata, topic)?;
        // Any broker knows; the controller, whom librdkafka asks otherwise, is no one in the embedded cluster.
        let broker = metadata.brokers().first().map(MetadataBroker::id);
        let settings = self.settings(topic, broker).await?;
        let number = |name: &str| settings.as_ref()?.get(name)?.value.as_ref()?.parse::<i64>().ok();
        Ok(TopicReport {
            partitions,
            replication,
            min_insync_replicas: number("min.insync.replicas").and_then(|value| u32::try_from(value).ok()),
            retention_ms: number("retention.ms"),
            message_bytes_max: number("max.message.bytes").and_then(|value| usize::try_from(value).ok()),
        })
    }

    /// The topic's settings; `None` where the cluster has no such question (the embedded one), or may not be asked.
    async fn settings(&self, topic: &str, broker: Option<i32>) -> Result<Option<ConfigResource>, TopicError> {
        let options = AdminOptions::new().request_timeout(Some(CALL)).broker_id(broker);
        match self.client.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await {
            Ok(found) => match found.into_iter().next() {
                Some(Ok(settings)) => Ok(Some(settings)),
                Some(Err(code)) => not_told(topic, code),
                None => Ok(None),
            },
            Err(KafkaError::AdminOp(code)) => not_told(topic, code),
            Err(error) => Err(fault(topic, &error)),
        }
    }
}

fn not_told(topic: &str, code: RDKafkaErrorCode) -> Result<Option<ConfigResource>, TopicError> {
    match code {
        RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion => Ok(None),
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            tracing::warn!(
                topic,
                "the topic's settings may not be read, defaults are taken: grant DescribeConfigs on it"
            );
            Ok(None)
        }
        other => Err(fault(topic, &KafkaError::AdminOp(other))),
    }
}

/// Partitions, and the lowest number of replicas.
fn shape(metadata: &Metadata, topic: &str) -> Result<(usize, usize), TopicError> {
    let found = metadata.topics().first().ok_or_else(|| TopicError::Missing(topic.to_owned()))?;
    if let Some(error) = found.error() {
        return Err(fault(topic, &KafkaError::MetadataFetch(error.into())));
    }
    let replication = found.partitions().iter().map(|partition| partition.replicas().len()).min();
    replication
        .map(|replication| (found.partitions().len(), replication))
        .ok_or_else(|| TopicError::Missing(topic.to_owned()))
}

/// How many partitions the topic has; blocking, within the deadline.
pub(super) fn partition_count<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    deadline: Duration,
) -> Result<i32, TopicError> {
    let metadata = client.fetch_metadata(Some(topic), deadline).map_err(|error| fault(topic, &error))?;
    let (partitions, _) = shape(&metadata, topic)?;
    Ok(i32::try_from(partitions).unwrap_or(i32::MAX))
}

fn fault(topic: &str, error: &KafkaError) -> TopicError {
    let topic = topic.to_owned();
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    };
    match code {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => TopicError::Missing(topic),
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            TopicError::Refused { why: format!("grant Describe and Write on topic {topic} to this user"), topic }
        }
        Some(_) | None => TopicError::Unavailable { topic, why: error.to_string() },
    }
}
