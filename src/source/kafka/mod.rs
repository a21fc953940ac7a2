//! Kafka as a source: one consumer of a group.
//!
//! In: what the group assigns, and the engine's orders. Out: [`SourceEvent`]s. librdkafka is polled by one thread
//! ([`reader`]); what must be asked of the cluster is asked by another ([`lookup`]); callbacks only take notes
//! ([`context`]). A partition is assigned paused, announced with its checkpoint and the log's ends, and read only once
//! started. What can fail for good: settings, permissions, a fenced instance; an outage is a health event.

mod commits;
mod config;
mod context;
mod faults;
mod line;
mod lists;
mod lookup;
mod mailbox;
mod native;
mod orders;
mod place;
mod range;
mod reader;
mod rebalance;
mod round;
mod slot;
mod start;
mod survey;
mod wake;
mod watch;

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

pub(crate) use config::setting_fault;
pub use config::{Auth, GroupProtocol, KafkaConnection, KafkaSourceConfig, Scram, StartPolicy};
pub(crate) use context::Context;
pub use place::{GroupPlace, Place};
pub use range::KafkaRanges;

use crate::event::{PartitionRef, Position};
use crate::source::{Answer, Checkpoint, Source, SourceError, SourceEvent, Survey};
use crate::telemetry::Heartbeat;
use lookup::Cluster;
use mailbox::Mailbox;
use orders::Orders;
use reader::{Parts, Reader};
use slot::BatchLimits;

/// How long a survey of one topic may take in all.
const SURVEY: Duration = Duration::from_secs(60);
/// How long leaving may take where nobody called [`Source::close`].
const DROPPED: Duration = Duration::from_secs(5);

/// The lag of every assigned partition, of at most a second ago.
#[derive(Clone, Debug, Default)]
struct Lags(Arc<Mutex<Vec<(PartitionRef, u64)>>>);

impl Lags {
    fn read(&self) -> Vec<(PartitionRef, u64)> {
        lock(&self.0).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Held for single assignments only, which a panic cannot leave half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One consumer of a group.
pub struct KafkaSource {
    consumer: Arc<BaseConsumer<Context>>,
    cluster: Arc<Cluster>,
    start: StartPolicy,
    mailbox: Arc<Mailbox>,
    orders: Arc<Orders>,
    lags: Lags,
    closed: bool,
}

impl KafkaSource {
    /// Joins the group. Returns at once: whether the cluster can be reached is told by [`SourceEvent::Health`]. The reader
    /// touches `heartbeat` at least every few seconds. To be called inside a Tokio runtime.
    ///
    /// # Errors
    /// Settings that contradict the source or that librdkafka refuses, by name.
    pub fn connect(config: KafkaSourceConfig, heartbeat: Heartbeat) -> Result<Self, SourceError> {
        let client: ClientConfig = config.consumer_config()?;
        let context = Context::new(&config.connection);
        let mut consumer: BaseConsumer<Context> = BaseConsumer::from_config_and_context(&client, context)
            .map_err(|error| SourceError::Fatal(setting_fault(&error)))?;
        let (wake, sleep) = wake::wake();
        let group_event = wake.clone();
        consumer.set_nonempty_callback(move || group_event.wake());
        let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
        consumer
            .subscribe(&topics)
            .map_err(|error| SourceError::Fatal(format!("cannot subscribe to {}: {error}", topics.join(", "))))?;

        let consumer = Arc::new(consumer);
        let cluster = Arc::new(Cluster::new(config.topic_epochs.clone()));
        let mailbox = Arc::new(Mailbox::new(config.batches_max, wake.clone()));
        let orders = Arc::new(Orders::new(wake.clone()));
        let lags = Lags::default();
        let (questions, asked) = channel();
        let (answer, answers) = channel();
        {
            let (consumer, cluster, wake) = (Arc::clone(&consumer), Arc::clone(&cluster), wake.clone());
            spawn("kafka-lookup", Arc::clone(&mailbox), move || {
                lookup::run(&consumer, &cluster, &asked, &answer, &wake)
            })?;
        }
        let (committer, lists) = channel();
        {
            let (consumer, wake) = (Arc::clone(&consumer), wake.clone());
            spawn("kafka-commit", Arc::clone(&mailbox), move || commits::run(&consumer, &lists, &wake))?;
        }
        let parts = Parts {
            consumer: Arc::clone(&consumer),
            limits: BatchLimits {
                messages_max: config.batch_messages_max,
                bytes_max: config.batch_bytes_max,
                linger: config.linger,
            },
            until_end: config.until_end,
            drain: config.drain_deadline(),
            topics: config.topics,
            group: config.group,
            mailbox: Arc::clone(&mailbox),
            orders: Arc::clone(&orders),
            questions,
            committer,
            answers,
            lags: lags.clone(),
            heartbeat,
            wake,
            sleep,
        };
        spawn("kafka-reader", Arc::clone(&mailbox), move || Reader::new(parts).run())?;
        Ok(Self { consumer, cluster, start: config.start, mailbox, orders, lags, closed: false })
    }
}

/// Says that the source is over when its thread ends, however it ends.
struct Over(Arc<Mailbox>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.fatal("the source is closed, or its thread ended on a fault that the log names: restart".to_owned());
    }
}

fn spawn(name: &str, mailbox: Arc<Mailbox>, body: impl FnOnce() + Send + 'static) -> Result<(), SourceError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _over = Over(mailbox);
            body();
        })
        .map(drop)
        .map_err(|error| SourceError::Fatal(format!("cannot start the thread {name}: {error}")))
}

/// Asks on a thread that may wait.
fn asked<V: Send + 'static>(ask: impl FnOnce() -> Result<V, String> + Send + 'static) -> Answer<V> {
    Box::pin(async move {
        tokio::task::spawn_blocking(ask).await.map_err(|error| format!("the question broke off: {error}"))?
    })
}

impl Source for KafkaSource {
    fn next(&mut self) -> BoxFuture<'_, Result<SourceEvent, SourceError>> {
        Box::pin(self.mailbox.next())
    }

    fn survey(&mut self, topic: &str) -> Answer<Vec<Survey>> {
        let (consumer, cluster) = (Arc::clone(&self.consumer), Arc::clone(&self.cluster));
        let (topic, policy) = (topic.to_owned(), self.start);
        asked(move || survey::survey(&consumer, &cluster, &topic, policy, Instant::now() + SURVEY))
    }

    fn log_end(&mut self, partition: &PartitionRef) -> Answer<Position> {
        let (consumer, partition) = (Arc::clone(&self.consumer), Arc::clone(partition));
        asked(move || lookup::log_end(&consumer, &partition))
    }

    fn start(&mut self, partition: &PartitionRef, after: Position) {
        self.orders.start(partition, after);
    }

    fn pause(&mut self, partition: &PartitionRef) {
        self.orders.pause(partition, true);
    }

    fn resume(&mut self, partition: &PartitionRef) {
        self.orders.pause(partition, false);
    }

    fn checkpoint(&mut self, done: &[Checkpoint]) {
        self.orders.done(done);
    }

    fn lags(&self) -> Vec<(PartitionRef, u64)> {
        self.lags.read()
    }

    fn close(mut self: Box<Self>, deadline: Duration) -> BoxFuture<'static, ()> {
        self.closed = true;
        let left = self.orders.close(deadline);
        Box::pin(async move {
            // Past the deadline the threads are left to themselves: librdkafka's destructor has no deadline of its own.
            if tokio::time::timeout(deadline, left).await.is_err() {
                tracing::warn!("the group was not left within the deadline; the broker notices by itself");
            }
        })
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        if !self.closed {
            drop(self.orders.close(DROPPED));
        }
    }
}
