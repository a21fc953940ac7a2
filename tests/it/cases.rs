//! Faults from the field, tried on the running product. Inputs stand in tests/data/cases.

use serde_json::{Value, json};

use crate::deployment::{Deployment, Event, add_further_record, header, plain, text};
use crate::fault_proxy::FaultProxy;

/// The wallet of most cases.
const WALLET: &str = "evm:1:0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";

fn transaction(id: &str, wallet: &str, amount: &str) -> Vec<u8> {
    format!(
        r#"{{"specversion":"1.0","id":{},"source":"/cases","type":"transaction.confirmed","time":"2026-01-05T10:00:00Z","data":{{"transaction_id":{},"wallet_id":{},"amount":{amount},"asset":"ETH"}}}}"#,
        json!(id),
        json!(id),
        json!(wallet)
    )
    .into_bytes()
}

fn status(id: &str, wallet: &str, version: u64, status: &str) -> Vec<u8> {
    json!({"specversion": "1.0", "id": id, "source": "/cases", "type": "wallet.status_changed", "time": "2026-01-05T10:00:00Z",
        "data": {"wallet_id": wallet, "wallet_status": status, "version": version}})
    .to_string()
    .into_bytes()
}

fn on_transactions(value: Vec<u8>) -> Event {
    Event::new("transaction-events", "k", value)
}

fn on_wallets(value: Vec<u8>) -> Event {
    Event::new("wallet-events", "k", value)
}

/// The reasons of all dead letters, in the order of their origins.
fn reasons(deployment: &Deployment) -> Vec<String> {
    let mut letters = deployment.read_topic(&deployment.dead_letters);
    letters.sort_by_key(|letter| {
        header(letter, "recordkeeper-origin-offset").and_then(|offset| offset.parse::<u64>().ok())
    });
    letters.iter().map(|letter| header(letter, "recordkeeper-reason").unwrap_or("").to_owned()).collect()
}

/// c-01: what is not an event at all has one outcome each, and null and empty stay different things.
#[tokio::test(flavor = "multi_thread")]
async fn tombstones_and_empty_values_are_told_apart() {
    use rdkafka::message::Message;
    let deployment = Deployment::start("c01", "wallets", 1).await;
    let none = |key: Option<&str>, value: Option<&str>| Event {
        key: key.map(Into::into),
        value: value.map(Into::into),
        ..on_transactions(Vec::new())
    };
    let keyed = |key: Option<&[u8]>, id: &str| Event {
        key: key.map(Into::into),
        ..on_transactions(transaction(id, WALLET, "\"1\""))
    };
    deployment
        .publish(&[
            keyed(Some(b"k1"), "good-1"),
            none(Some("k1"), None),
            none(Some("k1"), Some("")),
            none(None, None),
            none(Some("k1"), Some("null")),
            keyed(Some(b""), "good-2"),
            keyed(None, "good-3"),
            keyed(Some(b"\xff\xfe\x00k"), "good-4"),
        ])
        .await;
    let run = deployment.run_until_idle().await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.assert_sums();
    assert_eq!((run.count("consumed"), run.count("recorded")), (8, 4));
    assert_eq!((run.dead("tombstone"), run.dead("empty")), (2, 1));
    let letters = deployment.read_topic(&deployment.dead_letters);
    assert_eq!(letters.len(), 4);
    for letter in &letters {
        match header(letter, "recordkeeper-reason").unwrap() {
            "tombstone" => assert!(letter.payload().is_none()),
            "empty" => assert_eq!(letter.payload(), Some(b"".as_slice())),
            _ => assert_eq!(letter.payload(), Some(b"null".as_slice())),
        }
    }
    assert_eq!(letters.iter().filter(|letter| letter.key().is_none()).count(), 1);
}

/// c-09: amounts keep the source's own digits; exponents and negative zero are refused.
#[tokio::test(flavor = "multi_thread")]
async fn amounts_keep_every_digit() {
    let deployment = Deployment::start("c09", "wallets", 1).await;
    let exact = [
        "9007199254740993",
        "9223372036854775808",
        "18446744073709551616",
        "33066915805160912602",
        "123456789012345678901234567890123456789",
        "115792089237316195423570985008687907853269984665640564039457584007913129639935",
        "0.1",
        "10.10",
        "0.000000000000000001",
    ];
    let mut events = Vec::new();
    for (index, digits) in exact.iter().enumerate() {
        events.push(on_transactions(transaction(&format!("n{index}"), WALLET, digits)));
        events.push(on_transactions(transaction(&format!("s{index}"), WALLET, &format!("\"{digits}\""))));
    }
    for (index, refused) in ["1e18", "\"1e18\"", "-0", "\"-0\"", "1e400"].iter().enumerate() {
        events.push(on_transactions(transaction(&format!("x{index}"), WALLET, refused)));
    }
    deployment.publish(&events).await;
    let run = deployment.run_until_idle().await;
    run.assert_sums();
    assert_eq!((run.count("recorded"), run.dead("mapping")), (18, 5), "{}", run.summary);
    let records = deployment.scan("wallet_records").await;
    for (index, digits) in exact.iter().enumerate() {
        for kind in ["n", "s"] {
            let id = format!("/cases|{kind}{index}");
            let record = records.iter().find(|record| text(record, "record_id") == id).unwrap();
            assert_eq!(plain(record)["fields"]["amount"], **digits, "{id}");
        }
    }
}

/// c-10: hostile JSON never crashes; each refused text is a dead letter with its exact bytes.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_json_is_refused_with_its_exact_bytes() {
    use rdkafka::message::Message;
    let deployment = Deployment::start("c10", "wallets", 1).await;
    let text = include_bytes!("../data/cases/hostile_json.jsonl");
    let mut hostile: Vec<Vec<u8>> =
        text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
    hostile.push(b"{\"specversion\":\"1.0\",\"id\":\"bad-\xc3\x28\"}".to_vec());
    hostile.push([b"[".repeat(50_000), b"]".repeat(50_000)].concat());
    let mut events: Vec<Event> = hostile.iter().cloned().map(on_transactions).collect();
    events.push(on_transactions(transaction("after", WALLET, "1")));
    deployment.publish(&events).await;
    let run = deployment.run_until_idle().await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.assert_sums();
    assert_eq!(run.count("recorded"), 1, "only the last one is sound: {}", run.summary);
    let letters = deployment.read_topic(&deployment.dead_letters);
    let mut bytes: Vec<&[u8]> = letters.iter().filter_map(|letter| letter.payload()).collect();
    let mut sent: Vec<&[u8]> = hostile.iter().map(Vec::as_slice).collect();
    bytes.sort_unstable();
    sent.sort_unstable();
    assert!(bytes == sent, "every refused text is kept byte for byte");
}

/// c-15: one batch with versions out of order, a copy, a conflict and a tie.
#[tokio::test(flavor = "multi_thread")]
async fn one_batch_with_everything_in_it() {
    let deployment = Deployment::start("c15", "wallets", 1).await;
    let mut events = vec![
        on_wallets(status("upd-1", WALLET, 1, "active")),
        on_wallets(status("upd-3", WALLET, 3, "closed")),
        on_wallets(status("upd-2", WALLET, 2, "frozen")),
        on_wallets(status("upd-3", WALLET, 3, "closed")),
        on_wallets(status("upd-3", WALLET, 3, "active")),
        on_wallets(status("upd-9", WALLET, 3, "active")),
    ];
    for fill in 0..19 {
        events.push(on_wallets(status(&format!("fill-{fill}"), &format!("evm:1:0x{fill:040x}"), 1, "active")));
    }
    deployment.publish(&events).await;
    let run = deployment.run_until_idle().await;
    run.assert_sums();
    let counts = ["recorded", "duplicate", "ties", "stale"].map(|name| run.count(name));
    assert_eq!(counts, [23, 1, 1, 2], "{}", run.summary);
    assert_eq!(run.dead("conflict"), 1);
    let wallets = deployment.scan("wallet_inventory").await;
    assert_eq!(wallets.len(), 20);
    let wallet = wallets.iter().find(|wallet| text(wallet, "wallet_id") == WALLET).unwrap();
    assert_eq!(text(wallet, "wallet_status"), "closed");
    assert_eq!(deployment.scan("wallet_records").await.len(), 23);
}

/// c-25: three bad ones of 25, each with its own reason; the others are recorded.
#[tokio::test(flavor = "multi_thread")]
async fn neighbours_of_refused_events_are_recorded() {
    let deployment = Deployment::start("c25", "wallets", 1).await;
    let request = |id: &str, alias: String| {
        json!({"specversion": "1.0", "id": id, "source": "/cases", "type": "wallet.requested", "time": "2026-01-05T10:00:00Z",
            "data": {"user_id": format!("u-{id}"), "chain": "evm:1", "custody": "hsm", "alias": alias}})
        .to_string()
        .into_bytes()
    };
    let mut events: Vec<Event> = (0..22).map(|n| on_wallets(request(&format!("ok-{n}"), "main".into()))).collect();
    events.insert(5, on_wallets(request("big", "a".repeat(1_200_000))));
    events.insert(
        9,
        on_wallets(
            br#"{"specversion":"1.0","id":"no-data","source":"/cases","type":"wallet.requested","data":{}}"#.to_vec(),
        ),
    );
    events.insert(13, on_wallets(request("unstorable", "main".into())));
    deployment.publish(&events).await;
    let store = FaultProxy::start(&deployment.dynamodb).await;
    store.refuse("wallet_records", "/cases|unstorable");
    let run = deployment.run_with(&[("AWS_ENDPOINT_URL_DYNAMODB", &store.endpoint)]).await;
    run.assert_sums();
    assert_eq!(run.count("recorded"), 22, "{} {}", run.summary, run.stderr);
    let mut reasons = reasons(&deployment);
    reasons.sort();
    assert_eq!(reasons, ["rejected", "schema", "too_large"]);
    assert_eq!(deployment.read_topic(&deployment.requests).len(), 22);
}

/// What the store refuses for good costs the events that asked for it, and nothing else, however events fall into batches.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_effect_ends_the_same_in_one_batch_and_in_many() {
    let mut ends = Vec::new();
    for messages in ["1", "500"] {
        let deployment = Deployment::start("effect", "wallets", 1).await;
        let file = deployment.dir.join("pipelines/wallets.yaml");
        let pipeline = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, add_further_record(&pipeline)).unwrap();
        let label = |id: &str| {
            let data = json!({"wallet_id": WALLET, "label": "l", "version": 1});
            let event = json!({"specversion": "1.0", "id": id, "source": "/cases", "type": "wallet.updated",
                "time": "2026-01-05T10:00:00Z", "data": data});
            on_wallets(event.to_string().into_bytes())
        };
        let events = [
            on_wallets(status("one", WALLET, 1, "active")),
            on_wallets(status("three", WALLET, 3, "closed")),
            on_wallets(status("two", WALLET, 2, "frozen")),
            label("label"),
            label("label"),
            label("other"),
        ];
        deployment.publish(&events).await;
        let store = FaultProxy::start(&deployment.dynamodb).await;
        store.refuse("wallet_inventory", "closed");
        store.refuse("wallet_records", "/cases|label|audit");
        let env = [
            ("AWS_ENDPOINT_URL_DYNAMODB", store.endpoint.as_str()),
            ("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", messages),
        ];
        let run = deployment.run_with(&env).await;
        run.assert_sums();
        assert_eq!((run.count("recorded"), run.dead("rejected")), (3, 3), "{} {}", run.summary, run.stderr);
        let wallet = plain(&deployment.scan("wallet_inventory").await[0]);
        let records = deployment.scan("wallet_records").await;
        let mut records: Vec<String> = records.iter().map(|record| text(record, "record_id").to_owned()).collect();
        records.sort();
        ends.push((records, wallet["wallet_status"].clone(), wallet["label"].clone()));
        crate::tampering::assert_sound(&deployment).await;
    }
    assert_eq!(ends[0].1, "frozen", "the highest version that the store takes");
    assert_eq!(ends[0], ends[1]);
}

/// c-29: one EVM wallet under every notation; a wrong checksum is refused; Solana's case matters.
#[tokio::test(flavor = "multi_thread")]
async fn one_wallet_under_every_notation() {
    let deployment = Deployment::start("c29", "wallets", 1).await;
    let same = [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
        "0x5AAEB6053F3E94C9B9A09F33669435E7EF1BEAED",
    ];
    let refused = [
        "0x5aAEb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",
        "0X5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
        "5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
    ];
    let mut events = Vec::new();
    for (version, address) in same.iter().chain(&refused).enumerate() {
        events.push(on_wallets(status(
            &format!("e{version}"),
            &format!("evm:1:{address}"),
            version as u64 + 1,
            "active",
        )));
    }
    for (index, address) in
        ["C8H4v4c2eA6njjgzvWSrCpLdYg3hWSygoVsi4RkUrzjV", "C8h4v4c2eA6njjgzvWSrCpLdYg3hWSygoVsi4RkUrzjV"]
            .iter()
            .enumerate()
    {
        events.push(on_wallets(status(&format!("s{index}"), &format!("solana:mainnet:{address}"), 1, "active")));
    }
    deployment.publish(&events).await;
    let run = deployment.run_until_idle().await;
    run.assert_sums();
    assert_eq!((run.count("recorded"), run.dead("mapping")), (5, 4), "{}", run.summary);
    let mut wallets: Vec<String> =
        deployment.scan("wallet_inventory").await.iter().map(|w| text(w, "wallet_id").to_owned()).collect();
    wallets.sort();
    assert_eq!(wallets.len(), 3, "{wallets:?}");
    assert_eq!(wallets[0], WALLET);
    for address in same {
        let output = deployment.command(&["get", "wallet", &format!("evm:1:{address}")]).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["wallet"]["wallet_id"], WALLET);
    }
}

/// c-38: ids are parameters, never text.
#[tokio::test(flavor = "multi_thread")]
async fn awkward_ids_are_found_under_exactly_that_id() {
    let deployment = Deployment::start("c38", "wallets", 1).await;
    let ids = [
        "o'brien",
        "x' OR '1'='1",
        "a\"b",
        "semi;--",
        "{\"$ne\":1}",
        "?",
        "percent%25",
        "sp ace",
        "naïve-ключ-鍵",
        "emoji-🦀",
        "back\\slash",
        "line\nbreak",
        "tab\t",
        "pi|pe",
    ];
    let long = "a".repeat(513);
    let mut events: Vec<Event> =
        ids.iter().map(|id| on_transactions(transaction(id, &format!("ext:{id}"), "1"))).collect();
    events.push(on_transactions(transaction(&long, "ext:long-id", "1")));
    events.push(on_transactions(transaction("long-wallet", &format!("ext:{}", "w".repeat(2000)), "1")));
    deployment.publish(&events).await;
    let run = deployment.run_until_idle().await;
    run.assert_sums();
    assert_eq!(run.count("recorded"), ids.len() as u64, "{}", run.summary);
    assert_eq!(deployment.read_topic(&deployment.dead_letters).len(), 2);
    for id in ids {
        let escaped = id.replace('%', "%25").replace('|', "%7C");
        let output = deployment.command(&["get", "record", &format!("/cases|{escaped}")]).output().await.unwrap();
        assert!(output.status.success(), "{id}: {}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["event_id"], id);
        assert_eq!(found["wallet_id"], format!("ext:{id}"));
    }
}
