//! Apache Kafka: one node, broker and controller in one process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::OnceCell;

use super::{free_port, fresh_folder, home, start};

/// A running broker. Tests share it: use topics and groups of your own.
#[derive(Debug)]
pub struct KafkaBroker {
    pub bootstrap: String,
    port: u16,
    folder: PathBuf,
    pid: u32,
}

static KAFKA: OnceCell<KafkaBroker> = OnceCell::const_new();

/// The broker, ready.
pub async fn kafka() -> &'static KafkaBroker {
    KAFKA.get_or_init(KafkaBroker::start).await
}

const JAVA: [&str; 4] = ["-Xms48m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

fn settings(port: u16, controller: u16, folder: &Path) -> String {
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\n\
         auto.create.topics.enable=false\n\
         offsets.topic.num.partitions=4\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         group.consumer.heartbeat.interval.ms=500\n\
         group.consumer.min.heartbeat.interval.ms=500\n\
         log.cleaner.dedupe.buffer.size=2097152\n\
         broker.session.timeout.ms=3000\n\
         broker.heartbeat.interval.ms=500\n",
        folder.join("log").display()
    )
}

/// A command of Kafka's with the broker's settings in this folder.
fn java(folder: &Path, arguments: &[&str]) -> Command {
    let libs = home().join("kafka/libs");
    assert!(libs.is_dir(), "{} is missing: run scripts/test-services.sh first", libs.display());
    let mut command = Command::new("java");
    command.env("CLASSPATH", libs.join("*")).current_dir(folder).args(JAVA).args(arguments);
    command.arg(folder.join("server.properties"));
    command
}

impl KafkaBroker {
    /// A broker of one's own, ready.
    pub async fn start() -> Self {
        let (port, controller) = (free_port(), free_port());
        let folder = fresh_folder("kafka").join(port.to_string());
        std::fs::create_dir_all(&folder).expect("folder");
        let properties = folder.join("server.properties");
        std::fs::write(&properties, settings(port, controller, &folder)).expect("server.properties");
        let format = ["kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c"];
        let formatted = java(&folder, &format).output().expect("java");
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        let mut broker = Self { bootstrap: format!("127.0.0.1:{port}"), port, folder, pid: 0 };
        broker.back().await;
        broker.create_topic("ready", 1, &[]).await;
        broker
    }

    /// Starts it, also again after it was killed, with all that it had; comes back once it listens.
    pub async fn back(&mut self) {
        let mut command = java(&self.folder, &["-Dlog4j2.level=INFO", "kafka.Kafka"]);
        self.pid = start(&mut command, &self.folder.join("broker.log"));
        let listens = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), listens)
            .await
            .expect("kafka starts; see broker.log in target/test-services/run");
    }

    /// Ends it as a power cut would.
    pub async fn kill(&self) {
        let killed = tokio::process::Command::new("kill").args(["-KILL", &self.pid.to_string()]).status().await;
        assert!(killed.expect("kill").success());
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().expect("admin client")
    }

    /// Makes a topic with settings by Kafka's names.
    pub async fn create_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = configs.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        let made = self.admin().create_topics(&[topic], &options()).await.expect("create topic");
        made.into_iter().for_each(|result| drop(result.expect("create topic")));
    }

    pub async fn delete_topic(&self, name: &str) {
        let gone = self.admin().delete_topics(&[name], &options()).await.expect("delete topic");
        gone.into_iter().for_each(|result| drop(result.expect("delete topic")));
    }

    pub async fn add_partitions(&self, name: &str, count: usize) {
        let grown =
            self.admin().create_partitions(&[NewPartitions::new(name, count)], &options()).await.expect("grow topic");
        grown.into_iter().for_each(|result| drop(result.expect("grow topic")));
    }

    /// Deletes what is below `before`, as retention does.
    pub async fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before)).expect("offset");
        let gone = self.admin().delete_records(&offsets, &options()).await.expect("delete records");
        gone.elements().iter().for_each(|element| element.error().expect("delete records"));
    }
}

fn options() -> AdminOptions {
    let deadline = Some(Duration::from_secs(30));
    AdminOptions::new().request_timeout(deadline).operation_timeout(deadline)
}
