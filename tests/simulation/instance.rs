//! One instance: the product's coordinator and workers, that can be killed and frozen at any await.

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use recordkeeper::config::pipelines;
use recordkeeper::engine::{Coordinator, Ending, Hosting, LaneLimits, Limits, WorkerParts};
use recordkeeper::event::Partition;
use recordkeeper::pipeline::protocol::Purpose;
use recordkeeper::pipeline::{Parts, Patience, Pipeline};
use recordkeeper::source::{SourceError, SourceEvent};
use recordkeeper::telemetry::{Heartbeats, Metrics, Readiness};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};
use tokio_util::sync::CancellationToken;

use crate::seams::{Seams, SimTopic, take_letter, take_request};
use crate::source::SimSource;
use crate::world::{Shared, lock};

/// The pipeline that ships and one of another mapping revision (the same events, other records), written in batches; and the same
/// with a transaction for each event.
static PIPELINES: LazyLock<[[Arc<Pipeline>; 2]; 2]> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read_to_string(root.join("pipelines/wallets.yaml")).unwrap();
    let schemas = format!("schema: {}/schemas/", root.display());
    let shipped = file.replace("schema: ../schemas/", &schemas);
    let changed = shipped.replacen("          owner: /data/owner\n", "", 1);
    assert_ne!(shipped, changed);
    let in_transactions = |text: &str| {
        let format = "    format: cloudevents\n";
        assert!(text.contains(format));
        text.replace(format, &format!("{format}    consistency: transactional\n"))
    };
    let (shipped_so, changed_so) = (in_transactions(&shipped), in_transactions(&changed));
    let files = [
        [("shipped", shipped), ("changed", changed)],
        [("shipped-transactional", shipped_so), ("changed-transactional", changed_so)],
    ];
    let compile = |(name, text): (&str, String)| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulation").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("wallets.yaml"), text).unwrap();
        let (specs, found) = pipelines::load(&dir, &["wallets".to_owned()]);
        Arc::new(Pipeline::compile(specs.first().unwrap_or_else(|| panic!("{found:?}"))).unwrap())
    };
    files.map(|revisions| revisions.map(compile))
});

/// Whether an instance stands still, as after SIGSTOP: its calls go on outside, it does not.
#[derive(Default)]
pub struct Freeze {
    frozen: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Freeze {
    pub fn is_on(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    pub fn set(&self, on: bool) {
        self.frozen.store(on, Ordering::Relaxed);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

struct Freezable<F> {
    inner: Pin<Box<F>>,
    freeze: Arc<Freeze>,
}

impl<F: Future> Future for Freezable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        *self.freeze.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        if self.freeze.is_on() { Poll::Pending } else { self.inner.as_mut().poll(context) }
    }
}

/// A member of the group, and all ends of it. Aborting its task kills it.
pub struct Instance {
    pub events: mpsc::UnboundedSender<SourceEvent>,
    pub freeze: Arc<Freeze>,
    pub stop: CancellationToken,
    pub metrics: Arc<Metrics>,
    pub task: JoinHandle<Result<Ending, SourceError>>,
}

impl Instance {
    /// Starts one, with limits drawn by chance.
    pub fn start(member: usize, world: &Shared) -> Self {
        let (events, heard) = mpsc::unbounded_channel();
        let metrics = Arc::new(Metrics::new().unwrap());
        let (stop, freeze) = (CancellationToken::new(), Arc::new(Freeze::default()));
        let source = SimSource::new(member, world.clone(), heard);
        let (workers, batches_in_flight_max, lane_bytes_max, memory_bytes_max) = {
            let chance = &mut lock(world).chance;
            let bytes = |chance: &mut fastrand::Rng| chance.choice([2_000, 20_000, 1 << 20]).unwrap_or(1);
            (chance.usize(1..3), chance.usize(1..5), bytes(chance), bytes(chance))
        };
        let pipeline = {
            let mut world = lock(world);
            // Of two events that tie the first one's content stands, unless one is written in a batch and the other is not.
            let revisions = &PIPELINES[usize::from(world.transactional)];
            revisions[world.chance.usize(0..revisions.len())].clone()
        };
        let heartbeats = Heartbeats::new();
        let beats = Duration::from_secs(30);
        let worker = || WorkerParts {
            parts: parts(world, &metrics, &pipeline),
            lane_limits: LaneLimits { batches_in_flight_max },
            attest_interval: Duration::from_millis(200),
            heads: None,
            writer: member.to_string(),
            heartbeat: heartbeats.register("worker", beats),
        };
        let workers: Vec<WorkerParts> = (0..workers).map(|_| worker()).collect();
        let limits =
            Limits { lane_bytes_max, memory_bytes_max, drain_deadline: Duration::from_secs(5), until_idle: false };
        let readiness = Arc::new(Readiness::new(metrics.clone(), &[]));
        let (heartbeat, stopped) = (heartbeats.register("coordinator", beats), stop.clone());
        let life = async move {
            // A task set of its own: what dies with it, dies at once.
            let running = async move {
                let source = Box::new(source);
                Coordinator::start(source, workers, limits, readiness, heartbeat, Hosting::Here)
                    .unwrap()
                    .run(stopped)
                    .await
            };
            LocalSet::new().run_until(running).await
        };
        let task = tokio::task::spawn_local(Freezable { inner: Box::pin(life), freeze: freeze.clone() });
        Self { events, freeze, stop, metrics, task }
    }

    /// What it counts adds up.
    pub fn adds_up(&self) -> bool {
        let summary = self.metrics.summary();
        let dead: u64 = summary.dead_lettered.values().sum();
        summary.consumed == summary.recorded + summary.duplicate + summary.skipped + dead + summary.in_flight
    }
}

fn parts(world: &Shared, metrics: &Arc<Metrics>, pipeline: &Arc<Pipeline>) -> Parts {
    let seams = Arc::new(Seams(world.clone()));
    Parts {
        group: pipeline.group().into(),
        tokens: None,
        purpose: Purpose::Live,
        partition: Arc::new(Partition::default()),
        pipeline: pipeline.clone(),
        dedupe: seams.clone(),
        store: seams.clone(),
        ledger: seams,
        requests: Arc::new(SimTopic { world: world.clone(), take: take_request }),
        letters: Arc::new(SimTopic { world: world.clone(), take: take_letter }),
        metrics: metrics.clone(),
        tally: metrics.tally(pipeline.name()),
        poison: None,
        patience: Patience { initial: Duration::from_millis(50), ceiling: Duration::from_secs(2), stalled_after: 8 },
    }
}
