//! The whole path on real parts: every position ends in exactly one outcome, whatever happens on the way.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::deployment::{Deployment, Event, RUN_MAX, add_further_record, plain, run_of, text};
use crate::ledger;
use crate::manifest::{Generated, assert_end_state, assert_ledger_is_durable};
use crate::slow_relay::SlowRelay;
use crate::tampering::assert_sound;

/// How many generated events a test takes: RECORDKEEPER_TEST_EVENTS where it is set (the full-size targets set it).
pub fn events_or(reduced: u64) -> u64 {
    std::env::var("RECORDKEEPER_TEST_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(reduced)
}

/// Generated events with everything in them: tables, dead letters, requests and counts equal the manifest.
#[tokio::test(flavor = "multi_thread")]
async fn generated_events_end_as_the_manifest_says() {
    let deployment = Deployment::start("spine", "wallets", 8).await;
    let events = events_or(20_000);
    let manifest = Generated::publish(&deployment, events, 7).await.manifest;
    let run = deployment.run_until_idle().await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.assert_sums();
    for count in ["consumed", "recorded", "duplicate", "skipped"] {
        assert_eq!(run.count(count), manifest[count].as_u64().unwrap(), "{count}");
    }
    for (reason, n) in manifest["dead_lettered"].as_object().unwrap() {
        assert_eq!(run.dead(reason), n.as_u64().unwrap(), "{reason}");
    }
    assert_eq!((run.count("in_flight"), run.count("repeated")), (0, 0));
    assert!(run.count("stale") > 0 && run.count("ties") > 0);
    assert_end_state(&deployment, &manifest).await;
    let chains = ledger::assert_holds(&deployment, run.count("consumed")).await;
    assert_eq!(run.count("attested"), run.count("consumed"));
    let committed: u64 = ["wallet-events", "transaction-events"]
        .iter()
        .flat_map(|topic| deployment.committed(topic, 8).into_values())
        .map(|next| u64::try_from(next).unwrap_or(0))
        .sum();
    assert_eq!(committed, chains.iter().map(|chain| chain.end).sum::<u64>());
    assert_sound(&deployment).await;
}

/// The consumer is killed between each two steps of the protocol, over and over, on one log, its stores slowed; at each
/// kill the checkpoints lie at or below the ledger's ends, and what lies below those is durable; in the end nothing is
/// lost and nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_killed_between_any_two_steps_loses_nothing() {
    let deployment = Deployment::start("kill", "wallets", 8).await;
    let events = events_or(6_000);
    let generated = Generated::publish(&deployment, events, 11).await;
    let delay = Duration::from_millis(5);
    let dynamodb = SlowRelay::start(deployment.dynamodb.strip_prefix("http://").unwrap(), delay).await;
    let redis = SlowRelay::start(&format!("127.0.0.1:{}", crate::services::redis().await.port), delay).await;
    let (dynamodb, redis) = (format!("http://{}", dynamodb.address), format!("redis://{}", redis.address));
    let slowed = [
        ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.as_str()),
        ("RECORDKEEPER_REDIS_URL", redis.as_str()),
        ("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "100"),
        // A restart under the same name takes its partitions over at once, as a stateful deployment's does.
        ("RECORDKEEPER_KAFKA_GROUP_INSTANCE_ID", "one"),
    ];
    // Steps that each batch takes come the later, the more batches there are.
    let later = events / 6_000;
    let steps = [
        ("prepared", later),
        ("looked_up", 3 * later),
        ("judged", 2 * later),
        ("applied", 4 * later),
        ("remembered", 3 * later),
        ("attesting", 2),
        ("attested", 1),
        ("attested", 2),
        ("checkpointed", 2),
        ("judged", 6 * later),
    ];
    for (step, times) in steps {
        let failpoint = format!("{step}:{times}");
        let run = deployment.run_with(&[&slowed[..], &[("RECORDKEEPER_FAILPOINT", &failpoint)]].concat()).await;
        assert_eq!(run.code, None, "{failpoint}: not killed\n{}", run.stderr);
        assert_ledger_is_durable(&deployment, &generated).await;
    }
    let run = deployment.run_with(&slowed).await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_end_state(&deployment, &generated.manifest).await;
    assert_ledger_is_durable(&deployment, &generated).await;
    ledger::assert_holds(&deployment, generated.manifest["consumed"].as_u64().unwrap()).await;
    assert_sound(&deployment).await;
}

/// Two consumers with a rebalance in the middle and Redis flushed twice: the same end.
#[tokio::test(flavor = "multi_thread")]
async fn two_consumers_and_a_flushed_cache_end_the_same() {
    let deployment = Deployment::start("pair", "wallets", 8).await;
    let manifest = Generated::publish(&deployment, events_or(10_000), 13).await.manifest;
    let slow = [("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "50")];
    let first = deployment.spawn(&["run", "--until-idle", "--summary", "json"], &slow);
    progress(&deployment, 1).await;
    let second = deployment.spawn(&["run", "--until-idle", "--summary", "json"], &slow);
    crate::services::redis().await.flush().await;
    progress(&deployment, 16).await;
    crate::services::redis().await.flush().await;
    for child in [first, second] {
        let output = tokio::time::timeout(RUN_MAX, child.wait_with_output()).await.unwrap().unwrap();
        let run = run_of(output);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.assert_sums();
    }
    let last = deployment.run_until_idle().await;
    assert_eq!(last.code, Some(0), "{}", last.stderr);
    assert_end_state(&deployment, &manifest).await;
    ledger::assert_holds(&deployment, manifest["consumed"].as_u64().unwrap()).await;
    assert_sound(&deployment).await;
}

/// Waits until the ledger has this many entries.
async fn progress(deployment: &Deployment, entries: usize) {
    for _ in 0..600 {
        if deployment.scan("ledger").await.iter().filter(|item| item.contains_key("outcomes")).count() >= entries {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no progress within a minute");
}

/// The real items of two Ethereum blocks: exact counts, and a second reading changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn real_ethereum_items_are_recorded_once() {
    let deployment = Deployment::start("eth", "ethereum", 2).await;
    let data = |name: &str| {
        std::fs::read_to_string(format!("{}/tests/data/ethereum-etl/{name}.jsonl", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let mut events = Vec::new();
    for topic in ["transactions", "token_transfers"] {
        for line in data(topic).lines() {
            events.push(Event { topic: topic.into(), value: Some(line.into()), ..Event::default() });
        }
    }
    assert_eq!(events.len(), 589);
    deployment.publish(&events).await;
    let first = deployment.run_until_idle().await;
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    first.assert_sums();
    assert_eq!(
        (first.count("consumed"), first.count("recorded"), first.count("repeated")),
        (589, 589, 0),
        "{}",
        first.summary
    );
    let records = deployment.scan("wallet_records").await;
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    records.iter().for_each(|record| *kinds.entry(text(record, "type").to_owned()).or_default() += 1);
    assert_eq!(kinds, expected_kinds(&data("transactions"), &data("token_transfers")));
    for line in data("token_transfers").lines() {
        let digits = line.split("\"value\": ").nth(1).unwrap().split(',').next().unwrap();
        let item: Value = serde_json::from_str(line).unwrap();
        let id = format!("ethereum-etl|{}@{}", item["item_id"].as_str().unwrap(), item["block_hash"].as_str().unwrap());
        let record = records.iter().find(|record| text(record, "record_id") == id).unwrap_or_else(|| panic!("no {id}"));
        assert_eq!(plain(record)["fields"]["amount"], *digits);
    }
    let before = deployment.snapshot().await;
    for topic in ["transactions", "token_transfers"] {
        deployment.reset_to_start(topic, 2);
    }
    let second = deployment.run_until_idle().await;
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    second.assert_sums();
    assert_eq!(
        (second.count("consumed"), second.count("recorded"), second.count("repeated")),
        (589, 589, 589),
        "{}",
        second.summary
    );
    assert!(deployment.snapshot().await == before, "a second reading changed a table");
    // The same item in another block is another event.
    let line = data("token_transfers").lines().next().unwrap().to_owned();
    let item: Value = serde_json::from_str(&line).unwrap();
    let other = line.replace(item["block_hash"].as_str().unwrap(), &format!("0x{}", "ab".repeat(32)));
    deployment
        .publish(&[Event { topic: "token_transfers".into(), value: Some(other.into()), ..Event::default() }])
        .await;
    let third = deployment.run_until_idle().await;
    assert_eq!(
        (third.count("consumed"), third.count("recorded"), third.count("repeated")),
        (1, 1, 0),
        "{}",
        third.summary
    );
}

/// Counted by hand from the items: each transaction and transfer has one record of its sender's side (the judge) and, where
/// it has a receiver, one of the receiver's; a transaction without one creates a contract.
fn expected_kinds(transactions: &str, transfers: &str) -> BTreeMap<String, usize> {
    let receivers = transactions.lines().filter(|line| !line.contains("\"to_address\": null")).count();
    let transfers = transfers.lines().count();
    BTreeMap::from([
        ("transaction.out".to_owned(), transactions.lines().count()),
        ("transaction.in".to_owned(), receivers),
        ("contract.created".to_owned(), transactions.lines().count() - receivers),
        ("transfer.out".to_owned(), transfers),
        ("transfer.in".to_owned(), transfers),
    ])
}

/// A mapping changed between two deliveries of the same events: no conflict, and the new effects are complete.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_mapping_makes_no_conflict() {
    let deployment = Deployment::start("remap", "wallets", 1).await;
    let wallet = "evm:1:0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";
    let event = |id: &str, version: u64| {
        let data = json!({"wallet_id": wallet, "version": version, "label": format!("label {version}")});
        let event = json!({"specversion": "1.0", "id": id, "source": "/remap", "type": "wallet.updated", "time": "2026-01-05T10:00:00Z", "data": data});
        Event::new("wallet-events", wallet, event.to_string())
    };
    let events: Vec<Event> = (1..=20).map(|version| event(&format!("e{version}"), version)).collect();
    deployment.publish(&events).await;
    let first = deployment.run_until_idle().await;
    assert_eq!((first.count("recorded"), first.dead("conflict")), (20, 0), "{}", first.stderr);
    // The route gets a further record; the same events come again, once as redelivery and once as copies.
    let file = deployment.dir.join("pipelines/wallets.yaml");
    let text_before = std::fs::read_to_string(&file).unwrap();
    let changed = add_further_record(&text_before);
    assert_ne!(text_before, changed);
    std::fs::write(&file, changed).unwrap();
    deployment.publish(&events).await;
    deployment.reset_to_start("wallet-events", 1);
    deployment.reset_to_start("transaction-events", 1);
    crate::services::redis().await.flush().await;
    let second = deployment.run_until_idle().await;
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    second.assert_sums();
    let counts =
        [second.count("recorded"), second.count("repeated"), second.count("duplicate"), second.dead("conflict")];
    assert_eq!(counts, [20, 20, 20, 0], "{}", second.summary);
    let records = deployment.scan("wallet_records").await;
    assert_eq!(records.len(), 40, "each event has its further record, once");
    for record in records.iter().filter(|record| text(record, "record_id").ends_with("|audit")) {
        let judge = text(record, "record_id").trim_end_matches("|audit").to_owned();
        let judge = records.iter().find(|record| text(record, "record_id") == judge).unwrap();
        assert_eq!(text(record, "origin"), text(judge, "origin"), "a further record carries the judge's origin");
    }
    let verdict = assert_sound(&deployment).await;
    assert_eq!(verdict.summary["unattested"], 20, "no entry was written anew: {}", verdict.text);
}
