//! What only a real broker, or only the embedded one, can show.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, FutureProducer, Producer};
use recordkeeper::event::Position;
use recordkeeper::source::kafka::{GroupProtocol, KafkaConnection, KafkaSourceConfig, StartPolicy};
use recordkeeper::source::{Source, SourceEvent};
use recordkeeper::topic::kafka::{KafkaTopic, KafkaTopicConfig, Measured, TopicError};

use super::member::{Member, PATIENCE, config, numbers, producer, values, write, write_with};
use super::{World, fresh};
use crate::services;

#[tokio::test]
async fn every_compression_is_read() {
    let world = World::real(GroupProtocol::Consumer, 1).await;
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let producer = producer(&world.bootstrap, &[("compression.type", compression)]);
        write_with(&producer, &world, 0, (0..20).map(|_| format!("{compression} {}", "x".repeat(100)))).await;
    }
    let mut member = Member::join(config(&world));
    member.read_until(100).await;
    assert!(values(&member.read, "0")[99].starts_with("zstd xxx"));
    member.close().await;
}

#[tokio::test]
async fn aborted_transactions_are_never_seen_and_leave_no_lag() {
    let world = World::real(GroupProtocol::Consumer, 1).await;
    let producer: FutureProducer = producer(&world.bootstrap, &[("transactional.id", &fresh("writer"))]);
    producer.init_transactions(PATIENCE).unwrap();
    for (value, commit) in [("seen", true), ("aborted", false), ("seen", true), ("aborted", false)] {
        producer.begin_transaction().unwrap();
        write_with(&producer, &world, 0, [value.to_owned()]).await;
        if commit {
            producer.commit_transaction(PATIENCE).unwrap()
        } else {
            producer.abort_transaction(PATIENCE).unwrap()
        }
    }
    let mut member = Member::join(KafkaSourceConfig { until_end: true, ..config(&world) });
    loop {
        match member.step().await {
            None => {}
            Some(SourceEvent::EndOfInput) => break,
            Some(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(values(&member.read, "0"), ["seen", "seen"]);
    let done = Position::Offset(member.read[1].offset);
    member.checkpoint(&[(member.owned[0].clone(), done)]);
    let none = async {
        while member.source.lags().iter().map(|(_, lag)| lag).sum::<u64>() != 0 || member.source.lags().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, none).await.expect("no lag");
    member.close().await;
}

async fn retention_is_told_and_never_skipped_silently(protocol: GroupProtocol) {
    let world = World::real(protocol, 1).await;
    write(&world, 0, numbers(0..600)).await;
    let mut first = Member::join(config(&world));
    first.read_until(600).await;
    first.checkpoint(&[(first.owned[0].clone(), Position::Offset(9))]);
    first.close().await;
    services::kafka().await.delete_records(&world.topic, 0, 510).await;

    let mut second = Member::join(config(&world));
    let assigned = second.assigned().await;
    assert_eq!(assigned[0].checkpoint, Some(Position::Offset(9)));
    assert_eq!(assigned[0].log_start, Position::Offset(509));
    // An engine that did not look: it is asked again, and nothing is skipped behind its back.
    second.source.start(&assigned[0].partition, Position::Offset(9));
    let again = second.assigned().await;
    assert_eq!(again[0].log_start, Position::Offset(509));
    second.source.start(&again[0].partition, again[0].log_start);
    second.read_until(90).await;
    assert_eq!(second.read[0].offset, 510);
    assert_eq!(second.read[89].offset, 599);
    second.close().await;
}

#[tokio::test]
async fn retention_is_told_with_the_classic_protocol() {
    retention_is_told_and_never_skipped_silently(GroupProtocol::Classic).await;
}

#[tokio::test]
async fn retention_is_told_with_the_consumer_protocol() {
    retention_is_told_and_never_skipped_silently(GroupProtocol::Consumer).await;
}

#[tokio::test]
async fn a_survey_takes_the_checkpoint_found_and_else_the_start_policy() {
    let world = World::real(GroupProtocol::Consumer, 2).await;
    write(&world, 0, numbers(0..10)).await;
    write(&world, 1, numbers(0..10)).await;
    let mut first = Member::join(config(&world));
    first.read_until(20).await;
    let one = first.owned.iter().find(|partition| partition.name == "1").unwrap().clone();
    first.checkpoint(&[(one, Position::Offset(4))]);
    first.close().await;
    services::kafka().await.delete_records(&world.topic, 0, 3).await;

    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1);
    let far_off = std::time::SystemTime::now() + Duration::from_secs(3600);
    for (policy, start) in [
        (StartPolicy::Earliest, Position::Offset(2)),
        (StartPolicy::Latest, Position::Offset(9)),
        (StartPolicy::At(long_ago), Position::Offset(2)),
        (StartPolicy::At(far_off), Position::Offset(9)),
    ] {
        let mut member = Member::join(KafkaSourceConfig { start: policy, ..config(&world) });
        let survey = member.source.survey(&world.topic).await.unwrap();
        let starts: Vec<_> = survey.iter().map(|one| (one.partition.name.as_str(), one.start)).collect();
        assert_eq!(starts, [("0", start), ("1", Position::Offset(4))], "{policy:?}");
        member.close().await;
    }
}

#[tokio::test]
async fn a_topic_made_again_under_its_name_is_another_one() {
    let world = World::real(GroupProtocol::Classic, 1).await;
    let broker = services::kafka().await;
    let mut first = Member::join(config(&world));
    let before = first.source.survey(&world.topic).await.unwrap().remove(0).partition;
    first.close().await;
    assert_eq!(before.topic_id.len(), 22, "{before:?}");
    assert!(before.topic_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
    assert_eq!(before.cluster, "4L6g3nShT-eMCtK--X86sw");
    broker.delete_topic(&world.topic).await;
    broker.create_topic(&world.topic, 1, &[]).await;
    let mut second = Member::join(config(&world));
    let after = second.source.survey(&world.topic).await.unwrap().remove(0).partition;
    assert_ne!(before.topic_id, after.topic_id);
    second.close().await;
}

#[tokio::test]
async fn a_partition_that_appears_later_is_assigned_without_a_checkpoint() {
    let world = World::real(GroupProtocol::Consumer, 1).await;
    let mut member = Member::join(config(&world));
    let assigned = member.assigned().await;
    member.start(&assigned);
    services::kafka().await.add_partitions(&world.topic, 2).await;
    let added = member.assigned().await;
    assert_eq!(added.len(), 1);
    assert_eq!((added[0].partition.name.as_str(), added[0].checkpoint), ("1", None));
    assert_eq!(added[0].log_start, Position::Begin);
    member.close().await;
}

#[tokio::test]
async fn a_missing_topic_is_named_with_what_to_do_and_read_once_it_is_there() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let world = World::real(protocol, 1).await;
        let missing = World { topic: fresh("missing"), group: fresh("group"), ..world };
        let mut member = Member::join(config(&missing));
        let event = member.event().await.unwrap();
        let SourceEvent::Health { ready: false, detail } = event else { panic!("{event:?}") };
        assert!(detail.contains(&format!("create topic {}", missing.topic)), "{detail}");
        services::kafka().await.create_topic(&missing.topic, 1, &[]).await;
        write(&missing, 0, numbers(0..3)).await;
        member.read_until(3).await;
        member.close().await;
    }
}

#[tokio::test]
async fn two_members_with_one_instance_id_do_not_both_run() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let world = World::real(protocol, 1).await;
        let named = KafkaSourceConfig { group_instance_id: Some("one".into()), ..config(&world) };
        let mut first = Member::join(named.clone());
        let assigned = first.assigned().await;
        first.start(&assigned);
        let mut second = Member::join(named);
        let why = loop {
            // Classic: the older one is fenced. Consumer: the newer one is refused.
            let event = tokio::select! { event = first.event() => event, event = second.event() => event };
            match event {
                Err(error) => break error.to_string(),
                Ok(SourceEvent::Revoked { ack, .. }) => drop(ack),
                Ok(_) => {}
            }
        };
        assert!(why.contains("group instance id") && why.contains("give each instance its own"), "{why}");
        first.close().await;
        second.close().await;
    }
}

#[tokio::test]
async fn an_outage_is_told_and_over_and_closing_during_one_keeps_its_deadline() {
    let cluster = MockCluster::new(1).unwrap();
    let topic = fresh("events");
    cluster.create_topic(&topic, 1, 1).unwrap();
    let mut world = World::embedded(1);
    world.bootstrap = cluster.bootstrap_servers();
    world.topic = topic;
    let mut member = Member::join(config(&world));
    let assigned = member.assigned().await;
    member.start(&assigned);

    cluster.broker_down(-1).unwrap();
    wait_for_health(&mut member, false).await;
    cluster.broker_up(-1).unwrap();
    wait_for_health(&mut member, true).await;
    write(&world, 0, numbers(0..2)).await;
    member.read_until(2).await;

    cluster.broker_down(-1).unwrap();
    member.checkpoint(&[(member.owned[0].clone(), Position::Offset(1))]);
    // Left to itself, librdkafka would wait for the coordinator for most of a minute.
    let closed = tokio::time::timeout(PATIENCE / 2, member.source.close(Duration::from_secs(2))).await;
    closed.expect("closed within its deadline");
}

async fn wait_for_health(member: &mut Member, wanted: bool) {
    loop {
        match member.event().await.unwrap() {
            SourceEvent::Health { ready, .. } if ready == wanted => return,
            SourceEvent::Health { .. } | SourceEvent::Batch(_) => {}
            SourceEvent::Assigned(assigned) => member.start(&assigned),
            SourceEvent::Revoked { ack, .. } => drop(ack),
            other => panic!("{other:?}"),
        }
    }
}

/// An embedded cluster and a topic of it, some of whose partitions have no leader.
fn leaderless(partitions: i32, without: &[i32]) -> (MockCluster<'static, DefaultProducerContext>, World) {
    let cluster = MockCluster::new(1).unwrap();
    let world = World {
        bootstrap: cluster.bootstrap_servers(),
        topic: fresh("events"),
        group: fresh("group"),
        protocol: GroupProtocol::Consumer,
        _embedded: None,
    };
    cluster.create_topic(&world.topic, partitions, 1).unwrap();
    for partition in without {
        cluster.partition_leader(&world.topic, *partition, None).unwrap();
    }
    (cluster, world)
}

#[tokio::test]
async fn a_partition_without_a_leader_is_named_and_the_others_are_read() {
    let (cluster, world) = leaderless(3, &[1]);
    write(&world, 0, numbers(0..2)).await;
    write(&world, 2, numbers(2..4)).await;
    let mut member = Member::join(config(&world));
    let named = format!("partition {}/1 has no leader", world.topic);
    let mut told = String::new();
    while member.read.len() < 4 || !told.contains(&named) {
        match member.event().await.unwrap() {
            SourceEvent::Assigned(assigned) => member.start(&assigned),
            SourceEvent::Batch(batch) => member.take(&batch),
            SourceEvent::Health { ready: false, detail } => told = detail,
            // Before anything was assigned.
            SourceEvent::Health { .. } if told.is_empty() => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(member.owned.len(), 2);
    cluster.partition_leader(&world.topic, 1, Some(1)).unwrap();
    wait_for_health(&mut member, true).await;
    write(&world, 1, numbers(4..6)).await;
    member.read_until(6).await;
    member.close().await;
}

#[tokio::test]
async fn no_partition_is_forgotten_when_some_are_taken_while_they_are_looked_up() {
    let (cluster, world) = leaderless(4, &[0, 1, 2, 3]);
    let mut first = Member::join(config(&world));
    until_leaders_are_missed(&mut first).await;
    let mut second = Member::join(config(&world));
    // It has its share as soon as it misses their leaders; the first has given them away before.
    until_leaders_are_missed(&mut second).await;
    for partition in 0..4 {
        cluster.partition_leader(&world.topic, partition, Some(1)).unwrap();
        write(&world, partition, numbers(0..1)).await;
    }
    while first.read.len() + second.read.len() < 4 {
        tokio::select! {
            other = first.step() => assert!(other.is_none(), "{other:?}"),
            other = second.step() => assert!(other.is_none(), "{other:?}"),
        }
    }
    assert!(!first.read.is_empty() && !second.read.is_empty());
    first.close().await;
    second.close().await;
}

async fn until_leaders_are_missed(member: &mut Member) {
    loop {
        match member.event().await.unwrap() {
            SourceEvent::Health { ready: false, detail } if detail.contains("has no leader") => return,
            SourceEvent::Health { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn asking_about_a_missing_topic_does_not_create_it() {
    // It creates a topic for whoever asks and does not say otherwise, as brokers do by default.
    let world = World::embedded(1);
    for _ in 0..2 {
        let topic = KafkaTopicConfig {
            connection: KafkaConnection::plaintext(&world.bootstrap),
            topic: "unheard-of".into(),
            delivery_deadline: PATIENCE,
            queue_messages_max: 1,
            message_bytes_max: 1_000_000,
            measured: Measured::ByBroker,
            options: BTreeMap::new(),
        };
        let missing = KafkaTopic::connect(topic).await.err().unwrap();
        assert!(matches!(missing, TopicError::Missing(_)), "{missing}");
    }
}

#[tokio::test]
async fn a_header_name_that_is_no_text_ends_nothing() {
    let world = World::real(GroupProtocol::Consumer, 1).await;
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &world.bootstrap).create().unwrap();
    // "naïve" in Latin-1, as a producer in another language may send it.
    produce_with_header(&producer, &world.topic, b"na\xefve", b"\xff");
    producer.flush(PATIENCE).unwrap();
    let mut member = Member::join(config(&world));
    member.read_until(1).await;
    assert_eq!(member.read[0].headers, [("na\u{fffd}ve".to_owned(), Some(vec![0xff]))]);
    member.close().await;
}

/// The crate's own headers take text only.
#[allow(unsafe_code)]
fn produce_with_header(producer: &BaseProducer, topic: &str, name: &[u8], value: &[u8]) {
    use rdkafka_sys::rd_kafka_vtype_t::{RD_KAFKA_VTYPE_END, RD_KAFKA_VTYPE_HEADERS, RD_KAFKA_VTYPE_TOPIC};
    let topic = std::ffi::CString::new(topic).unwrap();
    // SAFETY: everything passed outlives the call; the headers are librdkafka's own once it has taken the message.
    unsafe {
        let headers = rdkafka_sys::rd_kafka_headers_new(1);
        let (value_at, size) = (value.as_ptr().cast(), value.len().cast_signed());
        rdkafka_sys::rd_kafka_header_add(headers, name.as_ptr().cast(), name.len().cast_signed(), value_at, size);
        let code = rdkafka_sys::rd_kafka_producev(
            producer.client().native_ptr(),
            RD_KAFKA_VTYPE_TOPIC,
            topic.as_ptr(),
            RD_KAFKA_VTYPE_HEADERS,
            headers,
            RD_KAFKA_VTYPE_END,
        );
        assert_eq!(code, rdkafka_sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
    }
}
