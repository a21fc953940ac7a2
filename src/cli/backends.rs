//! From settings to the parts that talk to the outside.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::config::pipelines::{Protocol, Start};
use crate::config::{self, Dedupe, EngineSettings, KafkaSettings, Secret, Security, Settings};
use crate::dedupe::{DedupeStore, MemoryDedupe, RedisDedupe};
use crate::ledger::Heads;
use crate::lock::Locks;
use crate::pipeline::{Pipeline, Poison, PoisonLimit};
use crate::redis::{RedisConfig, RedisMode};
use crate::source::archive::{Objects, ObjectsConfig};
use crate::source::kafka::{Auth, GroupProtocol, KafkaConnection, KafkaSourceConfig, Scram, StartPolicy};
use crate::store::dynamodb::{CallMetrics, Dynamo, DynamoConfig, ShardCounts, Shards, StaticCredentials, WriteUnits};
use crate::telemetry::Metrics;
use crate::topic::kafka::{KafkaTopicConfig, Measured};

/// Ids that the in-process cache holds at most: about 100 MB.
const MEMORY_IDS_MAX: std::num::NonZeroUsize = std::num::NonZeroUsize::new(500_000).unwrap();

/// How to reach the cluster.
pub fn kafka_connection(settings: &Settings) -> KafkaConnection {
    let kafka = &settings.kafka;
    let username = kafka.username.clone().unwrap_or_default();
    let password = kafka.password.clone().unwrap_or_else(|| Secret::new(""));
    let sasl = matches!(kafka.security, Security::SaslPlaintext | Security::SaslTls);
    let auth = match kafka.sasl_mechanism.filter(|_| sasl) {
        None => Auth::None,
        Some(config::SaslMechanism::Plain) => Auth::Plain { username, password },
        Some(config::SaslMechanism::ScramSha256) => Auth::Scram { hash: Scram::Sha256, username, password },
        Some(config::SaslMechanism::ScramSha512) => Auth::Scram { hash: Scram::Sha512, username, password },
        Some(config::SaslMechanism::Oauthbearer) => {
            Auth::TokenFile { path: kafka.token_file.clone().unwrap_or_default() }
        }
        Some(config::SaslMechanism::AwsMskIam) => {
            Auth::MskIam { region: kafka.region.clone().unwrap_or_else(|| settings.dynamodb.region.clone()) }
        }
    };
    let mut security = Vec::new();
    let files = [
        ("ssl.ca.location", &kafka.ca_file),
        ("ssl.certificate.location", &kafka.certificate_file),
        ("ssl.key.location", &kafka.key_file),
    ];
    for (name, file) in files {
        if let Some(file) = file {
            security.push((name.to_owned(), Secret::new(file.to_string_lossy())));
        }
    }
    if let Some(password) = &kafka.key_password {
        security.push(("ssl.key.password".to_owned(), password.clone()));
    }
    KafkaConnection {
        bootstrap_servers: bootstrap_servers(kafka),
        tls: matches!(kafka.security, Security::Tls | Security::SaslTls),
        auth,
        security,
    }
}

/// The brokers, separated by commas.
pub fn bootstrap_servers(kafka: &KafkaSettings) -> String {
    kafka.bootstrap_servers.iter().map(config::HostPort::as_str).collect::<Vec<_>>().join(",")
}

/// What one pipeline's source is told.
pub fn kafka_source(
    settings: &Settings,
    pipeline: &Pipeline,
    protocol: GroupProtocol,
    until_end: bool,
) -> KafkaSourceConfig {
    let engine = &settings.engine;
    KafkaSourceConfig {
        connection: kafka_connection(settings),
        group: pipeline.group().to_owned(),
        topics: pipeline.topics().to_vec(),
        topic_epochs: pipeline.topic_epochs().clone(),
        start: match pipeline.start() {
            Start::Earliest => StartPolicy::Earliest,
            Start::Latest => StartPolicy::Latest,
            Start::At { timestamp_ms } => {
                StartPolicy::At(UNIX_EPOCH + Duration::from_millis(u64::try_from(timestamp_ms).unwrap_or(0)))
            }
        },
        protocol,
        group_instance_id: settings.kafka.group_instance_id.clone(),
        options: settings.kafka.consumer_options(),
        batch_messages_max: engine.batch_messages_max,
        batch_bytes_max: engine.batch_bytes_max.as_usize(),
        batches_max: 16,
        linger: engine.linger,
        until_end,
        max_poll_interval: settings.kafka.poll_interval_max,
        drain_deadline: engine.drain_deadline,
    }
}

/// The group protocol that a pipeline asks for.
pub fn group_protocol(protocol: Protocol) -> GroupProtocol {
    match protocol {
        Protocol::Classic => GroupProtocol::Classic,
        Protocol::Consumer => GroupProtocol::Consumer,
    }
}

/// What a topic to publish to is told.
pub fn kafka_topic(settings: &Settings, topic: &str, measured: Measured) -> KafkaTopicConfig {
    let mut options = settings.kafka.options.clone();
    options.insert("client.id".to_owned(), settings.kafka.client_id.clone());
    KafkaTopicConfig {
        connection: kafka_connection(settings),
        topic: topic.to_owned(),
        delivery_deadline: settings.kafka.message_timeout,
        queue_messages_max: 10_000,
        message_bytes_max: settings.kafka.message_bytes_max.as_usize(),
        measured,
        options,
    }
}

/// The tables; `share` says among how many workers the calls in flight and the write budget are divided.
///
/// # Errors
///
/// Wrong settings only: the store is not called.
pub async fn dynamo(
    settings: &Settings,
    credentials: Option<StaticCredentials>,
    share: usize,
    metrics: Option<&Metrics>,
) -> anyhow::Result<Dynamo> {
    let dynamodb = &settings.dynamodb;
    let budget = |table: &str| {
        let units = dynamodb.write_budgets.get(table).copied()?;
        Some((units / u32::try_from(share).unwrap_or(1).max(1)).max(1))
    };
    let shards = |count: u32| Shards { write: count, read: count };
    let config = DynamoConfig {
        table_prefix: settings.general.table_prefix.clone(),
        region: Some(dynamodb.region.clone()),
        endpoint: dynamodb.endpoint.clone(),
        credentials,
        connections_max: (dynamodb.connections / share).max(1),
        calls_in_flight_max: (dynamodb.calls_in_flight / share).max(1),
        call_deadline: dynamodb.call_deadline,
        write_units_per_second: WriteUnits {
            records: budget("wallet_records"),
            wallets: budget("wallet_inventory"),
            mappings: budget("user_wallet_mapping"),
            ledger: budget("ledger"),
        },
        shards: ShardCounts { records: shards(dynamodb.record_shards), wallets: shards(dynamodb.inventory_shards) },
    };
    Dynamo::connect(config, metrics.map(CallMetrics::of)).await.context("dynamodb")
}

/// Archives in S3; nothing is asked of it before one is named, and nothing any more once `stop` is cancelled.
pub fn objects(settings: &Settings, stop: CancellationToken) -> Objects {
    let s3 = &settings.s3;
    let config = ObjectsConfig {
        region: s3.region.clone().unwrap_or_else(|| settings.dynamodb.region.clone()),
        endpoint: s3.endpoint.clone(),
        call_deadline: s3.call_deadline,
    };
    Objects::new(config, stop)
}

/// When partitions wait before a dead letter; nothing where there is no limit.
pub fn poison(engine: &EngineSettings) -> Option<Arc<Poison>> {
    let limit = PoisonLimit {
        percent_max: engine.poison_share_max.0?,
        window: engine.poison_window,
        events_min: engine.poison_events_min,
    };
    Some(Arc::new(Poison::new(limit)))
}

/// What publishes heads; `None` where none are asked for.
///
/// # Errors
///
/// What is wrong with the key. The file is not touched.
pub fn heads(settings: &Settings) -> Result<Option<Arc<Heads>>, String> {
    let ledger = &settings.ledger;
    let (Some(file), Some(key)) = (&ledger.heads_file, &ledger.heads_key) else { return Ok(None) };
    Ok(Some(Arc::new(Heads::new(file.clone(), key.expose(), ledger.heads_interval)?)))
}

/// The cache in front of the judge.
///
/// # Errors
///
/// Wrong settings only: Redis is not called, and an outage is no error. `table_id` names the tables that the remembered ids
/// stand in.
pub fn dedupe(settings: &Settings, table_id: String, metrics: &Metrics) -> anyhow::Result<Arc<dyn DedupeStore>> {
    let redis = &settings.redis;
    Ok(match settings.general.dedupe {
        Dedupe::Memory => Arc::new(MemoryDedupe::new(MEMORY_IDS_MAX, redis.ttl, metrics)),
        Dedupe::Redis => Arc::new(RedisDedupe::new(&redis_config(settings, table_id), metrics).context("redis")?),
    })
}

/// Locks among the processes that share these tables; `None` where there is no Redis.
///
/// # Errors
///
/// Wrong settings only: Redis is not called.
pub fn locks(
    settings: &Settings,
    table_id: String,
    writer: String,
    metrics: &Metrics,
) -> anyhow::Result<Option<Locks>> {
    match settings.general.dedupe {
        Dedupe::Memory => Ok(None),
        Dedupe::Redis => {
            let config = redis_config(settings, table_id);
            Locks::new(&config, settings.redis.lock_ttl, writer, metrics).context("redis").map(Some)
        }
    }
}

fn redis_config(settings: &Settings, table_id: String) -> RedisConfig {
    let redis = &settings.redis;
    RedisConfig {
        urls: redis.url.iter().map(ToString::to_string).collect(),
        mode: match redis.mode {
            config::RedisMode::Single => RedisMode::Single,
            config::RedisMode::Cluster => RedisMode::Cluster,
        },
        username: redis.username.clone(),
        password: redis.password.as_ref().map(|password| password.expose().to_owned()),
        tls_ca_file: redis.ca_file.clone(),
        prefix: redis.key_prefix.clone(),
        table_id,
        ttl: redis.ttl,
        connections: redis.connections,
        deadline: redis.deadline,
    }
}
