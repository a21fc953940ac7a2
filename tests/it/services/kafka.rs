//! Apache Kafka: nodes that are broker and controller in one process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::OnceCell;

use super::{free_port, fresh_folder, home, kill, start};

/// A running cluster. Tests share the first: use topics and groups of your own.
#[derive(Debug)]
pub struct KafkaBroker {
    pub bootstrap: String,
    nodes: Vec<Node>,
}

/// One node, which keeps its port and its data over a restart.
#[derive(Debug)]
struct Node {
    port: u16,
    folder: PathBuf,
    pid: AtomicU32,
}

static KAFKA: OnceCell<KafkaBroker> = OnceCell::const_new();

/// The broker, ready.
pub async fn kafka() -> &'static KafkaBroker {
    KAFKA.get_or_init(KafkaBroker::start).await
}

const JAVA: [&str; 4] = ["-Xms48m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

fn settings(id: usize, ports: &[(u16, u16)], folder: &Path, more: &str) -> String {
    let (port, controller) = ports[id - 1];
    let voters: Vec<String> =
        (1..).zip(ports).map(|(id, (_, controller))| format!("{id}@127.0.0.1:{controller}")).collect();
    let replicas = ports.len().min(3);
    let in_sync = replicas.div_ceil(2);
    format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\n\
         auto.create.topics.enable=false\n\
         min.insync.replicas={in_sync}\n\
         offsets.topic.num.partitions=4\n\
         offsets.topic.replication.factor={replicas}\n\
         transaction.state.log.num.partitions=4\n\
         transaction.state.log.replication.factor={replicas}\n\
         transaction.state.log.min.isr={in_sync}\n\
         group.initial.rebalance.delay.ms=0\n\
         group.consumer.heartbeat.interval.ms=500\n\
         group.consumer.min.heartbeat.interval.ms=500\n\
         log.cleaner.dedupe.buffer.size=2097152\n\
         broker.session.timeout.ms=3000\n\
         broker.heartbeat.interval.ms=500\n\
         {more}",
        voters.join(","),
        folder.join("log").display()
    )
}

fn java(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.env("CLASSPATH", home().join("kafka/libs/*")).current_dir(folder).args(JAVA).args(arguments);
    command.arg(folder.join("server.properties"));
    command
}

impl Node {
    fn run(&self) {
        let log = self.folder.join("broker.log");
        let pid = start(&mut java(&self.folder, &["-Dlog4j2.level=INFO", "kafka.Kafka"]), &log);
        self.pid.store(pid, Ordering::SeqCst);
    }

    async fn listens(&self) {
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl KafkaBroker {
    /// A broker of one's own, ready.
    pub async fn start() -> Self {
        Self::start_cluster(1, "").await
    }

    /// A cluster of this many nodes, ready; `more` are further lines of each node's settings. Topics have a replica on each
    /// of three nodes, and a write needs two of them.
    pub async fn start_cluster(nodes: usize, more: &str) -> Self {
        let libs = home().join("kafka/libs");
        assert!(libs.is_dir(), "{} is missing: run scripts/test-services.sh first", libs.display());
        let ports: Vec<(u16, u16)> = (0..nodes).map(|_| (free_port(), free_port())).collect();
        let mut cluster = Self { bootstrap: String::new(), nodes: Vec::new() };
        for (id, (port, _)) in (1..).zip(&ports) {
            let folder = fresh_folder("kafka").join(port.to_string());
            std::fs::create_dir_all(&folder).expect("folder");
            std::fs::write(folder.join("server.properties"), settings(id, &ports, &folder, more)).expect("settings");
            let format = ["kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c"];
            let formatted = java(&folder, &format).output().expect("java");
            assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
            cluster.nodes.push(Node { port: *port, folder, pid: AtomicU32::new(0) });
        }
        cluster.nodes.iter().for_each(Node::run);
        let addresses: Vec<String> = ports.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect();
        cluster.bootstrap = addresses.join(",");
        let ready = async {
            futures::future::join_all(cluster.nodes.iter().map(Node::listens)).await;
            cluster.create_topic("ready", 1, &[]).await;
        };
        tokio::time::timeout(Duration::from_secs(120), ready)
            .await
            .expect("kafka starts; see broker.log in target/test-services/run");
        cluster
    }

    /// Ends a cluster of one as a power cut would.
    pub async fn kill(&self) {
        self.kill_node(1).await;
    }

    /// Ends a node, counted from 1, as a power cut would.
    pub async fn kill_node(&self, id: usize) {
        let node = &self.nodes[id - 1];
        kill(node.pid.swap(0, Ordering::SeqCst)).await;
        while tokio::net::TcpStream::connect(("127.0.0.1", node.port)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts the nodes that were ended, with what they had on disk; back when they listen.
    pub async fn restart_killed(&self) {
        for node in self.nodes.iter().filter(|node| node.pid.load(Ordering::SeqCst) == 0) {
            node.run();
            tokio::time::timeout(Duration::from_secs(120), node.listens()).await.expect("kafka starts again");
        }
    }

    /// The node that leads a partition, as the cluster says now; `None` where none does.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<usize> {
        let metadata = self.admin().inner().fetch_metadata(Some(topic), Duration::from_secs(20)).ok()?;
        let partitions = metadata.topics().first()?.partitions();
        let leader = partitions.iter().find(|found| found.id() == partition)?.leader();
        usize::try_from(leader).ok().filter(|leader| *leader > 0)
    }

    /// How many replicas of a partition are in sync.
    pub fn in_sync(&self, topic: &str, partition: i32) -> usize {
        let metadata = self.admin().inner().fetch_metadata(Some(topic), Duration::from_secs(20));
        let Ok(metadata) = metadata else { return 0 };
        let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
        partitions.iter().find(|found| found.id() == partition).map_or(0, |found| found.isr().len())
    }

    /// Deletes an empty group with its committed offsets; false where it still has members.
    pub async fn delete_group(&self, group: &str) -> bool {
        let gone = self.admin().delete_groups(&[group], &options()).await.expect("delete group");
        gone.into_iter().all(|result| result.is_ok())
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().expect("admin client")
    }

    /// Makes a topic with settings by Kafka's names.
    pub async fn create_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let replicas = i32::try_from(self.nodes.len().min(3)).expect("few");
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
        let topic = configs.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        let made = self.admin().create_topics(&[topic], &options()).await.expect("create topic");
        made.into_iter().for_each(|result| drop(result.expect("create topic")));
    }

    /// The same; false where it is not taken, such as while an earlier one of that name is being deleted.
    pub async fn try_create_topic(&self, name: &str, partitions: i32) -> bool {
        let replicas = i32::try_from(self.nodes.len().min(3)).expect("few");
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
        let made = self.admin().create_topics(&[topic], &options()).await.expect("create topic");
        made.into_iter().all(|result| result.is_ok())
    }

    /// Makes a topic of one partition that only this node holds, counted from 1.
    pub async fn create_topic_on(&self, name: &str, node: usize) {
        let replicas = [i32::try_from(node).expect("few")];
        let assignment: [&[i32]; 1] = [&replicas];
        let topic = NewTopic::new(name, 1, TopicReplication::Variable(&assignment)).set("min.insync.replicas", "1");
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
