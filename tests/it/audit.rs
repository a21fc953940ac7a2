//! `verify`: what was tampered with in the tables is named, all of it and nothing else.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use recordkeeper::store::dynamodb::record_digest;
use serde_json::Value;

use crate::deployment::{Deployment, Item, RUN_MAX, text};
use crate::spine::{events_or, read_events};

/// What `verify --json` says.
pub struct Verdict {
    pub code: Option<i32>,
    /// Kind, and the record, or the range's first and last offset.
    pub found: Vec<String>,
    pub summary: Value,
    pub text: String,
}

pub async fn verify(deployment: &Deployment, further: &[&str]) -> Verdict {
    let output = deployment.command(&[&["verify", "--json"][..], further].concat()).output();
    let output = tokio::time::timeout(RUN_MAX, output).await.expect("ends in time").unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let one = |line: &Value| match line.get("record").and_then(Value::as_str) {
        Some(record) => format!("{} {record}", line["finding"].as_str().unwrap()),
        None => format!("{} {}-{}", line["finding"].as_str().unwrap(), line["first_offset"], line["last_offset"]),
    };
    Verdict {
        code: output.status.code(),
        found: lines.iter().filter(|line| line.get("finding").is_some()).map(one).collect(),
        summary: lines.last().map_or(Value::Null, |line| line["summary"].clone()),
        text: format!("{stdout}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Nothing is wrong, and everything was attested.
pub async fn assert_sound(deployment: &Deployment) -> Verdict {
    let verdict = verify(deployment, &[]).await;
    assert_eq!(verdict.code, Some(0), "{}", verdict.text);
    assert_eq!(verdict.summary["in_flight"], 0, "{}", verdict.text);
    assert_eq!(verdict.summary["records"], deployment.scan("wallet_records").await.len(), "{}", verdict.text);
    verdict
}

fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

/// A deployment and somebody who may write to its tables.
struct Tampering {
    deployment: Deployment,
    client: aws_sdk_dynamodb::Client,
}

impl Tampering {
    async fn with(deployment: Deployment) -> Self {
        let client = deployment.dynamodb_client().await;
        Self { deployment, client }
    }

    async fn put(&self, table: &str, item: Item) {
        let table = format!("{}-{table}", self.deployment.name);
        self.client.put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
    }

    async fn delete(&self, table: &str, item: &Item) {
        let names: &[&str] = if table == "ledger" { &["ledger_id", "from"] } else { &["record_id"] };
        let key = names.iter().map(|name| ((*name).to_owned(), item[*name].clone())).collect();
        let table = format!("{}-{table}", self.deployment.name);
        self.client.delete_item().table_name(table).set_key(Some(key)).send().await.unwrap();
    }

    /// The chain with the most entries, in order.
    async fn longest_chain(&self) -> Vec<Item> {
        let mut chains: BTreeMap<String, Vec<Item>> = BTreeMap::new();
        for item in self.deployment.scan("ledger").await {
            if item.contains_key("outcomes") {
                chains.entry(text(&item, "ledger_id").to_owned()).or_default().push(item);
            }
        }
        let mut chain = chains.into_values().max_by_key(Vec::len).unwrap();
        chain.sort_by(|a, b| text(a, "from").cmp(text(b, "from")));
        chain
    }

    async fn assert_found(&self, what: &str, expected: &[String]) {
        let verdict = verify(&self.deployment, &[]).await;
        assert_eq!(verdict.code, Some(1), "{what}: {}", verdict.text);
        let faults: Vec<&String> = verdict.found.iter().filter(|found| !found.starts_with("unattested")).collect();
        assert_eq!(faults, expected.iter().collect::<Vec<_>>(), "{what}: {}", verdict.text);
        assert_eq!(verdict.summary["sound"], false);
    }
}

fn next_offset(key: &str) -> u64 {
    key.strip_prefix('1').map_or(0, |digits| digits.parse::<u64>().unwrap() + 1)
}

fn range(entry: &Item) -> String {
    format!("{}-{}", next_offset(text(entry, "from")), next_offset(text(entry, "to")) - 1)
}

/// The record's digest made anew, as whoever alters a record would do.
fn with_its_digest(mut item: Item) -> Item {
    type Stored = recordkeeper::store::dynamodb::Value;
    fn stored(value: &AttributeValue) -> Stored {
        match value {
            AttributeValue::S(text) => Stored::Text(text.clone()),
            AttributeValue::N(digits) => Stored::Number(digits.clone()),
            AttributeValue::M(map) => {
                Stored::map(map.iter().map(|(name, value)| (name.clone(), stored(value))).collect())
            }
            other => panic!("{other:?}"),
        }
    }
    let attributes: BTreeMap<&str, Stored> = item.iter().map(|(name, value)| (name.as_str(), stored(value))).collect();
    let digest = record_digest(attributes.iter().map(|(name, value)| (*name, value)));
    item.insert("record_digest".to_owned(), s(&digest.hex()));
    item
}

/// Generated events, consumed in several runs, so that each chain has several entries.
async fn consumed(name: &str, events: u64) -> Deployment {
    let deployment = Deployment::start(name, "wallets", 8).await;
    let file = deployment.dir.join("events.ndjson");
    let events = events.to_string();
    let args = ["generate", "--to", file.to_str().unwrap(), "--events", &events, "--seed", "11"];
    let output = deployment.command(&args).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events = read_events(&file);
    for part in events.chunks(events.len().div_ceil(4)) {
        deployment.publish(part).await;
        let run = deployment.run_until_idle().await;
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
    deployment
}

/// Each alone, and put right again afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_altered_deleted_edited_or_forged_is_named() {
    let deployment = consumed("audit", events_or(3000)).await;
    let sound = assert_sound(&deployment).await;
    assert!(sound.found.is_empty(), "{:?}", sound.found);
    let tampering = Tampering::with(deployment).await;
    let chain = tampering.longest_chain().await;
    assert!(chain.len() >= 4, "{} entries", chain.len());
    let victim_entry = &chain[1];
    let parts: Vec<&str> = text(victim_entry, "ledger_id").split('|').collect();
    let (partition, entry_range) = (parts[1..6].join("|"), range(victim_entry));
    let (from, to) = (next_offset(text(victim_entry, "from")), next_offset(text(victim_entry, "to")));
    let records = tampering.deployment.scan("wallet_records").await;
    let victim = records
        .iter()
        .find(|record| {
            let (of, offset) = text(record, "origin").rsplit_once('|').unwrap();
            of == partition && (from..to).contains(&offset.parse().unwrap())
        })
        .unwrap();
    let id = text(victim, "record_id");
    let offset = text(victim, "origin").rsplit_once('|').unwrap().1;

    let mut altered = victim.clone();
    altered.insert("type".to_owned(), s("wallet.forged"));
    tampering.put("wallet_records", altered.clone()).await;
    tampering.assert_found("an altered record", &[format!("record_altered {id}")]).await;

    tampering.put("wallet_records", with_its_digest(altered)).await;
    let differs = [format!("records_differ {entry_range}")];
    tampering.assert_found("a record altered with its digest", &differs).await;

    let mut unreadable = victim.clone();
    unreadable.remove("fields");
    tampering.put("wallet_records", unreadable).await;
    tampering.assert_found("an unreadable record", &[format!("record_unreadable {id}")]).await;

    tampering.delete("wallet_records", victim).await;
    tampering.assert_found("a deleted record", &[format!("records_missing {entry_range}")]).await;
    let missing = verify(&tampering.deployment, &[]).await;
    assert!(missing.text.contains(&format!("no record of offsets {offset}\"")), "{}", missing.text);
    tampering.put("wallet_records", victim.clone()).await;

    let mut forged = victim.clone();
    forged.insert("record_id".to_owned(), s("forged|1"));
    tampering.put("wallet_records", with_its_digest(forged.clone())).await;
    tampering.assert_found("a forged record", &["record_foreign forged|1".to_owned()]).await;
    tampering.delete("wallet_records", &forged).await;

    let mut edited = victim_entry.clone();
    edited.insert("record_count".to_owned(), AttributeValue::N("1".to_owned()));
    tampering.put("ledger", edited).await;
    tampering.assert_found("an edited entry", &[format!("entry_altered {entry_range}")]).await;
    tampering.delete("ledger", victim_entry).await;
    tampering.assert_found("a deleted entry", &[format!("gap {entry_range}")]).await;
    tampering.put("ledger", victim_entry.clone()).await;
    tampering.delete("ledger", &chain[0]).await;
    tampering.assert_found("a deleted first entry", &[format!("beginning {entry_range}")]).await;
    tampering.put("ledger", chain[0].clone()).await;

    let mended = assert_sound(&tampering.deployment).await;
    assert_eq!(mended.summary, sound.summary);
    let people = tampering.deployment.command(&["verify", "--read-units", "100000"]).output().await.unwrap();
    let shown = String::from_utf8(people.stdout).unwrap();
    assert!(shown.contains("sound: nothing is missing, altered or foreign"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_not_there_end_it_with_their_name() {
    let deployment = Deployment::start("audit-none", "wallets", 1).await;
    let mut command = deployment.command(&["verify"]);
    command.env("RECORDKEEPER_TABLE_PREFIX", "no-such-");
    let output = tokio::time::timeout(RUN_MAX, command.output()).await.expect("ends in time").unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-ledger"), "{output:?}");
}
