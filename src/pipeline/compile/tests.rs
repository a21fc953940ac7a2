//! The shipped pipelines over real and native events, and every reason that the pure half can give.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::config::pipelines::load;
use crate::event::{CreationRequest, Group, Origin, Partition, Position, Reason, StateKey, StateValue, Version};
use crate::pipeline::Mapped;

const WALLET: &str = "evm:1:0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";
const CHECKSUMMED: &str = "evm:1:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

fn shipped(name: &str) -> Pipeline {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let (specs, found) = load(&dir, &[name.to_owned()]);
    assert_eq!(found, [], "the shipped pipelines have problems");
    Pipeline::compile(&specs[0]).unwrap()
}

/// A pipeline written for one test, with the schema `s.json` beside it.
fn written(yaml: &str, schema: &str) -> Pipeline {
    let dir = std::env::temp_dir().join(format!("recordkeeper-compile-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("p.yaml"), yaml).unwrap();
    std::fs::write(dir.join("s.json"), schema).unwrap();
    let (specs, found) = load(&dir, &[]);
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(found, [], "the test's pipeline has problems");
    Pipeline::compile(&specs[0]).unwrap()
}

fn origin(topic: &str) -> Origin {
    let partition =
        Partition { cluster: "c".into(), topic: topic.into(), topic_id: "t".into(), epoch: 0, name: "0".into() };
    Origin { partition: Arc::new(partition), position: Position::Offset(7) }
}

struct Message<'m> {
    topic: &'m str,
    key: Option<&'m [u8]>,
    value: Option<&'m [u8]>,
    headers: &'m [(&'m str, Option<&'m [u8]>)],
}

impl Default for Message<'_> {
    fn default() -> Self {
        Self { topic: "t", key: Some(b"k"), value: None, headers: &[] }
    }
}

fn prepare(pipeline: &Pipeline, message: Message<'_>) -> Prepared {
    pipeline.prepare(&Delivery {
        origin: &origin(message.topic),
        timestamp_ms: Some(1_767_312_245_678),
        key: message.key,
        value: message.value,
        headers: message.headers,
    })
}

fn event(prepared: Prepared) -> Mapped {
    match prepared {
        Prepared::Event(mapped) => *mapped,
        other => unreachable!("{other:?}"),
    }
}

fn reason(prepared: &Prepared) -> Reason {
    match prepared {
        Prepared::Refused { refusal, .. } => refusal.reason,
        other => unreachable!("{other:?}"),
    }
}

fn detail(prepared: &Prepared) -> &str {
    match prepared {
        Prepared::Refused { refusal, .. } => &refusal.detail,
        other => unreachable!("{other:?}"),
    }
}

fn field<'m>(mapped: &'m Mapped, record: usize, name: &str) -> Option<&'m str> {
    mapped.records[record].fields.iter().find(|(field, _)| &**field == name).map(|(_, text)| text.as_str())
}

fn native(kind: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"e-1","source":"/wallets","type":"{kind}","time":"2026-01-05T10:00:00+01:00","data":{data}}}"#
    )
}

fn send(pipeline: &Pipeline, kind: &str, data: &str) -> Prepared {
    let topic = if kind.starts_with("transaction") { "transaction-events" } else { "wallet-events" };
    prepare(pipeline, Message { topic, value: Some(native(kind, data).as_bytes()), ..Message::default() })
}

#[test]
fn a_created_wallet_is_a_record_and_its_identity() {
    let wallets = shipped("wallets");
    let data = format!(
        r#"{{"wallet_id":"{CHECKSUMMED}","blockchain_type":"evm","address":"{}","owner":"u-1","provider":"crossmint","version":3,"extra":1}}"#,
        &CHECKSUMMED[6..]
    );
    let mapped = event(send(&wallets, "wallet.created", &data));
    let record = &mapped.records[0];
    assert_eq!(mapped.records.len(), 1);
    assert_eq!(record.record_id, "/wallets|e-1");
    assert_eq!(record.kind, "wallet.created");
    assert_eq!(record.occurred_at, "2026-01-05T09:00:00.000000Z");
    assert_eq!(record.wallet_id.as_deref(), Some(WALLET));
    assert_eq!(record.correlation_id, "/wallets|e-1");
    assert_eq!(record.names.pipeline, "wallets");
    assert_eq!(record.names.route, "wallet-created");
    assert_eq!(record.names.mapping_revision.len(), 16);
    assert_eq!(record.content_digest, mapped.content_digest);
    let fields: Vec<(&str, &str)> = record.fields.iter().map(|(name, text)| (&**name, text.as_str())).collect();
    assert_eq!(
        fields,
        [
            ("address", &WALLET[6..]),
            ("blockchain_type", "evm"),
            ("owner", "u-1"),
            ("provider", "crossmint"),
            ("version", "3"),
        ]
    );
    assert_eq!(mapped.states.len(), 1);
    let state = &mapped.states[0];
    assert_eq!(state.key, StateKey::Wallet { wallet_id: WALLET.into() });
    assert_eq!(state.group, Group::Identity);
    assert_eq!(Some(state.version), Version::from_parts(&[3]));
    assert_eq!(
        state.attributes,
        [
            ("address", StateValue::Text(WALLET[6..].into())),
            ("owner", StateValue::Text("u-1".into())),
            ("provider", StateValue::Text("crossmint".into())),
        ]
    );
    assert!(mapped.request.is_none() && !mapped.transactional);
}

#[test]
fn what_repeats_of_a_wallet_must_agree() {
    let wallets = shipped("wallets");
    let created = |kind: &str, address: &str| {
        let data = format!(
            r#"{{"wallet_id":"{WALLET}","blockchain_type":"{kind}","address":"{address}","owner":"u","provider":"p","version":1}}"#
        );
        send(&wallets, "wallet.created", &data)
    };
    event(created("evm", &CHECKSUMMED[6..]));
    assert_eq!(reason(&created("solana", &WALLET[6..])), Reason::Mapping);
    assert_eq!(reason(&created("evm", "0x0000000000000000000000000000000000000001")), Reason::Mapping);
    // A wrong checksum is refused, not taken as another notation.
    assert_eq!(reason(&created("evm", &CHECKSUMMED[6..].replace('A', "a").replacen('a', "A", 1))), Reason::Mapping);
}

#[test]
fn a_request_is_made_under_its_digest_or_its_own_id() {
    let wallets = shipped("wallets");
    let plain = r#"{"user_id":"u-1","chain":"solana:mainnet","custody":"kms","alias":"main"}"#;
    let mapped = event(send(&wallets, "wallet.requested", plain));
    let digest = crate::event::request_digest("", "u-1", "solana:mainnet", "kms", "main", "1");
    let expected = CreationRequest {
        request_id: digest.hex(),
        request_digest: digest,
        tenant: String::new(),
        user_id: "u-1".into(),
        chain: "solana:mainnet".into(),
        custody: "kms".into(),
        alias: "main".into(),
        generation: "1".into(),
        requested_by: "/wallets|e-1".into(),
        correlation_id: "/wallets|e-1".into(),
        priority: None,
        traceparent: None,
    };
    assert_eq!(mapped.request, Some(expected));
    assert_eq!(mapped.records[0].wallet_id, None);
    assert!(mapped.states.is_empty());
    let own = r#"{"user_id":"u-1","chain":"evm:1","custody":"hsm","alias":"main","generation":2,"request_id":"r-1","tenant":"t","priority":"high"}"#;
    let request = event(send(&wallets, "wallet.requested", own)).request.unwrap();
    assert_eq!((request.request_id.as_str(), request.generation.as_str(), request.tenant.as_str()), ("r-1", "2", "t"));
    assert_eq!(request.request_digest, crate::event::request_digest("t", "u-1", "evm:1", "hsm", "main", "2"));
    assert_eq!(request.priority.as_deref(), Some("high"));
}

#[test]
fn a_request_that_cannot_be_met_is_refused() {
    let wallets = shipped("wallets");
    let requested = |chain: &str, custody: &str, more: &str| {
        let data = format!(r#"{{"user_id":"u","chain":"{chain}","custody":"{custody}","alias":"a"{more}}}"#);
        reason(&send(&wallets, "wallet.requested", &data))
    };
    assert_eq!(requested("bitcoin:mainnet", "kms", ""), Reason::Mapping);
    assert_eq!(requested("ext", "kms", ""), Reason::Mapping);
    assert_eq!(requested("nowhere", "kms", ""), Reason::Mapping);
    assert_eq!(requested("evm:1", "pocket", ""), Reason::Schema);
    assert_eq!(requested("evm:1", "kms", r#","request_id":"R 1""#), Reason::Schema);
    assert_eq!(requested("evm:1", "kms", r#","generation":0"#), Reason::Schema);
    // An integer by JSON Schema's rule, but not by its digits.
    assert_eq!(requested("evm:1", "kms", r#","generation":1.0"#), Reason::Mapping);
}

#[test]
fn profiles_and_statuses_are_groups_of_their_own() {
    let wallets = shipped("wallets");
    let data = format!(r#"{{"wallet_id":"{WALLET}","version":[4,1],"tags":{{"b":"2","a":"1"}}}}"#);
    let mapped = event(send(&wallets, "wallet.updated", &data));
    assert_eq!(mapped.states[0].group, Group::Profile);
    assert_eq!(Some(mapped.states[0].version), Version::from_parts(&[4, 1]));
    let tags = StateValue::Map(vec![("a".into(), "1".into()), ("b".into(), "2".into())]);
    assert_eq!(mapped.states[0].attributes, [("tags", tags)]);
    assert_eq!(field(&mapped, 0, "tags"), Some(r#"{"b":"2","a":"1"}"#));
    assert_eq!(field(&mapped, 0, "version"), Some("[4,1]"));
    let data = format!(r#"{{"wallet_id":"{WALLET}","version":5,"wallet_status":"frozen","reason":"court"}}"#);
    let mapped = event(send(&wallets, "wallet.status_changed", &data));
    assert_eq!(mapped.states[0].group, Group::Status);
    assert_eq!(
        mapped.states[0].attributes,
        [("reason", StateValue::Text("court".into())), ("wallet_status", StateValue::Text("frozen".into()))]
    );
    let empty = format!(r#"{{"wallet_id":"{WALLET}","version":5}}"#);
    assert_eq!(reason(&send(&wallets, "wallet.updated", &empty)), Reason::Schema);
    assert_eq!(reason(&send(&wallets, "wallet.status_changed", &empty)), Reason::Schema);
    let lost = format!(r#"{{"wallet_id":"{WALLET}","version":5,"wallet_status":"lost"}}"#);
    assert_eq!(reason(&send(&wallets, "wallet.status_changed", &lost)), Reason::Schema);
}

#[test]
fn rights_are_granted_and_revoked_as_states() {
    let wallets = shipped("wallets");
    let granted = format!(
        r#"{{"user_id":"u-2","wallet_id":"{CHECKSUMMED}","role":"viewer","scopes":["read","list"],"granted_by":"u-1","version":1}}"#
    );
    let mapped = event(send(&wallets, "mapping.granted", &granted));
    assert_eq!(mapped.states[0].key, StateKey::Mapping { user_id: "u-2".into(), wallet_id: WALLET.into() });
    assert_eq!(
        mapped.states[0].attributes,
        [
            ("granted_at", StateValue::Text("2026-01-05T09:00:00.000000Z".into())),
            ("granted_by", StateValue::Text("u-1".into())),
            ("role", StateValue::Text("viewer".into())),
            ("scopes", StateValue::List(vec!["read".into(), "list".into()])),
            ("status", StateValue::Text("active".into())),
        ]
    );
    assert_eq!(field(&mapped, 0, "scopes"), Some(r#"["read","list"]"#));
    let revoked = format!(r#"{{"user_id":"u-2","wallet_id":"{WALLET}","revoked_by":"u-1","version":2}}"#);
    let mapped = event(send(&wallets, "mapping.revoked", &revoked));
    assert_eq!(
        mapped.states[0].attributes,
        [
            ("revoked_at", StateValue::Text("2026-01-05T09:00:00.000000Z".into())),
            ("revoked_by", StateValue::Text("u-1".into())),
            ("status", StateValue::Text("revoked".into())),
        ]
    );
    assert_eq!(reason(&send(&wallets, "mapping.granted", &revoked)), Reason::Schema);
    assert_eq!(
        reason(&send(&wallets, "mapping.revoked", &revoked.replace(r#""version":2"#, r#""x":2"#))),
        Reason::Schema
    );
    // Ids are bounded in bytes, not characters.
    let long = revoked.replace("u-2", &"é".repeat(600));
    assert!(matches!(reason(&send(&wallets, "mapping.revoked", &long)), Reason::Mapping | Reason::TooLarge));
}

#[test]
fn transactions_keep_their_digits() {
    let wallets = shipped("wallets");
    let transaction = |kind: &str, amount: &str| {
        let data = format!(
            r#"{{"transaction_id":"t-1","wallet_id":"{WALLET}","amount":{amount},"asset":"ETH","from":"{}","fee":"0.10","block_number":17}}"#,
            &CHECKSUMMED[6..]
        );
        send(&wallets, kind, &data)
    };
    let max = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    for kind in ["transaction.submitted", "transaction.confirmed", "transaction.failed"] {
        for amount in ["9007199254740993", "9223372036854775808", "33066915805160912602", max, "0.1", "10.10", "0"] {
            for written in [amount.to_owned(), format!("\"{amount}\"")] {
                let mapped = event(transaction(kind, &written));
                assert_eq!(field(&mapped, 0, "amount"), Some(amount), "{kind} {written}");
                assert_eq!(field(&mapped, 0, "fee"), Some("0.10"));
                assert_eq!(field(&mapped, 0, "from"), Some(&WALLET[6..]));
                assert_eq!(field(&mapped, 0, "block_number"), Some("17"));
                assert_eq!(mapped.records[0].kind, kind);
                assert!(mapped.states.is_empty() && mapped.request.is_none());
            }
        }
        for amount in ["1e18", "-0", "\"1e18\"", "\"-0\"", "\"ten\""] {
            let refused = transaction(kind, amount);
            assert_eq!(reason(&refused), Reason::Mapping, "{kind} {amount}");
            assert!(detail(&refused).starts_with("/data/amount: "), "{}", detail(&refused));
        }
        assert_eq!(reason(&transaction(kind, "true")), Reason::Schema);
    }
    // The two notations of one amount are two contents.
    let digest = |amount: &str| event(transaction("transaction.failed", amount)).content_digest;
    assert_ne!(digest("1"), digest("\"1\""));
}

#[test]
fn binary_events_are_the_same_events() {
    let wallets = shipped("wallets");
    let data = format!(r#"{{"wallet_id":"{WALLET}","version":1,"label":"mine"}}"#);
    let structured = event(send(&wallets, "wallet.updated", &data));
    // Case does not count in the names of HTTP headers, which bridges hand on as they came.
    for [version, id, source, kind, time, correlation, media] in [
        ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_correlationid", "content-type"],
        ["CE_SpecVersion", "CE_Id", "CE_Source", "CE_Type", "CE_Time", "CE_CorrelationId", "Content-Type"],
    ] {
        let headers: [(&str, Option<&[u8]>); 8] = [
            (version, Some(b"1.0")),
            (id, Some(b"e-1")),
            (source, Some(b"/wallets")),
            (kind, Some(b"wallet.updated")),
            (time, Some(b"2026-01-05T09:00:00Z")),
            (correlation, Some(b"c-9")),
            ("traceparent", Some(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
            (media, Some(b"application/json")),
        ];
        let message =
            Message { topic: "wallet-events", value: Some(data.as_bytes()), headers: &headers, ..Message::default() };
        let binary = event(prepare(&wallets, message));
        assert_eq!(binary.content_digest, structured.content_digest);
        assert_eq!(binary.states, structured.states);
        assert_eq!(binary.records[0].fields, structured.records[0].fields);
        assert_eq!(binary.records[0].occurred_at, structured.records[0].occurred_at);
        assert_eq!(binary.records[0].correlation_id, "c-9");
        assert!(binary.records[0].traceparent.as_deref().is_some_and(|text| text.starts_with("00-0af7")));
    }
}

#[test]
fn correlation_comes_from_the_envelope_else_the_header_else_the_record() {
    let wallets = shipped("wallets");
    let data = format!(r#"{{"wallet_id":"{WALLET}","version":1,"label":"mine"}}"#);
    let text = native("wallet.updated", &data);
    let with = text.replacen('{', r#"{"correlationid":"from-envelope","#, 1);
    let headers: [(&str, Option<&[u8]>); 1] = [("correlationid", Some(b"from-header"))];
    let send = |text: &str, headers| {
        let message = Message { topic: "wallet-events", value: Some(text.as_bytes()), headers, ..Message::default() };
        event(prepare(&wallets, message)).records[0].correlation_id.clone()
    };
    assert_eq!(send(&with, &headers), "from-envelope");
    assert_eq!(send(&text, &headers), "from-header");
    assert_eq!(send(&text, &[]), "/wallets|e-1");
}

#[test]
fn without_its_own_time_an_event_has_the_brokers() {
    let wallets = shipped("wallets");
    let data = format!(r#"{{"wallet_id":"{WALLET}","version":1,"label":"mine"}}"#);
    let text = native("wallet.updated", &data).replace(r#""time":"2026-01-05T10:00:00+01:00","#, "");
    let message = Message { topic: "wallet-events", value: Some(text.as_bytes()), ..Message::default() };
    assert_eq!(event(prepare(&wallets, message)).records[0].occurred_at, "2026-01-02T00:04:05.678000Z");
    let origin = origin("wallet-events");
    let delivery =
        Delivery { origin: &origin, timestamp_ms: None, key: None, value: Some(text.as_bytes()), headers: &[] };
    assert_eq!(reason(&wallets.prepare(&delivery)), Reason::Mapping);
}

#[test]
fn every_real_item_of_ethereum_is_mapped() {
    let ethereum = shipped("ethereum");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ethereum-etl");
    let mut kinds = std::collections::BTreeMap::new();
    let mut identities = std::collections::HashSet::new();
    let mut items = 0;
    for (file, topic) in [("transactions.jsonl", "transactions"), ("token_transfers.jsonl", "token_transfers")] {
        for line in std::fs::read_to_string(data.join(file)).unwrap().lines() {
            let mapped =
                event(prepare(&ethereum, Message { topic, value: Some(line.as_bytes()), ..Message::default() }));
            items += 1;
            assert!(mapped.states.is_empty() && mapped.request.is_none());
            // The digits as they stand in the line, between `"value": ` and the comma.
            let value = line.split("\"value\": ").nth(1).unwrap().split(',').next().unwrap();
            for (at, record) in mapped.records.iter().enumerate() {
                *kinds.entry(record.kind.clone()).or_insert(0) += 1;
                assert!(identities.insert(record.record_id.clone()), "{} twice", record.record_id);
                assert!(record.wallet_id.as_deref().is_some_and(|wallet| wallet.starts_with("evm:1:0x")));
                assert_eq!(record.occurred_at.len(), 27);
                if record.kind != "contract.created" {
                    assert_eq!(field(&mapped, at, "amount"), Some(value));
                }
            }
        }
    }
    assert_eq!(items, 589);
    // 298 transactions, one of which creates a contract instead of having a receiver; 291 transfers with two sides each.
    let expected = [
        ("contract.created", 1),
        ("transaction.in", 297),
        ("transaction.out", 298),
        ("transfer.in", 291),
        ("transfer.out", 291),
    ];
    assert_eq!(kinds.iter().map(|(kind, count)| (kind.as_str(), *count)).collect::<Vec<_>>(), expected);
}

#[test]
fn a_log_is_recorded_on_its_contract() {
    let ethereum = shipped("ethereum");
    let topic0 = format!("0x{}", "ab".repeat(32));
    let hash = format!("0x{}", "cd".repeat(32));
    let log = format!(
        r#"{{"type":"log","log_index":3,"transaction_hash":"{hash}","transaction_index":1,"address":"{}","data":"0x00ff","topics":["{topic0}"],"block_number":17173049,"block_timestamp":1683029999,"block_hash":"{hash}","item_id":"log_{hash}_3","item_timestamp":"2023-05-02T12:19:59Z"}}"#,
        &WALLET[6..]
    );
    let mapped =
        event(prepare(&ethereum, Message { topic: "logs", value: Some(log.as_bytes()), ..Message::default() }));
    assert_eq!(mapped.records[0].wallet_id.as_deref(), Some(WALLET));
    assert_eq!(mapped.records[0].occurred_at, "2023-05-02T12:19:59.000000Z");
    assert_eq!(mapped.records[0].record_id, format!("ethereum-etl|log_{hash}_3@{hash}"));
    assert_eq!(field(&mapped, 0, "topics"), Some(format!("[\"{topic0}\"]").as_str()));
    let crowded = log.replace(&format!("[\"{topic0}\"]"), "[1,2,3,4,5]");
    let refused = prepare(&ethereum, Message { topic: "logs", value: Some(crowded.as_bytes()), ..Message::default() });
    assert_eq!(reason(&refused), Reason::Schema);
}

#[test]
fn nothing_to_read_has_reasons_of_its_own() {
    let wallets = shipped("wallets");
    let with = |value| prepare(&wallets, Message { topic: "wallet-events", key: None, value, ..Message::default() });
    assert_eq!(reason(&with(None)), Reason::Tombstone);
    assert_eq!(reason(&with(Some(b""))), Reason::Empty);
    assert_eq!(reason(&with(Some(b"null"))), Reason::Schema);
    assert_eq!(reason(&with(Some(b"{"))), Reason::Undecodable);
    assert_eq!(reason(&with(Some(b"\xef\xbb\xbf{}"))), Reason::Undecodable);
    assert_eq!(reason(&with(Some(br#"{"a":1,"a":2}"#))), Reason::Undecodable);
    let unknown = native("wallet.painted", "{}");
    let refused = with(Some(unknown.as_bytes()));
    assert_eq!(reason(&refused), Reason::Unclassified);
    assert!(matches!(refused, Prepared::Refused { content_digest: Some(_), route: None, .. }));
    let elsewhere =
        prepare(&wallets, Message { topic: "other", value: Some(unknown.as_bytes()), ..Message::default() });
    assert_eq!(reason(&elsewhere), Reason::Unclassified);
}

#[test]
fn a_refusal_names_its_route_and_digest_but_not_the_payload() {
    let wallets = shipped("wallets");
    let refused =
        send(&wallets, "wallet.status_changed", r#"{"wallet_id":"secret-wallet","wallet_status":"x","version":1}"#);
    let Prepared::Refused { refusal, route, content_digest } = &refused else { unreachable!("{refused:?}") };
    assert_eq!(refusal.reason, Reason::Schema);
    assert_eq!(route.as_ref().unwrap().route, "wallet-status-changed");
    assert!(content_digest.is_some());
    assert!(!refusal.detail.contains("secret"), "{}", refusal.detail);
    assert!(refusal.detail.contains("/wallet_status"), "{}", refusal.detail);
}

const ROUTED: &str = r#"
pipeline: p
source: {kafka: {topics: [t, u], group: g, start: latest, protocol: consumer}}
routes:
  - {name: noise, match: {topic: t, key: "noise:*"}, skip: not ours}
  - {name: quiet, match: {topic: u}, format: json, tombstone: skip, schema: s.json, source: s, id: "{/id}", records: [{name: r, type: x}]}
  - name: loud
    match: {topic: t, header: {level: "hi*"}}
    format: confluent-json
    schema: s.json
    source: s
    id: "{/id}"
    time: /at
    consistency: transactional
    records:
      - {name: first, type: a, fields: {n: /n, k: {literal: v}, t: "<{/id}>"}}
      - {name: "sec|ond", type: b, when: /more}
  - {name: rest, match: {topic: t, content: {/kind: "b*"}}, format: confluent-json, allow_plain: true, schema: s.json, source: s, id: "{/id}", records: [{name: r, type: x}]}
"#;

#[test]
fn routes_are_told_apart_by_key_header_and_content() {
    let pipeline = written(&ROUTED.replace("\"sec|ond\"", "second"), r#"{"type": "object", "required": ["id"]}"#);
    let framed: Vec<u8> = [&[0u8, 0, 0, 0, 5][..], br#"{"id":"1","n":10.10,"more":0,"at":1683029999}"#].concat();
    let hi: [(&str, Option<&[u8]>); 1] = [("level", Some(b"high"))];
    let mapped = event(prepare(&pipeline, Message { value: Some(&framed), headers: &hi, ..Message::default() }));
    assert!(mapped.transactional);
    assert_eq!(mapped.records[0].occurred_at, "2023-05-02T12:19:59.000000Z");
    assert_eq!(field(&mapped, 0, "n"), Some("10.10"));
    assert_eq!(field(&mapped, 0, "k"), Some("v"));
    assert_eq!(field(&mapped, 0, "t"), Some("<1>"));
    assert_eq!(mapped.records[1].record_id, "s|1|second");
    assert_eq!(mapped.records[1].correlation_id, "s|1");
    let nulls: Vec<u8> = [&[0u8, 0, 0, 0, 5][..], br#"{"id":"1","n":null,"more":null}"#].concat();
    let mapped = event(prepare(&pipeline, Message { value: Some(&nulls), headers: &hi, ..Message::default() }));
    assert_eq!(mapped.records.len(), 1);
    assert_eq!(field(&mapped, 0, "n"), None);
    let plain = br#"{"id":"1","kind":"bee"}"#;
    let mapped = event(prepare(&pipeline, Message { value: Some(plain), ..Message::default() }));
    assert_eq!(mapped.records[0].names.route, "rest");
    // The header leads to the route that demands a frame; what that cannot read, the next may.
    let mapped = event(prepare(&pipeline, Message { value: Some(plain), headers: &hi, ..Message::default() }));
    assert_eq!(mapped.records[0].names.route, "rest");
    let other = prepare(&pipeline, Message { value: Some(br#"{"id":"1","kind":"cow"}"#), ..Message::default() });
    assert_eq!(reason(&other), Reason::Unclassified);
    let magic =
        prepare(&pipeline, Message { value: Some(b"\x01\x00\x00\x00\x05{}"), headers: &hi, ..Message::default() });
    assert_eq!(reason(&magic), Reason::Framing);
    for value in [None, Some(&b""[..]), Some(&b"{"[..])] {
        let noise = prepare(&pipeline, Message { key: Some(b"noise:1"), value, ..Message::default() });
        assert!(matches!(noise, Prepared::Skipped), "{noise:?}");
    }
    assert!(matches!(prepare(&pipeline, Message { topic: "u", ..Message::default() }), Prepared::Skipped));
    assert_eq!(reason(&prepare(&pipeline, Message::default())), Reason::Tombstone);
    let missing = prepare(&pipeline, Message { topic: "u", value: Some(b"{}"), ..Message::default() });
    assert_eq!(reason(&missing), Reason::Schema);
    let null = prepare(&pipeline, Message { topic: "u", value: Some(br#"{"id":null}"#), ..Message::default() });
    assert_eq!(reason(&null), Reason::Mapping);
    let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(5_000));
    let long = prepare(&pipeline, Message { topic: "u", value: Some(long.as_bytes()), ..Message::default() });
    assert!(matches!(reason(&long), Reason::TooLarge | Reason::Mapping));
    assert_eq!((pipeline.group(), pipeline.start(), pipeline.protocol()), ("g", Start::Latest, Protocol::Consumer));
    assert_eq!((pipeline.name(), pipeline.topics()), ("p", &["t".to_owned(), "u".to_owned()][..]));
}

#[test]
fn revisions_follow_what_is_configured_and_nothing_else() {
    let schema = r#"{"type": "object"}"#;
    let yaml = ROUTED.replace("\"sec|ond\"", "second");
    let before = written(&yaml, schema);
    let commented = written(&yaml.replace("pipeline: p", "# a comment\npipeline: p"), schema);
    assert_eq!(before.revision(), commented.revision());
    assert_eq!(before.revision().len(), 16);
    let other_schema = written(&yaml, r#"{"type":"object"}"#);
    let other_route = written(&yaml.replace("type: b", "type: c"), schema);
    for after in [&other_schema, &other_route] {
        assert_ne!(before.revision(), after.revision());
    }
    let revision = |pipeline: &Pipeline, at: usize| pipeline.routes[at].names.mapping_revision.clone();
    assert_eq!(revision(&before, 1), revision(&other_route, 1));
    assert_ne!(revision(&before, 2), revision(&other_route, 2));
}

#[test]
fn frames_that_a_route_does_not_know_are_named() {
    let yaml = r#"
pipeline: p
source: {kafka: {topics: [t, u], group: g, start: earliest}}
routes:
  - {name: framed, match: {topic: t}, format: confluent-json, schema: s.json, source: s, id: "{/id}", records: [{name: r, type: x}]}
  - {name: either, match: {topic: u}, format: confluent-json, allow_plain: true, schema: s.json, source: s, id: "{/id}", records: [{name: r, type: x}]}
"#;
    let pipeline = written(yaml, r#"{"type": "object", "required": ["id"]}"#);
    let body = br#"{"id":"1"}"#;
    let framed = |head: &[u8], body: &[u8]| [head, body].concat();
    let good = framed(&[0, 0, 0, 0, 5], body);
    let send = |topic, value: &[u8]| prepare(&pipeline, Message { topic, value: Some(value), ..Message::default() });
    let digest = event(send("t", &good)).content_digest;
    assert_eq!(event(send("u", &good)).content_digest, digest);
    // The frame is no part of the content.
    assert_eq!(event(send("u", body)).content_digest, digest);
    assert_eq!(event(send("t", &framed(&[0, 0, 0, 0, 9], body))).content_digest, digest);
    for bad in [
        body.to_vec(),
        framed(&[0, 0, 0, 0, 5], b""),
        framed(&[0, 0, 0], b""),
        framed(&[1, 0, 0, 0, 5], body),
        framed(&[0, 0, 0, 0, 5, 0], body),
        framed(&[0, 0, 0, 0, 7], b"\x02\x0efoo"),
    ] {
        assert_eq!(reason(&send("t", &bad)), Reason::Framing, "{bad:?}: {}", detail(&send("t", &bad)));
    }
    assert!(detail(&send("t", &framed(&[1, 0, 0, 0, 5], body))).contains("magic"));
}

#[test]
fn amounts_of_items_follow_the_same_rule() {
    let ethereum = shipped("ethereum");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ethereum-etl/token_transfers.jsonl");
    let line = std::fs::read_to_string(data).unwrap().lines().next().unwrap().to_owned();
    let with = |value: &str| {
        let line = line.replace("7056176614974947328", value);
        prepare(&ethereum, Message { topic: "token_transfers", value: Some(line.as_bytes()), ..Message::default() })
    };
    event(with("0"));
    for value in ["1e18", "-0", "\"1e18\""] {
        assert_eq!(reason(&with(value)), Reason::Mapping, "{value}");
    }
    assert_eq!(reason(&with("0.5")), Reason::Schema);
}

#[test]
fn versions_go_to_the_last_bit_and_no_further() {
    let wallets = shipped("wallets");
    let with = |version: &str| {
        let data = format!(r#"{{"wallet_id":"{WALLET}","version":{version},"label":"x"}}"#);
        send(&wallets, "wallet.updated", &data)
    };
    let last = Version::from_parts(&[u64::MAX, 1]);
    assert_eq!(Some(event(with("[18446744073709551615,1]")).states[0].version), last);
    for version in ["18446744073709551616", "-1", "[]", "[1,2,3,4,5]", "[18446744073709551616]", "\"3\"", "1.5"] {
        assert_eq!(reason(&with(version)), Reason::Schema, "{version}");
    }
    // Integers by JSON Schema's rule, but not by their digits.
    for version in ["1.0", "1e3", "-0"] {
        assert_eq!(reason(&with(version)), Reason::Mapping, "{version}");
    }
}

#[test]
fn a_pipeline_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Pipeline>();
}
