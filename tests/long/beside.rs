//! A replay's `--diff` beside live traffic.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use rdkafka::producer::FutureProducer;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::deployment::{Deployment, Event, RUN_MAX, run_of, text};
use crate::manifest::assert_end_state;
use crate::running::Running;
use crate::supply::Supply;
use crate::{attested, events, ledger, metric, seconds};

/// Between two events whose way into the table is timed.
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// Between two looks for such an event.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// An event of a wallet that the generator does not know.
fn event(topic: &str, kind: &str, id: &str, partition: i32) -> Event {
    let data =
        json!({"transaction_id": id, "wallet_id": "ext:w", "amount": "1", "asset": "ETH", "version": 1, "label": id});
    let value = json!({"specversion": "1.0", "id": id, "source": "/long", "type": kind, "time": "2026-01-05T10:00:00Z", "data": data});
    Event { partition: Some(partition), ..Event::new(topic, "ext:w", value.to_string()) }
}

/// Live traffic, until it is told to stop.
struct Traffic {
    deployment: Arc<Deployment>,
    stop: CancellationToken,
    /// When each probe was sent, and how long it took until its record could be read.
    probes: Arc<Mutex<Vec<(Instant, Duration)>>>,
}

impl Traffic {
    /// Publishes so many events a second; gives the supply back.
    async fn publish(self: Arc<Self>, mut supply: Supply, rate: u64) -> Supply {
        let (producer, began, before) = (self.deployment.producer(), Instant::now(), supply.taken);
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while !self.stop.is_cancelled() {
            ticks.tick().await;
            let due = before + (began.elapsed().as_secs_f64() * rate as f64) as u64;
            let events = supply.take(due - supply.taken);
            let deliveries: Vec<_> = events.iter().map(|event| self.deployment.send(&producer, event)).collect();
            for delivery in deliveries {
                delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
            }
        }
        supply
    }

    /// Sends probes; gives their number once the records of all of them were read.
    async fn probe(self: Arc<Self>) -> u64 {
        let producer = Arc::new(self.deployment.producer());
        let client = self.deployment.dynamodb_client().await;
        let (mut ticks, mut under_way) = (tokio::time::interval(PROBE_EVERY), tokio::task::JoinSet::new());
        let mut number = 0;
        while !self.stop.is_cancelled() {
            ticks.tick().await;
            under_way.spawn(self.clone().one(producer.clone(), client.clone(), number));
            number += 1;
        }
        tokio::time::timeout(RUN_MAX, under_way.join_all()).await.expect("all probes are recorded");
        number
    }

    async fn one(self: Arc<Self>, producer: Arc<FutureProducer>, client: aws_sdk_dynamodb::Client, number: u64) {
        let id = format!("probe-{number}");
        let event = event("transaction-events", "transaction.confirmed", &id, (number % 8) as i32);
        let (sent, table) = (Instant::now(), format!("{}-wallet_records", self.deployment.name));
        self.deployment.send(&producer, &event).await.unwrap().map_err(|(error, _)| error).unwrap();
        loop {
            let key = AttributeValue::S(format!("/long|{id}"));
            let read = client.get_item().table_name(&table).key("record_id", key).consistent_read(true);
            let read = read.projection_expression("record_id").send().await.unwrap();
            if read.item.is_some() {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.probes.lock().unwrap().push((sent, sent.elapsed()));
    }

    /// Prints the times of the probes sent between two looks, and of the calls that the live run made.
    fn show(&self, what: &str, from: &Look, to: &Look) {
        let (calls, call) = (to.calls - from.calls, (to.seconds - from.seconds) * 1000.0 / (to.calls - from.calls));
        let (from, to) = (from.at, to.at);
        let probes = self.probes.lock().unwrap();
        let mut times: Vec<_> = probes.iter().filter(|(sent, _)| (from..to).contains(sent)).map(|(_, t)| *t).collect();
        times.sort_unstable();
        assert!(!times.is_empty(), "{what}: no probe");
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_millis();
        let (half, most, max) = (at(0.5), at(0.99), at(1.0));
        let (count, seconds) = (times.len(), (to - from).as_secs_f64());
        eprintln!(
            "{what}: {half} ms from sent to stored, p99 {most} ms, {max} ms at most; {count} probes, {seconds:.0} s"
        );
        eprintln!("{what}: {calls} write calls, {call:.1} ms each");
    }
}

/// Where the live run's write calls to the store stand.
struct Look {
    at: Instant,
    calls: f64,
    /// That they took, all together.
    seconds: f64,
}

impl Look {
    async fn at(admin: &str) -> Self {
        let of = |what: &str| format!("recordkeeper_store_call_seconds_{what}{{operation=\"batch_execute_statement\"");
        let (calls, seconds) = (metric(admin, &of("count")).await, metric(admin, &of("sum")).await);
        Self { at: Instant::now(), calls, seconds }
    }
}

/// Waits until the process has attested this many positions.
async fn all_attested(admin: &str, wanted: u64) {
    let all = async {
        while attested(admin).await < wanted {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(RUN_MAX, all).await.expect("all is recorded in time");
}

/// Keys of all chains and other items of the ledger.
async fn ledger_keys(deployment: &Deployment) -> BTreeSet<String> {
    deployment.scan("ledger").await.iter().map(|item| text(item, "ledger_id").to_owned()).collect()
}

/// What would be recorded is not: a record and its wallet are taken away before, and are still not there. All else is as the
/// live traffic alone leaves it.
#[tokio::test(flavor = "multi_thread")]
async fn a_diff_of_a_whole_topic_beside_live_traffic_writes_nothing() {
    let window = Duration::from_secs((seconds() / 2).min(60));
    let (before, rate) = if window.as_secs() == 60 { (240_000, 500) } else { (events().min(3_000), 100) };
    let deployment = Arc::new(Deployment::start("long-diff", "wallets", 8).await);
    let mut supply = Supply::new(before + rate * 600, 41);
    deployment.publish(&[event("wallet-events", "wallet.updated", "taken-away", 0)]).await;
    supply.publish(&deployment, before).await;
    let run = Running::start(&deployment, "run.log", &["run", "--summary", "json"], &[]);
    let (admin, began) = (run.admin().await, Instant::now());
    all_attested(&admin, before + 1).await;
    eprintln!("{before} events recorded in {:.0} s", began.elapsed().as_secs_f64());
    let (client, records) = (deployment.dynamodb_client().await, format!("{}-wallet_records", deployment.name));
    let taken_away = AttributeValue::S("/long|taken-away".to_owned());
    client.delete_item().table_name(&records).key("record_id", taken_away.clone()).send().await.unwrap();
    let wallets = format!("{}-wallet_inventory", deployment.name);
    let wallet = AttributeValue::S("ext:w".to_owned());
    client.delete_item().table_name(&wallets).key("wallet_id", wallet).send().await.unwrap();
    let keys = ledger_keys(&deployment).await;

    let (stop, probes) = (CancellationToken::new(), Arc::default());
    let traffic = Arc::new(Traffic { deployment: deployment.clone(), stop: stop.clone(), probes });
    let live = tokio::spawn(traffic.clone().publish(supply, rate));
    let probing = tokio::spawn(traffic.clone().probe());
    // The first calls of all clients are not what is measured.
    tokio::time::sleep(window / 6).await;
    let alone = Look::at(&admin).await;
    tokio::time::sleep(window).await;
    let beside = Look::at(&admin).await;
    let topic = deployment.topic("wallet-events");
    let diff = deployment.spawn(&["replay", "--topic", &topic, "--diff", "--summary", "json"], &[]).wait_with_output();
    let diff = run_of(tokio::time::timeout(RUN_MAX, diff).await.expect("ends in time").unwrap());
    let ended = Look::at(&admin).await;
    let lag = metric(&admin, "recordkeeper_lag{").await;
    stop.cancel();
    let (supply, probed) = (live.await.unwrap(), probing.await.unwrap());
    traffic.show("live traffic alone", &alone, &beside);
    traffic.show("live traffic beside a diff", &beside, &ended);
    let per_second = diff.count("events") as f64 / (ended.at - beside.at).as_secs_f64();
    eprintln!(
        "diff: {} events, {per_second:.0} a second; {rate} live events a second; lag at its end: {lag}",
        diff.count("events")
    );

    all_attested(&admin, supply.taken + 1 + probed).await;
    assert_eq!(diff.code, Some(0), "{}", diff.stderr);
    assert!(diff.count("recorded") > 0 && diff.count("states") > 0, "{}", diff.summary);
    assert!(diff.summary["named"]["recorded"].to_string().contains("/long|taken-away"), "{}", diff.summary);
    run.terminate().await;
    let (code, stdout) = run.ended().await;
    assert_eq!(code, Some(0));
    let summary: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let mut manifest = supply.manifest();
    assert_eq!(summary["recorded"], manifest["recorded"].as_u64().unwrap() + 1 + probed);
    assert_eq!((&summary["repeated"], &summary["duplicate"]), (&json!(0), &manifest["duplicate"]), "{summary}");
    let read = client.get_item().table_name(&records).key("record_id", taken_away).send().await.unwrap();
    assert!(read.item.is_none(), "the diff recorded what was missing");
    assert_eq!(ledger_keys(&deployment).await, keys, "the diff keeps no ledger");
    ledger::assert_holds(&deployment, supply.taken + 1 + probed).await;
    // As many letters and requests as live traffic sent: a diff sends none.
    let letters: u64 = manifest["dead_lettered"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(deployment.read_topic(&deployment.dead_letters).len() as u64, letters, "dead letters");
    assert_eq!(json!(deployment.read_topic(&deployment.requests).len()), summary["requests"], "requests");
    manifest["records"] = json!(manifest["records"].as_u64().unwrap() + probed);
    assert_end_state(&deployment, &manifest).await;
}
