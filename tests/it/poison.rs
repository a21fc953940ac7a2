//! A schema that changed upstream: what carries it waits, everything else goes on, and nothing is emptied into quarantine.

use rdkafka::Message as _;
use serde_json::{Value, json};

use crate::deployment::{Deployment, Event, header};
use crate::ledger;
use crate::running::{Running, page, until};

/// A small window, so that a few events show it.
const LIMIT: [(&str, &str); 3] = [
    ("RECORDKEEPER_ENGINE_POISON_WINDOW", "20"),
    ("RECORDKEEPER_ENGINE_POISON_EVENTS_MIN", "10"),
    ("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "1"),
];

fn transaction(partition: i32, id: &str, amount: Value) -> Event {
    let value = json!({"specversion": "1.0", "id": id, "source": "/poison", "type": "transaction.confirmed",
        "data": {"transaction_id": id, "wallet_id": "ext:w", "amount": amount, "asset": "ETH"}});
    Event { partition: Some(partition), ..Event::new("transaction-events", "k", value.to_string()) }
}

fn status(partition: i32, id: &str, version: u64) -> Event {
    let value = json!({"specversion": "1.0", "id": id, "source": "/poison", "type": "wallet.status_changed",
        "data": {"wallet_id": "ext:w", "wallet_status": "active", "version": version}});
    Event { partition: Some(partition), ..Event::new("wallet-events", "k", value.to_string()) }
}

fn good(partition: i32, range: std::ops::Range<u64>) -> Vec<Event> {
    range.map(|n| transaction(partition, &format!("good-{partition}-{n}"), json!("1"))).collect()
}

/// As after a change of the schema upstream: amounts became objects.
fn changed(partition: i32, range: std::ops::Range<u64>) -> Vec<Event> {
    range.map(|n| transaction(partition, &format!("changed-{partition}-{n}"), json!({"value": 1}))).collect()
}

async fn metric(admin: &str, line: &str) {
    until(line, async || page(admin, "/metrics").await.contains(line).then_some(())).await;
}

/// Letters of a route that is poisoned stop, its partition waits and is let go of in time; other partitions and other routes
/// go on; a new start with a raised limit goes on from where it stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_route_pauses_what_carries_it_and_nothing_else() {
    let deployment = Deployment::start("poison", "wallets", 2).await;
    deployment.publish(&changed(0, 0..40)).await;
    let group = deployment.group();
    let run = Running::start(&deployment, "run.log", &["run"], &LIMIT);
    let admin = run.admin().await;
    let alert = run.line_with("\"alert\":\"poisoned_route\"").await;
    for part in ["route transaction-confirmed", "10 of the last 10", "poison_share_max", "start again"] {
        assert!(alert.contains(part), "{part}: {alert}");
    }
    metric(&admin, &format!("recordkeeper_poisoned_partitions{{group=\"{group}\",route=\"transaction-confirmed\"}} 1"))
        .await;

    // What comes later: the same route where it is all right, other routes, and what it says of itself.
    deployment.publish(&[good(1, 0..5), vec![status(0, "beside", 1), status(1, "besides", 2)]].concat()).await;
    until("the other partitions", async || {
        let (transactions, wallets) =
            (deployment.committed("transaction-events", 2), deployment.committed("wallet-events", 2));
        (transactions[&1] == 5 && wallets[&0] == 1 && wallets[&1] == 1).then_some(())
    })
    .await;
    assert!(page(&admin, "/readyz").await.starts_with("HTTP/1.1 200"), "others go on");
    assert!(page(&admin, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(page(&admin, "/").await.contains("route transaction-confirmed is poisoned"));
    assert_eq!(deployment.read_topic(&deployment.dead_letters).len(), 9, "before the one that was too many");
    assert_eq!(deployment.committed("transaction-events", 2)[&0], 9);
    assert!(page(&admin, "/metrics").await.contains("recordkeeper_alerts_total{alert=\"poisoned_route\"} 1\n"));
    run.terminate().await;
    let (code, _) = run.ended().await;
    assert_eq!(code, Some(0), "what was not decided is let go of");
    assert_eq!(deployment.read_topic(&deployment.dead_letters).len(), 9);

    let run = deployment.run_with(&[("RECORDKEEPER_ENGINE_POISON_SHARE_MAX", "off")]).await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.assert_sums();
    assert_eq!(run.dead("schema"), 31, "{}", run.summary);
    let letters = deployment.read_topic(&deployment.dead_letters);
    assert_eq!(letters.len(), 40, "each once");
    ledger::assert_holds(&deployment, 47).await;
}

/// A run that is to end when all is read cannot end so: it fails, names the route, and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_until_idle_fails_on_a_poisoned_route_and_names_it() {
    let deployment = Deployment::start("poison-idle", "wallets", 1).await;
    let strangers = (0..30).map(|n| Event::new("wallet-events", "k", format!(r#"{{"no":"event","n":{n}}}"#)));
    deployment.publish(&[good(0, 0..20), strangers.collect()].concat()).await;
    let run = deployment.run_with(&LIMIT).await;
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("\"alert\":\"poisoned_route\""), "{}", run.stderr);
    let topic = deployment.topic("wallet-events");
    assert!(run.stderr.contains(&format!("what no route takes of topic {topic}")), "{}", run.stderr);
    run.assert_sums();
    let letters = deployment.read_topic(&deployment.dead_letters);
    assert_eq!(letters.len(), 9);
    assert!(letters.iter().all(|letter| header(letter, "recordkeeper-origin-topic") == Some(&*topic)));
    assert!(letters.iter().all(|letter| letter.payload().is_some_and(|value| value.starts_with(b"{\"no\""))));
}

/// A refusal here and there is no poison, and what the ledger holds does not count.
#[tokio::test(flavor = "multi_thread")]
async fn some_refused_events_and_those_that_the_ledger_holds_stop_nothing() {
    let deployment = Deployment::start("poison-some", "wallets", 1).await;
    let mixed: Vec<Event> = (0..40).flat_map(|n| [good(0, n..n + 1), changed(0, n..n + 1)].concat()).collect();
    deployment.publish(&mixed).await;
    let run = deployment.run_with(&LIMIT).await;
    assert_eq!((run.code, run.dead("schema")), (Some(0), 40), "{}", run.stderr);
    // All of it again, from the start, under a limit that it would break.
    deployment.reset_to_start("transaction-events", 1);
    let strict = [LIMIT.as_slice(), &[("RECORDKEEPER_ENGINE_POISON_SHARE_MAX", "10%")]].concat();
    let run = deployment.run_with(&strict).await;
    assert_eq!((run.code, run.count("consumed")), (Some(0), 80), "{}", run.stderr);
    assert_eq!(deployment.read_topic(&deployment.dead_letters).len(), 40, "no second letter");
    // Nor do they speak for those that come after them.
    deployment.reset_to_start("transaction-events", 1);
    deployment.publish(&changed(0, 100..130)).await;
    let run = deployment.run_with(&strict).await;
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("10 of the last 10 events were refused"), "{}", run.stderr);
    assert_eq!(deployment.read_topic(&deployment.dead_letters).len(), 49);
}
