//! Logs that grow by a partition, lose their beginning, and have gaps.

use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use serde_json::json;

use crate::deployment::{Deployment, Event, RUN_MAX, text};
use crate::running::{Running, until};
use crate::{ledger, services};

fn transaction(id: &str) -> String {
    let data = json!({"transaction_id": id, "wallet_id": "ext:w", "amount": "1", "asset": "x"});
    json!({"specversion": "1.0", "id": id, "source": "/bank", "type": "transaction.submitted", "data": data})
        .to_string()
}

fn on(partition: i32, id: &str) -> Event {
    Event { partition: Some(partition), ..Event::new("transaction-events", "ext:w", transaction(id)) }
}

async fn ids(deployment: &Deployment) -> Vec<String> {
    let mut ids: Vec<String> =
        deployment.scan("wallet_records").await.iter().map(|record| text(record, "event_id").to_owned()).collect();
    ids.sort();
    ids
}

/// c-02: a group that began at the end of its topic reads a partition that appears later from its first record.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_appears_later_is_read_from_its_first_record() {
    let deployment = Deployment::start("c02", "wallets", 2).await;
    let file = deployment.dir.join("pipelines/wallets.yaml");
    let yaml = std::fs::read_to_string(&file).unwrap();
    let changed = yaml.replace("start: earliest", "start: latest");
    assert_ne!(changed, yaml);
    std::fs::write(&file, changed).unwrap();
    deployment.publish(&[on(0, "before"), on(1, "before too")]).await;

    let run = Running::start(&deployment, "run.log", &["run"], &[]);
    let topic = deployment.topic("transaction-events");
    until("the group's begin on the topic", async || {
        let items = deployment.scan("ledger").await;
        let begun = |id: &str| id.starts_with("start#") && id.contains(&topic);
        items.iter().any(|item| begun(text(item, "ledger_id"))).then_some(())
    })
    .await;
    services::kafka().await.add_partitions(&topic, 4).await;
    deployment.publish(&[on(2, "new"), on(3, "new too"), on(0, "after"), on(2, "newer")]).await;
    until("all of them", async || (ids(&deployment).await.len() == 4).then_some(())).await;
    assert_eq!(ids(&deployment).await, ["after", "new", "new too", "newer"], "and none from before the group began");
    run.terminate().await;
    let stderr = run.stderr();
    assert_eq!(run.ended().await.0, Some(0), "{stderr}");
}

/// c-03: what retention took away before it was read is said to be lost, once; the rest is read from where the log begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_beginning_is_read_from_where_it_begins() {
    let deployment = Deployment::start("c03", "wallets", 1).await;
    let events: Vec<Event> = (0..620).map(|n| on(0, &format!("{n:04}"))).collect();
    deployment.publish(&events[..10]).await;
    assert_eq!(deployment.run_until_idle().await.code, Some(0));
    deployment.publish(&events[10..]).await;
    services::kafka().await.delete_records(&deployment.topic("transaction-events"), 0, 520).await;

    let run = deployment.run_until_idle().await;
    assert_eq!((run.code, run.count("consumed"), run.count("recorded")), (Some(0), 100, 100), "{}", run.stderr);
    run.assert_sums();
    let told: Vec<&str> = run.stderr.lines().filter(|line| line.contains("retention_gap")).collect();
    assert_eq!(told.len(), 1, "{}", run.stderr);
    assert!(told[0].contains("(9, 519]"), "{}", told[0]);
    let chain = &ledger::chains(&deployment).await[0];
    assert_eq!(chain.end, 620);
    let count = |wanted: &str| chain.outcomes.iter().filter(|outcome| *outcome == wanted).count();
    assert_eq!((count("r"), count("l")), (110, 510));
    assert_eq!(chain.outcomes[9..11], ["r", "l"]);
    assert_eq!(chain.outcomes[519..521], ["l", "r"]);

    let again = deployment.run_until_idle().await;
    assert_eq!((again.code, again.count("consumed")), (Some(0), 0));
    assert!(!again.stderr.contains("retention_gap"), "{}", again.stderr);
    crate::tampering::assert_sound(&deployment).await;
}

/// c-04: aborted records are never recorded, nothing waits for the offsets of markers, and the ledger has holes there.
#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_and_markers_are_holes() {
    let deployment = Deployment::start("c04", "wallets", 1).await;
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &deployment.bootstrap)
        .set("transactional.id", &deployment.name)
        .create()
        .unwrap();
    producer.init_transactions(RUN_MAX).unwrap();
    let topic = deployment.topic("transaction-events");
    for (id, commit) in [("seen", true), ("aborted", false), ("seen too", true), ("aborted too", false)] {
        producer.begin_transaction().unwrap();
        let value = transaction(id);
        let record = FutureRecord::to(&topic).partition(0).key("ext:w").payload(&value);
        producer.send_result(record).map_err(|(error, _)| error).unwrap().await.unwrap().unwrap();
        if commit {
            producer.commit_transaction(RUN_MAX).unwrap();
        } else {
            producer.abort_transaction(RUN_MAX).unwrap();
        }
    }
    let run = deployment.run_until_idle().await;
    assert_eq!((run.code, run.count("consumed"), run.count("recorded")), (Some(0), 2, 2), "{}", run.stderr);
    assert_eq!(ids(&deployment).await, ["seen", "seen too"]);
    // seen, marker, aborted, marker, seen too: what lies above the last record is no position of anything.
    assert_eq!(ledger::chains(&deployment).await[0].outcomes, ["r", "h", "h", "h", "r"]);

    let service = Running::start(&deployment, "run.log", &["run"], &[]);
    let address = service.admin().await;
    let lag = "recordkeeper_lag{";
    until("no lag", async || {
        let page = crate::running::page(&address, "/metrics").await;
        let mine: Vec<&str> =
            page.lines().filter(|line| line.starts_with(lag) && line.contains("transaction-events")).collect();
        (!mine.is_empty() && mine.iter().all(|line| line.ends_with(" 0"))).then_some(())
    })
    .await;
    service.terminate().await;
    assert_eq!(service.ended().await.0, Some(0));
    deployment.publish(&[on(0, "later")]).await;
    assert_eq!(deployment.run_until_idle().await.count("recorded"), 1);
    assert_eq!(ledger::chains(&deployment).await[0].outcomes, ["r", "h", "h", "h", "r", "h", "h", "h", "r"]);
    crate::tampering::assert_sound(&deployment).await;
}
