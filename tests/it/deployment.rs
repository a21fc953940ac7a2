//! One deployment of the product for one test: topics, tables, pipelines and groups of its own on shared servers, and the
//! built binary run against them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, Select};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::services;

pub type Item = HashMap<String, AttributeValue>;

/// One event to publish.
#[derive(Clone, Debug, Default)]
pub struct Event {
    pub topic: String,
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Event {
    pub fn new(topic: &str, key: &str, value: impl Into<Vec<u8>>) -> Self {
        Self {
            topic: topic.into(),
            partition: Some(0),
            key: Some(key.into()),
            value: Some(value.into()),
            headers: Vec::new(),
        }
    }
}

/// Items of a page of a scan. Without a limit the server reads all that is left of the table for each page.
const PAGE: i32 = 1_000;

/// Only a run that hangs takes so long, whatever its size and the machine.
pub const RUN_MAX: Duration = Duration::from_secs(1800);

pub struct Deployment {
    /// Prefixes every topic, group and table.
    pub name: String,
    pub dir: PathBuf,
    pub bootstrap: String,
    pub redis: Option<String>,
    pub dynamodb: String,
    pub pipeline: &'static str,
    pub dead_letters: String,
    pub requests: String,
    /// Further variables of every command.
    pub env: Vec<(String, String)>,
}

/// What a run printed and how it ended.
pub struct Run {
    pub code: Option<i32>,
    pub summary: Value,
    pub stderr: String,
}

impl Run {
    pub fn count(&self, name: &str) -> u64 {
        self.summary[name].as_u64().unwrap_or_else(|| panic!("no {name} in {}\n{}", self.summary, self.stderr))
    }

    pub fn dead(&self, reason: &str) -> u64 {
        self.summary["dead_lettered"][reason].as_u64().unwrap_or(0)
    }

    /// Promise 1.
    pub fn assert_sums(&self) {
        let dead: u64 = self.summary["dead_lettered"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        let sum =
            self.count("recorded") + self.count("duplicate") + self.count("skipped") + dead + self.count("in_flight");
        assert_eq!(self.count("consumed"), sum, "{}", self.summary);
    }
}

impl Deployment {
    /// Topics for one shipped pipeline (`wallets` or `ethereum`), with this many partitions, and all tables.
    pub async fn start(name: &str, pipeline: &'static str, partitions: i32) -> Self {
        Self::start_on(services::kafka().await, name, pipeline, partitions).await
    }

    /// The same on a broker of one's own.
    pub async fn start_on(broker: &services::KafkaBroker, name: &str, pipeline: &'static str, partitions: i32) -> Self {
        Self::start_with(broker, services::dynamodb().await, name, pipeline, partitions).await
    }

    /// The same on a broker and a store of one's own.
    pub async fn start_with(
        broker: &services::KafkaBroker,
        dynamodb: &str,
        name: &str,
        pipeline: &'static str,
        partitions: i32,
    ) -> Self {
        let name = format!("{name}-{:08x}", fastrand::u32(..));
        let dir = services::scratch(&name);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        copy_tree(&root.join("schemas"), &dir.join("schemas"));
        std::fs::create_dir_all(dir.join("pipelines")).unwrap();
        let text = std::fs::read_to_string(root.join(format!("pipelines/{pipeline}.yaml"))).unwrap();
        let text = prefixed(&text, &name);
        std::fs::write(dir.join(format!("pipelines/{pipeline}.yaml")), text).unwrap();
        let deployment = Self {
            dead_letters: format!("{name}-dead-letters"),
            requests: format!("{name}-requests"),
            bootstrap: broker.bootstrap.clone(),
            redis: Some(services::redis().await.url.clone()),
            dynamodb: dynamodb.to_owned(),
            pipeline,
            dir,
            name,
            env: Vec::new(),
        };
        for topic in source_topics(pipeline) {
            broker.create_topic(&deployment.topic(topic), partitions, &[("max.message.bytes", "2000000")]).await;
        }
        broker.create_topic(&deployment.dead_letters, 3, &[("max.message.bytes", "2200000")]).await;
        broker.create_topic(&deployment.requests, 12, &[]).await;
        let created = deployment.command(&["tables", "create"]).output().await.unwrap();
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
        deployment
    }

    /// Makes every route of native events ask for one transaction an event.
    pub fn make_transactional(&self) {
        let file = self.dir.join("pipelines/wallets.yaml");
        let pipeline = std::fs::read_to_string(&file).unwrap();
        let format = "    format: cloudevents\n";
        let changed = pipeline.replace(format, &format!("{format}    consistency: transactional\n"));
        assert_ne!(changed, pipeline);
        std::fs::write(&file, changed).unwrap();
    }

    pub fn topic(&self, topic: &str) -> String {
        format!("{}-{topic}", self.name)
    }

    pub fn group(&self) -> String {
        format!("{}-recordkeeper-{}", self.name, self.pipeline)
    }

    /// The binary with this deployment's configuration in its environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recordkeeper"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("RECORDKEEPER_PIPELINES", self.dir.join("pipelines"))
            .env("RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS", &self.bootstrap)
            .env("RECORDKEEPER_TABLE_PREFIX", format!("{}-", self.name))
            .env("RECORDKEEPER_REQUESTS_TOPIC", &self.requests)
            .env("RECORDKEEPER_DEAD_LETTERS_TOPIC", &self.dead_letters)
            .env("RECORDKEEPER_ADMIN_LISTEN", "127.0.0.1:0")
            .env("AWS_ENDPOINT_URL_DYNAMODB", &self.dynamodb)
            // A process that was killed keeps the next one waiting for as long.
            .env("RECORDKEEPER_REDIS_LOCK_TTL", "1s")
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .kill_on_drop(true)
            .stdin(Stdio::null());
        match &self.redis {
            Some(url) => command.env("RECORDKEEPER_REDIS_URL", url),
            None => command.env("RECORDKEEPER_DEDUPE", "memory"),
        };
        command
    }

    /// Runs the consumer until every topic is read to its end.
    pub async fn run_until_idle(&self) -> Run {
        self.run_with(&[]).await
    }

    pub async fn run_with(&self, env: &[(&str, &str)]) -> Run {
        let mut command = self.command(&["run", "--until-idle", "--summary", "json"]);
        command.envs(env.iter().copied());
        let output = tokio::time::timeout(RUN_MAX, command.output()).await.expect("ends in time").unwrap();
        run_of(output)
    }

    pub fn spawn(&self, args: &[&str], env: &[(&str, &str)]) -> Child {
        let mut command = self.command(args);
        command.envs(env.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// A producer as publishers should have it.
    pub fn producer(&self) -> FutureProducer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.max.bytes", "8000000")
            .set("queue.buffering.max.messages", "1000000")
            .set("queue.buffering.max.kbytes", "1000000")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .create()
            .unwrap()
    }

    /// Hands one event over; the answer comes with the broker's.
    pub fn send(&self, producer: &FutureProducer, event: &Event) -> DeliveryFuture {
        let topic = self.topic(&event.topic);
        let mut record: FutureRecord<'_, Vec<u8>, Vec<u8>> = FutureRecord::to(&topic);
        record.partition = event.partition;
        record.key = event.key.as_ref();
        record.payload = event.value.as_ref();
        let mut headers = OwnedHeaders::new();
        for (key, value) in &event.headers {
            headers = headers.insert(Header { key, value: value.as_ref() });
        }
        record.headers = Some(headers);
        producer.send_result(record).map_err(|(error, _)| error).unwrap()
    }

    /// Publishes in order, acknowledged by the broker. Topics are named without this deployment's prefix.
    pub async fn publish(&self, events: &[Event]) {
        let producer = self.producer();
        let deliveries: Vec<_> = events.iter().map(|event| self.send(&producer, event)).collect();
        producer.flush(Duration::from_secs(60)).unwrap();
        for delivery in deliveries {
            delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
        }
    }

    /// Everything on a topic (full name), partition by partition.
    pub fn read_topic(&self, topic: &str) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", "test-reader")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .create()
            .unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(20)).unwrap();
        let mut assignment = TopicPartitionList::new();
        // Of each partition by itself: while one grows, messages of another may not have been read yet.
        let mut ends = BTreeMap::new();
        for partition in metadata.topics()[0].partitions() {
            // Leaders move with the brokers, and the client may name the one before for a while.
            let ask = || consumer.fetch_watermarks(topic, partition.id(), Duration::from_secs(20));
            let (low, high) = unless_passing(&[RDKafkaErrorCode::NotLeaderForPartition], ask);
            if low < high {
                ends.insert(partition.id(), high);
            }
            assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let mut messages = Vec::new();
        while !ends.is_empty() {
            let message = consumer.poll(Duration::from_secs(20)).expect("a message before the deadline").unwrap();
            if ends.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
                ends.remove(&message.partition());
            }
            messages.push(message.detach());
        }
        messages
    }

    /// A client of the group that is no member of it.
    fn in_group(&self) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("group.id", self.group()).create().unwrap()
    }

    /// Committed next offsets of this deployment's group on a topic (without prefix), by partition.
    pub fn committed(&self, topic: &str, partitions: i32) -> BTreeMap<i32, i64> {
        let consumer = self.in_group();
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition(&self.topic(topic), partition);
        }
        // A group's coordinator moves with the brokers.
        let passing = [RDKafkaErrorCode::NotCoordinator, RDKafkaErrorCode::CoordinatorLoadInProgress];
        unless_passing(&passing, || consumer.committed_offsets(list.clone(), Duration::from_secs(20)))
            .elements()
            .iter()
            .map(|element| (element.partition(), element.offset().to_raw().unwrap_or(-1)))
            .collect()
    }

    /// Sets the group's committed offsets of a topic to zero (the group must be empty).
    pub fn reset_to_start(&self, topic: &str, partitions: i32) {
        let consumer = self.in_group();
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(&self.topic(topic), partition, Offset::Offset(0)).unwrap();
        }
        consumer.commit(&list, rdkafka::consumer::CommitMode::Sync).unwrap();
    }

    pub async fn dynamodb_client(&self) -> aws_sdk_dynamodb::Client {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
            .endpoint_url(&self.dynamodb)
            .region(aws_sdk_dynamodb::config::Region::new("eu-central-1"))
            .credentials_provider(aws_sdk_dynamodb::config::Credentials::new("test", "test", None, None, "test"))
            .build();
        aws_sdk_dynamodb::Client::from_conf(config)
    }

    /// Every item of a table (without prefix).
    pub async fn scan(&self, table: &str) -> Vec<Item> {
        let client = self.dynamodb_client().await;
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let page = client
                .scan()
                .table_name(format!("{}-{table}", self.name))
                .limit(PAGE)
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .send()
                .await
                .unwrap();
            items.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() {
                return items;
            }
        }
    }

    /// How many items a table (without prefix) has.
    pub async fn count(&self, table: &str) -> u64 {
        let client = self.dynamodb_client().await;
        let (mut count, mut start) = (0, None);
        loop {
            let page = client.scan().table_name(format!("{}-{table}", self.name)).select(Select::Count);
            let page = page.limit(PAGE).consistent_read(true).set_exclusive_start_key(start).send().await.unwrap();
            count += u64::try_from(page.count).unwrap();
            start = page.last_evaluated_key;
            if start.is_none() {
                return count;
            }
        }
    }

    /// All tables' items in a form that compares.
    pub async fn snapshot(&self) -> BTreeMap<String, Vec<String>> {
        let mut tables = BTreeMap::new();
        for table in ["wallet_records", "wallet_inventory", "user_wallet_mapping", "ledger"] {
            let mut items: Vec<String> = self.scan(table).await.iter().map(|item| plain(item).to_string()).collect();
            items.sort();
            tables.insert(table.to_owned(), items);
        }
        tables
    }
}

/// Asks the cluster until it answers other than with one of these errors.
fn unless_passing<T>(passing: &[RDKafkaErrorCode], ask: impl FnMut() -> Result<T, KafkaError>) -> T {
    let is_passing = |error: &KafkaError| error.rdkafka_error_code().is_some_and(|code| passing.contains(&code));
    let mut answers = std::iter::repeat_with(ask).take(10_000);
    answers.find(|answer| !answer.as_ref().is_err_and(is_passing)).expect("a settled cluster").unwrap()
}

pub fn run_of(output: std::process::Output) -> Run {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = stdout.lines().rev().find(|line| line.starts_with('{'));
    let summary = line.and_then(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null);
    Run { code: output.status.code(), summary, stderr }
}

/// An item as JSON, without types.
pub fn plain(item: &Item) -> Value {
    fn value(attribute: &AttributeValue) -> Value {
        match attribute {
            AttributeValue::S(text) => Value::String(text.clone()),
            AttributeValue::N(digits) => Value::String(digits.clone()),
            AttributeValue::M(map) => plain(map),
            AttributeValue::L(list) => Value::Array(list.iter().map(value).collect()),
            other => Value::String(format!("{other:?}")),
        }
    }
    Value::Object(item.iter().map(|(name, attribute)| (name.clone(), value(attribute))).collect())
}

pub fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str)
}

/// A header's value as text.
pub fn header<'a>(message: &'a OwnedMessage, name: &str) -> Option<&'a str> {
    let headers = message.headers()?;
    headers.iter().filter(|header| header.key == name).find_map(|header| std::str::from_utf8(header.value?).ok())
}

fn source_topics(pipeline: &str) -> &'static [&'static str] {
    match pipeline {
        "wallets" => &["wallet-events", "transaction-events"],
        "ethereum" => &["transactions", "token_transfers", "logs"],
        other => panic!("no pipeline {other}"),
    }
}

/// The shipped pipeline with this deployment's topics and group.
fn prefixed(text: &str, name: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut line = line.to_owned();
        if line.contains("topic") || line.contains("group:") && line.contains("recordkeeper-") {
            for word in
                ["wallet-events", "transaction-events", "transactions", "token_transfers", "logs", "recordkeeper-"]
            {
                for before in [" ", "[", "\""] {
                    line = line.replace(&format!("{before}{word}"), &format!("{before}{name}-{word}"));
                }
            }
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Adds a second record, `audit`, to the route of wallet.updated.
pub fn add_further_record(pipeline: &str) -> String {
    let record = "      - {name: audit, type: wallet.audit, wallet: \"{/data/wallet_id}\"}\n";
    let mut out = String::new();
    let (mut inside, mut records) = (false, false);
    for line in pipeline.lines() {
        if line.starts_with("  - name:") {
            inside = line.ends_with("wallet-updated");
        }
        if records && !line.starts_with("     ") {
            out.push_str(record);
            (inside, records) = (false, false);
        }
        records |= inside && line == "    records:";
        out.push_str(line);
        out.push('\n');
    }
    out
}
