//! Members that come and go, and a request topic that is away: checkpoints never lie above what is done, and never go back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::deployment::{Deployment, Event, text};
use crate::ledger;
use crate::manifest::request_id;
use crate::running::{Running, page, until};
use crate::services::{self, KafkaBroker};
use crate::slow_relay::SlowRelay;

fn event(topic: &str, partition: i32, id: &str, kind: &str, data: Value) -> Event {
    let value = json!({"specversion": "1.0", "id": id, "source": "/field", "type": kind, "data": data});
    Event { partition: Some(partition), ..Event::new(topic, "k", value.to_string()) }
}

fn metric(page: &str, name: &str, holds: &str) -> u64 {
    let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(holds));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// How often a third member joins and leaves: RECORDKEEPER_TEST_TURNS where it is set.
fn turns() -> u32 {
    std::env::var("RECORDKEEPER_TEST_TURNS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Checkpoints, each of which must not be below what was seen of it before.
struct Watch<'a> {
    deployment: &'a Deployment,
    highest: BTreeMap<i32, i64>,
}

impl Watch<'_> {
    /// What is checkpointed in all.
    fn look(&mut self) -> i64 {
        for (partition, next) in self.deployment.committed("transaction-events", 8) {
            let highest = self.highest.entry(partition).or_insert(next);
            assert!(next >= *highest, "partition {partition} went back from {highest} to {next}");
            *highest = next;
        }
        self.highest.values().map(|next| (*next).max(0)).sum()
    }
}

/// c-20: two members over a slow store; a third joins and leaves, over and over. No checkpoint goes back, everything moves, what
/// is in flight when its partition goes is finished by its member, and nothing is lost or done twice.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_and_go_move_no_checkpoint_back() {
    let deployment = Deployment::start("c20", "wallets", 8).await;
    let upstream = deployment.dynamodb.strip_prefix("http://").unwrap();
    let slow = SlowRelay::start(upstream, Duration::from_millis(60)).await;
    let endpoint = format!("http://{}", slow.address);
    let env = [
        ("AWS_ENDPOINT_URL_DYNAMODB", endpoint.as_str()),
        ("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "10"),
        ("RECORDKEEPER_KAFKA_OPTIONS", "heartbeat.interval.ms=500"),
    ];
    let mut watch = Watch { deployment: &deployment, highest: BTreeMap::new() };
    let mut published = 0;
    let mut publish = async |more: i32| {
        let events: Vec<Event> = (published..published + more)
            .map(|n: i32| {
                let id = format!("e{n}");
                let data = json!({"transaction_id": id, "wallet_id": "ext:w", "amount": "1", "asset": "x"});
                event("transaction-events", n % 8, &id, "transaction.submitted", data)
            })
            .collect();
        published += more;
        deployment.publish(&events).await;
        i64::from(published)
    };
    let stay = [0, 1].map(|n| Running::start(&deployment, &format!("stays-{n}.log"), &["run"], &env));
    let admins = [stay[0].admin().await, stay[1].admin().await];
    let mut all = 0;
    for turn in 0..turns() {
        // Seconds of work, so that partitions move in the middle of it.
        all = publish(4_000).await;
        let third = Running::start(&deployment, &format!("third-{turn}.log"), &["run", "--summary", "json"], &env);
        let admin = third.admin().await;
        until("partitions of the third", async || {
            watch.look();
            let now = page(&admin, "/metrics").await;
            (metric(&now, "recordkeeper_assigned_partitions", "") > 0).then_some(())
        })
        .await;
        assert!(watch.look() < all, "there is work left");
        all = publish(800).await;
        third.terminate().await;
        until("the third drained", async || {
            watch.look();
            third.stderr().contains("told to stop").then_some(())
        })
        .await;
        let (code, stdout) = third.ended().await;
        let summary: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((code, &summary["repeated"]), (Some(0), &json!(0)), "{summary}");
        until("everything checkpointed, by whomever", async || (watch.look() == all).then_some(())).await;
    }
    for (running, admin) in stay.into_iter().zip(&admins) {
        let end = page(admin, "/metrics").await;
        assert_eq!(metric(&end, "recordkeeper_rebalances_total", "kind=\"lost\""), 0, "{end}");
        assert_eq!(metric(&end, "recordkeeper_repeated_total", ""), 0, "{end}");
        running.terminate().await;
        assert_eq!(running.ended().await.0, Some(0));
    }
    assert_eq!(deployment.scan("wallet_records").await.len() as i64, all);
    let chains = ledger::assert_holds(&deployment, all.unsigned_abs()).await;
    assert!(chains.iter().flat_map(|chain| &chain.outcomes).all(|outcome| outcome == "r"));
}

/// c-27: the broker of the request topic is away for longer than a message may take; told to stop meanwhile, then, once more,
/// killed; then all is back. No position is checkpointed, attested or remembered before its request is acknowledged, and in
/// the end every request is on the topic.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_acknowledged_holds_its_position() {
    let kafka = KafkaBroker::start_cluster(3, "").await;
    let mut deployment = Deployment::start_on(&kafka, "c27", "wallets", 1).await;
    let source = deployment.topic("wallet-events");
    let leads = kafka.leader(&source, 0).expect("a leader");
    let node = (1..=3).find(|node| *node != leads).unwrap();
    deployment.requests = format!("{}-one-replica", deployment.requests);
    kafka.create_topic_on(&deployment.requests, node).await;
    let env = [
        ("RECORDKEEPER_REDIS_KEY_PREFIX", deployment.name.as_str()),
        ("RECORDKEEPER_KAFKA_MESSAGE_TIMEOUT", "1s"),
        ("RECORDKEEPER_ENGINE_DRAIN_DEADLINE", "2s"),
        ("RECORDKEEPER_KAFKA_GROUP_INSTANCE_ID", "one"),
        ("RUST_LOG", "recordkeeper=debug"),
    ];
    let status = |n: u64| {
        let data = json!({"wallet_id": "ext:w", "wallet_status": "active", "version": n});
        event("wallet-events", 0, &format!("status-{n}"), "wallet.status_changed", data)
    };
    let wanted = |n: u64| {
        let data = json!({"user_id": format!("u{n}"), "chain": "evm:1", "custody": "hsm", "alias": "main"});
        event("wallet-events", 0, &format!("request-{n}"), "wallet.requested", data)
    };
    let checkpoint = async |is: i64, what: &str| {
        assert_eq!(deployment.committed("wallet-events", 1)[&0], is, "{what}");
        let attested: u64 = ledger::chains(&deployment).await.iter().map(|chain| chain.end).sum();
        assert_eq!(attested, is.unsigned_abs(), "{what}: attested");
        let keys: Vec<Vec<u8>> = services::redis().await.ask(&["KEYS", &format!("{}*", deployment.name)]).await;
        assert_eq!(keys.len() as u64, is.unsigned_abs(), "{what}: remembered");
    };
    let reaches = async |to: i64| {
        until("a checkpoint", async || (deployment.committed("wallet-events", 1)[&0] == to).then_some(())).await;
    };
    // Given back by the producer after its timeout, and asked again.
    let refused = async |run: &Running| {
        until("a request given back", async || {
            let said = run.stderr();
            said.lines().any(|line| line.contains("asking again") && line.contains("MessageTimedOut")).then_some(())
        })
        .await;
    };

    deployment.publish(&[status(1)]).await;
    for (cycle, killed) in [(0, false), (1, true)] {
        let run = Running::start(&deployment, &format!("run-{cycle}.log"), &["run"], &env);
        let done = 1 + cycle * 8;
        reaches(done).await;
        kafka.kill_node(node).await;
        let first = cycle.unsigned_abs() * 8;
        let more: Vec<Event> =
            (first..first + 5).map(wanted).chain((first..first + 3).map(|n| status(n + 2))).collect();
        deployment.publish(&more).await;
        refused(&run).await;
        checkpoint(done, "while the topic is away").await;
        if killed {
            run.kill().await;
        } else {
            run.terminate().await;
            let log = run.log.clone();
            assert_eq!(run.ended().await.0, Some(1), "what is left is said");
            assert!(std::fs::read_to_string(log).unwrap().contains("not drained in time"));
        }
        checkpoint(done, "after the end").await;
        kafka.restart_killed().await;
    }
    let run = deployment.run_with(&env).await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.assert_sums();
    checkpoint(17, "in the end").await;
    let requests: BTreeSet<String> = deployment.read_topic(&deployment.requests).iter().map(request_id).collect();
    assert_eq!(requests.len(), 10);
    let records = deployment.scan("wallet_records").await;
    let ids: BTreeSet<&str> = records.iter().map(|record| text(record, "event_id")).collect();
    assert_eq!((records.len(), ids.len()), (17, 17));
}
