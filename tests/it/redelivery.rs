//! Events that are delivered again because something failed or died between two steps of the protocol.

use std::time::Duration;

use serde_json::{Value, json};

use crate::deployment::{Deployment, Event, header, plain};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::manifest::request_id;
use crate::running::{Running, attested, page_of, until};
use crate::slow_relay::SlowRelay;
use crate::{ledger, services};

/// A member that was killed takes its partitions over at once under its own name.
const MEMBER: (&str, &str) = ("RECORDKEEPER_KAFKA_GROUP_INSTANCE_ID", "one");

fn event(id: &str, kind: &str, data: Value) -> Event {
    let value = json!({"specversion": "1.0", "id": id, "source": "/field", "type": kind, "data": data});
    Event::new("wallet-events", "k", value.to_string())
}

fn status(n: u64) -> Event {
    let data = json!({"wallet_id": format!("ext:w{n}"), "wallet_status": "active", "version": 1});
    event(&format!("status-{n}"), "wallet.status_changed", data)
}

fn wanted(n: u64) -> Event {
    let data = json!({"user_id": format!("u{n}"), "chain": "evm:1", "custody": "hsm", "alias": "main"});
    event(&format!("request-{n}"), "wallet.requested", data)
}

/// c-13: killed between look-up and write, between write and remember, and with a store that fails after the look-up: redelivered,
/// each event is recorded once, its request is sent, and Redis holds an id only once all that it stands for is durable. (That
/// the request topic counts among it: `group::a_request_that_is_not_acknowledged_holds_its_position`.)
#[tokio::test(flavor = "multi_thread")]
async fn ids_are_remembered_only_once_everything_is_durable() {
    let deployment = Deployment::start("c13", "wallets", 1).await;
    let prefix = ("RECORDKEEPER_REDIS_KEY_PREFIX", deployment.name.as_str());
    let remembered = async || {
        let keys: Vec<Vec<u8>> = services::redis().await.ask(&["KEYS", &format!("{}*", deployment.name)]).await;
        keys.len()
    };
    // Those that are killed are soon forgotten, and nobody's name stands in the way of the reset.
    let short = ("RECORDKEEPER_KAFKA_OPTIONS", "session.timeout.ms=6000");
    let events: Vec<Event> = (0..6).map(status).chain((0..4).map(wanted)).collect();
    deployment.publish(&events).await;
    for (failpoint, records) in [("looked_up:1", 0), ("judged:1", 10), ("applied:1", 10)] {
        let run = deployment.run_with(&[MEMBER, short, prefix, ("RECORDKEEPER_FAILPOINT", failpoint)]).await;
        assert_eq!(run.code, None, "{failpoint}: not killed\n{}", run.stderr);
        assert_eq!(deployment.scan("wallet_records").await.len(), records, "{failpoint}");
        assert_eq!(remembered().await, 0, "{failpoint}: nothing is remembered before all is done");
        let requests = deployment.read_topic(&deployment.requests).len();
        assert_eq!(requests > 0, failpoint == "applied:1", "{failpoint}: {requests} requests");
    }

    let store = FaultProxy::start(&deployment.dynamodb).await;
    for _ in 0..10_000 {
        store.next("BatchExecuteStatement", Fault::CallFails { code: "ThrottlingException" });
    }
    let failing = [MEMBER, short, prefix, ("AWS_ENDPOINT_URL_DYNAMODB", store.endpoint.as_str())];
    let run = Running::start(&deployment, "failing.log", &["run"], &failing);
    until("refused writes", async || (store.calls("BatchExecuteStatement") > 2).then_some(())).await;
    assert_eq!(remembered().await, 0, "nothing is remembered while the store fails");
    run.kill().await;

    for _ in 0..2 {
        let run = deployment.run_with(&[prefix]).await;
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.assert_sums();
        let counts = ["consumed", "recorded", "repeated", "duplicate"].map(|name| run.count(name));
        assert_eq!(counts, [10, 10, 10, 0], "{}", run.summary);
        assert_eq!(remembered().await, 10);
        assert_eq!(deployment.scan("wallet_records").await.len(), 10);
        assert_eq!(deployment.scan("wallet_inventory").await.len(), 6);
        let requests: std::collections::BTreeSet<String> =
            deployment.read_topic(&deployment.requests).iter().map(request_id).collect();
        assert_eq!(requests.len(), 4);
        assert_eq!(ledger::assert_holds(&deployment, 10).await[0].outcomes, ["r"; 10]);
        deployment.reset_to_start("wallet-events", 1);
    }
}

/// c-34: of a batch of 10 the store takes 7, then two of the other three, and refuses the last for good; also under
/// transactions whose answers are cut off, and with a death in the middle: 9 recorded, 1 dead-lettered, 10 consumed, and at
/// every scrape what was consumed is the sum of what became of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_partly_accepted_batch_is_counted_once_whatever_happens() {
    for transactional in [false, true] {
        let deployment = Deployment::start("c34", "wallets", 1).await;
        if transactional {
            deployment.make_transactional();
        }
        // With a first event settled, the next write is that of the batch.
        deployment.publish(&[status(100)]).await;
        assert_eq!(deployment.run_with(&[MEMBER]).await.code, Some(0));
        deployment.publish(&(0..10).map(status).collect::<Vec<_>>()).await;
        let store = FaultProxy::start(&deployment.dynamodb).await;
        store.refuse("wallet_records", "/field|status-9");
        // Slow enough to look at it meanwhile.
        let slow = SlowRelay::start(store.endpoint.strip_prefix("http://").unwrap(), Duration::from_millis(100)).await;
        let endpoint = format!("http://{}", slow.address);
        // Killed after the batch was judged; then to its end.
        for failpoint in ["judged:1", "never:1"] {
            for _ in 0..if transactional { 3 } else { 0 } {
                store.next("ExecuteTransaction", Fault::CutAfterApply);
            }
            if !transactional {
                store.next("BatchExecuteStatement", Fault::StatementsFailFrom { at: 7, code: "ThrottlingError" });
            }
            let env = [MEMBER, ("AWS_ENDPOINT_URL_DYNAMODB", endpoint.as_str()), ("RECORDKEEPER_FAILPOINT", failpoint)];
            let mut run = Running::start(&deployment, &format!("{failpoint}.log"), &["run"], &env);
            let admin = run.admin().await;
            let mut scrapes = 0;
            until("the end of the batch", async || {
                if failpoint == "judged:1" {
                    scrapes += usize::from(sums(&admin).await.is_some());
                    return run.exited().map(drop);
                }
                let (consumed, in_flight) = sums(&admin).await.expect("an answer");
                scrapes += 1;
                (consumed == 10 && in_flight == 0).then_some(())
            })
            .await;
            assert!(scrapes > 0);
            if failpoint == "judged:1" {
                continue;
            }
            let page = page_of(&admin, "/metrics").await.unwrap();
            let counted = |outcome: &str| {
                let of = format!("outcome=\"{outcome}\"");
                let line =
                    page.lines().find(|line| line.starts_with("recordkeeper_outcomes_total") && line.contains(&of));
                line.map_or("", |line| line.rsplit(' ').next().unwrap()).to_owned()
            };
            let outcomes = ["recorded", "dead_lettered", "duplicate", "skipped", "abandoned"].map(counted);
            assert_eq!(outcomes, ["9", "1", "0", "0", "0"], "{page}");
            until("a checkpoint", async || (deployment.committed("wallet-events", 1)[&0] == 11).then_some(())).await;
            run.terminate().await;
            assert_eq!(run.ended().await.0, Some(0));
        }
        assert_eq!(deployment.scan("wallet_records").await.len(), 10, "nine, and the first");
        assert_eq!(deployment.scan("wallet_inventory").await.len(), 10);
        let letters = deployment.read_topic(&deployment.dead_letters);
        assert!(!letters.is_empty());
        for letter in &letters {
            assert_eq!(header(letter, "recordkeeper-origin-offset"), Some("10"));
            assert_eq!(header(letter, "recordkeeper-reason"), Some("rejected"));
        }
        let outcomes = &ledger::assert_holds(&deployment, 11).await[0].outcomes;
        assert_eq!((outcomes[..10].iter().all(|outcome| outcome == "r"), outcomes[10].as_str()), (true, "xr"));
        let wallet = |item| plain(item)["wallet_id"].clone();
        assert!(!deployment.scan("wallet_inventory").await.iter().any(|item| wallet(item) == "ext:w9"));
        attested(&deployment).await;
    }
}

/// Asserts the sum rule on a scrape; gives what was consumed and what is in flight.
async fn sums(admin: &str) -> Option<(u64, u64)> {
    let page = page_of(admin, "/metrics").await?;
    let sum = |name: &str| -> u64 {
        let lines = page.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let (consumed, in_flight) = (sum("recordkeeper_consumed_total"), sum("recordkeeper_in_flight"));
    assert_eq!(consumed, sum("recordkeeper_outcomes_total") + in_flight, "{page}");
    Some((consumed, in_flight))
}
