//! The whole path on real parts: every position ends in exactly one outcome, whatever happens on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::message::{Message, OwnedMessage};
use recordkeeper::event::Group;
use serde_json::{Value, json};

use crate::audit::assert_sound;
use crate::deployment::{Deployment, Event, Item, RUN_MAX, add_further_record, header, plain, run_of, text};
use crate::ledger;
use crate::slow_relay::SlowRelay;

/// Events from the generator's NDJSON.
pub fn read_events(file: &std::path::Path) -> Vec<Event> {
    let bytes = |value: &Value| value.as_str().map(|text| STANDARD.decode(text).unwrap());
    let text = std::fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            Event {
                topic: line["topic"].as_str().unwrap().to_owned(),
                partition: Some(i32::try_from(line["partition"].as_i64().unwrap()).unwrap()),
                key: bytes(&line["key"]),
                value: bytes(&line["value"]),
                headers: line["headers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|header| (header[0].as_str().unwrap().to_owned(), bytes(&header[1])))
                    .collect(),
            }
        })
        .collect()
}

/// How many generated events a test takes: RECORDKEEPER_TEST_EVENTS where it is set (the full-size targets set it).
pub fn events_or(reduced: u64) -> u64 {
    std::env::var("RECORDKEEPER_TEST_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(reduced)
}

/// Generated events as they were published, and what a correct consumer makes of them.
struct Generated {
    ndjson: PathBuf,
    /// As an independent program recomputes it from the events alone.
    manifest: Value,
}

impl Generated {
    /// Generates, compares the generator's manifest with the independent program's, publishes.
    async fn publish(deployment: &Deployment, events: u64, seed: u64) -> Self {
        let (ndjson, manifest) = (deployment.dir.join("events.ndjson"), deployment.dir.join("manifest.json"));
        let (events, seed) = (events.to_string(), seed.to_string());
        let args = [
            "generate",
            "--to",
            ndjson.to_str().unwrap(),
            "--manifest",
            manifest.to_str().unwrap(),
            "--events",
            &events,
            "--seed",
            &seed,
        ];
        let output = deployment.command(&args).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        deployment.publish(&read_events(&ndjson)).await;
        let stated: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
        let recomputed = recompute(&[], &ndjson).await;
        assert_eq!(stated, recomputed, "generator and independent program disagree");
        Self { ndjson, manifest: recomputed }
    }

    /// What the events that lie below these ends, by topic and partition, must have left behind.
    async fn below(&self, ends: &BTreeMap<(String, i32), u64>) -> Value {
        let mut next: BTreeMap<(String, i32), u64> = BTreeMap::new();
        let mut lines = String::new();
        for line in std::fs::read_to_string(&self.ndjson).unwrap().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let partition = i32::try_from(event["partition"].as_i64().unwrap()).unwrap();
            let place = (event["topic"].as_str().unwrap().to_owned(), partition);
            let offset = next.entry(place.clone()).or_default();
            if ends.get(&place).is_some_and(|end| *offset < *end) {
                lines.push_str(line);
                lines.push('\n');
            }
            *offset += 1;
        }
        let file = self.ndjson.with_file_name("below.ndjson");
        std::fs::write(&file, lines).unwrap();
        recompute(&["--request-ids"], &file).await
    }
}

async fn recompute(options: &[&str], events: &std::path::Path) -> Value {
    let oracle = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/recompute.py");
    let output = tokio::process::Command::new("python3").arg(oracle).args(options).arg(events).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Everything below the ledger's ends is durable: records and dead letters by the outcomes that the ledger states, states
/// and requests by what the independent program makes of the same events. And no checkpoint lies above the ledger's end.
async fn assert_ledger_is_durable(deployment: &Deployment, generated: &Generated) {
    // First the checkpoints, then the ledger, then what it speaks of: what a dying process still sent only adds.
    let committed: Vec<_> = ["wallet-events", "transaction-events"]
        .iter()
        .flat_map(|topic| deployment.committed(topic, 8).into_iter().map(|(partition, next)| (*topic, partition, next)))
        .collect();
    let chains = ledger::chains(deployment).await;
    let ends: BTreeMap<(String, i32), u64> = chains
        .iter()
        .map(|chain| {
            let topic = chain.topic.strip_prefix(&format!("{}-", deployment.name)).unwrap();
            ((topic.to_owned(), chain.partition), chain.end)
        })
        .collect();
    for (topic, partition, next) in committed {
        let end = ends.get(&(topic.to_owned(), partition)).copied().unwrap_or(0);
        assert!(u64::try_from(next).unwrap_or(0) <= end, "{topic}/{partition}: committed {next}, ledger {end}");
    }
    let records = deployment.scan("wallet_records").await;
    let origins: BTreeSet<&str> = records.iter().map(|record| text(record, "origin")).collect();
    let letters: BTreeSet<String> = deployment.read_topic(&deployment.dead_letters).iter().map(origin_of).collect();
    for chain in &chains {
        for (offset, outcome) in chain.outcomes.iter().enumerate() {
            if outcome == "r" {
                let origin = format!("{}|{offset}", chain.key);
                assert!(origins.contains(origin.as_str()), "attested, and no record: {origin}");
            } else if outcome.starts_with('x') {
                let origin = format!("{}/{}/{offset}", chain.topic, chain.partition);
                assert!(letters.contains(&origin), "attested, and no dead letter: {origin}");
            }
        }
    }
    let below = generated.below(&ends).await;
    let requests: BTreeSet<String> = deployment.read_topic(&deployment.requests).iter().map(request_id).collect();
    for request in below["requests"].as_array().unwrap() {
        assert!(requests.contains(request.as_str().unwrap()), "attested, and no request {request}");
    }
    let wallets = wallets(&deployment.scan("wallet_inventory").await);
    for (wallet, groups) in stated(&below, "wallets") {
        for (group, values) in groups.as_object().unwrap() {
            let found = wallets.get(&wallet).map_or(&Value::Null, |wallet| &wallet[group]);
            assert!(at_least(found, values), "attested, and not there: {wallet} {group} {values}, but {found}");
        }
    }
    let mappings = mappings(&deployment.scan("user_wallet_mapping").await);
    for (mapping, values) in stated(&below, "mappings") {
        let found = mappings.get(&mapping).unwrap_or(&Value::Null);
        assert!(at_least(found, &values), "attested, and not there: {mapping} {values}, but {found}");
    }
}

/// Whether a group has these values or a higher version's.
fn at_least(found: &Value, values: &Value) -> bool {
    found["version"].as_str().is_some_and(|version| version > values["version"].as_str().unwrap()) || found == values
}

/// `topic/partition/offset` of the event that a dead letter is about.
fn origin_of(letter: &OwnedMessage) -> String {
    let part = |name: &str| header(letter, name).unwrap_or_else(|| panic!("letter without {name}")).to_owned();
    ["recordkeeper-origin-topic", "recordkeeper-origin-partition", "recordkeeper-origin-offset"].map(part).join("/")
}

fn request_id(request: &OwnedMessage) -> String {
    let event: Value = serde_json::from_slice(request.payload().unwrap()).unwrap();
    assert_eq!(request.key(), event["data"]["user_id"].as_str().map(str::as_bytes));
    event["id"].as_str().unwrap().to_owned()
}

/// Tables, dead letters and requests against the manifest: what must hold however often the consumer was interrupted.
async fn assert_end_state(deployment: &Deployment, manifest: &Value) {
    assert_eq!(deployment.scan("wallet_records").await.len() as u64, manifest["records"].as_u64().unwrap(), "records");
    assert_eq!(wallets(&deployment.scan("wallet_inventory").await), stated(manifest, "wallets"), "wallets");
    assert_eq!(mappings(&deployment.scan("user_wallet_mapping").await), stated(manifest, "mappings"), "mappings");
    let requests: BTreeSet<String> = deployment.read_topic(&deployment.requests).iter().map(request_id).collect();
    assert_eq!(requests.len() as u64, manifest["requests"].as_u64().unwrap(), "distinct requests");
    // A letter may come twice (at least once); its origin tells.
    let letters: BTreeMap<String, String> = deployment
        .read_topic(&deployment.dead_letters)
        .iter()
        .map(|letter| (origin_of(letter), header(letter, "recordkeeper-reason").unwrap().to_owned()))
        .collect();
    let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
    letters.values().for_each(|reason| *by_reason.entry(reason.clone()).or_default() += 1);
    let expected: BTreeMap<String, u64> = manifest["dead_lettered"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(reason, n)| (reason.clone(), n.as_u64().unwrap()))
        .filter(|(_, n)| *n > 0)
        .collect();
    assert_eq!(by_reason, expected, "dead letters");
}

/// `{wallet: {group: {attribute: value, version}}}` of the table, in the manifest's form: a group never written is absent,
/// but for the status, which is pending then.
fn wallets(items: &[Item]) -> BTreeMap<String, Value> {
    items
        .iter()
        .map(|item| {
            let item = plain(item);
            let mut wallet = serde_json::Map::new();
            for group in Group::OF_WALLET {
                let values = group_of(&item, group);
                if values["version"] != "" || group == Group::Status {
                    wallet.insert(group.name().to_owned(), values);
                }
            }
            (item["wallet_id"].as_str().unwrap().to_owned(), Value::Object(wallet))
        })
        .collect()
}

/// `{user|wallet: {attribute: value, version}}` of the table.
fn mappings(items: &[Item]) -> BTreeMap<String, Value> {
    let key = |item: &Value| format!("{}|{}", item["user_id"].as_str().unwrap(), item["wallet_id"].as_str().unwrap());
    items.iter().map(plain).map(|item| (key(&item), group_of(&item, Group::Mapping))).collect()
}

fn group_of(item: &Value, group: Group) -> Value {
    let present = group.attributes().iter().filter_map(|name| Some(((*name).to_owned(), item.get(*name)?.clone())));
    let mut values: serde_json::Map<String, Value> = present.collect();
    values.insert("version".to_owned(), item.get(group.version_attribute()).cloned().unwrap_or(json!("")));
    Value::Object(values)
}

fn stated(manifest: &Value, what: &str) -> BTreeMap<String, Value> {
    manifest[what].as_object().unwrap().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
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
