//! What a correct consumer makes of generated events, and what the tables, topics and ledger of a deployment hold of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::message::{Message, OwnedMessage};
use recordkeeper::event::Group;
use serde_json::{Value, json};

use crate::deployment::{Deployment, Event, Item, header, plain, text};
use crate::ledger;

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

/// Generated events as they were published, and what a correct consumer makes of them.
pub struct Generated {
    pub ndjson: PathBuf,
    /// As an independent program recomputes it from the events alone.
    pub manifest: Value,
}

impl Generated {
    /// Generates, compares the generator's manifest with the independent program's, publishes.
    pub async fn publish(deployment: &Deployment, events: u64, seed: u64) -> Self {
        let (generated, events) = Self::new(deployment, events, seed).await;
        deployment.publish(&events).await;
        generated
    }

    /// The same without publishing: the events are for the caller to publish, in this order.
    pub async fn new(deployment: &Deployment, events: u64, seed: u64) -> (Self, Vec<Event>) {
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
        let stated: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
        let recomputed = recompute(&[], &ndjson).await;
        assert_eq!(stated, recomputed, "generator and independent program disagree");
        let events = read_events(&ndjson);
        (Self { ndjson, manifest: recomputed }, events)
    }

    /// What the events that lie below these ends, by topic and partition, must have left behind.
    pub async fn below(&self, ends: &BTreeMap<(String, i32), u64>) -> Value {
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
pub async fn assert_ledger_is_durable(deployment: &Deployment, generated: &Generated) {
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
pub fn origin_of(letter: &OwnedMessage) -> String {
    let part = |name: &str| header(letter, name).unwrap_or_else(|| panic!("letter without {name}")).to_owned();
    ["recordkeeper-origin-topic", "recordkeeper-origin-partition", "recordkeeper-origin-offset"].map(part).join("/")
}

pub fn request_id(request: &OwnedMessage) -> String {
    let event: Value = serde_json::from_slice(request.payload().unwrap()).unwrap();
    assert_eq!(request.key(), event["data"]["user_id"].as_str().map(str::as_bytes));
    event["id"].as_str().unwrap().to_owned()
}

/// Tables, dead letters and requests against the manifest: what must hold however often the consumer was interrupted.
pub async fn assert_end_state(deployment: &Deployment, manifest: &Value) {
    assert_eq!(deployment.count("wallet_records").await, manifest["records"].as_u64().unwrap(), "records");
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
