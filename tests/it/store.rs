//! What every record store and ledger must do, run on the embedded server; and what the adapter does when calls go wrong.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use recordkeeper::embedded::dynamodb::{self as embedded, EmbeddedDynamo};
use recordkeeper::event::{
    Digest, Group, Origin, Outcome, Partition, Position, Record, RouteNames, SetDigest, StateKey, StateValue,
    StateWrite, Version, ids,
};
use recordkeeper::ledger::{Appended, Chain, Entry, Fills, Ledger, Outcomes, StartItem};
use recordkeeper::store::dynamodb::read::{Page, Reader, RecordsOf};
use recordkeeper::store::dynamodb::tables::{self, Made, TableOptions};
use recordkeeper::store::dynamodb::{
    CallMetrics, Dynamo, DynamoConfig, Item, ShardCounts, Shards, StoreError, Value, WriteUnits, record_digest,
};
use recordkeeper::store::{Changed, Inserted, RecordStore, RetryCause, Transacted, Transaction};
use recordkeeper::telemetry::Metrics;

use crate::fault_proxy::{Fault, FaultProxy};

const SHARDS: ShardCounts =
    ShardCounts { records: Shards { write: 3, read: 5 }, wallets: Shards { write: 2, read: 2 } };

fn config(endpoint: &str) -> DynamoConfig {
    DynamoConfig {
        table_prefix: "test-".into(),
        region: Some(EmbeddedDynamo::REGION.into()),
        endpoint: Some(endpoint.into()),
        credentials: Some(EmbeddedDynamo::credentials()),
        connections_max: 16,
        calls_in_flight_max: 4,
        call_deadline: Duration::from_secs(20),
        write_units_per_second: WriteUnits::default(),
        shards: SHARDS,
    }
}

fn options() -> TableOptions {
    TableOptions {
        kms_key: None,
        point_in_time_recovery: false,
        deletion_protection: false,
        records_stream: true,
        deadline: Duration::from_secs(20),
    }
}

async fn store() -> (EmbeddedDynamo, Arc<Dynamo>) {
    let server = embedded::start(None).await.unwrap();
    let dynamo = Dynamo::connect(config(&server.endpoint), None).await.unwrap();
    tables::create(&dynamo, &options()).await.unwrap();
    (server, Arc::new(dynamo))
}

/// A store behind a proxy that spoils answers; tables are made past it.
async fn faulty_store() -> (EmbeddedDynamo, FaultProxy, Arc<Dynamo>) {
    let (server, _) = store().await;
    let proxy = FaultProxy::start(&server.endpoint).await;
    let dynamo = Dynamo::connect(config(&proxy.endpoint), None).await.unwrap();
    (server, proxy, Arc::new(dynamo))
}

fn origin(offset: u64) -> Origin {
    let partition = Partition {
        cluster: "c".into(),
        topic: "wallet-events".into(),
        topic_id: "id".into(),
        epoch: 0,
        name: "0".into(),
    };
    Origin { partition: Arc::new(partition), position: Position::Offset(offset) }
}

fn record(id: &str, content: &str, offset: u64) -> Record {
    let names = RouteNames { pipeline: "native".into(), route: "created".into(), mapping_revision: "r1".into() };
    Record {
        record_id: ids::record_id("/test", id, None),
        kind: "wallet.created".into(),
        occurred_at: format!("2026-01-02T03:04:{:02}.000000Z", offset % 60),
        source: "/test".into(),
        event_id: id.into(),
        fields: vec![("amount".into(), content.into())],
        content_digest: Digest::of(content.as_bytes()),
        origin: origin(offset),
        names: Arc::new(names),
        correlation_id: id.into(),
        traceparent: (offset.is_multiple_of(2)).then(|| "00-1-2-01".into()),
        corrects: offset.is_multiple_of(3).then(|| Digest::of(b"before")),
        wallet_id: (!offset.is_multiple_of(7)).then(|| "evm:1:0xab".into()),
    }
}

fn wallet(wallet_id: &str, group: Group, version: u64, value: &str) -> StateWrite {
    let attribute = match group {
        Group::Identity => "owner",
        Group::Profile => "label",
        Group::Status => "wallet_status",
        Group::Mapping => "role",
    };
    StateWrite {
        key: StateKey::Wallet { wallet_id: wallet_id.into() },
        group,
        version: Version::from_parts(&[version]).unwrap(),
        attributes: vec![(attribute, StateValue::Text(value.into()))],
    }
}

fn mapping(user_id: &str, wallet_id: &str, version: u64, role: &str) -> StateWrite {
    let key = StateKey::Mapping { user_id: user_id.into(), wallet_id: wallet_id.into() };
    let scopes = StateValue::List(vec!["read".into(), "sign".into()]);
    let attributes = vec![
        ("role", StateValue::Text(role.into())),
        ("scopes", scopes),
        ("status", StateValue::Text("active".into())),
    ];
    StateWrite { key, attributes, ..wallet("", Group::Mapping, version, "") }
}

fn stored(verdict: &Inserted) -> Digest {
    let Inserted::Stored { record_digest } = verdict else { panic!("{verdict:?}") };
    *record_digest
}

fn assert_stored(verdict: &Inserted) {
    stored(verdict);
}

fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    item.get(name).and_then(Value::text).unwrap_or_else(|| panic!("{name} in {item:?}"))
}

fn digest_of(item: &Item) -> Digest {
    record_digest(item.iter().map(|(name, value)| (name.as_str(), value)))
}

/// What any record store must do; the store must be empty.
pub async fn record_store_conformance(store: &dyn RecordStore) {
    // Nothing asked, nothing answered.
    assert_eq!(store.insert(&[]).await, []);
    assert_eq!(store.change(&[]).await, []);

    // More than any call takes, all absent.
    let records: Vec<_> = (0..60).map(|at| record(&format!("many-{at}"), "x", at)).collect();
    let all: Vec<_> = records.iter().collect();
    let verdicts = store.insert(&all).await;
    let digests: Vec<_> = verdicts.iter().map(stored).collect();
    assert_eq!(digests.iter().collect::<HashSet<_>>().len(), 60);

    // Again: present under their own origins, with the digests that were told.
    for ((verdict, record), digest) in store.insert(&all).await.iter().zip(&records).zip(&digests) {
        let Inserted::Present(standing) = verdict else { panic!("{verdict:?}") };
        assert_eq!(standing.origin, record.origin.text());
        assert_eq!((standing.content_digest, standing.record_digest), (record.content_digest, *digest));
    }

    // Other content under a known id: what stands is told, and stays.
    let (other, fresh) = (record("many-3", "y", 900), record("fresh", "z", 901));
    let verdicts = store.insert(&[&other, &fresh]).await;
    let Inserted::Present(standing) = &verdicts[0] else { panic!("{verdicts:?}") };
    assert_eq!((standing.content_digest, &standing.origin), (Digest::of(b"x"), &records[3].origin.text()));
    stored(&verdicts[1]);

    // Two callers with the same keys at once: each is stored by exactly one of them.
    let both: Vec<_> = (0..40).map(|at| record(&format!("race-{at}"), "x", at)).collect();
    let both: Vec<_> = both.iter().collect();
    let (first, second) = tokio::join!(store.insert(&both), store.insert(&both));
    for (a, b) in first.iter().zip(&second) {
        let stored = [a, b].into_iter().filter(|verdict| matches!(verdict, Inserted::Stored { .. })).count();
        let present = [a, b].into_iter().filter(|verdict| matches!(verdict, Inserted::Present(_))).count();
        assert_eq!((stored, present), (1, 1), "{a:?} {b:?}");
    }

    // States: up, never down, the same again, a tie, another group beside.
    let change = async |write: StateWrite| store.change(&[&write]).await.swap_remove(0);
    assert_eq!(change(wallet("evm:1:0x1", Group::Status, 5, "active")).await, Changed::Applied);
    assert_eq!(change(wallet("evm:1:0x1", Group::Status, 5, "active")).await, Changed::Same);
    assert_eq!(change(wallet("evm:1:0x1", Group::Status, 5, "frozen")).await, Changed::Tie);
    assert_eq!(change(wallet("evm:1:0x1", Group::Status, 4, "frozen")).await, Changed::Stale);
    assert_eq!(change(wallet("evm:1:0x1", Group::Profile, 1, "mine")).await, Changed::Applied);
    assert_eq!(change(wallet("evm:1:0x1", Group::Status, 6, "frozen")).await, Changed::Applied);
    assert_eq!(change(mapping("u", "evm:1:0x1", 2, "owner")).await, Changed::Applied);
    assert_eq!(change(mapping("u", "evm:1:0x1", 2, "owner")).await, Changed::Same);
    assert_eq!(change(mapping("u", "evm:1:0x1", 1, "viewer")).await, Changed::Stale);

    // Many at once, several groups of one wallet among them, new ones and known ones.
    let mut writes: Vec<_> = (0..30).map(|at| wallet(&format!("evm:1:0x2{at}"), Group::Identity, 1, "o")).collect();
    writes.extend(Group::OF_WALLET.map(|group| wallet("evm:1:0x3", group, 1, "pending")));
    writes.push(wallet("evm:1:0x1", Group::Status, 6, "frozen"));
    writes.push(mapping("v", "evm:1:0x3", 1, "viewer"));
    let all: Vec<_> = writes.iter().collect();
    let expected = |at| if at == 33 { Changed::Same } else { Changed::Applied };
    assert_eq!(store.change(&all).await, (0..35).map(expected).collect::<Vec<_>>());
    assert_eq!(store.change(&all).await, vec![Changed::Same; 35]);

    // One transaction: all, then nothing for whatever reason.
    let (judge, further) = (record("tx", "t", 1), record("tx-more", "t", 1));
    let records = [judge.clone(), further];
    let states = [wallet("evm:1:0x4", Group::Identity, 1, "o"), wallet("evm:1:0x1", Group::Status, 7, "closed")];
    let done = store.transact(Transaction { records: &records, states: &states }).await;
    let Transacted::Done { record_digests } = done else { panic!("{done:?}") };
    let again = store.transact(Transaction { records: &records, states: &states }).await;
    let Transacted::Present(standing) = again else { panic!("{again:?}") };
    assert_eq!((&standing.origin, standing.record_digest), (&judge.origin.text(), record_digests[0]));
    let records = [record("tx2", "t", 2)];
    let states = [wallet("evm:1:0x5", Group::Identity, 1, "o"), wallet("evm:1:0x1", Group::Status, 6, "active")];
    let stale = store.transact(Transaction { records: &records, states: &states }).await;
    assert_eq!(stale, Transacted::Unchanged(vec![(1, Changed::Stale)]));
    let done = store.transact(Transaction { records: &records, states: &states[..1] }).await;
    assert!(matches!(done, Transacted::Done { .. }), "the stale one wrote nothing: {done:?}");
}

#[tokio::test]
async fn the_store_conforms() {
    let (server, dynamo) = store().await;
    record_store_conformance(&*dynamo).await;
    server.stop().await;
}

#[tokio::test]
async fn a_record_reads_back_with_every_attribute_and_its_own_digest() {
    let (_server, dynamo) = store().await;
    let record = record("one", "340282366920938463463374607431768211457", 2);
    let digest = stored(&dynamo.insert(&[&record]).await[0]);
    let item = Reader::new(dynamo).record(&record.record_id, true).await.unwrap().unwrap();
    assert_eq!((digest_of(&item), text(&item, "record_digest")), (digest, &*digest.hex()));
    assert_eq!(text(&item, "origin"), record.origin.text());
    assert_eq!(item["format"].integer(), Some(1));
    assert_eq!(text(&item, "recorded_at").len(), 27);
    let Value::Map(fields) = &item["fields"] else { panic!("{item:?}") };
    let amount = fields.iter().find(|(name, _)| name == "amount").and_then(|(_, value)| value.text());
    assert_eq!(amount, Some("340282366920938463463374607431768211457"));
    let key = Digest::of(record.record_id.as_bytes());
    assert_eq!(text(&item, "wallet_shard"), format!("evm:1:0xab#{}", key.leading_u64() % 3));
    assert_eq!(text(&item, "sort"), format!("{}#{}", record.occurred_at, &key.hex()[..16]));
}

#[tokio::test]
async fn a_wallet_keeps_its_groups_apart() {
    let (_server, dynamo) = store().await;
    let reader = Reader::new(dynamo.clone());
    let mut named = wallet("solana:mainnet:Ab", Group::Profile, 2, "mine");
    named.attributes.push(("tags", StateValue::Map(vec![("k".into(), "v".into())])));
    dynamo.change(&[&named]).await;
    let created = reader.wallet("solana:mainnet:Ab", true).await.unwrap().unwrap();
    assert_eq!((text(&created, "wallet_status"), text(&created, "blockchain_type")), ("pending", "solana"));
    dynamo.change(&[&wallet("solana:mainnet:Ab", Group::Status, 9, "active")]).await;
    // The next profile brings no tags: they go.
    dynamo.change(&[&wallet("solana:mainnet:Ab", Group::Profile, 3, "ours")]).await;
    let item = reader.wallet("solana:mainnet:Ab", true).await.unwrap().unwrap();
    assert_eq!((text(&item, "wallet_status"), text(&item, "label"), item.get("tags")), ("active", "ours", None));
    assert_eq!(text(&item, "identity_version"), "");
    assert_eq!(text(&item, "created_at"), text(&created, "created_at"));
    assert!(text(&item, "chain_status_shard").starts_with("solana#active#"));
}

#[tokio::test]
async fn states_end_the_same_in_whatever_order_they_come() {
    let (_server, dynamo) = store().await;
    let reader = Reader::new(dynamo.clone());
    let writes = |id: &str| {
        let mut writes: Vec<_> = (1..=4).map(|at| wallet(id, Group::Status, at, &format!("s{at}"))).collect();
        writes.extend((1..=4).map(|at| wallet(id, Group::Profile, at, &format!("p{at}"))));
        writes
    };
    for case in 0..24 {
        let id = format!("evm:1:0x{case}");
        let mut order: Vec<_> = (0..8).collect();
        fastrand::Rng::with_seed(case).shuffle(&mut order);
        let writes = writes(&id);
        // Half of them one after the other, half at once from several callers.
        for at in &order[..4] {
            dynamo.change(&[&writes[*at]]).await;
        }
        let rest = order[4..].iter().map(|at| async { dynamo.change(&[&writes[*at]]).await.swap_remove(0) });
        for verdict in futures::future::join_all(rest).await {
            assert!(matches!(verdict, Changed::Applied | Changed::Stale), "{order:?}: {verdict:?}");
        }
        let item = reader.wallet(&id, true).await.unwrap().unwrap();
        assert_eq!((text(&item, "wallet_status"), text(&item, "label")), ("s4", "p4"), "{order:?}");
    }
}

#[tokio::test]
async fn a_tie_compares_the_event_alone() {
    let (_server, dynamo) = store().await;
    let write = wallet("ext:w", Group::Identity, 1, "o");
    dynamo.change(&[&write]).await;
    // Another group's write changes status and clocks, not the identity.
    dynamo.change(&[&wallet("ext:w", Group::Status, 1, "active")]).await;
    assert_eq!(dynamo.change(&[&write]).await, [Changed::Same]);
}

#[tokio::test]
async fn awkward_ids_are_stored_and_found_exactly() {
    let (_server, dynamo) = store().await;
    let reader = Reader::new(dynamo.clone());
    let (mut kept, mut too_long) = (0, 0);
    for line in include_str!("../data/cases/awkward_ids.jsonl").lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = event["id"].as_str().unwrap();
        let wallet_id = event["data"]["wallet_id"].as_str().unwrap();
        let record = Record {
            record_id: ids::record_id("/field/cases", id, None),
            wallet_id: Some(wallet_id.into()),
            ..record(id, "1", 1)
        };
        let state = wallet(wallet_id, Group::Profile, 1, id);
        let right = mapping(id, wallet_id, 1, "owner");
        let fits = dynamo.check_record(&record).is_ok() && dynamo.check_state(&right).is_ok();
        if !fits {
            too_long += 1;
            continue;
        }
        kept += 1;
        stored(&dynamo.insert(&[&record]).await[0]);
        assert_eq!(dynamo.change(&[&state, &right]).await, [Changed::Applied, Changed::Applied], "{id:?}");
        let found = reader.record(&record.record_id, true).await.unwrap().unwrap();
        assert_eq!((text(&found, "event_id"), text(&found, "wallet_id")), (id, wallet_id));
        assert_eq!(text(&reader.wallet(wallet_id, true).await.unwrap().unwrap(), "label"), id);
        let rights = reader.mappings_by_user(id, None, 10, true).await.unwrap().items;
        assert_eq!(rights.iter().map(|item| text(item, "wallet_id")).collect::<Vec<_>>(), [wallet_id]);
        let of = RecordsOf { wallet_id: wallet_id.into(), limit: 10, ..RecordsOf::default() };
        assert_eq!(reader.wallet_records(&of, false).await.unwrap().items, [found]);
    }
    assert!(kept > 10 && too_long > 0, "{kept} {too_long}");
}

#[tokio::test]
async fn an_item_of_409_600_bytes_is_stored_and_one_byte_more_is_told_before() {
    let (_server, dynamo) = store().await;
    let mut exact = record("large", "é", 2);
    exact.fields.push(("filler".into(), String::new()));
    exact.fields[1].1 = "x".repeat(409_601);
    let over = dynamo.check_record(&exact).unwrap_err();
    assert_eq!((over.what.as_str(), over.limit), ("item of wallet_records", 409_600));
    exact.fields[1].1 = "x".repeat(409_601 - (over.bytes - over.limit));
    assert_eq!(dynamo.check_record(&exact), Ok(()));
    let mut larger =
        Record { record_id: ids::record_id("/test", "larg2", None), event_id: "larg2".into(), ..exact.clone() };
    larger.correlation_id = "larg2".into();
    larger.fields[1].1.push('x');
    assert_eq!(dynamo.check_record(&larger).unwrap_err().bytes, 409_601);
    let neighbours: Vec<_> = (0..30).map(|at| record(&format!("small-{at}"), "x", at)).collect();
    let mut all: Vec<_> = neighbours.iter().collect();
    all.insert(3, &exact);
    all.insert(7, &larger);
    let verdicts = dynamo.insert(&all).await;
    for (at, verdict) in verdicts.iter().enumerate() {
        match at {
            7 => assert!(matches!(verdict, Inserted::Rejected(_)), "the server agrees: {verdict:?}"),
            _ => assert_stored(verdict),
        }
    }
    // A call's worth of the largest items.
    let large: Vec<_> = (10..35)
        .map(|at| {
            let id = format!("lar{at}");
            Record {
                record_id: ids::record_id("/test", &id, None),
                event_id: id.clone(),
                correlation_id: id,
                ..exact.clone()
            }
        })
        .collect();
    let large: Vec<_> = large.iter().collect();
    dynamo.insert(&large).await.iter().for_each(assert_stored);
}

#[tokio::test]
async fn keys_over_their_limits_are_told_before() {
    let (_server, dynamo) = store().await;
    let long = |bytes: usize| "k".repeat(bytes);
    let over = |record: Record| dynamo.check_record(&record).unwrap_err();
    let error = over(Record { record_id: long(2_049), ..record("a", "x", 1) });
    assert_eq!((error.what.as_str(), error.bytes, error.limit), ("key record_id", 2_049, 2_048));
    let error = over(Record { wallet_id: Some(long(2_047)), ..record("a", "x", 1) });
    assert_eq!((error.what.as_str(), error.bytes), ("index key wallet_shard", 2_049));
    assert_eq!(dynamo.check_state(&mapping("u", &long(1_025), 1, "owner")).unwrap_err().limit, 1_024);
    assert_eq!(dynamo.check_state(&mapping(&long(1_025), "w", 1, "owner")).unwrap_err().limit, 1_024);
    assert_eq!(dynamo.check_state(&wallet(&long(2_049), Group::Status, 1, "active")).unwrap_err().limit, 2_048);
    assert_eq!(dynamo.check_state(&mapping(&long(1_024), &long(1_024), 1, "owner")), Ok(()));
    assert_eq!(dynamo.change(&[&mapping(&long(1_024), &long(1_024), 1, "owner")]).await, [Changed::Applied]);
}

#[tokio::test]
async fn a_wallets_records_come_in_time_order_over_all_shards_page_by_page() {
    let (_server, dynamo) = store().await;
    let reader = Reader::new(dynamo.clone());
    let records: Vec<_> =
        (0..50u64).map(|at| Record { wallet_id: Some("ext:w".into()), ..record(&format!("r{at}"), "x", at) }).collect();
    let mut strangers = vec![Record { wallet_id: Some("ext:w#1".into()), ..record("stranger", "x", 5) }];
    strangers.extend(records.iter().cloned());
    let all: Vec<_> = strangers.iter().collect();
    dynamo.insert(&all).await;
    for newest_first in [false, true] {
        let mut of = RecordsOf { wallet_id: "ext:w".into(), newest_first, limit: 7, ..RecordsOf::default() };
        let mut found = Vec::new();
        loop {
            let Page { items, next } = reader.wallet_records(&of, false).await.unwrap();
            found.extend(items.iter().map(|item| text(item, "occurred_at").to_owned()));
            let Some(next) = next else { break };
            of.after = Some(next);
        }
        let mut expected: Vec<_> = records.iter().map(|record| record.occurred_at.clone()).collect();
        if newest_first {
            expected.reverse();
        }
        assert_eq!(found, expected);
    }
    let of = RecordsOf {
        wallet_id: "ext:w".into(),
        from: Some("2026-01-02T03:04:10.000000Z".into()),
        to: Some("2026-01-02T03:04:20.000000Z".into()),
        limit: 100,
        ..RecordsOf::default()
    };
    assert_eq!(reader.wallet_records(&of, false).await.unwrap().items.len(), 10, "the end is outside");
    assert!(matches!(reader.wallet_records(&of, true).await, Err(StoreError::NotStrong(_))));
}

#[tokio::test]
async fn wallets_are_found_by_chain_and_status_and_rights_both_ways() {
    let (_server, dynamo) = store().await;
    let reader = Reader::new(dynamo.clone());
    let writes: Vec<_> = (0..40).map(|at| wallet(&format!("evm:1:0x{at}"), Group::Status, 1, "active")).collect();
    dynamo.change(&writes.iter().collect::<Vec<_>>()).await;
    let frozen = wallet("evm:1:0x7", Group::Status, 2, "frozen");
    dynamo.change(&[&frozen, &wallet("evm:1:0x8", Group::Profile, 1, "still active")]).await;
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = reader.wallets_by_chain_and_status("evm", "active", after.as_deref(), 6, false).await.unwrap();
        found.extend(page.items.iter().map(|item| text(item, "wallet_id").to_owned()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 39);
    assert_eq!(found.iter().collect::<HashSet<_>>().len(), 39);
    let page = reader.wallets_by_chain_and_status("evm", "frozen", None, 6, false).await.unwrap();
    assert_eq!(page.items.iter().map(|item| text(item, "wallet_id")).collect::<Vec<_>>(), ["evm:1:0x7"]);

    let rights: Vec<_> =
        (0..9).map(|at| mapping(&format!("u{}", at % 3), &format!("w{}", at / 3), 1, "viewer")).collect();
    dynamo.change(&rights.iter().collect::<Vec<_>>()).await;
    let by_user = reader.mappings_by_user("u1", None, 2, true).await.unwrap();
    assert_eq!(by_user.items.iter().map(|item| text(item, "wallet_id")).collect::<Vec<_>>(), ["w0", "w1"]);
    let rest = reader.mappings_by_user("u1", by_user.next.as_deref(), 2, true).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
    let by_wallet = reader.mappings_by_wallet("w2", None, 10, false).await.unwrap();
    assert_eq!(by_wallet.items.iter().map(|item| text(item, "user_id")).collect::<Vec<_>>(), ["u0", "u1", "u2"]);
    assert!(matches!(reader.mappings_by_wallet("w2", None, 10, true).await, Err(StoreError::NotStrong(_))));
}

#[tokio::test]
async fn tables_are_made_once_and_what_is_wrong_with_them_is_told() {
    let server = embedded::start(None).await.unwrap();
    let dynamo = Dynamo::connect(config(&server.endpoint), None).await.unwrap();
    let problems = tables::check(&dynamo).await;
    assert_eq!(problems.len(), 5, "{problems:?}");
    assert!(problems.iter().all(|problem| problem.contains("tables create")), "{problems:?}");
    let verdicts = dynamo.insert(&[&record("early", "x", 1)]).await;
    assert!(
        matches!(&verdicts[0], Inserted::Retry(retry) if retry.cause == RetryCause::Refused),
        "nothing is lost while tables are missing: {verdicts:?}"
    );
    let report = tables::create(&dynamo, &options()).await.unwrap();
    assert!(report.tables.iter().all(|(_, made)| *made == Made::Created), "{report:?}");
    assert_eq!(tables::check(&dynamo).await, Vec::<String>::new());
    stored(&dynamo.insert(&[&record("early", "x", 1)]).await[0]);
    // Again, with other shard counts: what stands stays.
    let other = ShardCounts { records: Shards { write: 9, read: 9 }, ..SHARDS };
    let second = Dynamo::connect(DynamoConfig { shards: other, ..config(&server.endpoint) }, None).await.unwrap();
    let report = tables::create(&second, &options()).await.unwrap();
    assert!(report.tables.iter().all(|(_, made)| *made == Made::Exists), "{report:?}");
    let verdicts = second.insert(&[&record("early", "x", 1)]).await;
    assert!(matches!(verdicts[0], Inserted::Present(_)));
    let descriptions = tables::describe(&second).await.unwrap();
    assert_eq!(descriptions[0].indexes[0].1, ["wallet_shard", "sort"]);
}

/// A first call that gave up waiting for new tables left their recovery off: the next one finds them there.
#[tokio::test]
async fn point_in_time_recovery_is_switched_on_wherever_it_is_off() {
    const OFF: &str = r#"{"ContinuousBackupsDescription": {"ContinuousBackupsStatus": "ENABLED",
        "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "DISABLED"}}}"#;
    const ON: &str = r#"{"ContinuousBackupsDescription": {"ContinuousBackupsStatus": "ENABLED",
        "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "ENABLED"}}}"#;
    let (_server, proxy, dynamo) = faulty_store().await;
    for answer in [OFF, OFF, ON, OFF, OFF] {
        proxy.next("DescribeContinuousBackups", Fault::Answers(answer));
    }
    for _ in 0..4 {
        proxy.next("UpdateContinuousBackups", Fault::Answers(ON));
    }
    let options = TableOptions { point_in_time_recovery: true, ..options() };
    let report = tables::create(&dynamo, &options).await.unwrap();
    assert!(report.tables.iter().all(|(_, made)| *made == Made::Exists), "{report:?}");
    assert_eq!(proxy.calls("UpdateContinuousBackups"), 4);
}

#[tokio::test]
async fn wrong_settings_are_told() {
    let good = config("http://127.0.0.1:9");
    for bad in [
        DynamoConfig { table_prefix: "a\" SET x".into(), ..good.clone() },
        DynamoConfig { calls_in_flight_max: 0, ..good.clone() },
        DynamoConfig { call_deadline: Duration::ZERO, ..good.clone() },
        DynamoConfig { shards: ShardCounts { records: Shards { write: 4, read: 3 }, ..SHARDS }, ..good.clone() },
    ] {
        assert!(matches!(Dynamo::connect(bad, None).await, Err(StoreError::Setting(_))));
    }
}

fn chain(group: &str) -> Chain {
    Chain { group: group.into(), partition: origin(0).partition, epoch: 0 }
}

/// Only every other entry fills something.
fn fills(to: u64) -> Fills {
    let mut fills = Fills::default();
    if to.is_multiple_of(2) {
        fills.push(&origin(to));
        fills.push(&origin(to + 7));
    }
    fills
}

fn entry(from: Position, to: u64, nonce: &str, previous: Digest) -> Entry {
    let mut outcomes = Outcomes::default();
    outcomes.push(Outcome::Recorded, from.distance_to(Position::Offset(to)));
    let mut records = SetDigest::default();
    records.add(&Digest::of(nonce.as_bytes()));
    Entry {
        from,
        to: Position::Offset(to),
        outcomes,
        records,
        record_count: 1,
        fills: fills(to),
        revision: "r1".into(),
        writer: "w1".into(),
        nonce: nonce.into(),
        previous,
        attested_at: "2026-01-02T03:04:05.678901Z".into(),
    }
}

/// What any ledger must do; it must be empty.
pub async fn ledger_conformance(ledger: &dyn Ledger) {
    let (mine, other) = (chain("g"), chain("g|2"));
    assert_eq!(ledger.end(&mine).await.unwrap(), None);
    assert_eq!(ledger.entries(&mine, Position::Begin, 10).await.unwrap(), []);
    assert_eq!(ledger.append(&[]).await, []);

    let first = entry(Position::Begin, 9, "n1", Digest::of(b""));
    assert_eq!(ledger.append(&[(&mine, &first), (&other, &first)]).await, [Appended::Done, Appended::Done]);
    let end = ledger.end(&mine).await.unwrap().unwrap();
    assert_eq!((end.position, end.digest, end.nonce.as_str()), (first.to, first.digest(&mine.key()), "n1"));

    // The same again, as after a lost answer: refused, and the end shows one's own nonce.
    assert_eq!(ledger.append(&[(&mine, &first)]).await, [Appended::Refused]);
    assert_eq!(ledger.end(&mine).await.unwrap().unwrap().nonce, "n1");
    // Another writer that believes in the same end.
    let rival = entry(Position::Begin, 5, "rival", Digest::of(b""));
    assert_eq!(ledger.append(&[(&mine, &rival)]).await, [Appended::Refused]);

    let second = entry(first.to, 10, "n2", end.digest);
    let third = entry(second.to, 1_000_000, "n3", second.digest(&mine.key()));
    assert_eq!(ledger.append(&[(&mine, &second)]).await, [Appended::Done]);
    assert_eq!(ledger.append(&[(&mine, &third)]).await, [Appended::Done]);
    assert_eq!(ledger.end(&mine).await.unwrap().unwrap().position, third.to);
    assert_eq!(ledger.end(&other).await.unwrap().unwrap().position, first.to, "chains do not mix");
    let all = [first.clone(), second.clone(), third.clone()];
    for (after, from) in [(Position::Begin, 0), (Position::Offset(4), 0), (first.to, 1), (Position::Offset(10), 2)] {
        assert_eq!(ledger.entries(&mine, after, 10).await.unwrap(), all[from..], "{after}");
    }
    assert_eq!(ledger.entries(&mine, Position::Offset(4), 2).await.unwrap(), all[..2]);
    assert_eq!(ledger.entries(&mine, third.to, 2).await.unwrap(), []);

    assert_eq!(ledger.find_start_item(&mine).await.unwrap(), None);
    let start = StartItem { starts: vec![("0".into(), Position::Begin), ("1".into(), Position::Offset(7))] };
    assert_eq!(ledger.start_item(&mine, &start).await.unwrap(), start);
    let late = StartItem { starts: vec![("0".into(), Position::Offset(3))] };
    assert_eq!(ledger.start_item(&mine, &late).await.unwrap(), start, "the first wins");
    assert_eq!(ledger.find_start_item(&mine).await.unwrap(), Some(start));
    assert_eq!(ledger.find_start_item(&other).await.unwrap(), None);
}

#[tokio::test]
async fn the_ledger_conforms() {
    let (_server, dynamo) = store().await;
    ledger_conformance(&*dynamo).await;
}

#[tokio::test]
async fn data_in_a_file_outlives_the_server() {
    let folder = std::env::temp_dir().join(format!("recordkeeper-store-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("dynamo.db");
    let record = record("kept", "x", 1);
    for round in 0..2 {
        let server = embedded::start(Some(&path)).await.unwrap();
        let dynamo = Dynamo::connect(config(&server.endpoint), None).await.unwrap();
        tables::create(&dynamo, &options()).await.unwrap();
        let verdicts = dynamo.insert(&[&record]).await;
        assert_eq!(matches!(verdicts[0], Inserted::Present(_)), round == 1, "{verdicts:?}");
        drop(dynamo);
        server.stop().await;
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_throttled_statement_is_told_alone_and_slows_its_table_down() {
    let (_server, proxy, _) = faulty_store().await;
    let metrics = Metrics::new().unwrap();
    let dynamo = Dynamo::connect(config(&proxy.endpoint), Some(CallMetrics::of(&metrics))).await.unwrap();
    let records: Vec<_> = (0..25).map(|at| record(&format!("t{at}"), "x", at)).collect();
    let all: Vec<_> = records.iter().collect();
    proxy.next("BatchExecuteStatement", Fault::StatementFails { at: 4, code: "ThrottlingError" });
    let verdicts = dynamo.insert(&all).await;
    for (at, verdict) in verdicts.iter().enumerate() {
        match verdict {
            Inserted::Retry(retry) => assert_eq!((at, retry.cause), (4, RetryCause::Throttled)),
            verdict => assert_stored(verdict),
        }
    }
    let scrape = metrics.render();
    for line in [
        "recordkeeper_throttles_total{table=\"wallet_records\"} 1\n",
        "recordkeeper_throttles_total{table=\"wallet_inventory\"} 0\n",
        "recordkeeper_alerts_total{alert=\"throttled\"} 1\n",
    ] {
        assert!(scrape.contains(line), "{line}{scrape}");
    }
    proxy.next("BatchExecuteStatement", Fault::CallFails { code: "ThrottlingException" });
    let verdicts = dynamo.insert(&[all[4]]).await;
    let Inserted::Retry(retry) = &verdicts[0] else { panic!("{verdicts:?}") };
    assert_eq!(retry.cause, RetryCause::Throttled);
    assert!(retry.detail.contains("index/by_wallet"), "names what is hot: {}", retry.detail);
    // What was left over, and only that, is new.
    let verdicts = dynamo.insert(&[all[4]]).await;
    stored(&verdicts[0]);
}

#[tokio::test]
async fn an_answer_lost_after_the_write_ends_as_this_very_delivery() {
    let (_server, proxy, dynamo) = faulty_store().await;
    let cut = record("cut", "x", 2);
    proxy.next("BatchExecuteStatement", Fault::CutAfterApply);
    let verdicts = dynamo.insert(&[&cut]).await;
    assert!(matches!(&verdicts[0], Inserted::Retry(retry) if retry.cause == RetryCause::Unavailable), "{verdicts:?}");
    let verdicts = dynamo.insert(&[&cut]).await;
    assert!(
        matches!(&verdicts[0], Inserted::Present(standing) if standing.origin == cut.origin.text()),
        "{verdicts:?}"
    );

    let write = wallet("ext:cut", Group::Status, 1, "active");
    proxy.next("BatchExecuteStatement", Fault::CutAfterApply);
    assert!(matches!(dynamo.change(&[&write]).await[0], Changed::Retry(_)));
    assert_eq!(dynamo.change(&[&write]).await, [Changed::Same]);

    let transacted = [record("cut-tx", "x", 3)];
    proxy.next("ExecuteTransaction", Fault::CutAfterApply);
    let transaction = Transaction { records: &transacted, states: &[] };
    assert!(matches!(dynamo.transact(transaction).await, Transacted::Retry(_)));
    let verdict = dynamo.transact(transaction).await;
    assert!(
        matches!(&verdict, Transacted::Present(standing) if standing.origin == transacted[0].origin.text()),
        "{verdict:?}"
    );

    let first = entry(Position::Begin, 9, "n1", Digest::of(b""));
    proxy.next("BatchExecuteStatement", Fault::CutAfterApply);
    assert!(matches!(dynamo.append(&[(&chain("g"), &first)]).await[0], Appended::Retry(_)));
    assert_eq!(dynamo.append(&[(&chain("g"), &first)]).await, [Appended::Refused]);
    assert_eq!(dynamo.end(&chain("g")).await.unwrap().unwrap().nonce, "n1");
}

#[tokio::test]
async fn keys_that_a_read_leaves_over_are_asked_for_again() {
    let (_server, proxy, dynamo) = faulty_store().await;
    let records: Vec<_> = (0..30).map(|at| record(&format!("u{at}"), "x", at)).collect();
    let all: Vec<_> = records.iter().collect();
    dynamo.insert(&all).await;
    proxy.next("BatchGetItem", Fault::KeysLeftOver);
    let verdicts = dynamo.insert(&all).await;
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Inserted::Present(_))), "{verdicts:?}");
    assert_eq!(proxy.calls("BatchGetItem"), 3, "one for the shard counts, one and what it left");
}

#[tokio::test]
async fn a_read_that_fails_troubles_its_own_keys_alone_and_reads_do_not_wait_for_each_other() {
    let (_server, proxy, dynamo) = faulty_store().await;
    let records: Vec<_> = (0..250).map(|at| record(&format!("r{at}"), "x", at)).collect();
    let all: Vec<_> = records.iter().collect();
    dynamo.insert(&all).await;
    proxy.next("BatchGetItem", Fault::CallFails { code: "ThrottlingException" });
    let verdicts = dynamo.insert(&all).await;
    let (present, retried): (Vec<_>, Vec<_>) =
        verdicts.iter().partition(|verdict| matches!(verdict, Inserted::Present(_)));
    assert!(matches!((present.len(), retried.len()), (150, 100) | (200, 50)), "{verdicts:?}");
    let throttled =
        |verdict: &&Inserted| matches!(verdict, Inserted::Retry(retry) if retry.cause == RetryCause::Throttled);
    assert!(retried.iter().all(throttled), "{retried:?}");
    for _ in 0..2 {
        proxy.next("BatchGetItem", Fault::WaitsForAnother);
    }
    let verdicts = dynamo.insert(&all).await;
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Inserted::Present(_))), "{verdicts:?}");
}

#[tokio::test]
async fn a_call_refused_as_a_whole_finds_its_culprit_alone() {
    let (_server, proxy, dynamo) = faulty_store().await;
    let records: Vec<_> = (0..25).map(|at| record(&format!("w{at}"), "x", at)).collect();
    let all: Vec<_> = records.iter().collect();
    proxy.next("BatchExecuteStatement", Fault::CallFails { code: "ValidationException" });
    let verdicts = dynamo.insert(&all).await;
    assert!(
        verdicts.iter().all(|verdict| matches!(verdict, Inserted::Retry(_))),
        "no innocent is given up: {verdicts:?}"
    );
    let before = proxy.calls("BatchExecuteStatement");
    let verdicts = dynamo.insert(&all).await;
    verdicts.iter().for_each(assert_stored);
    assert_eq!(proxy.calls("BatchExecuteStatement") - before, 25);
}

#[tokio::test]
async fn calls_fill_up_across_callers_and_none_waits_for_another() {
    let (_server, proxy, dynamo) = faulty_store().await;
    let records: Vec<_> = (0..400).map(|at| record(&format!("f{at}"), "x", at)).collect();
    let callers = records.chunks(5).map(|chunk| {
        let dynamo = dynamo.clone();
        async move { dynamo.insert(&chunk.iter().collect::<Vec<_>>()).await }
    });
    let verdicts = futures::future::join_all(callers).await;
    assert_eq!(verdicts.iter().flatten().map(stored).collect::<HashSet<_>>().len(), 400);
    let calls = proxy.calls("BatchExecuteStatement");
    assert!(calls <= 24, "{calls} calls for 400 records of 80 callers");

    // A caller that goes away, and one that is not polled any more, hold up nobody.
    let more: Vec<_> = (0..310).map(|at| record(&format!("g{at}"), "x", at)).collect();
    let more: Vec<_> = more.iter().collect();
    let (mut gone, mut idle) = (dynamo.insert(&more[..150]), dynamo.insert(&more[150..300]));
    assert!(futures::poll!(&mut gone).is_pending());
    assert!(futures::poll!(&mut idle).is_pending());
    drop(gone);
    dynamo.insert(&more[300..]).await.iter().for_each(assert_stored);
    idle.await.iter().for_each(assert_stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_on_many_threads_all_get_their_answers() {
    let (_server, dynamo) = store().await;
    let callers = (0..8).map(|caller| {
        let dynamo = dynamo.clone();
        tokio::spawn(async move {
            for at in 0..60 {
                let records = [record(&format!("t{caller}-{at}"), "x", at), record(&format!("shared-{at}"), "x", at)];
                let verdicts = dynamo.insert(&records.iter().collect::<Vec<_>>()).await;
                assert_stored(&verdicts[0]);
                assert!(matches!(verdicts[1], Inserted::Stored { .. } | Inserted::Present(_)), "{verdicts:?}");
                let states = [wallet(&format!("w{caller}"), Group::Status, at + 1, "active")];
                assert_eq!(dynamo.change(&[&states[0]]).await, [Changed::Applied]);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn a_table_that_gives_no_answer_is_left_alone_and_the_others_go_on() {
    for code in ["ResourceNotFoundException", "InternalServerError"] {
        let (_server, proxy, _) = faulty_store().await;
        let metrics = Metrics::new().unwrap();
        let dynamo = Dynamo::connect(config(&proxy.endpoint), Some(CallMetrics::of(&metrics))).await.unwrap();
        let write = |at: u64| wallet(&format!("ext:{at}"), Group::Status, 1, "active");
        assert_eq!(dynamo.change(&[&write(0)]).await, [Changed::Applied]);
        for _ in 0..5 {
            proxy.next("BatchExecuteStatement", Fault::CallFails { code });
        }
        for at in 1..6 {
            assert!(matches!(dynamo.change(&[&write(at)]).await[..], [Changed::Retry(_)]));
        }
        let calls = proxy.calls("BatchExecuteStatement");
        let verdicts = dynamo.change(&[&write(1), &write(2)]).await;
        let [Changed::Retry(one), Changed::Retry(_)] = &verdicts[..] else { panic!("{verdicts:?}") };
        assert_eq!(proxy.calls("BatchExecuteStatement"), calls, "told at once, and nobody asked");
        let after = one.after.unwrap();
        assert!(after > Duration::ZERO && after < Duration::from_secs(2), "{after:?}");
        let state = |name: &str, state: u8| {
            let line = format!("recordkeeper_breaker_state{{dependency=\"{name}\"}} {state}\n");
            assert!(metrics.render().contains(&line), "{line}");
        };
        state("wallet_inventory_writes", 2);
        state("wallet_records_writes", 0);
        assert!(metrics.render().contains("recordkeeper_alerts_total{alert=\"dependency_away\"} 1\n"));
        assert_stored(&dynamo.insert(&[&record("a", "x", 1)]).await[0]);

        // Whoever comes back when told to finds it open again.
        let writes: Vec<_> = (1..6).map(write).collect();
        loop {
            let verdicts = dynamo.change(&writes.iter().collect::<Vec<_>>()).await;
            let [first, ..] = &verdicts[..] else { panic!() };
            match first {
                Changed::Retry(retry) => tokio::time::sleep(retry.after.unwrap()).await,
                Changed::Applied => break,
                other => panic!("{other:?}"),
            }
        }
        state("wallet_inventory_writes", 0);
    }
}

#[tokio::test]
async fn a_throttle_a_stuck_item_and_a_refused_statement_are_no_outage() {
    let (_server, proxy, _) = faulty_store().await;
    let metrics = Metrics::new().unwrap();
    let dynamo = Dynamo::connect(config(&proxy.endpoint), Some(CallMetrics::of(&metrics))).await.unwrap();
    let throttled = Fault::CallFails { code: "ThrottlingException" };
    let stuck = Fault::StatementFails { at: 0, code: "InternalServerError" };
    let conflict = Fault::CallFails { code: "TransactionConflictException" };
    let refused = Fault::CallFails { code: "ValidationException" };
    for fault in [throttled, stuck, conflict, refused] {
        for at in 0..10 {
            proxy.next("BatchExecuteStatement", fault);
            let verdicts = dynamo.insert(&[&record(&format!("r{at}"), "x", at)]).await;
            assert!(matches!(verdicts[..], [Inserted::Retry(_) | Inserted::Rejected(_)]), "{verdicts:?}");
        }
    }
    let text = metrics.render();
    assert!(text.contains("recordkeeper_breaker_state{dependency=\"wallet_records_writes\"} 0\n"), "{text}");
    assert!(text.contains("recordkeeper_alerts_total{alert=\"dependency_away\"} 0\n"));
}

#[tokio::test]
async fn statements_that_are_all_refused_inside_an_answer_are_an_outage_and_reads_have_their_own() {
    let (_server, proxy, _) = faulty_store().await;
    let metrics = Metrics::new().unwrap();
    let dynamo = Dynamo::connect(config(&proxy.endpoint), Some(CallMetrics::of(&metrics))).await.unwrap();
    for at in 0..5 {
        proxy.next("BatchExecuteStatement", Fault::StatementFails { at: 0, code: "ResourceNotFound" });
        dynamo.insert(&[&record(&format!("r{at}"), "x", at)]).await;
    }
    let text = metrics.render();
    assert!(text.contains("recordkeeper_breaker_state{dependency=\"wallet_records_writes\"} 2\n"), "{text}");
    let chain = chain("g");
    for _ in 0..5 {
        proxy.next("Query", Fault::CallFails { code: "AccessDeniedException" });
        assert!(dynamo.end(&chain).await.is_err());
    }
    let calls = proxy.calls("Query");
    let retry = dynamo.end(&chain).await.unwrap_err();
    assert!(retry.after.is_some() && proxy.calls("Query") == calls, "{retry:?}");
    let text = metrics.render();
    assert!(text.contains("recordkeeper_breaker_state{dependency=\"ledger_reads\"} 2\n"), "{text}");
    assert!(text.contains("recordkeeper_breaker_state{dependency=\"ledger_writes\"} 0\n"), "{text}");
}
