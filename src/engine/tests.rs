//! A coordinator with one worker over seams in memory: a scripted source, a ledger that can lie, a dead-letter topic that can
//! hold on to letters. Every message is garbage, so its outcome is a dead letter and no store is asked.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Coordinator, Ending, Hosting, LaneLimits, Limits, WorkerParts};
use crate::dedupe::MemoryDedupe;
use crate::event::{Digest, Outcome, PartitionRef, Position, Record, StateWrite};
use crate::ledger::{Appended, Chain, ChainEnd, Entry, Fills, Ledger, Outcomes, StartItem};
use crate::pipeline::protocol::Purpose;
use crate::pipeline::{Parts, Patience, Pipeline, Poison, PoisonLimit};
use crate::source::{
    Answer, Assignment, Checkpoint, Provenance, RawBatch, RawMessage, Source, SourceError, SourceEvent, Survey,
};
use crate::store::{Changed, Inserted, RecordStore, Retry, RetryCause, TooLarge, Transacted, Transaction};
use crate::telemetry::{Heartbeats, Metrics, Readiness};
use crate::topic::{Message, Published, Topic};

/// What a source was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Start(String, Position),
    Pause(String),
    Resume(String),
    Checkpoint(String, u64, Position),
}

struct Scripted {
    /// Where all logs end when asked anew.
    log_end: Position,
    events: mpsc::UnboundedReceiver<SourceEvent>,
    told: mpsc::UnboundedSender<Told>,
    failing_surveys: usize,
}

impl Source for Scripted {
    fn lags(&self) -> Vec<(PartitionRef, u64)> {
        Vec::new()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<SourceEvent, SourceError>> {
        Box::pin(async {
            match self.events.recv().await {
                Some(event) => Ok(event),
                None => std::future::pending().await,
            }
        })
    }

    fn survey(&mut self, _: &str) -> Answer<Vec<Survey>> {
        let failing = self.failing_surveys > 0;
        self.failing_surveys = self.failing_surveys.saturating_sub(1);
        Box::pin(async move {
            if failing {
                return Err("no answer".into());
            }
            Ok(["a", "b"].map(|name| Survey { partition: partition(name), start: Position::Begin }).into())
        })
    }

    fn log_end(&mut self, _: &PartitionRef) -> Answer<Position> {
        let end = self.log_end;
        Box::pin(async move { Ok(end) })
    }

    fn start(&mut self, partition: &PartitionRef, after: Position) {
        let _ = self.told.send(Told::Start(partition.name.clone(), after));
    }

    fn pause(&mut self, partition: &PartitionRef) {
        let _ = self.told.send(Told::Pause(partition.name.clone()));
    }

    fn resume(&mut self, partition: &PartitionRef) {
        let _ = self.told.send(Told::Resume(partition.name.clone()));
    }

    fn checkpoint(&mut self, done: &[Checkpoint]) {
        for Checkpoint { partition, assignment, done } in done {
            let _ = self.told.send(Told::Checkpoint(partition.name.clone(), *assignment, *done));
        }
    }

    fn close(self: Box<Self>, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// What happens to an append beside the entry itself.
#[derive(Clone, Copy)]
enum Mishap {
    /// It is stored and the answer is lost.
    LostAnswer,
    /// Nothing is stored, and there is no answer.
    Away,
    /// Somebody else extended the chain by one position before.
    Zombie,
}

#[derive(Default)]
struct Chains {
    entries: Mutex<Vec<Entry>>,
    mishaps: Mutex<VecDeque<Mishap>>,
}

impl Chains {
    fn append_one(&self, chain: &Chain, entry: &Entry) -> Appended {
        let mut entries = self.entries.lock().unwrap();
        let (end, previous) =
            entries.last().map_or((Position::Begin, Digest::of(b"")), |last| (last.to, last.digest(&chain.key())));
        if entry.from != end {
            return Appended::Refused;
        }
        let mishap = self.mishaps.lock().unwrap().pop_front();
        if matches!(mishap, Some(Mishap::Away)) {
            return Appended::Retry(away());
        }
        if matches!(mishap, Some(Mishap::Zombie)) {
            let mut outcomes = Outcomes::default();
            outcomes.push(entry.outcomes.get(0).unwrap(), 1);
            let to = Position::Offset(entry.from.next_offset());
            entries.push(Entry { to, outcomes, nonce: "zombie".into(), ..entry.clone() });
            return Appended::Refused;
        }
        assert_eq!(entry.previous, previous, "the chain is broken");
        assert_eq!(entry.outcomes.len(), entry.from.distance_to(entry.to));
        entries.push(entry.clone());
        if mishap.is_some() { Appended::Retry(away()) } else { Appended::Done }
    }
}

fn away() -> Retry {
    Retry { cause: RetryCause::Unavailable, after: None, detail: "no answer".into() }
}

impl Ledger for Chains {
    fn end<'a>(&'a self, chain: &'a Chain) -> BoxFuture<'a, Result<Option<ChainEnd>, Retry>> {
        let end = self.entries.lock().unwrap().last().map(|entry| ChainEnd {
            sealed_by: None,
            position: entry.to,
            digest: entry.digest(&chain.key()),
            nonce: entry.nonce.clone(),
        });
        Box::pin(async { Ok(end) })
    }

    fn entries<'a>(&'a self, _: &'a Chain, after: Position, page: usize) -> BoxFuture<'a, Result<Vec<Entry>, Retry>> {
        let entries =
            self.entries.lock().unwrap().iter().filter(|entry| entry.to > after).take(page).cloned().collect();
        Box::pin(async { Ok(entries) })
    }

    fn append<'a>(&'a self, entries: &'a [(&'a Chain, &'a Entry)]) -> BoxFuture<'a, Vec<Appended>> {
        let verdicts = entries.iter().map(|(chain, entry)| self.append_one(chain, entry)).collect();
        Box::pin(async { verdicts })
    }

    fn start_item<'a>(&'a self, _: &'a Chain, proposed: &'a StartItem) -> BoxFuture<'a, Result<StartItem, Retry>> {
        Box::pin(async { Ok(proposed.clone()) })
    }

    fn find_start_item<'a>(&'a self, _: &'a Chain) -> BoxFuture<'a, Result<Option<StartItem>, Retry>> {
        Box::pin(async { Ok(None) })
    }
}

/// Acknowledges all letters but those of the partition that it holds.
struct Letters {
    held: watch::Receiver<&'static str>,
    began: mpsc::UnboundedSender<()>,
}

impl Topic for Letters {
    fn publish<'a>(&'a self, messages: &'a [&'a Message]) -> BoxFuture<'a, Vec<Published>> {
        let mut held = self.held.clone();
        let origin = messages[0].headers.iter().find(|(name, _)| name.ends_with("origin-partition")).unwrap().1.clone();
        Box::pin(async move {
            let _ = self.began.send(());
            let _ = held.wait_for(|held| Some(held.as_bytes()) != origin.as_deref()).await;
            messages.iter().map(|_| Published::Durable).collect()
        })
    }

    fn bytes_max(&self) -> usize {
        1 << 20
    }
}

struct NoStore;

impl RecordStore for NoStore {
    fn check_record(&self, _: &Record) -> Result<(), TooLarge> {
        Ok(())
    }

    fn check_state(&self, _: &StateWrite) -> Result<(), TooLarge> {
        Ok(())
    }

    fn insert<'a>(&'a self, _: &'a [&'a Record]) -> BoxFuture<'a, Vec<Inserted>> {
        unreachable!("garbage makes no records")
    }

    fn change<'a>(&'a self, _: &'a [&'a StateWrite]) -> BoxFuture<'a, Vec<Changed>> {
        unreachable!("garbage makes no states")
    }

    fn transact<'a>(&'a self, _: Transaction<'a>) -> BoxFuture<'a, Transacted> {
        unreachable!("garbage makes no transactions")
    }
}

fn partition(name: &str) -> PartitionRef {
    Arc::new(crate::event::Partition {
        cluster: "c".into(),
        topic: "transactions".into(),
        topic_id: "t".into(),
        epoch: 0,
        name: name.into(),
    })
}

fn garbage(name: &str, offset: u64, bytes: usize) -> SourceEvent {
    let message = RawMessage {
        position: Position::Offset(offset),
        timestamp_ms: None,
        key: None,
        value: Some(0..bytes),
        headers: Vec::new(),
        provenance: Provenance::Here,
    };
    SourceEvent::Batch(RawBatch { partition: partition(name), bytes: vec![b'x'; bytes], messages: vec![message] })
}

fn assigned(name: &str) -> SourceEvent {
    SourceEvent::Assigned(vec![Assignment {
        partition: partition(name),
        number: 0,
        checkpoint: None,
        log_start: Position::Begin,
        log_end: LOG_END,
    }])
}

const LOG_END: Position = Position::Offset(99);

/// A run, and all ends of it.
struct World {
    events: mpsc::UnboundedSender<SourceEvent>,
    told: mpsc::UnboundedReceiver<Told>,
    held: watch::Sender<&'static str>,
    began: mpsc::UnboundedReceiver<()>,
    chains: Arc<Chains>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    readiness: Arc<Readiness>,
    run: JoinHandle<Result<Ending, SourceError>>,
}

impl World {
    fn new(failing_surveys: usize, drain_deadline: Duration, mishaps: &[Mishap]) -> Self {
        Self::with(failing_surveys, drain_deadline, mishaps, None)
    }

    fn with(failing_surveys: usize, drain_deadline: Duration, mishaps: &[Mishap], poison: Option<PoisonLimit>) -> Self {
        let (events, scripted) = mpsc::unbounded_channel();
        let (tell, told) = mpsc::unbounded_channel();
        let (begin, began) = mpsc::unbounded_channel();
        let (held, holding) = watch::channel("");
        let chains = Arc::new(Chains::default());
        chains.mishaps.lock().unwrap().extend(mishaps);
        let metrics = Arc::new(Metrics::new().unwrap());
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
        let (specs, _) = crate::config::pipelines::load(&dir, &["ethereum".to_owned()]);
        let letters = Arc::new(Letters { held: holding, began: begin });
        let parts = Parts {
            group: "g".into(),
            tokens: None,
            purpose: Purpose::Live,
            partition: partition(""),
            pipeline: Arc::new(Pipeline::compile(&specs[0]).unwrap()),
            dedupe: Arc::new(MemoryDedupe::new(NonZeroUsize::MIN, Duration::from_secs(1), &metrics)),
            store: Arc::new(NoStore),
            ledger: chains.clone(),
            requests: letters.clone(),
            letters,
            metrics: metrics.clone(),
            tally: metrics.tally("ethereum"),
            poison: poison.map(|limit| Arc::new(Poison::new(limit))),
            patience: Patience {
                initial: Duration::from_millis(1),
                ceiling: Duration::from_millis(1),
                stalled_after: 9,
            },
        };
        let worker = WorkerParts {
            parts,
            lane_limits: LaneLimits { batches_in_flight_max: 1 },
            attest_interval: Duration::from_millis(1),
            heads: None,
            writer: "w".into(),
            heartbeat: Heartbeats::new().register("worker", Duration::from_secs(30)),
        };
        let limits = Limits { lane_bytes_max: 10_000, memory_bytes_max: 1_000, drain_deadline, until_idle: false };
        let source = Scripted { log_end: LOG_END, events: scripted, told: tell, failing_surveys };
        let heartbeat = Heartbeats::new().register("coordinator", Duration::from_secs(30));
        let readiness = Arc::new(Readiness::new(metrics.clone(), &[]));
        let coordinator =
            Coordinator::start(Box::new(source), vec![worker], limits, readiness.clone(), heartbeat, Hosting::Threads)
                .unwrap();
        let stop = CancellationToken::new();
        let run = tokio::spawn(coordinator.run(stop.clone()));
        Self { events, told, held, began, chains, metrics, stop, readiness, run }
    }

    fn tell(&self, event: SourceEvent) {
        self.events.send(event).unwrap();
    }

    /// Waits until the source was told this.
    async fn hears(&mut self, wanted: Told) {
        while self.told.recv().await.expect("the run ended") != wanted {}
    }

    async fn starts(&mut self, name: &str) {
        self.tell(assigned(name));
        self.hears(Told::Start(name.into(), Position::Begin)).await;
    }

    /// Waits until so many bytes are held. The gauge is read with each beat: under a paused clock these come as fast as they can.
    async fn holds(&self, bytes: usize) {
        let (wanted, began) = (format!("recordkeeper_lane_bytes {bytes}\n"), std::time::Instant::now());
        while !self.metrics.render().contains(&wanted) {
            assert!(began.elapsed() < LONG, "{}", self.metrics.render());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn revoke(&self, name: &str) -> oneshot::Receiver<()> {
        let (ack, acked) = oneshot::channel();
        self.tell(SourceEvent::Revoked { partitions: vec![partition(name)], lost: false, ack });
        acked
    }

    fn unready(&self) -> Vec<String> {
        self.readiness.report().dependencies.into_iter().filter_map(|dependency| dependency.reason).collect()
    }

    async fn ends(self) -> Ending {
        self.stop.cancel();
        self.run.await.unwrap().unwrap()
    }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn lost_answers_and_zombies_leave_one_contiguous_chain() {
    let mut world = World::new(0, LONG, &[Mishap::LostAnswer, Mishap::Zombie]);
    world.starts("a").await;
    for offset in 0..3 {
        world.tell(garbage("a", offset, 1));
        world.hears(Told::Checkpoint("a".into(), 0, Position::Offset(offset))).await;
    }
    let (chains, metrics) = (world.chains.clone(), world.metrics.clone());
    assert_eq!(world.ends().await, Ending::Drained);
    let entries = chains.entries.lock().unwrap();
    let covered: u64 = entries.iter().map(|entry| entry.outcomes.len()).sum();
    assert_eq!((covered, entries.last().unwrap().to), (3, Position::Offset(2)));
    let summary = metrics.summary();
    assert_eq!((summary.consumed, summary.in_flight, summary.attested), (3, 0, 3));
}

#[tokio::test]
async fn a_ledger_that_takes_nothing_for_long_is_an_alert_and_asked_on() {
    let mut world = World::new(0, LONG, &[Mishap::Away; 12]);
    world.starts("a").await;
    world.tell(garbage("a", 0, 1));
    world.hears(Told::Checkpoint("a".into(), 0, Position::Offset(0))).await;
    let scrape = world.metrics.render();
    assert!(scrape.contains("recordkeeper_alerts_total{alert=\"stalled_partition\"} 1\n"), "{scrape}");
    assert_eq!(world.ends().await, Ending::Drained);
}

#[tokio::test]
async fn a_revoked_lane_attests_no_hole_where_it_let_go_of_a_batch() {
    let mut world = World::new(0, LONG, &[]);
    world.starts("a").await;
    world.held.send_replace("a");
    for offset in 0..4 {
        world.tell(garbage("a", offset, 1));
    }
    world.began.recv().await.unwrap();
    let acked = world.revoke("a");
    world.held.send_replace("");
    acked.await.unwrap();
    let chains = world.chains.clone();
    assert_eq!(world.ends().await, Ending::Drained);
    for entry in chains.entries.lock().unwrap().iter() {
        assert!(entry.outcomes.runs().iter().all(|run| matches!(run.outcome, Outcome::DeadLettered(_))), "{entry:?}");
    }
}

#[tokio::test]
async fn a_lane_that_lost_its_assignment_does_not_checkpoint_for_the_next_one() {
    let mut world = World::new(0, LONG, &[]);
    world.starts("a").await;
    world.held.send_replace("a");
    world.tell(garbage("a", 0, 1));
    world.began.recv().await.unwrap();
    let (ack, _) = oneshot::channel();
    world.tell(SourceEvent::Revoked { partitions: vec![partition("a")], lost: true, ack });
    let SourceEvent::Assigned(mut anew) = assigned("a") else { unreachable!() };
    anew[0].number = 1;
    world.tell(SourceEvent::Assigned(anew));
    // The lost lane attests what it has done; whoever had the partition meanwhile may be far above it.
    world.held.send_replace("");
    world.hears(Told::Checkpoint("a".into(), 0, Position::Offset(0))).await;
    world.hears(Told::Checkpoint("a".into(), 1, Position::Offset(0))).await;
    assert_eq!(world.ends().await, Ending::Drained);
}

fn looked_at_early(checkpoint: Option<u64>, log_end: u64) -> SourceEvent {
    SourceEvent::Assigned(vec![Assignment {
        partition: partition("a"),
        number: 0,
        checkpoint: checkpoint.map(Position::before_offset),
        log_start: Position::Begin,
        log_end: Position::before_offset(log_end),
    }])
}

/// A chain that holds these offsets.
fn holding(world: &World, offsets: std::ops::Range<u64>) {
    let mut outcomes = Outcomes::default();
    outcomes.push(Outcome::Skipped, offsets.end - offsets.start);
    world.chains.entries.lock().unwrap().push(Entry {
        from: Position::before_offset(offsets.start),
        to: Position::before_offset(offsets.end),
        outcomes,
        records: crate::event::SetDigest::default(),
        record_count: 0,
        fills: Fills::default(),
        revision: String::new(),
        writer: String::new(),
        nonce: String::new(),
        previous: Digest::of(b""),
        attested_at: String::new(),
    });
}

#[tokio::test]
async fn a_ledger_that_grew_after_the_look_at_the_log_is_no_truncated_log() {
    let mut world = World::new(0, LONG, &[]);
    holding(&world, 0..50);
    world.tell(looked_at_early(Some(30), 40));
    world.hears(Told::Start("a".into(), Position::Offset(29))).await;
    assert_eq!(world.ends().await, Ending::Drained);
}

#[tokio::test]
async fn a_log_that_ends_below_its_ledger_is_not_read_and_seen_in_readiness() {
    let world = World::new(0, LONG, &[]);
    holding(&world, 0..200);
    world.tell(looked_at_early(None, 150));
    while !world.unready().iter().any(|reason| reason.contains("its next epoch in source.kafka.topic_epochs")) {
        tokio::task::yield_now().await;
    }
    world.revoke("a").await.unwrap();
    assert_eq!(world.unready(), Vec::<String>::new(), "somebody else's now");
    assert_eq!(world.ends().await, Ending::Drained);
}

#[tokio::test]
async fn a_checkpoint_below_the_ledger_s_begin_is_not_followed() {
    let mut world = World::new(0, LONG, &[]);
    holding(&world, 20..50);
    world.tell(looked_at_early(Some(10), 100));
    world.hears(Told::Start("a".into(), Position::Offset(19))).await;
    assert_eq!(world.ends().await, Ending::Drained);
}

#[tokio::test]
async fn a_checkpoint_that_expired_or_is_not_followed_is_set_right() {
    for checkpoint in [None, Some(90)] {
        let mut world = World::new(0, LONG, &[]);
        holding(&world, 0..50);
        world.tell(looked_at_early(checkpoint, 100));
        world.hears(Told::Checkpoint("a".into(), 0, Position::Offset(49))).await;
        assert_eq!(world.ends().await, Ending::Drained);
    }
}

#[tokio::test]
async fn a_partition_whose_survey_failed_is_started_later() {
    let mut world = World::new(1, LONG, &[]);
    world.starts("a").await;
    assert_eq!(world.ends().await, Ending::Drained);
}

#[tokio::test(start_paused = true)]
async fn what_a_given_up_lane_held_lets_others_be_read_again() {
    let mut world = World::new(0, Duration::from_millis(1), &[]);
    world.starts("a").await;
    world.starts("b").await;
    world.held.send_replace("a");
    world.tell(garbage("a", 0, 2_000));
    world.tell(garbage("b", 0, 1));
    world.began.recv().await.unwrap();
    world.began.recv().await.unwrap();
    world.hears(Told::Resume("b".into())).await;
    world.holds(2_000 + std::mem::size_of::<RawMessage>()).await;
    world.revoke("a").await.unwrap();
    world.holds(0).await;
    // A drain takes real time.
    tokio::time::resume();
    assert_eq!(world.ends().await, Ending::Drained, "a rebalance long ago is no failed drain");
}

/// What "a" holds, for ever as far as "b" can tell, is more than half of the memory.
#[tokio::test]
async fn a_partition_that_is_stuck_with_much_memory_does_not_stop_the_others() {
    let mut world = World::new(0, Duration::from_millis(1), &[]);
    world.starts("a").await;
    world.starts("b").await;
    world.held.send_replace("a");
    world.tell(garbage("a", 0, 2_000));
    world.began.recv().await.unwrap();
    for offset in 0..3 {
        world.tell(garbage("b", offset, 1));
        world.hears(Told::Pause("b".into())).await;
        world.hears(Told::Resume("b".into())).await;
    }
    assert_eq!(world.ends().await, Ending::Left(vec!["transactions/a".into()]));
}

/// Of a partition that waits for ever only what was begun is kept.
#[tokio::test(start_paused = true)]
async fn a_poisoned_partition_lets_go_of_what_it_has_not_begun() {
    let limit = PoisonLimit { percent_max: 50, window: 10, events_min: 3 };
    let mut world = World::with(0, LONG, &[], Some(limit));
    world.starts("a").await;
    for offset in 0..2 {
        world.tell(garbage("a", offset, 1));
        world.hears(Told::Checkpoint("a".into(), 0, Position::Offset(offset))).await;
    }
    world.tell(garbage("a", 2, 7));
    world.tell(garbage("a", 3, 2_000));
    world.hears(Told::Pause("a".into())).await;
    world.holds(7 + std::mem::size_of::<RawMessage>()).await;
    world.ends().await;
}

#[tokio::test]
async fn a_drain_that_cannot_end_is_given_up_and_said_so() {
    let mut world = World::new(0, Duration::from_millis(1), &[]);
    world.starts("a").await;
    world.held.send_replace("a");
    world.tell(garbage("a", 0, 1));
    world.began.recv().await.unwrap();
    let (chains, metrics) = (world.chains.clone(), world.metrics.clone());
    assert_eq!(world.ends().await, Ending::Left(vec!["transactions/a".into()]));
    assert!(chains.entries.lock().unwrap().is_empty());
    assert_eq!((metrics.summary().consumed, metrics.summary().in_flight), (0, 0));
}

#[tokio::test]
async fn before_a_letter_of_a_poisoned_route_a_lane_waits_and_is_let_go_of_at_once() {
    let limit = PoisonLimit { percent_max: 50, window: 10, events_min: 3 };
    let mut world = World::with(0, LONG, &[], Some(limit));
    world.starts("a").await;
    for offset in 0..2 {
        world.tell(garbage("a", offset, 1));
        world.hears(Told::Checkpoint("a".into(), 0, Position::Offset(offset))).await;
    }
    for after in [None, Some(Position::Offset(1))] {
        if let Some(after) = after {
            world.tell(assigned("a"));
            world.hears(Told::Start("a".into(), after)).await;
        }
        world.tell(garbage("a", 2, 1));
        world.tell(garbage("a", 3, 1));
        world.hears(Told::Pause("a".into())).await;
        world.revoke("a").await.unwrap();
    }
    let (chains, metrics) = (world.chains.clone(), world.metrics.clone());
    world.began.recv().await.unwrap();
    world.began.recv().await.unwrap();
    assert!(world.began.try_recv().is_err(), "no letter of a poisoned route goes out");
    assert_eq!(world.ends().await, Ending::Drained);
    assert_eq!(chains.entries.lock().unwrap().last().unwrap().to, Position::Offset(1));
    let summary = metrics.summary();
    assert_eq!((summary.dead_lettered.values().sum::<u64>(), summary.in_flight), (2, 0));
    let text = metrics.render();
    assert!(
        text.contains("recordkeeper_alerts_total{alert=\"poisoned_route\"} 1\n"),
        "one alert, however often it is read"
    );
    assert!(text.contains("recordkeeper_alerts_total{alert=\"partitions_lost\"} 0\n"), "not given up, let go of");
}
