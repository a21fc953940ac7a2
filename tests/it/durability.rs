//! Answers that are lost, and a death in the middle: what is said to be done is done, once.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::Message as _;
use serde_json::{Value, json};

use crate::deployment::{Deployment, Event, RUN_MAX, header, plain, text};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::running::{Running, attested, page, until};
use crate::slow_relay::SlowRelay;
use crate::{ledger, services};

const WALLET: &str = "evm:1:0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";

fn event(id: &str, kind: &str, data: Value) -> Event {
    let value = json!({"specversion": "1.0", "id": id, "source": "/field", "type": kind, "data": data});
    Event::new("wallet-events", "k", value.to_string())
}

fn status(id: &str, version: u64, status: &str) -> Event {
    event(id, "wallet.status_changed", json!({"wallet_id": WALLET, "wallet_status": status, "version": version}))
}

/// c-17: the store applies, then cuts the connection, for inserts, for versioned updates, for transactions: this very delivery is
/// recognised, nothing is doubled, no conflict, no dead letter, and the request is sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_applied_without_an_answer_is_recognised() {
    for transactional in [false, true] {
        let deployment = Deployment::start("c17", "wallets", 1).await;
        if transactional {
            deployment.make_transactional();
        }
        let wanted = json!({"user_id": "u", "chain": "evm:1", "custody": "hsm", "alias": "main"});
        let granted = json!({"user_id": "u", "wallet_id": WALLET, "role": "owner", "scopes": ["sign"],
            "granted_by": "admin", "version": 1});
        let events = [
            status("one", 1, "active"),
            status("two", 2, "frozen"),
            event("grant", "mapping.granted", granted),
            event("request", "wallet.requested", wanted),
            status("three", 3, "closed"),
        ];
        deployment.publish(&events).await;
        let store = FaultProxy::start(&deployment.dynamodb).await;
        // Judges, states, ledger: whichever comes first, all of the first calls lose their answers.
        for _ in 0..6 {
            store.next("BatchExecuteStatement", Fault::CutAfterApply);
            store.next("ExecuteTransaction", Fault::CutAfterApply);
        }
        let run = deployment.run_with(&[("AWS_ENDPOINT_URL_DYNAMODB", &store.endpoint)]).await;
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.assert_sums();
        assert_eq!((run.count("consumed"), run.count("recorded")), (5, 5), "{} {}", run.summary, run.stderr);
        assert!(store.calls(if transactional { "ExecuteTransaction" } else { "BatchExecuteStatement" }) > 6);
        assert_eq!(deployment.read_topic(&deployment.dead_letters).len(), 0);
        assert_eq!(deployment.scan("wallet_records").await.len(), 5);
        assert_eq!(plain(&deployment.scan("wallet_inventory").await[0])["wallet_status"], "closed");
        assert_eq!(deployment.scan("user_wallet_mapping").await.len(), 1);
        let requests = deployment.read_topic(&deployment.requests).len();
        assert_eq!(requests, 1, "one request, acknowledged once");
        assert_eq!(ledger::assert_holds(&deployment, 5).await[0].outcomes, ["r"; 5]);
    }
}

async fn recorded(deployment: &Deployment) -> BTreeSet<String> {
    deployment.scan("wallet_records").await.iter().map(|record| text(record, "event_id").to_owned()).collect()
}

/// c-21: several batches in flight over a slow store, a poison event among them, killed once its dead letter is out: nothing that
/// was not durable is checkpointed, and after the restart nothing is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_death_after_a_dead_letter_leaves_nothing_behind_it() {
    let deployment = Deployment::start("c21", "wallets", 1).await;
    let mut events: Vec<Event> = (0..60).map(|n| status(&format!("{n:02}"), n, "active")).collect();
    events[50] = Event::new("wallet-events", "k", "no event");
    deployment.publish(&events).await;
    let upstream = deployment.dynamodb.strip_prefix("http://").unwrap();
    let slow = SlowRelay::start(upstream, Duration::from_millis(400)).await;
    let endpoint = format!("http://{}", slow.address);
    let env = [
        ("AWS_ENDPOINT_URL_DYNAMODB", endpoint.as_str()),
        ("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "10"),
        ("RECORDKEEPER_ENGINE_BATCHES_IN_FLIGHT", "4"),
        ("RECORDKEEPER_KAFKA_GROUP_INSTANCE_ID", "one"),
    ];
    let run = Running::start(&deployment, "run.log", &["run"], &env);
    until("the dead letter", async || (!deployment.read_topic(&deployment.dead_letters).is_empty()).then_some(()))
        .await;
    run.kill().await;

    let committed = deployment.committed("wallet-events", 1)[&0].max(0);
    let attested = ledger::chains(&deployment).await.first().map_or(0, |chain| chain.end);
    assert!(u64::try_from(committed).unwrap() <= attested);
    let stored = recorded(&deployment).await;
    for offset in (0..attested).filter(|offset| *offset != 50) {
        assert!(stored.contains(&format!("{offset:02}")), "{offset} is attested, and not stored");
    }

    let run = deployment.run_with(&env[1..]).await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.assert_sums();
    assert_eq!(recorded(&deployment).await.len(), 59);
    let letters = deployment.read_topic(&deployment.dead_letters);
    let origins: BTreeSet<_> = letters.iter().map(|letter| header(letter, "recordkeeper-origin-offset")).collect();
    assert_eq!(origins, BTreeSet::from([Some("50")]));
    let chain = &ledger::assert_holds(&deployment, 60).await[0];
    assert_eq!(chain.outcomes.iter().filter(|outcome| *outcome == "r").count(), 59);
    assert_eq!(chain.outcomes[50], "xu");
}

/// c-24: the dead-letter topic goes away at run time: the partition waits at that event, with an alert, others go on, and
/// nothing is lost once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_dead_letter_topic_a_partition_waits_and_loses_nothing() {
    let deployment = Deployment::start("c24", "wallets", 2).await;
    let on = |partition: i32, event: Event| Event { partition: Some(partition), ..event };
    deployment.publish(&[on(0, status("first", 1, "active"))]).await;
    let run = Running::start(&deployment, "run.log", &["run"], &[("RECORDKEEPER_KAFKA_MESSAGE_TIMEOUT", "1s")]);
    attested(&deployment).await;
    let admin = run.admin().await;
    services::kafka().await.delete_topic(&deployment.dead_letters).await;
    let poison = Event::new("wallet-events", "k", "no event");
    deployment
        .publish(&[on(0, poison), on(0, status("behind", 2, "frozen")), on(1, status("beside", 3, "closed"))])
        .await;
    run.line_with("\"alert\":\"stalled_partition\"").await;
    until("the other partition", async || recorded(&deployment).await.contains("beside").then_some(())).await;
    assert_eq!(deployment.committed("wallet-events", 2)[&0], 1, "not past the event whose letter is not out");
    until("readiness to name the topic", async || {
        let answer = page(&admin, "/readyz").await;
        (answer.starts_with("HTTP/1.1 503") && answer.contains("dead_letter_topic gives no answer")).then_some(())
    })
    .await;

    services::kafka().await.create_topic(&deployment.dead_letters, 1, &[("max.message.bytes", "2200000")]).await;
    let all_of_it = async {
        // A client of a topic that was gone looks for it only now and then.
        while deployment.committed("wallet-events", 2)[&0] != 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(RUN_MAX, all_of_it).await.expect("goes on");
    until("ready again", async || page(&admin, "/readyz").await.starts_with("HTTP/1.1 200").then_some(())).await;
    assert_eq!(recorded(&deployment).await, BTreeSet::from(["first", "behind", "beside"].map(str::to_owned)));
    let letters = deployment.read_topic(&deployment.dead_letters);
    assert!(!letters.is_empty() && letters.iter().all(|letter| letter.payload() == Some(b"no event")));
    run.terminate().await;
    assert_eq!(run.ended().await.0, Some(0));
}
