//! The faults: each is brought about while events flow, shown to have been met, and taken away again.

use std::time::Duration;

use crate::fault_proxy::Fault;
use crate::plan::Kind;
use crate::round::Round;
use crate::running::until;
use crate::services;

const WRITE: &str = "BatchExecuteStatement";
const READ: &str = "BatchGetItem";

pub async fn inject(round: &mut Round<'_>, kind: Kind) {
    match kind {
        Kind::Kill9At(failpoint, times) => {
            round.fleet.start(Some(&format!("{failpoint}:{times}"))).await;
            round.fleet.youngest_takes_part().await;
            round.publish_portion().await;
            round.fleet.youngest_dies().await;
        }
        Kind::Kill9Anywhere => {
            round.fleet.balanced().await;
            let before = round.attested().await;
            round.publish_portion().await;
            round.attested_above(before).await;
            let which = round.rng.usize(..round.fleet.len());
            round.fleet.kill(which).await;
            round.fleet.start(None).await;
        }
        Kind::SigstopZombie => zombie(round).await,
        Kind::RebalanceStorm => storm(round).await,
        Kind::OffsetsExpired => offsets_expired(round).await,
        Kind::BrokerRestart => broker_restart(round).await,
        Kind::LeaderLost => leader_lost(round).await,
        Kind::RedisFlush => {
            let before = round.attested().await;
            round.publish_half().await;
            round.attested_above(before).await;
            let redis = services::redis().await;
            assert!(redis.ask::<u64>(&["DBSIZE"]).await > 0, "there is something to forget");
            redis.flush().await;
            round.publish_half().await;
        }
        Kind::RedisOom => {
            let redis = services::redis().await;
            redis.ask::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
            redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
            without_memory(round).await;
            redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
        }
        Kind::RedisReadonly => {
            let redis = services::redis().await;
            redis.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
            without_memory(round).await;
            redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
        }
        Kind::RedisDown => {
            let redis = services::redis().await;
            redis.kill().await;
            without_memory(round).await;
            redis.restart().await;
        }
        Kind::CutAfterApply => spoiled(round, WRITE, Fault::CutAfterApply).await,
        Kind::CallThrottled => spoiled(round, WRITE, Fault::CallFails { code: "ThrottlingException" }).await,
        Kind::CallThrottledUnexplained => {
            let code = "ProvisionedThroughputExceededException";
            spoiled(round, WRITE, Fault::CallFailsUnexplained { code }).await;
        }
        Kind::StatementThrottledIn200 => {
            let at = round.rng.usize(0..25);
            spoiled(round, WRITE, Fault::StatementFails { at, code: "ThrottlingError" }).await;
        }
        Kind::SlowAnswers => spoiled(round, WRITE, Fault::AnswersAfter(Duration::from_millis(2_500))).await,
        Kind::ServerError => spoiled(round, WRITE, Fault::ServerFails).await,
        Kind::StoreDiskFull => {
            let before = dependencies_away(round).await;
            round.store.fill().await;
            round.publish_portion().await;
            until("an instance that leaves the full store alone", async || {
                (dependencies_away(round).await > before).then_some(())
            })
            .await;
            round.store.make_room().await;
            round.all_attested().await;
        }
        Kind::UnprocessedKeys => {
            // Duplicates that Redis knows nothing of are read from the table.
            services::redis().await.flush().await;
            spoiled(round, READ, Fault::KeysLeftOver).await;
        }
    }
}

/// How often an instance has found a dependency away, so far.
async fn dependencies_away(round: &Round<'_>) -> u64 {
    round.fleet.metric("recordkeeper_alerts_total", "alert=\"dependency_away\"").await
}

/// Some calls are spoiled, all of which come.
async fn spoiled(round: &mut Round<'_>, operation: &'static str, fault: Fault) {
    let times = if operation == READ { 2 } else { round.rng.usize(3..=12) };
    for _ in 0..times {
        round.proxy.next(operation, fault);
    }
    round.publish_portion().await;
    until("every spoiled answer was given", async || (round.proxy.left(operation) == 0).then_some(())).await;
    round.history.note(format!("{times} spoiled answers given"));
}

/// Events flow until the instances noticed that nothing can be remembered; all of them are done all the same.
async fn without_memory(round: &mut Round<'_>) {
    const REMEMBERED: &str = "recordkeeper_dedupe_remembered_total";
    let before = round.fleet.metric(REMEMBERED, "").await - round.fleet.metric(REMEMBERED, "result=\"ok\"").await;
    round.publish_portion().await;
    until("ids that could not be remembered", async || {
        let now = round.fleet.metric(REMEMBERED, "").await - round.fleet.metric(REMEMBERED, "result=\"ok\"").await;
        (now > before).then_some(())
    })
    .await;
    round.all_attested().await;
}

/// Stopped past the session's end and back: what it had under way goes on under another owner's eyes.
async fn zombie(round: &mut Round<'_>) {
    round.fleet.grow_to(2).await;
    round.fleet.balanced().await;
    for _ in 0..6 {
        round.proxy.next(WRITE, Fault::AnswersAfter(Duration::from_millis(700)));
    }
    round.publish_half().await;
    let which = round.rng.usize(..round.fleet.len());
    round.fleet.freeze(which).await;
    round.fleet.taken_over().await;
    round.publish_half().await;
    round.all_attested().await;
    round.fleet.thaw(which).await;
    round.fleet.balanced().await;
}

/// Three instances and more join and leave while events flow.
async fn storm(round: &mut Round<'_>) {
    round.fleet.grow_to(3).await;
    for turn in 0..4 {
        if turn % 2 == 0 {
            round.publish_half().await;
        }
        round.fleet.start(None).await;
        round.fleet.balanced().await;
        let which = round.rng.usize(..round.fleet.len());
        round.fleet.stop(which).await;
    }
}

/// The group forgets its checkpoints while nobody is there.
async fn offsets_expired(round: &mut Round<'_>) {
    let count = round.fleet.len();
    while round.fleet.len() > 0 {
        round.fleet.stop(0).await;
    }
    let group = round.deployment.group();
    until("the group is empty, and gone", async || round.kafka.delete_group(&group).await.then_some(())).await;
    assert!(round.checkpoints().values().all(|next| *next < 0), "all checkpoints are gone");
    round.committed.clear();
    round.history.note("the group's checkpoints are gone");
    round.fleet.grow_to(count).await;
    round.publish_portion().await;
    round.all_attested().await;
}

async fn broker_restart(round: &mut Round<'_>) {
    let before = round.attested().await;
    round.publish_half().await;
    round.attested_above(before).await;
    round.kafka.kill_node(1).await;
    round.history.note("broker killed");
    until("the instances notice", async || {
        let ready = round.fleet.metric("recordkeeper_ready", "dependency=\"kafka\"").await;
        (ready < round.fleet.len() as u64).then_some(())
    })
    .await;
    round.kafka.restart_killed().await;
    round.history.note("broker back");
    round.publish_half().await;
    round.all_attested().await;
}

/// The leader of a partition that is read, written or committed to dies; another takes over, and it comes back.
async fn leader_lost(round: &mut Round<'_>) {
    let source = round.deployment.topic("wallet-events");
    let topics = [&source, &round.deployment.requests, &round.deployment.dead_letters, "__consumer_offsets"];
    let (topic, partition) = (topics[round.rng.usize(..topics.len())].to_owned(), round.rng.i32(0..3));
    let before = round.attested().await;
    round.publish_half().await;
    round.attested_above(before).await;
    let leader = round.kafka.leader(&topic, partition).expect("a leader");
    round.kafka.kill_node(leader).await;
    round.history.note(format!("node {leader} killed, leader of {topic}/{partition}"));
    until("another leader", async || round.kafka.leader(&topic, partition).filter(|now| *now != leader)).await;
    round.publish_half().await;
    round.all_attested().await;
    round.kafka.restart_killed().await;
    until("all replicas in sync", async || (round.kafka.in_sync(&topic, partition) == 3).then_some(())).await;
}
