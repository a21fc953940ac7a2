//! Bounded parts of a topic's partitions, read outside of any group.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::context::Context;
use super::faults::{Fault, classify};
use super::lists::{list_of, offset_of};
use super::lookup::watermarks;
use super::native;
use super::slot::{BatchLimits, Open};
use super::{GroupProtocol, KafkaSourceConfig, setting_fault};
use crate::event::{Partition, PartitionRef, Position};
use crate::source::range::{Fed, Feed, Range};

/// Between two questions to leaders.
const PAUSE: Duration = Duration::from_secs(1);
/// How long librdkafka may take to fetch from elsewhere.
const SEEK: Duration = Duration::from_secs(1);
/// The longest that one call reads.
const TURN: Duration = Duration::from_millis(100);

/// One range and how far it was read.
struct Reading {
    partition: PartitionRef,
    to: Position,
    /// The last message's position, or where the reading began.
    at: Position,
    end: End,
    /// The leader is not asked before.
    ask_after: Instant,
    open: Open,
}

/// What is known of a log's end short of the range's. Markers and what compaction took may stand there, so what was read does not
/// tell whether all is read; nor does an end that was told once: it may have been that of a follower, or of a leader that did not know
/// yet how much of the log is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// None was told.
    Unseen,
    /// One was told: the leader has to say where the log ends.
    Told,
    /// The leader's log reaches the range's end, and is fetched anew since: an end that is told now is one, where the fetch says so, too.
    Confirming,
}

/// See the module.
pub struct KafkaRanges {
    consumer: BaseConsumer<Context>,
    topic: String,
    limits: BatchLimits,
    ranges: Vec<Range>,
    /// By partition number: what is being read.
    reading: BTreeMap<i32, Reading>,
    ready: VecDeque<Fed>,
    /// What cannot be gone on with.
    failed: Option<String>,
}

impl KafkaRanges {
    /// Of ranges of one topic. The configuration's group is joined by nobody and its topics are not subscribed to.
    ///
    /// # Errors
    ///
    /// Settings that librdkafka refuses, by name.
    pub fn connect(config: KafkaSourceConfig, ranges: Vec<Range>) -> Result<Self, String> {
        let mut config = KafkaSourceConfig { protocol: GroupProtocol::Classic, group_instance_id: None, ..config };
        // Only the leader knows where the log ends.
        config.options.remove("client.rack");
        let client = config.consumer_config().map_err(|error| error.to_string())?;
        let consumer = BaseConsumer::from_config_and_context(&client, Context::new(&config.connection))
            .map_err(|error| setting_fault(&error))?;
        let limits = BatchLimits {
            messages_max: config.batch_messages_max,
            bytes_max: config.batch_bytes_max,
            linger: config.linger,
        };
        let topic = ranges.first().map(|range| range.partition.topic.clone()).unwrap_or_default();
        Ok(Self { consumer, topic, limits, ranges, reading: BTreeMap::new(), ready: VecDeque::new(), failed: None })
    }

    fn list(&self, number: i32) -> TopicPartitionList {
        list_of([(&(self.topic.clone(), number), rdkafka::Offset::Invalid)])
    }

    /// Hands over what was read of a partition.
    fn flush(&mut self, number: i32) {
        let Some(reading) = self.reading.get_mut(&number) else { return };
        if let Some(batch) = reading.open.take(reading.partition.clone()) {
            self.ready.push_back(Fed::Batch(batch));
        }
    }

    fn end(&mut self, number: i32) {
        self.flush(number);
        if let Some(reading) = self.reading.remove(&number) {
            self.ready.push_back(Fed::End(reading.partition));
            self.expect("unassign", self.consumer.incremental_unassign(&self.list(number)));
        }
    }

    fn fault(&mut self, error: &KafkaError) -> Result<(), String> {
        let topic = &self.topic;
        match classify(error) {
            Fault::End => {
                let KafkaError::PartitionEOF(number) = error else { return Ok(()) };
                let name = CString::new(topic.as_str()).unwrap_or_default();
                let known = native::cached_watermarks(self.consumer.client(), &name, *number);
                let high = known.map_or(Position::Begin, |(_, high)| Position::before_offset(high));
                match self.reading.get_mut(number) {
                    Some(reading) if reading.end == End::Confirming && high >= reading.to => self.end(*number),
                    Some(reading) => reading.end = End::Told,
                    None => {}
                }
                Ok(())
            }
            Fault::OffsetGone => Err(format!("topic {topic} no longer holds what was to be read: start again")),
            Fault::Fatal(remedy) => Err(format!("topic {topic}: {error}: {remedy}")),
            Fault::Topic(code) => Err(format!("topic {topic}: {code}")),
            Fault::Unwell | Fault::Suspect => {
                tracing::warn!(topic, "the cluster is away, trying again: {error}");
                Ok(())
            }
            Fault::Passing => {
                tracing::debug!(topic, "{error}");
                Ok(())
            }
        }
    }

    /// Asks the leader of a partition of which an end was told: one in a call, since it may have none, and blocks then.
    fn confirm_end(&mut self) -> Result<(), String> {
        let topic = &self.topic;
        let told = self.reading.iter_mut().filter(|(_, reading)| reading.end == End::Told);
        let Some((number, reading)) = told.min_by_key(|(_, reading)| reading.ask_after) else { return Ok(()) };
        if reading.ask_after > Instant::now() {
            return Ok(());
        }
        let asked = watermarks(&self.consumer, topic, *number);
        reading.ask_after = Instant::now() + PAUSE;
        let high = match asked {
            Ok((_, high)) => high,
            Err(why) => {
                tracing::warn!(topic, "where the log ends is not known, trying again: {why}");
                return Ok(());
            }
        };
        if Position::before_offset(high) < reading.to {
            return Err(format!("topic {topic}/{number} ends at offset {high}, below what was to be read: it was cut"));
        }
        match self.consumer.seek(topic, *number, offset_of(reading.at.next_offset()), SEEK) {
            Ok(()) => reading.end = End::Confirming,
            Err(error) => tracing::warn!(topic, "the log cannot be fetched anew, trying again: {error}"),
        }
        Ok(())
    }

    fn expect(&mut self, what: &str, done: Result<(), KafkaError>) {
        if let Err(error) = done {
            self.failed = Some(format!("topic {}: librdkafka refused to {what}: {error}", self.topic));
        }
    }
}

impl Feed for KafkaRanges {
    fn start(&mut self, partition: &PartitionRef, after: Position) {
        let range = self.ranges.iter().find(|range| range.partition == *partition);
        let (Some(range), Ok(number)) = (range, partition.name.parse::<i32>()) else { return };
        if after >= range.to {
            self.ready.push_back(Fed::End(partition.clone()));
            return;
        }
        let reading = Reading {
            partition: partition.clone(),
            to: range.to,
            at: after,
            end: End::Unseen,
            ask_after: Instant::now(),
            open: Open::default(),
        };
        self.reading.insert(number, reading);
        let list = list_of([(&(self.topic.clone(), number), offset_of(after.next_offset()))]);
        self.expect("assign", self.consumer.incremental_assign(&list));
    }

    fn pause(&mut self, partition: &PartitionRef, paused: bool) {
        let Some(number) = partition.name.parse().ok().filter(|number| self.reading.contains_key(number)) else {
            return;
        };
        let list = self.list(number);
        let done = if paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        self.expect("pause or resume", done);
    }

    fn next(&mut self) -> Result<Option<Fed>, String> {
        self.confirm_end()?;
        let until = Instant::now() + TURN;
        while self.ready.is_empty() && Instant::now() < until {
            let mut full = None;
            let mut fault = None;
            match self.consumer.poll(TURN / 10) {
                None => {
                    let numbers: Vec<i32> = self.reading.keys().copied().collect();
                    numbers.into_iter().for_each(|number| self.flush(number));
                    break;
                }
                Some(Err(error)) => fault = Some(error),
                Some(Ok(message)) => {
                    let (number, position) = (message.partition(), Position::before_offset(next(message.offset())));
                    if let Some(reading) = self.reading.get_mut(&number) {
                        (reading.at, reading.end) = (reading.at.max(position), End::Unseen);
                        if position <= reading.to {
                            reading.open.append(&message, self.limits);
                        }
                        if position >= reading.to {
                            full = Some((number, true));
                        } else if reading.open.is_full(self.limits) {
                            full = Some((number, false));
                        }
                    }
                }
            }
            if let Some(error) = fault {
                self.fault(&error)?;
            }
            match full {
                Some((number, true)) => self.end(number),
                Some((number, false)) => self.flush(number),
                None => {}
            }
        }
        let replaced = |reading: &&Reading| {
            let Partition { topic, topic_id, .. } = &*reading.partition;
            self.consumer.context().reads_another_log(topic, topic_id)
        };
        if self.reading.values().any(|reading| replaced(&reading)) {
            return Err(format!("topic {} was made anew while it was read: begin a new run", self.topic));
        }
        if let Some(why) = self.failed.take() {
            return Err(why);
        }
        Ok(self.ready.pop_front())
    }
}

/// The offset above this one.
fn next(offset: i64) -> u64 {
    u64::try_from(offset).map_or(0, |offset| offset + 1)
}
