//! Locks, and what holds where a lock does not: who was overtaken can write no more.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use recordkeeper::embedded::dynamodb::EmbeddedDynamo;
use recordkeeper::event::{Partition, Position};
use recordkeeper::ledger::{Chain, Fence};
use recordkeeper::lock::{Lock, Locks, Taken};
use recordkeeper::redis::{RedisConfig, RedisMode};
use recordkeeper::store::dynamodb::{Dynamo, DynamoConfig, ShardCounts, Shards, WriteUnits};
use recordkeeper::telemetry::Metrics;
use serde_json::json;

use crate::deployment::{Deployment, Event, RUN_MAX, Run, run_of, text};
use crate::running::{Running, until};
use crate::{ledger, services};

const TTL: Duration = Duration::from_secs(1);

fn locks(url: &str, writer: &str, metrics: &Metrics) -> Locks {
    Locks::new(&config(url, "lock-test", &table_id()), TTL, writer.to_owned(), metrics).unwrap()
}

fn config(url: &str, prefix: &str, table_id: &str) -> RedisConfig {
    RedisConfig {
        urls: vec![url.to_owned()],
        mode: RedisMode::Single,
        username: None,
        password: None,
        tls_ca_file: None,
        prefix: prefix.to_owned(),
        table_id: table_id.to_owned(),
        ttl: Duration::from_secs(60),
        connections: NonZeroUsize::MIN,
        deadline: Duration::from_secs(5),
    }
}

/// Apart from other runs of the tests on the same server.
fn table_id() -> String {
    std::process::id().to_string()
}

async fn taken<'a>(locks: &'a Locks, name: &str) -> Lock<'a> {
    match locks.take(name).await {
        Taken::Ours(lock) => lock,
        Taken::Held(holder) => panic!("held by {holder}"),
        Taken::Unknown(why) => panic!("{why}"),
    }
}

/// Redis lets a key go as if its time were over.
async fn expire(url: &str, name: &str) {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let key = format!("lock-test:{}:lock:{name}", table_id());
    let there: i64 = redis::cmd("DEL").arg(key).query_async(&mut connection).await.unwrap();
    assert_eq!(there, 1);
}

/// Case c-14, the lock: A stands still past its time and B takes the lock; what A then renews or releases is not B's, and C is
/// refused for as long as B goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_renewed_and_released_by_its_holder_alone() {
    let url = format!("redis://127.0.0.1:{}", services::redis().await.port);
    let metrics = Metrics::new().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|writer| locks(&url, writer, &metrics));
    let of_a = taken(&a, "c-14").await;
    assert!(of_a.renew().await.unwrap());
    expire(&url, "c-14").await;
    let of_b = taken(&b, "c-14").await;
    assert!(!of_a.renew().await.unwrap());
    assert!(!of_a.release().await.unwrap());
    assert!(of_b.renew().await.unwrap(), "still B's");
    let refused = tokio::select! {
        refused = c.take("c-14") => refused,
        holder = of_b.keep() => panic!("B lost it to {holder}"),
    };
    assert!(matches!(refused, Taken::Held(holder) if holder == "b"));
    let _other = taken(&c, "another").await;
    assert!(of_b.release().await.unwrap());
    let of_c = taken(&c, "c-14").await;
    let scrape = metrics.render();
    for (result, calls) in [("taken", 4), ("lost", 2), ("released", 1), ("unanswered", 0)] {
        let line = format!("recordkeeper_lock_calls_total{{result=\"{result}\"}} {calls}\n");
        assert!(scrape.contains(&line), "{line}{scrape}");
    }
    drop(of_c);
    // Nobody renews it any more: it ends by itself.
    taken(&a, "c-14").await;
}

/// A lock that Redis lost is taken again by who keeps it, unless somebody else was faster; and without Redis work goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_redis_lost_is_taken_again() {
    let url = format!("redis://127.0.0.1:{}", services::redis().await.port);
    let metrics = Metrics::new().unwrap();
    let [a, b] = ["a", "b"].map(|writer| locks(&url, writer, &metrics));
    let of_a = taken(&a, "lost").await;
    expire(&url, "lost").await;
    let kept = std::pin::pin!(of_a.keep());
    let back = until("the lock taken again", async || {
        let scrape = metrics.render();
        scrape.contains("recordkeeper_lock_calls_total{result=\"taken\"} 2\n").then_some(())
    });
    let mut kept = kept;
    tokio::select! {
        () = back => {}
        holder = &mut kept => panic!("lost to {holder}"),
    }
    expire(&url, "lost").await;
    let of_b = taken(&b, "lost").await;
    tokio::select! {
        holder = &mut kept => assert_eq!(holder, "b"),
        holder = of_b.keep() => panic!("B lost it to {holder}"),
    }
    let nowhere = locks("redis://127.0.0.1:1", "c", &metrics);
    assert!(matches!(nowhere.take("lost").await, Taken::Unknown(_)));
}

fn request(n: u32) -> Event {
    let data = json!({"user_id": format!("u{n}"), "chain": "evm:1", "custody": "hsm", "alias": "main"});
    let value =
        json!({"specversion": "1.0", "id": n.to_string(), "source": "/lock", "type": "wallet.requested", "data": data});
    Event::new("wallet-events", "k", value.to_string())
}

const COUNT: u32 = 300;
const AGAIN: [&str; 5] = ["replay", "--run", "again", "--summary", "json"];

/// A replay that has done some work and attested none of it, and then stands still.
async fn standing_still(deployment: &Deployment, env: &[(&str, &str)]) -> Running {
    deployment.publish(&(0..COUNT).map(request).collect::<Vec<_>>()).await;
    let run = deployment.run_until_idle().await;
    assert_eq!((run.code, run.count("requests")), (Some(0), u64::from(COUNT)), "{}", run.stderr);
    let topic = deployment.topic("wallet-events");
    let args = [&AGAIN[..], &["--topic", &topic, "--effects", "all", "--rate", "20"]].concat();
    let slow = [("RECORDKEEPER_ENGINE_ATTEST_INTERVAL", "10s"), ("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "5")];
    let a = Running::start(deployment, "a.log", &args, &[&slow[..], env].concat());
    until("requests sent again", async || {
        (deployment.read_topic(&deployment.requests).len() > COUNT as usize).then_some(())
    })
    .await;
    a.signal("STOP").await;
    a
}

async fn assert_replayed_once(deployment: &Deployment, a: Running) {
    a.signal("CONT").await;
    let file = a.log.clone();
    let (code, _) = a.ended().await;
    let log = std::fs::read_to_string(file).unwrap();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("taken over") && log.contains("\"alert\":\"fenced\""), "{log}");
    let chains = ledger::chains_of(deployment, &format!("{}/replay/wallets/again", deployment.group())).await;
    assert_eq!(chains.iter().map(|chain| chain.end).sum::<u64>(), u64::from(COUNT));
    let ledger = deployment.scan("ledger").await;
    assert!(ledger.iter().any(|item| item.contains_key("sealed_for")), "the chain of A is sealed");
    crate::tampering::assert_sound(deployment).await;
}

async fn ended(deployment: &Deployment, args: &[&str], env: &[(&str, &str)]) -> Run {
    let mut command = deployment.command(args);
    command.envs(env.iter().copied());
    run_of(tokio::time::timeout(RUN_MAX, command.output()).await.expect("ends in time").unwrap())
}

/// Case c-14 on the running product: B takes over from a replay that stands still, C is refused meanwhile, and what A still tries
/// to attest is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_stood_still_is_taken_over_and_can_write_no_more() {
    let deployment = Deployment::start("lock-replay", "wallets", 1).await;
    let a = standing_still(&deployment, &[]).await;
    let small = [("RECORDKEEPER_ENGINE_ATTEST_INTERVAL", "10ms"), ("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "5")];
    let b = Running::start(&deployment, "b.log", &[&AGAIN[..], &["--rate", "50"]].concat(), &small);
    let group = format!("{}/replay/wallets/again", deployment.group());
    until("B at work", async || (!ledger::chains_of(&deployment, &group).await.is_empty()).then_some(())).await;
    let c = ended(&deployment, &AGAIN, &[]).await;
    assert_eq!(c.code, Some(1), "{}", c.stderr);
    assert!(c.stderr.contains("a replay of pipeline wallets is under way in"), "{}", c.stderr);
    let (code, log) = b.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert_replayed_once(&deployment, a).await;
}

/// The same without any lock: the ledger alone keeps them apart.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_lock_the_ledger_alone_refuses_who_was_overtaken() {
    let deployment = Deployment::start("lock-none", "wallets", 1).await;
    let none = [("RECORDKEEPER_DEDUPE", "memory"), ("RECORDKEEPER_REDIS_URL", "")];
    let a = standing_still(&deployment, &none).await;
    let b = ended(&deployment, &[&AGAIN[..], &["--rate", "unlimited"]].concat(), &none).await;
    assert_eq!((b.code, b.count("consumed")), (Some(0), u64::from(COUNT)), "{}", b.stderr);
    assert_replayed_once(&deployment, a).await;
}

/// Tables are created by one process at a time: who comes meanwhile is told who is at it, and the lock is given back.
#[tokio::test(flavor = "multi_thread")]
async fn tables_are_created_by_one_process_at_a_time() {
    let deployment = Deployment::start("lock-tables", "wallets", 1).await;
    let url = deployment.redis.clone().unwrap();
    let metrics = Metrics::new().unwrap();
    let locks = Locks::new(&config(&url, "recordkeeper", ""), TTL, "somebody".to_owned(), &metrics).unwrap();
    // Given back at the end of the creation that the deployment began with.
    let ours = taken(&locks, &format!("tables|{}-", deployment.name)).await;
    let refused = tokio::select! {
        refused = ended(&deployment, &["tables", "create"], &[]) => refused,
        holder = ours.keep() => panic!("lost to {holder}"),
    };
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("the tables are being created by somebody"), "{}", refused.stderr);
    assert!(ours.release().await.unwrap());
    let created = ended(&deployment, &["tables", "create"], &[]).await;
    assert_eq!(created.code, Some(0), "{}", created.stderr);
}

/// However two takers come in between each other, each epoch is one's alone, and no chain is sealed in two places.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_take_over_at_once_each_has_epochs_of_its_own() {
    let deployment = Deployment::start("takers", "wallets", 1).await;
    let take = async |writer: &'static str| {
        let dynamo = dynamo(&deployment).await;
        let mut tokens = Vec::new();
        for _ in 0..20 {
            match dynamo.take_over(&chains(), writer).await.unwrap() {
                Fence::Tokens(ours) => tokens.push(ours),
                Fence::Refused(why) => assert!(why.contains("another process takes it over"), "{why}"),
            }
        }
        tokens
    };
    let (a, b) = tokio::join!(take("a"), take("b"));
    for chain in 0..2 {
        let mut tokens: Vec<u32> = a.iter().chain(&b).map(|tokens| tokens[chain]).collect();
        tokens.sort_unstable();
        assert!(tokens.windows(2).all(|two| two[0] < two[1]), "{tokens:?}");
    }
    let mut seals = BTreeMap::new();
    for item in deployment.scan("ledger").await.iter().filter(|item| item.contains_key("sealed_for")) {
        *seals.entry(text(item, "ledger_id").to_owned()).or_insert(0) += 1;
    }
    assert!(!seals.is_empty() && seals.values().all(|seals| *seals == 1), "{seals:?}");
}

fn chains() -> Vec<(Chain, Position)> {
    let chain = |name: &str| {
        let partition = Partition { topic: "t".into(), name: name.into(), ..Partition::default() };
        Chain { group: "g".into(), partition: Arc::new(partition), epoch: 0 }
    };
    vec![(chain("0"), Position::Begin), (chain("1"), Position::Offset(7))]
}

async fn dynamo(deployment: &Deployment) -> Dynamo {
    let shards = Shards { write: 8, read: 8 };
    let config = DynamoConfig {
        table_prefix: format!("{}-", deployment.name),
        region: Some(EmbeddedDynamo::REGION.into()),
        endpoint: Some(deployment.dynamodb.clone()),
        credentials: Some(EmbeddedDynamo::credentials()),
        connections_max: 4,
        calls_in_flight_max: 4,
        call_deadline: Duration::from_secs(10),
        write_units_per_second: WriteUnits::default(),
        shards: ShardCounts { records: shards, wallets: shards },
    };
    Dynamo::connect(config, None).await.unwrap()
}
