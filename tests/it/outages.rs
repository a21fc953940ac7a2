//! Outages of others while there is work: nothing is lost, nothing is doubled, and it is said who is away.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bad_redis::{BadRedis, Mode};
use crate::deployment::{Deployment, Event, text};
use crate::fault_proxy::FaultProxy;
use crate::running::{Running, attested, page, until};
use crate::{ledger, services};

fn event(partition: i32, id: &str) -> Event {
    let value = json!({"specversion": "1.0", "id": id, "source": "/outage", "type": "transaction.confirmed",
        "data": {"transaction_id": id, "wallet_id": "ext:w", "amount": "1", "asset": "ETH"}});
    Event { partition: Some(partition), ..Event::new("transaction-events", "k", value.to_string()) }
}

fn events(partition: i32, name: &str, range: std::ops::Range<u64>) -> Vec<Event> {
    range.map(|n| event(partition, &format!("{name}-{n}"))).collect()
}

async fn all_committed(deployment: &Deployment, wanted: i64) {
    until(&format!("{wanted} committed"), async || {
        let committed: i64 = deployment.committed("transaction-events", 2).values().map(|next| (*next).max(0)).sum();
        (committed == wanted).then_some(())
    })
    .await;
}

/// The number of a metric's series.
async fn metric(admin: &str, series: &str) -> f64 {
    let text = page(admin, "/metrics").await;
    let row = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    row.unwrap_or_else(|| panic!("no {series} in {text}"))
}

/// State and reason of each dependency, and whether the whole is ready.
async fn readiness(admin: &str) -> (bool, BTreeMap<String, (String, String)>) {
    let answer = page(admin, "/readyz").await;
    let report: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(answer.starts_with("HTTP/1.1 200"), report["ready"] == true, "{answer}");
    let told = |dependency: &Value, name: &str| dependency[name].as_str().unwrap_or_default().to_owned();
    let dependencies = report["dependencies"].as_array().unwrap().iter();
    let of = dependencies.map(|one| (told(one, "name"), (told(one, "state"), told(one, "reason"))));
    (report["ready"] == true, of.collect())
}

async fn assert_alive(admin: &str) {
    assert!(page(admin, "/livez").await.starts_with("HTTP/1.1 200"), "an outage of others is no reason to die");
}

async fn recorded(deployment: &Deployment) -> usize {
    let records = deployment.scan("wallet_records").await;
    records.iter().filter(|record| text(record, "record_id").starts_with("/outage|")).count()
}

/// c-12: under load Redis refuses, is silent, answers errors, answers garbage; then it is back. The store finds the duplicates
/// meanwhile; that the cache is away and that an event is a duplicate are counted apart.
#[tokio::test(flavor = "multi_thread")]
async fn redis_in_every_bad_shape_costs_nothing_but_time() {
    let mut deployment = Deployment::start("c12", "wallets", 2).await;
    let redis = BadRedis::start(services::redis().await.port).await;
    deployment.redis = Some(redis.url.clone());
    let env = [("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "10"), ("RECORDKEEPER_REDIS_DEADLINE", "100ms")];
    let run = Running::start(&deployment, "run.log", &["run", "--summary", "json"], &env);
    let admin = run.admin().await;
    let (mut unique, mut doubled) = (0, 0);
    for (name, mode) in
        [("refuses", Mode::Refuses), ("silent", Mode::Silent), ("errors", Mode::Errors), ("garbage", Mode::Garbage)]
    {
        redis.becomes(mode);
        let before = redis.connections();
        // Each event twice, on two partitions.
        deployment.publish(&[events(0, name, 0..150), events(1, name, 0..150)].concat()).await;
        (unique, doubled) = (unique + 150, doubled + 150);
        attested(&deployment).await;
        all_committed(&deployment, unique + doubled).await;
        let reason = until("readiness to name redis", async || {
            let (ready, mut dependencies) = readiness(&admin).await;
            assert!(ready, "{name}: work goes on");
            let (state, reason) = dependencies.remove("redis")?;
            (state == "degraded").then_some(reason)
        })
        .await;
        assert!(reason.contains("redis gives no answer"), "{name}: {reason}");
        assert_alive(&admin).await;
        // Five calls in a row and a trial now and then, on two connections each.
        let opened = redis.connections() - before;
        assert!(opened <= 30, "{name}: a storm of {opened} connections");
        assert_eq!(recorded(&deployment).await as i64, unique, "{name}");
    }
    let counted = |result: &str| format!("recordkeeper_dedupe_lookups_total{{result=\"{result}\"}}");
    assert!(metric(&admin, &counted("open")).await > 0.0 && metric(&admin, &counted("away")).await > 0.0);
    let known = metric(&admin, &counted("known")).await;

    redis.becomes(Mode::Well);
    until("the cache to know an id again", async || {
        let fresh = event(0, &format!("back-{unique}"));
        deployment.publish(std::slice::from_ref(&fresh)).await;
        all_committed(&deployment, unique + doubled + 1).await;
        deployment.publish(&[fresh]).await;
        (unique, doubled) = (unique + 1, doubled + 1);
        all_committed(&deployment, unique + doubled).await;
        (metric(&admin, &counted("known")).await > known).then_some(())
    })
    .await;
    assert_eq!(metric(&admin, "recordkeeper_breaker_state{dependency=\"redis\"}").await, 0.0);
    until("redis is ready", async || (readiness(&admin).await.1["redis"].0 == "ready").then_some(())).await;
    run.terminate().await;
    let (code, stdout) = run.ended().await;
    let summary: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!((&summary["recorded"], &summary["duplicate"]), (&json!(unique), &json!(doubled)), "{summary}");
    assert_eq!(recorded(&deployment).await as i64, unique);
    ledger::assert_holds(&deployment, (unique + doubled) as u64).await;
}

/// c-16 and c-33: the store refuses one item for ever and some others once; then everything for a while.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_leaves_over_alone_is_tried_again_and_a_stuck_item_stops_its_partition_alone() {
    let deployment = Deployment::start("c16", "wallets", 2).await;
    let store = FaultProxy::start(&deployment.dynamodb).await;
    store.answer("wallet_records", "/outage|stuck-20", "InternalServerError");
    store.answer_once(30);
    deployment.publish(&[events(0, "stuck", 0..50), events(1, "beside", 0..100)].concat()).await;
    let env =
        [("AWS_ENDPOINT_URL_DYNAMODB", store.endpoint.as_str()), ("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "20")];
    let run = Running::start(&deployment, "run.log", &["run"], &env);
    let admin = run.admin().await;
    let alert = run.line_with("\"alert\":\"stalled_partition\"").await;
    let alert: Value = serde_json::from_str(&alert).unwrap();
    let topic = deployment.topic("transaction-events");
    assert_eq!((&alert["topic"], &alert["partition"]), (&json!(topic), &json!("0")));
    assert!(alert.to_string().contains("-wallet_records"), "names the table: {alert}");

    until("the other partition", async || (deployment.committed("transaction-events", 2)[&1] == 100).then_some(()))
        .await;
    assert_eq!(deployment.committed("transaction-events", 2)[&0], 20, "not past the one that is stuck");
    let (mut once, mut twice) = (0, 0);
    for (record, count) in store.records() {
        match (record.as_str(), count) {
            ("/outage|stuck-20", count) => assert!((9..30).contains(&count), "{count} tries: no busy loop"),
            (_, 1) => once += 1,
            (_, 2) => twice += 1,
            (record, count) => panic!("{record}: {count} times, though it was refused once at most"),
        }
    }
    assert!(once > 60 && twice > 20, "{once} {twice}");
    let group = deployment.group();
    let stalled = async |partition: &str| {
        let labels = format!("{{group=\"{group}\",topic=\"{topic}\",partition=\"{partition}\"}}");
        metric(&admin, &format!("recordkeeper_partition_stalled_seconds{labels}")).await
    };
    until("the stuck partition's own metric", async || (stalled("0").await > 1.0).then_some(())).await;
    assert_eq!(stalled("1").await, 0.0);
    assert!(readiness(&admin).await.0, "one stuck item is no outage");
    assert_eq!(metric(&admin, "recordkeeper_alerts_total{alert=\"dependency_away\"}").await, 0.0);

    store.away(true);
    let before = store.calls("BatchExecuteStatement");
    deployment.publish(&events(1, "later", 0..30)).await;
    let reason = until("readiness to name the table", async || {
        let (ready, dependencies) = readiness(&admin).await;
        (!ready).then(|| dependencies["tables"].1.clone())
    })
    .await;
    assert!(
        reason.contains("wallet_records_writes gives no answer") && reason.contains("InternalServerError"),
        "{reason}"
    );
    assert_alive(&admin).await;
    assert_eq!(deployment.committed("transaction-events", 2)[&1], 100);
    let calls = store.calls("BatchExecuteStatement") - before;
    assert!(calls < 40, "{calls} calls to a store that is away");
    store.away(false);
    until("the other partition", async || (deployment.committed("transaction-events", 2)[&1] == 130).then_some(()))
        .await;
    until("ready again", async || readiness(&admin).await.0.then_some(())).await;
    assert_eq!(deployment.committed("transaction-events", 2)[&0], 20);
    store.mend();
    all_committed(&deployment, 180).await;
    run.terminate().await;
    assert_eq!(run.ended().await.0, Some(0));
    assert_eq!(recorded(&deployment).await, 180);
    ledger::assert_holds(&deployment, 180).await;
}

/// c-33: the brokers go away and come back: alive all the while, not ready meanwhile, and it goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn without_brokers_it_is_alive_and_not_ready_and_goes_on_once_they_are_back() {
    let broker = services::KafkaBroker::start().await;
    let deployment = Deployment::start_on(&broker, "c33", "wallets", 2).await;
    deployment.publish(&events(0, "before", 0..10)).await;
    let run = Running::start(&deployment, "run.log", &["run"], &[]);
    let admin = run.admin().await;
    attested(&deployment).await;
    until("ready", async || readiness(&admin).await.0.then_some(())).await;
    broker.kill().await;
    let (state, reason) = until("readiness to name the brokers", async || {
        let (ready, dependencies) = readiness(&admin).await;
        (!ready).then(|| dependencies["kafka"].clone())
    })
    .await;
    assert!(state == "not_ready" && !reason.is_empty(), "{state} {reason}");
    assert_alive(&admin).await;
    broker.restart_killed().await;
    until("ready again", async || readiness(&admin).await.0.then_some(())).await;
    assert_alive(&admin).await;
    deployment.publish(&events(1, "after", 0..10)).await;
    all_committed(&deployment, 20).await;
    run.terminate().await;
    assert_eq!(run.ended().await.0, Some(0));
    assert_eq!(recorded(&deployment).await, 20);
    ledger::assert_holds(&deployment, 20).await;
}

/// c-33: a stopped process (SIGSTOP) answers no probe; another takes over; woken up again it is alive, and what it had in hand
/// is neither lost nor doubled.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_answers_no_probe_and_doubles_nothing_when_it_wakes_up() {
    let deployment = Deployment::start("c33s", "wallets", 2).await;
    let file = deployment.dir.join("pipelines/wallets.yaml");
    let pipeline = std::fs::read_to_string(&file).unwrap();
    // Whose session ends is for the member to say in the classic protocol only.
    let classic = pipeline.replace("    start: earliest\n", "    start: earliest\n    protocol: classic\n");
    assert_ne!(classic, pipeline);
    std::fs::write(&file, classic).unwrap();
    let env =
        [("RECORDKEEPER_KAFKA_OPTIONS", "session.timeout.ms=6000"), ("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "20")];
    deployment.publish(&[events(0, "e", 0..3000), events(1, "f", 0..3000)].concat()).await;
    let stopped = Running::start(&deployment, "stopped.log", &["run"], &env);
    let admin = stopped.admin().await;
    attested(&deployment).await;
    stopped.signal("STOP").await;
    until("all of its threads to stop", async || stopped.is_stopped().then_some(())).await;
    let probe = tokio::time::timeout(Duration::from_secs(1), page(&admin, "/livez")).await;
    assert!(probe.is_err(), "a probe gets no answer: {probe:?}");
    let other = Running::start(&deployment, "other.log", &["run"], &env);
    deployment.publish(&[events(0, "e", 3000..3050), events(1, "f", 3000..3050)].concat()).await;
    all_committed(&deployment, 6100).await;
    stopped.signal("CONT").await;
    until("alive again", async || page(&admin, "/livez").await.starts_with("HTTP/1.1 200").then_some(())).await;
    deployment.publish(&[events(0, "e", 3050..3100), events(1, "f", 3050..3100)].concat()).await;
    all_committed(&deployment, 6200).await;
    for run in [stopped, other] {
        run.terminate().await;
        assert_eq!(run.ended().await.0, Some(0));
    }
    assert_eq!(recorded(&deployment).await, 6200);
    let chains = ledger::assert_holds(&deployment, 6200).await;
    assert!(
        chains.iter().flat_map(|chain| &chain.outcomes).all(|outcome| *outcome == "r"),
        "each recorded, none a duplicate"
    );
}
