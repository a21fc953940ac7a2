//! The promises that hold on every cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use recordkeeper::event::Position;
use recordkeeper::source::kafka::{GroupProtocol, KafkaSourceConfig};
use recordkeeper::source::{Source, SourceEvent};

use super::World;
use super::member::{Member, config, numbers, values, write, write_one};

macro_rules! on_every_cluster {
    ($($promise:ident($partitions:literal),)+) => {
        mod classic {
            use super::{GroupProtocol, World};
            $(#[tokio::test] async fn $promise() {
                super::$promise(World::real(GroupProtocol::Classic, $partitions).await).await;
            })+
        }
        mod consumer {
            use super::{GroupProtocol, World};
            $(#[tokio::test] async fn $promise() {
                super::$promise(World::real(GroupProtocol::Consumer, $partitions).await).await;
            })+
        }
        mod embedded {
            use super::World;
            $(#[tokio::test] async fn $promise() {
                super::$promise(World::embedded($partitions)).await;
            })+
        }
    };
}

on_every_cluster! {
    partitions_are_read_in_order_in_bounded_batches(2),
    null_and_empty_stay_different(1),
    a_restart_goes_on_above_the_checkpoint(1),
    a_partition_starts_wherever_the_engine_says(1),
    a_paused_partition_rests_until_it_is_resumed(2),
    a_second_member_gets_what_the_first_has_drained_and_checkpointed(4),
    the_end_of_input_comes_after_everything(2),
    a_full_mailbox_loses_nothing(1),
}

async fn partitions_are_read_in_order_in_bounded_batches(world: World) {
    write(&world, 0, numbers(0..300)).await;
    write(&world, 1, numbers(300..350)).await;
    let mut member = Member::join(config(&world));
    while member.read.len() < 350 {
        match member.news().await {
            SourceEvent::Assigned(assigned) => member.start(&assigned),
            SourceEvent::Batch(batch) => {
                assert!(batch.messages.len() <= 100);
                member.take(&batch);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(values(&member.read, "0"), numbers(0..300).collect::<Vec<_>>());
    assert_eq!(values(&member.read, "1"), numbers(300..350).collect::<Vec<_>>());
    let offsets: Vec<u64> = member.read.iter().filter(|read| read.partition == "0").map(|read| read.offset).collect();
    assert_eq!(offsets, (0..300).collect::<Vec<_>>());
    member.close().await;
}

async fn null_and_empty_stay_different(world: World) {
    write_one(&world, None, None, &[]).await;
    write_one(&world, Some(b""), Some(b""), &[("empty", Some(b"")), ("null", None), ("empty", Some(b"again"))]).await;
    write_one(&world, Some(b"\xff\xfe"), Some(b"null"), &[]).await;
    let mut member = Member::join(config(&world));
    member.read_until(3).await;
    let parts: Vec<_> = member.read.iter().map(|read| (read.key.as_deref(), read.value.as_deref())).collect();
    assert_eq!(parts[0], (None, None));
    assert_eq!(parts[1], (Some(&b""[..]), Some(&b""[..])));
    assert_eq!(parts[2], (Some(&b"\xff\xfe"[..]), Some(&b"null"[..])));
    let headers: Vec<_> =
        member.read[1].headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    assert_eq!(headers, [("empty", Some(&b""[..])), ("null", None), ("empty", Some(&b"again"[..]))]);
    member.close().await;
}

async fn a_restart_goes_on_above_the_checkpoint(world: World) {
    write(&world, 0, numbers(0..10)).await;
    let mut first = Member::join(config(&world));
    first.read_until(10).await;
    let partition = first.owned[0].clone();
    first.checkpoint(&[(partition.clone(), Position::Offset(6))]);
    // Late and lower: left out.
    first.checkpoint(&[(partition.clone(), Position::Offset(6))]);
    first.close().await;

    let mut second = Member::join(config(&world));
    let assigned = second.assigned().await;
    assert_eq!(assigned[0].checkpoint, Some(Position::Offset(6)));
    assert_eq!(assigned[0].partition, partition, "the same log has the same name after a restart");
    assert_eq!((assigned[0].log_start, assigned[0].log_end), (Position::Begin, Position::Offset(9)));
    second.start(&assigned);
    second.read_until(3).await;
    assert_eq!(values(&second.read, "0"), ["7", "8", "9"]);
    second.close().await;
}

async fn a_partition_starts_wherever_the_engine_says(world: World) {
    write(&world, 0, numbers(0..10)).await;
    let mut member = Member::join(config(&world));
    let assigned = member.assigned().await;
    member.source.start(&assigned[0].partition, Position::Offset(7));
    member.read_until(2).await;
    assert_eq!(values(&member.read, "0"), ["8", "9"]);
    // Started anew, it begins anew; what it had read before does not come in between.
    member.source.start(&assigned[0].partition, Position::Offset(3));
    member.read_until(8).await;
    assert_eq!(values(&member.read, "0")[2..], ["4", "5", "6", "7", "8", "9"]);
    member.close().await;
}

async fn a_paused_partition_rests_until_it_is_resumed(world: World) {
    write(&world, 0, numbers(0..1)).await;
    write(&world, 1, numbers(100..101)).await;
    let mut member = Member::join(config(&world));
    member.read_until(2).await;
    let zero = member.owned.iter().find(|partition| partition.name == "0").unwrap().clone();
    member.source.pause(&zero);
    // The order is obeyed once what was sent after it to the same reader has had an effect.
    let one = member.owned.iter().find(|partition| partition.name == "1").unwrap().clone();
    member.source.start(&one, Position::Begin);
    member.read_until(3).await;
    write(&world, 0, numbers(1..4)).await;
    write(&world, 1, numbers(101..140)).await;
    member.read_until(42).await;
    assert_eq!(values(&member.read, "0"), ["0"]);
    member.source.resume(&zero);
    member.read_until(45).await;
    assert_eq!(values(&member.read, "0"), ["0", "1", "2", "3"]);
    member.close().await;
}

async fn a_second_member_gets_what_the_first_has_drained_and_checkpointed(world: World) {
    for partition in 0..4 {
        write(&world, partition, numbers(0..20)).await;
    }
    let mut first = Member::join(config(&world));
    first.read_until(80).await;
    let mut second = Member::join(config(&world));
    // Two rounds are possible before both have their share: the first gives away in one or several.
    let mut given = BTreeSet::new();
    let mut taken = Vec::new();
    while taken.len() < 2 {
        tokio::select! {
            event = first.news() => match event {
                SourceEvent::Revoked { partitions, lost, ack } => {
                    assert!(!lost);
                    // Draining takes its time; nobody else gets the partitions meanwhile.
                    let meanwhile = tokio::time::timeout(Duration::from_secs(1), second.source.next()).await;
                    assert!(!matches!(meanwhile, Ok(Ok(SourceEvent::Assigned(_)))), "{meanwhile:?}");
                    // Checkpointed only now: the next owner sees it because the source waits for the acknowledgement.
                    let done: Vec<_> = partitions.iter().map(|one| (one.clone(), Position::Offset(14))).collect();
                    first.checkpoint(&done);
                    given.extend(partitions);
                    ack.send(()).unwrap();
                }
                SourceEvent::Assigned(assigned) => first.start(&assigned),
                SourceEvent::Batch(batch) => first.take(&batch),
                other => panic!("{other:?}"),
            },
            event = second.news() => match event {
                SourceEvent::Assigned(assigned) => taken.extend(assigned),
                SourceEvent::Revoked { ack, .. } => drop(ack),
                other => panic!("{other:?}"),
            },
        }
    }
    assert_eq!(taken.iter().map(|one| one.partition.clone()).collect::<BTreeSet<_>>(), given);
    for assignment in &taken {
        assert_eq!(assignment.checkpoint, Some(Position::Offset(14)), "{}", assignment.partition);
    }
    second.start(&taken);
    second.read_until(10).await;
    assert!(second.read.iter().all(|read| read.offset > 14));
    // What the first kept was not touched.
    assert!(first.read.len() == 80, "a kept partition was read again");
    second.close().await;
    first.close().await;
}

async fn the_end_of_input_comes_after_everything(world: World) {
    write(&world, 0, numbers(0..250)).await;
    let mut member = Member::join(KafkaSourceConfig { until_end: true, ..config(&world) });
    loop {
        match member.step().await {
            None => {}
            Some(SourceEvent::EndOfInput) => break,
            Some(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(member.read.len(), 250);
    member.close().await;
}

async fn a_full_mailbox_loses_nothing(world: World) {
    write(&world, 0, numbers(0..200)).await;
    let narrow = KafkaSourceConfig { batches_max: 1, batch_messages_max: 3, batch_bytes_max: 8, ..config(&world) };
    let mut member = Member::join(narrow);
    member.read_until(200).await;
    assert_eq!(values(&member.read, "0"), numbers(0..200).collect::<Vec<_>>());
    member.close().await;
}
