//! Publishing: durable means readable, placed as Java places, and what is too large is said to be.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use recordkeeper::embedded::kafka::EmbeddedKafka;
use recordkeeper::source::kafka::KafkaConnection;
use recordkeeper::topic::kafka::topics::{TopicSpec, create_missing};
use recordkeeper::topic::kafka::{KafkaTopic, KafkaTopicConfig, Measured, TopicError, describe, partition_of};
use recordkeeper::topic::{Message, Placement, Published, Topic};

use crate::deployment::{Deployment, Event};
use crate::services;

fn config(bootstrap: &str, topic: &str) -> KafkaTopicConfig {
    KafkaTopicConfig {
        connection: KafkaConnection::plaintext(bootstrap),
        topic: topic.to_owned(),
        delivery_deadline: Duration::from_secs(30),
        queue_messages_max: 1000,
        message_bytes_max: 16 << 20,
        measured: Measured::BeforeCompression,
        options: BTreeMap::new(),
    }
}

fn message(key: Option<&[u8]>, value: Option<&[u8]>) -> Message {
    Message {
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers: Vec::new(),
        placement: Placement::ByKey,
    }
}

/// Everything in the topic: partition, key, value, headers.
type Row = (i32, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

fn rows(bootstrap: &str, topic: &str, partitions: i32, count: usize) -> Vec<Row> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("group.id", "rows").create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut rows = Vec::new();
    while rows.len() < count {
        let message = consumer.poll(Duration::from_secs(60)).expect("a message in time").unwrap();
        let headers = message.headers().map_or(Vec::new(), |headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        rows.push((message.partition(), bytes(message.key()), bytes(message.payload()), headers));
    }
    rows
}

async fn what_is_durable_can_be_read(bootstrap: String, topic: &str) {
    let published = KafkaTopic::connect(config(&bootstrap, topic)).await.unwrap();
    let mut with_headers = message(Some(b"k"), Some(b"v"));
    with_headers.headers =
        vec![("a".into(), Some(b"1".to_vec())), ("null".into(), None), ("empty".into(), Some(Vec::new()))];
    let sent = [message(None, None), message(Some(b""), Some(b"")), with_headers.clone()];
    let verdicts = published.publish(&sent.iter().collect::<Vec<_>>()).await;
    assert_eq!(verdicts, vec![Published::Durable; 3]);
    let rows = rows(&bootstrap, topic, 3, 3);
    let home = partition_of(b"", 3);
    assert!(rows.contains(&(home, None, None, Vec::new())), "{rows:?}");
    assert!(rows.contains(&(home, Some(Vec::new()), Some(Vec::new()), Vec::new())), "{rows:?}");
    assert!(rows.contains(&(partition_of(b"k", 3), Some(b"k".to_vec()), Some(b"v".to_vec()), with_headers.headers)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_durable_can_be_read_from_a_real_broker() {
    let broker = services::kafka().await;
    broker.create_topic("durable", 3, &[]).await;
    what_is_durable_can_be_read(broker.bootstrap.clone(), "durable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_durable_can_be_read_from_the_embedded_one() {
    let cluster = EmbeddedKafka::start(&[("durable", 3)]).unwrap();
    what_is_durable_can_be_read(cluster.bootstrap_servers().to_owned(), "durable").await;
}

/// Partitions among 12 as `org.apache.kafka.common.utils.Utils` computes them from UtilsTest's own hashes.
#[test]
fn keys_lie_where_java_puts_them() {
    for (key, hash) in [
        ("21", -973_932_308_i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ] {
        assert_eq!(partition_of(key.as_bytes(), 12), (hash & 0x7fff_ffff) % 12, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn placement_by_other_bytes_keeps_the_key() {
    let broker = services::kafka().await;
    broker.create_topic("placed", 12, &[]).await;
    let topic = KafkaTopic::connect(config(&broker.bootstrap, "placed")).await.unwrap();
    let placed = Message { placement: Placement::ByBytes(b"foobar".to_vec()), ..message(Some(b"abc"), Some(b"v")) };
    assert_eq!(topic.publish(&[&placed]).await, [Published::Durable]);
    let rows = rows(&broker.bootstrap, "placed", 12, 1);
    assert_eq!((rows[0].0, rows[0].1.as_deref()), (partition_of(b"foobar", 12), Some(&b"abc"[..])));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topic_s_own_limit_decides_what_is_too_large_and_neighbours_go_on() {
    let broker = services::kafka().await;
    broker.create_topic("small", 1, &[("max.message.bytes", "20000")]).await;
    broker.create_topic("large", 1, &[("max.message.bytes", "3000000")]).await;
    let small = KafkaTopic::connect(config(&broker.bootstrap, "small")).await.unwrap();
    assert_eq!(small.bytes_max(), 20_000);
    // Of noise, so that compression does not help.
    let noise = |len: usize| (0..len).map(|_| fastrand::u8(..)).collect::<Vec<u8>>();
    let fits = message(None, Some(&noise(20_000 - 80)));
    assert_eq!(fits.bytes(), 20_000);
    let verdicts = small.publish(&[&fits.clone(), &message(None, Some(&noise(20_001 - 80))), &fits]).await;
    assert!(matches!(&verdicts[..], [Published::Durable, Published::Rejected(_), Published::Durable]), "{verdicts:?}");
    let large = KafkaTopic::connect(config(&broker.bootstrap, "large")).await.unwrap();
    assert_eq!(large.publish(&[&message(None, Some(&noise(2_900_000)))]).await, [Published::Durable]);
}

/// The broker measures after compression: what it took compressed in a source topic, it takes as a letter.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_broker_measures_large_messages_that_compress_well_are_taken() {
    let broker = services::kafka().await;
    broker.create_topic("compressed", 1, &[("max.message.bytes", "20000")]).await;
    let config = KafkaTopicConfig {
        measured: Measured::ByBroker,
        message_bytes_max: 3_000_000,
        ..config(&broker.bootstrap, "compressed")
    };
    let topic = KafkaTopic::connect(config).await.unwrap();
    assert_eq!(topic.bytes_max(), 3_000_000);
    let noise: Vec<u8> = (0..30_000).map(|_| fastrand::u8(..)).collect();
    let sent = [
        message(None, Some(&vec![b'x'; 2_900_000])),
        message(None, Some(&noise)),
        message(None, Some(&vec![b'x'; 3_000_001])),
        message(None, Some(b"small")),
    ];
    let verdicts = topic.publish(&sent.iter().collect::<Vec<_>>()).await;
    let [Published::Durable, Published::Rejected(by_broker), Published::Rejected(here), Published::Durable] =
        &verdicts[..]
    else {
        panic!("{verdicts:?}")
    };
    assert!(by_broker.contains("raise its max.message.bytes"), "{by_broker}");
    assert!(here.contains("raise kafka.message_bytes_max"), "{here}");
}

/// An event of 3 MB that its topic took compressed, by a limit of 2 MB, has a letter; the partition goes on behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_event_that_was_sent_compressed_has_its_letter() {
    let deployment = Deployment::start("compressed", "wallets", 1).await;
    let large = format!("{{\"none of ours\":\"{}\"}}", "x".repeat(3_000_000)).into_bytes();
    let events = [large.clone(), b"not json".to_vec()].map(|value| Event::new("wallet-events", "k", value));
    deployment.publish(&events).await;
    let run = deployment.run_until_idle().await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.assert_sums();
    let letters = deployment.read_topic(&deployment.dead_letters);
    let mut bytes: Vec<_> = letters.iter().map(|letter| letter.payload().unwrap().len()).collect();
    bytes.sort_unstable();
    assert_eq!(bytes, [b"not json".len(), large.len()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_to_keep_letters_and_those_that_do_not_are_named_once_at_start() {
    let deployment = Deployment::start("kept", "wallets", 1).await;
    let letters = deployment.topic("letters");
    let env =
        [("RECORDKEEPER_DEAD_LETTERS_TOPIC", letters.as_str()), ("RECORDKEEPER_KAFKA_NEW_TOPIC_REPLICATION", "1")];
    let made = deployment.command(&["tables", "create", "--topics"]).envs(env).output().await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let report = describe(&KafkaConnection::plaintext(&deployment.bootstrap), &letters).await.unwrap();
    assert_eq!((report.min_insync_replicas, report.retention_ms), (Some(1), Some(-1)));
    // The deployment's own topic for letters has Kafka's retention of a week.
    let run = deployment.run_until_idle().await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let times = |text: &str| run.stderr.matches(text).count();
    assert_eq!(times(&format!("topic {} keeps messages for 168 hours", deployment.dead_letters)), 1, "{}", run.stderr);
    for topic in [&deployment.dead_letters, &deployment.requests] {
        assert_eq!(times(&format!("topic {topic} has one replica")), 1, "{}", run.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_named_and_can_be_made_once() {
    let broker = services::kafka().await;
    let connection = KafkaConnection::plaintext(&broker.bootstrap);
    let missing = KafkaTopic::connect(config(&broker.bootstrap, "made")).await.err().unwrap();
    assert!(matches!(&missing, TopicError::Missing(topic) if topic == "made"), "{missing}");
    let spec = |name: &str| TopicSpec {
        name: name.into(),
        partitions: 5,
        replication: None,
        settings: vec![("retention.ms".into(), "-1".into())],
    };
    assert_eq!(create_missing(&connection, &[spec("made")]).await.unwrap(), ["made"]);
    assert_eq!(create_missing(&connection, &[spec("made"), spec("made-too")]).await.unwrap(), ["made-too"]);
    let report = KafkaTopic::connect(config(&broker.bootstrap, "made")).await.unwrap().check().await.unwrap();
    assert_eq!((report.partitions, report.replication), (5, 1));
    assert_eq!((report.min_insync_replicas, report.retention_ms), (Some(1), Some(-1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_cluster_is_no_verdict_for_ever() {
    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    cluster.create_topic("away", 1, 1).unwrap();
    let short = KafkaTopicConfig {
        delivery_deadline: Duration::from_millis(500),
        ..config(&cluster.bootstrap_servers(), "away")
    };
    let topic = KafkaTopic::connect(short).await.unwrap();
    cluster.broker_down(-1).unwrap();
    let verdicts = topic.publish(&[&message(None, Some(b"v"))]).await;
    assert!(matches!(&verdicts[..], [Published::Retry { .. }]), "{verdicts:?}");
    cluster.broker_up(-1).unwrap();
}

#[tokio::test]
async fn a_producer_that_is_given_up_is_replaced() {
    use rdkafka_sys::{RDKafkaApiKey, rd_kafka_resp_err_t};
    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    cluster.create_topic("fatal", 1, 1).unwrap();
    // Fatal to an idempotent producer, whose id is asked for at its start.
    let refused = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::InitProducerId, &[refused]);
    let topic = KafkaTopic::connect(config(&cluster.bootstrap_servers(), "fatal")).await.unwrap();
    let verdicts = topic.publish(&[&message(None, Some(b"v"))]).await;
    assert!(matches!(&verdicts[..], [Published::Retry { .. }]), "{verdicts:?}");
    assert_eq!(topic.publish(&[&message(None, Some(b"v"))]).await, [Published::Durable]);
}
