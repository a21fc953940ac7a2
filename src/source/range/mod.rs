//! Bounded parts of logs as a source, for whatever reads again: nothing is assigned by a group and nothing is checkpointed, the
//! ledger of the run alone says where it stands.
//!
//! In: a [`Feed`], which reads and may block, on a thread of its own. Out: [`SourceEvent`]s, no faster than the rate allows.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::event::{PartitionRef, Position};
use crate::source::{
    Answer, Assignment, Checkpoint, Provenance, RawBatch, RawMessage, Source, SourceError, SourceEvent, Survey,
};

/// Batches that wait to be taken.
const BATCHES_MAX: usize = 4;
/// How long the thread waits for orders where there is nothing to read.
const IDLE: Duration = Duration::from_millis(20);

/// How long [`read_all`] waits where nothing comes.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// A bounded part of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The partition.
    pub partition: PartitionRef,
    /// The range is `(from, to]`.
    pub from: Position,
    /// See `from`.
    pub to: Position,
    /// The log holds nothing at or below.
    pub log_start: Position,
}

impl Range {
    /// How many positions it has.
    pub fn len(&self) -> u64 {
        self.from.distance_to(self.to)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a feed gives.
#[derive(Debug)]
pub enum Fed {
    /// Messages of a started range.
    Batch(RawBatch),
    /// A range was read to its end.
    End(PartitionRef),
}

/// Reads ranges. Its calls block, for about a second at most, or for some ten where what is read from does not answer; one thread makes them.
pub trait Feed: Send {
    /// From now on reads the partition's range just above `after`.
    fn start(&mut self, partition: &PartitionRef, after: Position);

    /// Fetches nothing more of the partition, or goes on.
    fn pause(&mut self, partition: &PartitionRef, paused: bool);

    /// What was read next; `None` where there is nothing for now.
    ///
    /// # Errors
    ///
    /// What cannot be read for good, for people.
    fn next(&mut self) -> Result<Option<Fed>, String>;
}

enum Order {
    Start(PartitionRef, Position),
    Pause(PartitionRef, bool),
}

/// See the module.
pub struct RangeSource {
    ranges: Vec<Range>,
    announced: bool,
    /// Ranges that were not read to their end yet.
    open: usize,
    ended: bool,
    orders: Sender<Order>,
    fed: mpsc::Receiver<Result<Fed, String>>,
    /// A batch that waits until the rate allows it, and how many of its messages were waited for. What is left out is free.
    held: Option<(RawBatch, u32)>,
    rate: Option<Rate>,
    done: BTreeMap<PartitionRef, Position>,
    thread: std::thread::JoinHandle<()>,
}

struct Rate {
    limiter: DefaultDirectRateLimiter,
    /// The most that is waited for at once.
    burst: NonZeroU32,
}

impl RangeSource {
    /// Reads these ranges, at most `per_second` messages a second.
    ///
    /// # Errors
    ///
    /// Where the system has no threads left.
    pub fn start(ranges: Vec<Range>, feed: Box<dyn Feed>, per_second: Option<NonZeroU32>) -> std::io::Result<Self> {
        let (orders, wanted) = channel();
        let (sink, fed) = mpsc::channel(BATCHES_MAX);
        let thread =
            std::thread::Builder::new().name("range-reader".to_owned()).spawn(move || read(feed, &wanted, &sink))?;
        let rate = per_second.map(|per_second| {
            let burst = NonZeroU32::new(per_second.get() / 10).unwrap_or(NonZeroU32::MIN);
            Rate { limiter: RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)), burst }
        });
        Ok(Self {
            open: ranges.len(),
            ranges,
            announced: false,
            ended: false,
            orders,
            fed,
            held: None,
            rate,
            done: BTreeMap::new(),
            thread,
        })
    }

    fn order(&self, order: Order) {
        // A reader that has ended says why by itself.
        let _ = self.orders.send(order);
    }

    async fn tell(&mut self) -> Result<SourceEvent, SourceError> {
        if !self.announced {
            self.announced = true;
            return Ok(SourceEvent::Assigned(self.ranges.iter().map(assignment).collect()));
        }
        loop {
            if let Some((batch, waited)) = &mut self.held {
                if let Some(rate) = &self.rate {
                    let work = batch.messages.iter().filter(|one| !matches!(one.provenance, Provenance::LeftOut(_)));
                    let messages = u32::try_from(work.count()).unwrap_or(u32::MAX);
                    while let Some(left) = NonZeroU32::new(messages.saturating_sub(*waited)) {
                        let step = left.min(rate.burst);
                        // No step is larger than the burst, so it never is refused.
                        let _ = rate.limiter.until_n_ready(step).await;
                        *waited += step.get();
                    }
                }
                if let Some((batch, _)) = self.held.take() {
                    return Ok(SourceEvent::Batch(batch));
                }
            }
            if self.open == 0 && !self.ended {
                self.ended = true;
                return Ok(SourceEvent::EndOfInput);
            }
            match self.fed.recv().await {
                Some(Ok(Fed::Batch(batch))) => self.held = Some((batch, 0)),
                Some(Ok(Fed::End(_))) => self.open = self.open.saturating_sub(1),
                Some(Err(why)) => return Err(SourceError::Fatal(why)),
                None => return Err(SourceError::Fatal("the reader broke down: see the log".to_owned())),
            }
        }
    }
}

fn assignment(range: &Range) -> Assignment {
    let Range { partition, from, to, log_start } = range;
    Assignment {
        partition: partition.clone(),
        number: 1,
        checkpoint: None,
        // Above its end nothing is this run's.
        log_start: (*log_start).max(*from).min(*to),
        log_end: *to,
    }
}

/// Calls `take` with every message of the ranges, here and now: blocks, until `stop`.
///
/// # Errors
///
/// What cannot be read; the first that `take` says; that it was told to stop.
pub fn read_all(
    feed: &mut dyn Feed,
    ranges: &[Range],
    stop: &CancellationToken,
    mut take: impl FnMut(&RawBatch, &RawMessage) -> Result<(), String>,
) -> Result<(), String> {
    for range in ranges {
        feed.start(&range.partition, range.from.max(range.log_start));
    }
    let mut open = ranges.len();
    let mut heard = Instant::now();
    while open > 0 {
        if heard.elapsed() > SILENCE_MAX {
            return Err(format!("nothing came for {SILENCE_MAX:?}: is what it reads from away?"));
        }
        if stop.is_cancelled() {
            return Err("told to stop".to_owned());
        }
        match feed.next()? {
            Some(Fed::Batch(batch)) => batch.messages.iter().try_for_each(|message| take(&batch, message))?,
            Some(Fed::End(_)) => open -= 1,
            None => continue,
        }
        heard = Instant::now();
    }
    Ok(())
}

/// Until nobody listens any more, or the feed cannot go on.
fn read(mut feed: Box<dyn Feed>, orders: &Receiver<Order>, sink: &mpsc::Sender<Result<Fed, String>>) {
    let mut wait = Duration::ZERO;
    loop {
        match orders.recv_timeout(wait) {
            Ok(Order::Start(partition, after)) => feed.start(&partition, after),
            Ok(Order::Pause(partition, paused)) => feed.pause(&partition, paused),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(next) = feed.next().transpose() else {
            wait = IDLE;
            continue;
        };
        wait = Duration::ZERO;
        let over = next.is_err();
        if sink.blocking_send(next).is_err() || over {
            return;
        }
    }
}

impl Source for RangeSource {
    fn next(&mut self) -> BoxFuture<'_, Result<SourceEvent, SourceError>> {
        Box::pin(self.tell())
    }

    fn survey(&mut self, topic: &str) -> Answer<Vec<Survey>> {
        let of_topic = self.ranges.iter().filter(|range| range.partition.topic == topic);
        let surveys = of_topic.map(|range| Survey { partition: range.partition.clone(), start: range.from }).collect();
        Box::pin(std::future::ready(Ok(surveys)))
    }

    fn log_end(&mut self, partition: &PartitionRef) -> Answer<Position> {
        let end = self.ranges.iter().find(|range| range.partition == *partition).map(|range| range.to);
        Box::pin(std::future::ready(end.ok_or_else(|| format!("{partition} is no part of this run"))))
    }

    fn start(&mut self, partition: &PartitionRef, after: Position) {
        self.order(Order::Start(partition.clone(), after));
    }

    fn pause(&mut self, partition: &PartitionRef) {
        self.order(Order::Pause(partition.clone(), true));
    }

    fn resume(&mut self, partition: &PartitionRef) {
        self.order(Order::Pause(partition.clone(), false));
    }

    fn checkpoint(&mut self, done: &[Checkpoint]) {
        for Checkpoint { partition, done, .. } in done {
            self.done.insert(partition.clone(), *done);
        }
    }

    fn lags(&self) -> Vec<(PartitionRef, u64)> {
        let lag = |range: &Range| {
            let done = self.done.get(&range.partition).copied().unwrap_or(range.from);
            (range.partition.clone(), done.distance_to(range.to))
        };
        self.ranges.iter().map(lag).collect()
    }

    fn close(self: Box<Self>, deadline: Duration) -> BoxFuture<'static, ()> {
        let Self { orders, fed, thread, .. } = *self;
        // Either wakes the thread.
        drop((orders, fed));
        Box::pin(async move {
            let joined = tokio::task::spawn_blocking(|| thread.join().is_ok());
            if !matches!(tokio::time::timeout(deadline, joined).await, Ok(Ok(true))) {
                tracing::warn!("the reader did not end within the deadline, or broke down");
            }
        })
    }
}
