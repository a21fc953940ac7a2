//! Health, lag, the end of input, and what errors mean for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;

use super::context::Key;
use super::faults::{Fault, classify};
use super::line::Question;
use super::lookup::topic_trouble;
use super::reader::Reader;
use super::slot::Stage;
use super::{lock, native};
use crate::source::SourceEvent;

const LAG_EVERY: Duration = Duration::from_secs(1);
/// Pause between two questions whether the cluster is well.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// The same while all seems well: a silent outage is known within this time and a call's deadline.
const PROBE_IDLE: Duration = Duration::from_secs(20);
/// A member that gets no partition for so long has none to wait for, unless others have work left.
const NONE_FOR_ME: Duration = Duration::from_secs(3);
/// Pause between two questions what others have left.
const OTHERS_EVERY: Duration = Duration::from_millis(500);
/// Longer than a dead member stays in its group.
const NOBODY_AT_WORK: Duration = Duration::from_secs(60);

impl Reader {
    /// Health, lag and the end of input.
    pub(super) fn watch(&mut self) {
        let now = Instant::now();
        if !self.probing && now >= self.next_probe {
            self.probing = true;
            self.next_probe = now + if self.trouble.is_some() { PROBE_EVERY } else { PROBE_IDLE };
            self.ask(Question::Probe(self.parts.topics.clone()));
        }
        if now >= self.next_lag {
            self.next_lag = now + LAG_EVERY;
            let lags = self.slots.values().filter_map(|slot| {
                let (_, high) = native::cached_watermarks(self.parts.consumer.client(), &slot.topic, slot.key.1)?;
                Some((slot.partition.clone()?, slot.lag(high)))
            });
            *lock(&self.parts.lags.0) = lags.collect();
        }
        if self.parts.until_end && !self.end_told && self.is_at_end() && self.others_are_at_end(now) {
            self.end_told = true;
            self.parts.mailbox.post(SourceEvent::EndOfInput);
        }
    }

    /// The topics are read to their end only when the group's other members are at theirs too; partitions of a member that
    /// died come to us when the group has noticed. Where nothing moves for longer than that takes, nobody is at work (the
    /// rest may be transaction markers, which nobody commits).
    fn others_are_at_end(&mut self, now: Instant) -> bool {
        if let Some((left, since)) = self.others
            && (left == 0 || now.duration_since(since) >= NOBODY_AT_WORK)
        {
            return true;
        }
        if now >= self.next_others {
            self.next_others = now + OTHERS_EVERY;
            let ours = self.slots.keys().cloned().collect();
            self.ask(Question::Others { topics: self.parts.topics.clone(), ours });
        }
        false
    }

    fn is_at_end(&self) -> bool {
        if self.leaving.is_some() || self.trouble.is_some() {
            return false;
        }
        if self.slots.is_empty() {
            return self.settled_since.elapsed() >= NONE_FOR_ME;
        }
        self.slots
            .values()
            .all(|slot| slot.stage == Stage::Started && slot.at_end && slot.due_in(self.parts.limits).is_none())
    }

    pub(super) fn fault(&mut self, key: Option<&Key>, error: &KafkaError) {
        let reason = self.parts.consumer.context().take_reason();
        match classify(error) {
            Fault::End => self.reached_end(key),
            Fault::OffsetGone => self.derailed(key, &reason),
            Fault::Unwell => self.unwell(format!("no broker of the cluster can be reached: {reason}")),
            Fault::Suspect => {
                tracing::info!(group = self.parts.group, "a broker is away: {error}: {reason}");
                self.next_probe = self.next_probe.min(Instant::now());
            }
            Fault::Topic(code) => {
                let topic = key.map_or_else(|| self.parts.topics.join(", "), |key| key.0.clone());
                self.unwell(topic_trouble(&topic, code));
            }
            Fault::Fatal(what_to_do) => {
                self.parts.mailbox.fatal(format!("group {}: {reason}: {what_to_do}", self.parts.group))
            }
            Fault::Passing => tracing::warn!(group = self.parts.group, "librdkafka: {error}: {reason}"),
        }
    }

    fn reached_end(&mut self, key: Option<&Key>) {
        let slot = key.and_then(|key| self.slots.get_mut(key)).filter(|slot| slot.stage == Stage::Started);
        let Some(slot) = slot else { return };
        slot.at_end = true;
        if let Some((_, high)) = native::cached_watermarks(self.parts.consumer.client(), &slot.topic, slot.key.1) {
            slot.end = high;
        }
    }

    /// The log no longer holds, or does not yet hold, what was asked for: the engine decides anew, nothing is reset.
    fn derailed(&mut self, key: Option<&Key>, reason: &str) {
        let Some(slot) = key.and_then(|key| self.slots.get_mut(key)) else { return };
        if slot.stage != Stage::Started {
            // Of the assignment before its start; the start decides.
            slot.derailed = true;
            return;
        }
        tracing::warn!("{}/{} cannot be read on, its start is looked up again: {reason}", slot.key.0, slot.key.1);
        slot.derailed = true;
        let asked = slot.look_up();
        self.ask(Question::Assignments(vec![asked]));
    }

    /// What was read is handed over only after a look whether librdkafka had gone over to another log of the topic before: then
    /// it is of that one, and the partition is looked up anew.
    pub(super) fn drop_replaced_logs(&mut self) {
        let consumer = Arc::clone(&self.parts.consumer);
        let changes = consumer.context().log_changes();
        if self.log_changes == changes {
            return;
        }
        self.log_changes = changes;
        let mut asked = Vec::new();
        for slot in self.slots.values_mut() {
            let Some(partition) = &slot.partition else { continue };
            let at_work = matches!(slot.stage, Stage::Announced | Stage::Starting(..) | Stage::Started);
            if at_work && consumer.context().reads_another_log(&partition.topic, &partition.topic_id) {
                tracing::warn!("{}/{} was made anew, its start is looked up again", slot.key.0, slot.key.1);
                slot.derailed = true;
                asked.push(slot.look_up());
            }
        }
        if !asked.is_empty() {
            self.ask(Question::Assignments(asked));
        }
    }

    pub(super) fn unwell(&mut self, why: String) {
        if self.trouble.as_ref() != Some(&why) {
            self.parts.mailbox.post(SourceEvent::Health { ready: false, detail: why.clone() });
            self.next_probe = Instant::now() + PROBE_EVERY;
            self.trouble = Some(why);
        }
    }

    /// The cluster answers; all is well only when it has told of every partition that it gave us.
    pub(super) fn well(&mut self) {
        if self.slots.values().any(|slot| matches!(slot.stage, Stage::LookingUp(_))) {
            return;
        }
        if self.trouble.take().is_some() {
            self.settled_since = Instant::now();
            let detail = "the cluster answers and every topic exists".to_owned();
            self.parts.mailbox.post(SourceEvent::Health { ready: true, detail });
        }
    }
}
