//! A worker: one thread that owns some partitions end to end.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::event::{PartitionRef, Position};
use crate::ledger::Heads;
use crate::pipeline::{Parts, Poisoned};
use crate::source::{Answer, Assignment, Checkpoint, RawBatch, Survey};
use crate::telemetry::Heartbeat;

use super::attester::{Attester, Lanes};
use super::heads::Publisher;
use super::lane::{self, LaneLimits, Mode};
use super::open::{Opened, open};
use super::progress::Progress;

/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(1);

/// What a coordinator tells a worker.
#[derive(Debug)]
pub(super) enum ToWorker {
    /// Open a lane.
    Assign {
        /// The partition and what decides where it is read from.
        assignment: Assignment,
        /// Where the lane tells how it gets on.
        progress: Arc<Progress>,
    },
    /// Work.
    Batch(RawBatch),
    /// End these lanes in this way; each answers with [`FromWorker::Ended`].
    End {
        /// Which.
        partitions: Vec<PartitionRef>,
        /// How.
        mode: Mode,
    },
    /// Give these lanes up at once.
    GiveUp {
        /// Which.
        partitions: Vec<PartitionRef>,
    },
}

/// A survey that many await.
pub(super) type SharedSurvey = futures::future::Shared<Answer<Arc<[Survey]>>>;

/// What a worker tells its coordinator.
pub(super) enum FromWorker {
    /// A lane asks where its partition's log ends now.
    LogEnd {
        /// Which.
        partition: PartitionRef,
        /// For the answer, to be awaited.
        reply: oneshot::Sender<Answer<Position>>,
    },
    /// A lane asks where all partitions of its topic begin for this group.
    Survey {
        /// One of them.
        partition: PartitionRef,
        /// For the answer, to be awaited; all lanes of a topic share it.
        reply: oneshot::Sender<SharedSurvey>,
    },
    /// A partition must not be read.
    Unread {
        /// Which.
        partition: PartitionRef,
        /// Why, and what to do.
        reason: String,
    },
    /// Another process took over what this one does.
    Fenced {
        /// Where it was seen.
        partition: PartitionRef,
        /// Who.
        reason: String,
    },
    /// A lane is open and wants to be read just above this position.
    Start {
        /// Which.
        partition: PartitionRef,
        /// Where.
        after: Position,
    },
    /// A lane waits for as long as it lives.
    Poisoned {
        /// Whose.
        partition: PartitionRef,
        /// What for.
        poisoned: Poisoned,
    },
    /// Bytes that are not held any more: of a batch that was settled, or is let go of.
    Freed {
        /// Whose.
        partition: PartitionRef,
        /// How many.
        bytes: usize,
    },
    /// Everything at or below is durable and attested.
    Checkpoint {
        /// By partition.
        done: Vec<Checkpoint>,
    },
    /// A lane ended; complete where it had drained.
    Ended {
        /// Which.
        partition: PartitionRef,
        /// Whether all it took in is durable and attested.
        complete: bool,
    },
}

/// What one worker works with: all seams but the partition.
pub struct WorkerParts {
    /// Makes the parts of one lane.
    pub parts: Parts,
    /// What a lane may hold.
    pub lane_limits: LaneLimits,
    /// At most one append a lane in this time.
    pub attest_interval: Duration,
    /// Publishes where chains end, if that is asked for.
    pub heads: Option<Arc<Heads>>,
    /// Names this process in ledger entries.
    pub writer: String,
    /// Touched while the thread moves.
    pub heartbeat: Heartbeat,
}

/// Where workers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosting {
    /// Each on a thread of its own.
    Threads,
    /// All on the [`tokio::task::LocalSet`] of whoever starts them, so that nothing runs beside anything else: for simulations.
    Here,
}

/// A running worker. Dropping its sender ends it.
pub struct Worker {
    pub(super) inbox: mpsc::UnboundedSender<ToWorker>,
    host: Host,
}

enum Host {
    Thread(std::thread::JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl Worker {
    /// Starts it.
    pub(super) fn start(
        name: String,
        parts: WorkerParts,
        outbox: mpsc::Sender<FromWorker>,
        hosting: Hosting,
    ) -> std::io::Result<Self> {
        // What is queued is bounded by the coordinator: it stops the source at its byte limits.
        let (inbox, messages) = mpsc::unbounded_channel();
        let host = match hosting {
            Hosting::Here => Host::Task(tokio::task::spawn_local(run(parts, messages, outbox))),
            Hosting::Threads => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                Host::Thread(std::thread::Builder::new().name(name).spawn(move || {
                    runtime.block_on(tokio::task::LocalSet::new().run_until(run(parts, messages, outbox)));
                    // A question to the cluster that has no answer yet holds up nobody's end.
                    runtime.shutdown_background();
                })?)
            }
        };
        Ok(Self { inbox, host })
    }

    /// Whether it ended; before its sender is dropped, only on a fault.
    pub(super) fn is_finished(&self) -> bool {
        match &self.host {
            Host::Thread(thread) => thread.is_finished(),
            Host::Task(task) => task.is_finished(),
        }
    }

    /// Ends it, giving up what its lanes still do, and waits for it: briefly, they have nothing left to do.
    pub(super) async fn stop(self) {
        drop(self.inbox);
        let sound = match self.host {
            Host::Task(task) => task.await.is_ok(),
            // Joining blocks.
            Host::Thread(thread) => tokio::task::spawn_blocking(|| thread.join().is_ok()).await.unwrap_or(false),
        };
        if !sound {
            tracing::error!("a worker panicked");
        }
    }
}

/// One lane as its worker sees it.
struct Running {
    batches: mpsc::UnboundedSender<RawBatch>,
    mode: watch::Sender<Mode>,
    task: AbortHandle,
}

async fn run(parts: WorkerParts, mut inbox: mpsc::UnboundedReceiver<ToWorker>, outbox: mpsc::Sender<FromWorker>) {
    let lanes: Lanes = Rc::new(RefCell::new(BTreeMap::new()));
    let attest_now = Rc::new(Notify::new());
    let attester = Attester {
        lanes: lanes.clone(),
        ledger: parts.parts.ledger.clone(),
        interval: parts.attest_interval,
        now: attest_now.clone(),
        outbox: outbox.clone(),
        writer: parts.writer.clone(),
    };
    let mut attesting = std::pin::pin!(attester.run());
    let publisher =
        parts.heads.clone().map(|heads| Publisher::new(heads, lanes.clone(), parts.parts.metrics.alerts.clone()));
    let mut publishing = std::pin::pin!(async {
        match &publisher {
            Some(publisher) => publisher.run().await,
            None => std::future::pending().await,
        }
    });
    let mut running: BTreeMap<PartitionRef, Running> = BTreeMap::new();
    let mut tasks: JoinSet<PartitionRef> = JoinSet::new();
    let mut ids: HashMap<tokio::task::Id, PartitionRef> = HashMap::new();
    let mut beat = tokio::time::interval(BEAT);
    loop {
        tokio::select! {
            biased;
            () = &mut attesting => {}
            () = &mut publishing => {}
            _ = beat.tick() => parts.heartbeat.touch(),
            Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                let (id, complete) = match ended {
                    Ok((id, _)) => (id, true),
                    Err(error) => {
                        if error.is_panic() {
                            tracing::error!("a lane panicked; its partition is given up");
                        }
                        (error.id(), false)
                    }
                };
                if let Some(partition) = ids.remove(&id) {
                    let lane = lanes.borrow_mut().remove(&partition);
                    if let (Some(publisher), Some(lane)) = (&publisher, lane) {
                        publisher.keep(&lane);
                    }
                    running.remove(&partition);
                    let _ = outbox.send(FromWorker::Ended { partition, complete }).await;
                }
            }
            message = inbox.recv() => match message {
                None => break,
                Some(ToWorker::Assign { assignment, progress }) => {
                    let partition = assignment.partition.clone();
                    let shared = Shared { lanes: lanes.clone(), attest_now: attest_now.clone(), outbox: outbox.clone() };
                    let (batches, mode, task) =
                        open_lane(&parts, assignment, progress, shared, &mut tasks);
                    ids.insert(task.id(), partition.clone());
                    running.insert(partition, Running { batches, mode, task });
                }
                Some(ToWorker::Batch(batch)) => {
                    // A batch of a lane that ended meanwhile is read again by the partition's next owner.
                    if let Some(lane) = running.get(&batch.partition) {
                        let _ = lane.batches.send(batch);
                    }
                }
                Some(ToWorker::End { partitions, mode }) => {
                    for partition in partitions {
                        // One that is not running has ended by itself, and said so.
                        if let Some(lane) = running.get(&partition) {
                            lane.mode.send_replace(mode);
                        }
                    }
                }
                Some(ToWorker::GiveUp { partitions }) => {
                    for lane in partitions.iter().filter_map(|partition| running.get(partition)) {
                        lane.task.abort();
                    }
                }
            },
        }
    }
    tasks.shutdown().await;
    if let Some(publisher) = &publisher {
        publisher.publish().await;
    }
}

type Handles = (mpsc::UnboundedSender<RawBatch>, watch::Sender<Mode>, AbortHandle);

/// What a lane shares with its worker.
struct Shared {
    lanes: Lanes,
    attest_now: Rc<Notify>,
    outbox: mpsc::Sender<FromWorker>,
}

fn open_lane(
    parts: &WorkerParts,
    assignment: Assignment,
    progress: Arc<Progress>,
    Shared { lanes, attest_now, outbox }: Shared,
    tasks: &mut JoinSet<PartitionRef>,
) -> Handles {
    let (batches, queue) = mpsc::unbounded_channel();
    let (mode, told) = watch::channel(Mode::Run);
    let seams = Parts { partition: assignment.partition.clone(), ..parts.parts.clone() };
    let limits = parts.lane_limits;
    let task = tasks.spawn_local(async move {
        let partition = assignment.partition.clone();
        let mut ending = told.clone();
        let opened = tokio::select! {
            biased;
            opened = open(seams, &assignment, progress, &outbox) => opened,
            // Told to end before the ledger answered: nothing was read yet.
            _ = ending.wait_for(|mode| *mode != Mode::Run) => None,
        };
        let (lane, after) = match opened {
            Some(Opened::Lane(lane, after)) => (lane, after),
            Some(Opened::Unread(reason)) => {
                let _ = outbox.send(FromWorker::Unread { partition: partition.clone(), reason }).await;
                // Kept until told to end: the partition is ours, and not read.
                let _ = ending.wait_for(|mode| *mode != Mode::Run).await;
                return partition;
            }
            None => return partition,
        };
        lanes.borrow_mut().insert(partition.clone(), lane.clone());
        if outbox.send(FromWorker::Start { partition: partition.clone(), after }).await.is_ok() {
            lane::run(lane, limits, queue, told, attest_now, outbox).await;
        }
        partition
    });
    (batches, mode, task)
}
