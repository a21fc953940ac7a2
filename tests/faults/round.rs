//! One round: events in portions, a fault with each, everything mended, and the comparison.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::Message as _;
use recordkeeper::event::{Outcome, Reason};
use tokio::sync::OnceCell;

use crate::deployment::{Deployment, Event};
use crate::fault_proxy::FaultProxy;
use crate::fleet::Fleet;
use crate::manifest::{Generated, assert_end_state, assert_ledger_is_durable, origin_of};
use crate::plan::Plan;
use crate::running::until;
use crate::services::{self, KafkaBroker};
use crate::store::Store;
use crate::{History, inject, ledger};

/// Short sessions, so that a frozen member loses its partitions soon.
const SESSIONS: &str = "group.min.session.timeout.ms=1000\n\
    group.consumer.min.session.timeout.ms=1000\n\
    group.consumer.session.timeout.ms=4000\n";

const TOPICS: [&str; 2] = ["wallet-events", "transaction-events"];

/// The servers that rounds share.
#[derive(Default)]
pub struct Ground {
    one: OnceCell<KafkaBroker>,
    three: OnceCell<KafkaBroker>,
    store: OnceCell<Store>,
}

impl Ground {
    /// A cluster with all of its nodes up.
    async fn kafka(&self, nodes: usize) -> &KafkaBroker {
        let cell = if nodes == 3 { &self.three } else { &self.one };
        let kafka = cell.get_or_init(|| KafkaBroker::start_cluster(nodes, SESSIONS)).await;
        // A round that failed may have left something broken.
        kafka.restart_killed().await;
        let redis = services::redis().await;
        redis.restart().await;
        redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
        redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
        kafka
    }

    /// The store, with room.
    async fn store(&self) -> &Store {
        let store = self.store.get_or_init(Store::start).await;
        store.make_room().await;
        store
    }
}

/// What rounds amount to.
#[derive(Debug, Default)]
pub struct Figures {
    events: u64,
    recorded: u64,
    duplicate: u64,
    dead_lettered: u64,
    requests: u64,
    repeated: u64,
    faults: BTreeMap<&'static str, u64>,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.recorded += other.recorded;
        self.duplicate += other.duplicate;
        self.dead_lettered += other.dead_lettered;
        self.requests += other.requests;
        self.repeated += other.repeated;
        other.faults.iter().for_each(|(kind, n)| *self.faults.entry(kind).or_default() += n);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} events: {} recorded, {} duplicates, {} dead letters, {} requests; {} letters and requests sent again",
            self.events, self.recorded, self.duplicate, self.dead_lettered, self.requests, self.repeated
        )?;
        if self.faults.len() > 8 {
            write!(f, "; faults met: {:?}", self.faults)?;
        }
        Ok(())
    }
}

/// A round under way.
pub struct Round<'a> {
    pub deployment: &'a Deployment,
    pub kafka: &'a KafkaBroker,
    pub store: &'a Store,
    pub proxy: &'a FaultProxy,
    pub history: &'a History,
    pub fleet: Fleet<'a>,
    pub rng: fastrand::Rng,
    /// The highest checkpoints seen, by topic and partition.
    pub committed: BTreeMap<(&'static str, i32), i64>,
    generated: &'a Generated,
    events: &'a [Event],
    published: usize,
    portion: usize,
}

/// Plays one round to its end; panics where anything is not as it must be.
pub async fn play(plan: &Plan, name: &str, ground: &Ground, history: &History) -> Figures {
    let kafka = ground.kafka(plan.nodes).await;
    let store = ground.store().await;
    let deployment = Deployment::start_with(kafka, &store.endpoint, name, "wallets", 8).await;
    choose_protocol(&deployment, plan.protocol);
    let proxy = FaultProxy::start(&deployment.dynamodb).await;
    let (generated, events) = Generated::new(&deployment, plan.events, plan.seed).await;
    let mut env = vec![
        ("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), proxy.endpoint.clone()),
        ("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX".to_owned(), plan.batch.to_string()),
        ("RECORDKEEPER_ENGINE_DRAIN_DEADLINE".to_owned(), "10s".to_owned()),
        ("RECORDKEEPER_DYNAMODB_CALL_DEADLINE".to_owned(), "2s".to_owned()),
        ("RECORDKEEPER_KAFKA_MESSAGE_TIMEOUT".to_owned(), "5s".to_owned()),
    ];
    if plan.protocol == "classic" {
        let short = "session.timeout.ms=4000,heartbeat.interval.ms=500";
        env.push(("RECORDKEEPER_KAFKA_OPTIONS".to_owned(), short.to_owned()));
    }
    let mut round = Round {
        deployment: &deployment,
        kafka,
        store,
        proxy: &proxy,
        history,
        fleet: Fleet::new(&deployment, history, env),
        rng: fastrand::Rng::with_seed(plan.seed),
        committed: BTreeMap::new(),
        generated: &generated,
        events: &events,
        published: 0,
        portion: events.len() / (plan.faults.len() + 1),
    };
    round.fleet.grow_to(plan.instances).await;
    round.publish_portion().await;
    let mut figures = Figures { events: plan.events, ..Figures::default() };
    for (kind, catch_up) in &plan.faults {
        if *catch_up {
            round.all_attested().await;
        }
        history.note(format!("{kind}, {} published, {} attested", round.published, round.attested().await));
        inject::inject(&mut round, *kind).await;
        round.look().await;
        *figures.faults.entry(kind.name()).or_default() += 1;
    }
    round.publish(events.len()).await;
    history.note("all faults off");
    while round.fleet.len() > 0 {
        round.fleet.stop(0).await;
    }
    round.look().await;
    let run = deployment.run_until_idle().await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.assert_sums();
    round.look().await;
    compare(&round, &generated, &mut figures).await;
    forget(&round).await;
    figures
}

impl Round<'_> {
    /// Publishes up to this many events in all.
    async fn publish(&mut self, to: usize) {
        let to = to.min(self.events.len());
        self.deployment.publish(&self.events[self.published..to]).await;
        self.published = to;
    }

    pub async fn publish_portion(&mut self) {
        self.publish(self.published + self.portion).await;
    }

    pub async fn publish_half(&mut self) {
        self.publish(self.published + self.portion / 2).await;
    }

    /// How many positions stand in the ledger.
    pub async fn attested(&self) -> u64 {
        ledger::chains(self.deployment).await.iter().map(|chain| chain.end).sum()
    }

    pub async fn attested_above(&self, before: u64) {
        until("more in the ledger", async || (self.attested().await > before).then_some(())).await;
    }

    /// Waits until everything published stands in the ledger.
    pub async fn all_attested(&mut self) {
        let all = self.published as u64;
        until("everything published in the ledger", async || (self.attested().await == all).then_some(())).await;
        self.fleet.assert_alive();
    }

    pub fn checkpoints(&self) -> BTreeMap<(&'static str, i32), i64> {
        let of = |topic: &'static str| {
            self.deployment.committed(topic, 8).into_iter().map(move |(partition, next)| ((topic, partition), next))
        };
        TOPICS.into_iter().flat_map(of).collect()
    }

    /// What holds at any time: the sum rule, nothing attested or checkpointed that is not durable, and checkpoints that never
    /// go back.
    async fn look(&mut self) {
        self.fleet.assert_alive();
        self.fleet.assert_sums().await;
        assert_ledger_is_durable(self.deployment, self.generated).await;
        for (place, next) in self.checkpoints() {
            let highest = self.committed.entry(place).or_insert(next);
            assert!(next >= *highest, "{place:?}: the checkpoint went back from {highest} to {next}");
            *highest = next;
        }
    }
}

/// Tables, topics, ledger and checkpoints against what the events demand.
async fn compare(round: &Round<'_>, generated: &Generated, figures: &mut Figures) {
    let (deployment, manifest) = (round.deployment, &generated.manifest);
    let stated = |name: &str| manifest[name].as_u64().unwrap();
    assert_end_state(deployment, manifest).await;
    let chains = ledger::assert_holds(deployment, stated("consumed")).await;
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    for outcome in chains.iter().flat_map(|chain| &chain.outcomes) {
        *outcomes.entry(outcome).or_default() += 1;
    }
    let mut demanded: BTreeMap<&str, u64> = Reason::ALL
        .into_iter()
        .map(|reason| {
            let n = manifest["dead_lettered"][reason.name()].as_u64().unwrap_or(0);
            (Outcome::DeadLettered(reason).code(), n)
        })
        .collect();
    demanded.insert(Outcome::Recorded.code(), stated("recorded"));
    demanded.insert(Outcome::Duplicate.code(), stated("duplicate"));
    demanded.retain(|_, n| *n > 0);
    assert_eq!(outcomes, demanded, "the ledger's outcomes");
    let ends: i64 = chains.iter().map(|chain| i64::try_from(chain.end).unwrap()).sum();
    assert_eq!(round.checkpoints().values().sum::<i64>(), ends, "checkpoints stand at the ledger's ends");
    let letters = deployment.read_topic(&deployment.dead_letters);
    let mut sent: BTreeMap<String, &Event> = BTreeMap::new();
    let mut next: BTreeMap<(&str, Option<i32>), u64> = BTreeMap::new();
    for event in round.events {
        let offset = next.entry((&event.topic, event.partition)).or_default();
        let place = format!("{}/{}/{offset}", deployment.topic(&event.topic), event.partition.unwrap());
        sent.insert(place, event);
        *offset += 1;
    }
    for letter in &letters {
        let event = sent[&origin_of(letter)];
        assert!(letter.payload() == event.value.as_deref(), "a dead letter's bytes, {}", origin_of(letter));
        assert!(letter.key() == event.key.as_deref(), "a dead letter's key, {}", origin_of(letter));
    }
    figures.recorded = stated("recorded");
    figures.duplicate = stated("duplicate");
    figures.dead_lettered = outcomes.iter().filter(|(code, _)| code.starts_with('x')).map(|(_, n)| n).sum();
    figures.requests = stated("requests");
    let requests = deployment.read_topic(&deployment.requests).len() as u64;
    figures.repeated = letters.len() as u64 - figures.dead_lettered + requests.saturating_sub(figures.requests);
}

/// Topics and tables go, so that many rounds do not fill the servers.
async fn forget(round: &Round<'_>) {
    let deployment = round.deployment;
    for topic in TOPICS.map(|topic| deployment.topic(topic)) {
        round.kafka.delete_topic(&topic).await;
    }
    round.kafka.delete_topic(&deployment.dead_letters).await;
    round.kafka.delete_topic(&deployment.requests).await;
    let client = deployment.dynamodb_client().await;
    let tables = client.list_tables().into_paginator().items().send().collect::<Result<Vec<_>, _>>().await.unwrap();
    for table in tables.into_iter().filter(|table| table.starts_with(&format!("{}-", deployment.name))) {
        client.delete_table().table_name(table).send().await.unwrap();
    }
}

fn choose_protocol(deployment: &Deployment, protocol: &str) {
    let file = deployment.dir.join("pipelines/wallets.yaml");
    let pipeline = std::fs::read_to_string(&file).unwrap();
    let group = format!("group: {}", deployment.group());
    assert!(pipeline.contains(&group));
    std::fs::write(&file, pipeline.replace(&group, &format!("{group}\n    protocol: {protocol}"))).unwrap();
}
