use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::*;

fn args(events: u64, seed: u64) -> GenerateArgs {
    GenerateArgs {
        to: Target::Stdout,
        bootstrap_servers: None,
        events,
        seed,
        rate: 0,
        partitions: 4,
        wallets: None,
        hot_share: 0.33,
        duplicates: 0.05,
        resent: 0.02,
        conflicts: 0.01,
        poison: 0.02,
        unknown: 0.01,
        stale: 0.02,
        ties: 0.01,
        out_of_order: 0.02,
        start_time: "2026-01-01T00:00:00Z".parse().unwrap(),
        event_bytes: 0,
        manifest: None,
    }
}

fn events(args: &GenerateArgs) -> Vec<Generated> {
    Events::new(Plan::new(args).unwrap()).collect()
}

#[test]
fn a_seed_gives_the_same_bytes_and_another_seed_others() {
    let bytes = |seed| {
        let mut out = Vec::new();
        events(&args(3_000, seed)).iter().for_each(|event| ndjson::write_line(&mut out, event).unwrap());
        out
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

#[test]
fn shares_are_those_asked_for() {
    let all = events(&args(20_000, 3));
    let mut counts: HashMap<What, f64> = HashMap::new();
    let mut keys: HashMap<&[u8], f64> = HashMap::new();
    for event in &all {
        *counts.entry(event.what).or_default() += 1.0 / all.len() as f64;
        *keys.entry(&event.key).or_default() += 1.0 / all.len() as f64;
    }
    for (what, share) in [
        (What::Duplicate, 0.05),
        (What::Resent, 0.02),
        (What::Conflict, 0.01),
        (What::Poison, 0.02),
        (What::Unknown, 0.01),
        (What::Stale, 0.02),
        (What::Tie, 0.01),
        (What::OutOfOrder, 0.02),
    ] {
        assert!((counts[&what] - share).abs() < 0.005, "{what:?}: {}", counts[&what]);
    }
    let hottest = keys.values().copied().fold(0.0, f64::max);
    assert!((hottest - 0.33).abs() < 0.02, "{hottest}");
}

#[test]
fn every_reason_that_a_publisher_can_cause_is_among_the_poison() {
    let all = events(&args(20_000, 4));
    for reason in ["tombstone", "empty", "undecodable", "schema", "mapping", "unclassified", "conflict"] {
        let there = |event: &Generated| matches!(event.expected, Expected::DeadLettered(is) if is.name() == reason);
        assert!(all.iter().any(there), "{reason}");
    }
}

#[test]
fn padding_reaches_the_size_asked_for() {
    let mut args = args(500, 5);
    args.event_bytes = 1024;
    args.poison = 0.0;
    for event in events(&args) {
        let size = event.value.unwrap().len();
        assert!((1020..1200).contains(&size), "{size}");
    }
}

#[test]
fn wrong_flags_are_named() {
    let wrong = |change: fn(&mut GenerateArgs)| {
        let mut args = args(10, 1);
        change(&mut args);
        Plan::new(&args).unwrap_err().to_string()
    };
    assert!(wrong(|args| args.poison = 1.5).contains("--poison"));
    assert!(wrong(|args| args.duplicates = f64::NAN).contains("--duplicates"));
    assert!(wrong(|args| args.stale = 0.95).contains("add up"));
    assert!(wrong(|args| args.partitions = 0).contains("--partitions"));
    assert!("events.json".parse::<Target>().is_err());
}

/// Identity, type, time and data of an event that is known to be sound.
fn read(event: &Generated) -> (String, String, String, Value) {
    let value: Value = serde_json::from_slice(event.value.as_ref().unwrap()).unwrap();
    let header = |name: &str| {
        let found = event.headers.iter().find(|(header, _)| *header == name)?;
        Some(String::from_utf8(found.1.clone().unwrap()).unwrap())
    };
    match header("ce_id") {
        Some(id) => {
            let source = header("ce_source").unwrap();
            (format!("{source} {id}"), header("ce_type").unwrap(), header("ce_time").unwrap(), value)
        }
        None => {
            let text = |name: &str| value[name].as_str().unwrap().to_owned();
            (format!("{} {}", text("source"), text("id")), text("type"), text("time"), value["data"].clone())
        }
    }
}

fn padded(version: &Value) -> String {
    let parts = version.as_array().cloned().unwrap_or_else(|| vec![version.clone()]);
    (0..4).map(|at| format!("{:020}", parts.get(at).map_or(0, |part| part.as_u64().unwrap()))).collect()
}

/// What the events' bytes say, folded in the plainest way, partition by partition.
fn naive(all: &[Generated]) -> Value {
    let mut groups: BTreeMap<(String, &str), Value> = BTreeMap::new();
    let mut requests = std::collections::HashSet::new();
    let mut seen: HashMap<String, (String, Value)> = HashMap::new();
    let (mut recorded, mut duplicate, mut dead) = (0, 0, BTreeMap::<String, u64>::new());
    let mut lanes: Vec<&Generated> = all.iter().collect();
    lanes.sort_by_key(|event| (event.topic, event.partition));
    for event in lanes {
        if let (What::Poison | What::Unknown, Expected::DeadLettered(reason)) = (event.what, &event.expected) {
            *dead.entry(reason.name().to_owned()).or_default() += 1;
            continue;
        }
        let (id, kind, time, data) = read(event);
        if let Some(stands) = seen.get(&id) {
            if *stands == (kind, data) {
                duplicate += 1;
            } else {
                *dead.entry("conflict".to_owned()).or_default() += 1;
            }
            continue;
        }
        seen.insert(id, (kind.clone(), data.clone()));
        recorded += 1;
        if kind == "wallet.requested" {
            let part = |name: &str| data[name].to_string();
            let generation = if data["generation"].is_null() { "1".to_owned() } else { part("generation") };
            requests.insert([
                part("tenant"),
                part("user_id"),
                part("chain"),
                part("custody"),
                part("alias"),
                generation,
            ]);
        }
        let (group, names): (&str, &[&str]) = match kind.as_str() {
            "wallet.created" => ("identity", &["address", "owner", "provider", "provider_wallet_id", "request_id"]),
            "wallet.updated" => ("profile", &["label", "tags"]),
            "wallet.status_changed" => ("status", &["wallet_status", "reason"]),
            "mapping.granted" => ("mapping", &["role", "scopes", "granted_by"]),
            "mapping.revoked" => ("mapping", &["revoked_by"]),
            _ => continue,
        };
        let canonical = |text: &str| if text.contains("0x") { text.to_lowercase() } else { text.to_owned() };
        let wallet = canonical(data["wallet_id"].as_str().unwrap());
        let mut state = json!({"version": padded(&data["version"])});
        for name in names {
            if !data[name].is_null() {
                state[name] = data[name].clone();
            }
        }
        if group == "identity" {
            state["address"] = json!(canonical(data["address"].as_str().unwrap()));
        }
        let key = if group == "mapping" { format!("{}|{wallet}", data["user_id"].as_str().unwrap()) } else { wallet };
        if group == "mapping" {
            let (status, at) =
                if kind == "mapping.granted" { ("active", "granted_at") } else { ("revoked", "revoked_at") };
            let moment: jiff::Timestamp = time.parse().unwrap();
            state["status"] = json!(status);
            state[at] = json!(moment.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string());
        }
        let stands = groups.entry((key, group)).or_insert_with(|| state.clone());
        if stands["version"].as_str() < state["version"].as_str() {
            *stands = state;
        }
    }
    let (mut wallets, mut mappings) = (json!({}), json!({}));
    for ((key, group), state) in groups {
        if group == "mapping" {
            mappings[&key] = state;
        } else {
            if wallets[&key].is_null() {
                wallets[&key] = json!({"status": {"wallet_status": "pending", "version": ""}});
            }
            wallets[&key][group] = state;
        }
    }
    json!({
        "consumed": all.len(), "recorded": recorded, "duplicate": duplicate, "skipped": 0, "dead_lettered": dead,
        "records": recorded, "requests": requests.len(), "wallets": wallets, "mappings": mappings,
    })
}

#[test]
fn the_manifest_is_what_the_bytes_say_whatever_the_order_of_partitions() {
    for seed in 1..=8 {
        let all = events(&args(4_000, seed));
        let mut manifest = Manifest::default();
        all.iter().for_each(|event| manifest.add(event.expected.clone()));
        assert_eq!(manifest.json(), naive(&all), "seed {seed}");
    }
}

#[tokio::test]
async fn a_stopped_run_leaves_a_manifest_of_what_was_sent() {
    let folder = std::env::temp_dir().join(format!("recordkeeper-generate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut args = args(1_000, 6);
    args.to = Target::File(folder.join("events.ndjson"));
    args.manifest = Some(folder.join("manifest.json"));
    let stop = CancellationToken::new();
    stop.cancel();
    let report = run(&args, &[], stop).await.unwrap();
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    assert_eq!((report.events, manifest["consumed"].as_u64()), (0, Some(0)));

    let report = run(&args, &[], CancellationToken::new()).await.unwrap();
    let lines = std::fs::read_to_string(folder.join("events.ndjson")).unwrap().lines().count();
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    assert_eq!((report.events, lines, manifest["consumed"].as_u64()), (1_000, 1_000, Some(1_000)));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn kafka_without_brokers_is_a_wrong_use() {
    let mut args = args(1, 1);
    args.to = Target::Kafka;
    let error = run(&args, &[], CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, GenerateError::Usage(text) if text.contains("--bootstrap-servers")));
}
