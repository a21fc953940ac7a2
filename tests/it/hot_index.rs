//! An index that takes only so much for each of its keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use recordkeeper::embedded::dynamodb::EmbeddedDynamo;
use recordkeeper::store::dynamodb::read::Reader;
use recordkeeper::store::dynamodb::{Dynamo, DynamoConfig, ShardCounts, Shards, WriteUnits};
use serde_json::json;

use crate::deployment::{Deployment, Event, text};
use crate::fault_proxy::FaultProxy;
use crate::ledger;

/// Wallets of one chain and status, and what each key of their index takes in a second: RECORDKEEPER_TEST_EVENTS, 1,000 at 50,000.
fn sizes() -> (usize, usize) {
    let events = std::env::var("RECORDKEEPER_TEST_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(4_000);
    (events, (events / 50).min(1_000))
}

/// c-19: many events of one chain and one status, faster than their index takes them: they are spread over its keys, the
/// throttling is told with the index's name, the rate adapts, and a read by chain and status finds all.
#[tokio::test(flavor = "multi_thread")]
async fn wallets_of_one_chain_and_status_are_spread_and_slowed_to_what_the_index_takes() {
    let deployment = Deployment::start("c19", "wallets", 4).await;
    let (count, units) = sizes();
    let events: Vec<Event> = (0..count)
        .map(|n| {
            let data = json!({"wallet_id": format!("evm:1:0x{n:040x}"), "wallet_status": "active", "version": 1});
            let value = json!({"specversion": "1.0", "id": format!("e{n}"), "source": "/field",
                "type": "wallet.status_changed", "data": data});
            Event { partition: Some(n as i32 % 4), ..Event::new("wallet-events", "k", value.to_string()) }
        })
        .collect();
    deployment.publish(&events).await;
    let store = FaultProxy::start(&deployment.dynamodb).await;
    store.limit_index("by_chain_and_status", "evm#active#", units);
    let run = deployment.run_with(&[("AWS_ENDPOINT_URL_DYNAMODB", &store.endpoint)]).await;
    assert_eq!((run.code, run.count("recorded")), (Some(0), count as u64), "{}", run.stderr);
    run.assert_sums();
    let (refused, calls) = (store.refused_by_index(), store.calls("BatchExecuteStatement"));
    assert!(refused > 0 && run.stderr.contains("\"alert\":\"throttled\""), "{refused} refused\n{}", run.stderr);
    assert!(run.stderr.contains("index/by_chain_and_status"), "{}", run.stderr);
    // Who does not adapt is refused most of the time.
    assert!(refused * 4 < calls, "{refused} of {calls} calls refused");

    let mut keys: BTreeMap<String, usize> = BTreeMap::new();
    for item in deployment.scan("wallet_inventory").await {
        *keys.entry(text(&item, "chain_status_shard").to_owned()).or_default() += 1;
    }
    assert_eq!(keys.len(), 16, "{keys:?}");
    assert!(keys.values().all(|n| (count / 32..count / 8).contains(n)), "{keys:?}");
    let shards = Shards { write: 16, read: 16 };
    let dynamo = Dynamo::connect(
        DynamoConfig {
            table_prefix: format!("{}-", deployment.name),
            region: Some("eu-central-1".into()),
            endpoint: Some(deployment.dynamodb.clone()),
            credentials: Some(EmbeddedDynamo::credentials()),
            connections_max: 4,
            calls_in_flight_max: 4,
            call_deadline: Duration::from_secs(20),
            write_units_per_second: WriteUnits::default(),
            shards: ShardCounts { records: Shards { write: 4, read: 4 }, wallets: shards },
        },
        None,
    );
    let reader = Reader::new(Arc::new(dynamo.await.unwrap()));
    let (mut found, mut after) = (0, None);
    loop {
        let page = reader.wallets_by_chain_and_status("evm", "active", after.as_deref(), 1_000, false).await.unwrap();
        found += page.items.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, count);
    ledger::assert_holds(&deployment, count as u64).await;
}
