//! What somebody does who may write to the tables, and what `verify` says of it.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use recordkeeper::event::{Digest, Position, SetDigest};
use recordkeeper::ledger::{Entry, Fills, Outcomes};
use recordkeeper::store::dynamodb::record_digest;
use serde_json::Value;

use crate::deployment::{Deployment, Item, RUN_MAX, text};

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
    verdict(tokio::time::timeout(RUN_MAX, output).await.expect("ends in time").unwrap())
}

/// The same of a process that has ended.
pub fn verdict(output: std::process::Output) -> Verdict {
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

pub fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

/// A deployment and somebody who may write to its tables.
pub struct Tampering {
    pub deployment: Deployment,
    pub client: aws_sdk_dynamodb::Client,
}

impl Tampering {
    pub async fn with(deployment: Deployment) -> Self {
        let client = deployment.dynamodb_client().await;
        Self { deployment, client }
    }

    pub async fn put(&self, table: &str, item: Item) {
        let table = format!("{}-{table}", self.deployment.name);
        self.client.put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
    }

    pub async fn delete(&self, table: &str, item: &Item) {
        let names: &[&str] = if table == "ledger" { &["ledger_id", "from"] } else { &["record_id"] };
        let key = names.iter().map(|name| ((*name).to_owned(), item[*name].clone())).collect();
        let table = format!("{}-{table}", self.deployment.name);
        self.client.delete_item().table_name(table).set_key(Some(key)).send().await.unwrap();
    }

    /// All chains, each in order.
    pub async fn chains(&self) -> Vec<Vec<Item>> {
        let mut chains: BTreeMap<String, Vec<Item>> = BTreeMap::new();
        for item in self.deployment.scan("ledger").await {
            if item.contains_key("outcomes") {
                chains.entry(text(&item, "ledger_id").to_owned()).or_default().push(item);
            }
        }
        let mut chains: Vec<_> = chains.into_values().collect();
        chains.iter_mut().for_each(|chain| chain.sort_by(|a, b| text(a, "from").cmp(text(b, "from"))));
        chains
    }

    /// The chain with the most entries, in order.
    pub async fn longest_chain(&self) -> Vec<Item> {
        self.chains().await.into_iter().max_by_key(Vec::len).unwrap()
    }

    pub async fn assert_found(&self, what: &str, expected: &[String]) {
        let verdict = verify(&self.deployment, &[]).await;
        assert_eq!(verdict.code, Some(1), "{what}: {}", verdict.text);
        let faults: Vec<&String> = verdict.found.iter().filter(|found| !found.starts_with("unattested")).collect();
        assert_eq!(faults, expected.iter().collect::<Vec<_>>(), "{what}: {}", verdict.text);
        assert_eq!(verdict.summary["sound"], false);
    }
}

pub fn next_offset(key: &str) -> u64 {
    key.strip_prefix('1').map_or(0, |digits| digits.parse::<u64>().unwrap() + 1)
}

pub fn range(entry: &Item) -> String {
    format!("{}-{}", next_offset(text(entry, "from")), next_offset(text(entry, "to")) - 1)
}

/// The record's digest made anew, as whoever alters a record would do.
pub fn with_its_digest(mut item: Item) -> Item {
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

/// What an attacker makes of a chain's end from an entry on: everything fits, digests and links made anew.
pub fn rewritten(chain: &[Item], from: usize) -> Vec<Item> {
    let mut previous = text(&chain[from - 1], "digest").to_owned();
    let mut out = Vec::new();
    for item in &chain[from..] {
        let mut item = item.clone();
        let position = |name: &str| Position::from_sort_key(text(&item, name)).unwrap();
        let entry = Entry {
            from: position("from"),
            to: position("to"),
            outcomes: Outcomes::parse(text(&item, "outcomes")).unwrap(),
            records: SetDigest::from_hex(text(&item, "records")).unwrap(),
            record_count: item["record_count"].as_n().unwrap().parse().unwrap(),
            fills: Fills::default(),
            revision: text(&item, "revision").to_owned(),
            writer: "somebody else".to_owned(),
            nonce: text(&item, "nonce").to_owned(),
            previous: Digest::from_hex(&previous).unwrap(),
            attested_at: text(&item, "attested_at").to_owned(),
        };
        let digest = entry.digest(text(&item, "ledger_id")).hex();
        item.insert("writer".to_owned(), s(&entry.writer));
        item.insert("previous".to_owned(), s(&previous));
        item.insert("digest".to_owned(), s(&digest));
        previous = digest;
        out.push(item);
    }
    out
}

/// Has the deployment's runs publish signed heads; gives the file of the heads and that of the key that they are checked by.
pub fn publish_heads(deployment: &mut Deployment) -> [String; 2] {
    let [private, public, heads] = ["heads.pem", "heads.pub", "heads.ndjson"].map(|name| deployment.dir.join(name));
    let openssl = |args: &[&std::ffi::OsStr]| {
        assert!(std::process::Command::new("openssl").args(args).output().unwrap().status.success());
    };
    openssl(&["genpkey".as_ref(), "-algorithm".as_ref(), "ed25519".as_ref(), "-out".as_ref(), private.as_ref()]);
    openssl(&["pkey".as_ref(), "-in".as_ref(), private.as_ref(), "-pubout".as_ref(), "-out".as_ref(), public.as_ref()]);
    let [private, public, heads] = [&private, &public, &heads].map(|path| path.to_str().unwrap().to_owned());
    deployment.env = vec![
        ("RECORDKEEPER_LEDGER_HEADS_FILE".to_owned(), heads.clone()),
        ("RECORDKEEPER_LEDGER_HEADS_KEY_FILE".to_owned(), private),
    ];
    [heads, public]
}
