//! The dead-letter topic as a run reads it: which letters stand for their events now, and which of them are chosen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::event::{Digest, Outcome, PartitionRef, Position, Reason};
use crate::ledger::Fills;
use crate::pipeline::{HEADER_PREFIX, LetterHead};
use crate::source::range::{Fed, Feed, Range, read_all};
use crate::source::{Carried, Provenance, RawBatch, RawMessage};

use super::args::LetterFilter;

/// Where a letter stands: partition number and offset.
pub(super) type Place = (u32, u64);

/// A letter that stands for its event now: no later one does, nothing has recorded it since, nobody dismissed it.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) place: Place,
    pub(super) head: LetterHead,
    /// Its event's key, as text where it is some.
    pub(super) key: Option<String>,
}

/// What a look over the topic has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order of their places.
    pub(super) letters: Vec<Letter>,
    /// How many messages are no letters, and the first of them, with the reason.
    pub(super) strangers: (u64, Option<(Place, String)>),
    /// How many are of this pipeline in another group, and that group.
    pub(super) elsewhere: (u64, Option<String>),
}

/// What is settled already.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Recorded by earlier runs.
    pub(super) filled: Fills,
    /// Dismissed, by origin in the stored form.
    pub(super) dismissed: HashSet<String>,
}

impl Resolved {
    fn holds(&self, head: &LetterHead) -> bool {
        self.filled.holds(&head.origin.partition.key(), head.origin.position)
            || self.dismissed.contains(&head.origin.text())
    }
}

/// Reads the ranges and gathers what the filter lets through of the letters of one group's pipeline, however many. Blocks; memory grows with the letters that
/// are chosen and with the events that were ever refused (some 60 bytes each).
///
/// # Errors
///
/// What cannot be read.
pub(super) fn look(
    feed: &mut dyn Feed,
    ranges: &[Range],
    (group, pipeline): (&str, &str),
    filter: &LetterFilter,
    resolved: &Resolved,
    stop: &CancellationToken,
) -> Result<Found, String> {
    // An event's last letter stands for it: the one of the most attempts, of several such the one that was written last.
    let mut newest: HashMap<Digest, (u32, Place)> = HashMap::new();
    let mut chosen: BTreeMap<Place, Letter> = BTreeMap::new();
    let mut strangers: (u64, Option<(Place, String)>) = (0, None);
    let mut elsewhere: (u64, Option<String>) = (0, None);
    let mut weigh = |batch: &RawBatch, message: &RawMessage| {
        let Some(place) = place(batch, message) else { return };
        let head = match head(batch, message) {
            Ok(head) => head,
            Err(why) => {
                strangers.0 += 1;
                strangers.1.get_or_insert((place, why));
                return;
            }
        };
        if head.pipeline != pipeline {
            return;
        }
        if head.group != group {
            elsewhere.0 += 1;
            elsewhere.1.get_or_insert(head.group);
            return;
        }
        let of = Digest::of(head.origin.text().as_bytes());
        match newest.get(&of) {
            Some((attempts, _)) if *attempts > head.attempts => return,
            Some((_, earlier)) => drop(chosen.remove(earlier)),
            None => {}
        }
        newest.insert(of, (head.attempts, place));
        if resolved.holds(&head) {
            return;
        }
        let key = message.key.as_ref().map(|key| String::from_utf8_lossy(batch.slice(key)).into_owned());
        let letter = Letter { place, head, key };
        if lets_through(filter, &letter) {
            chosen.insert(place, letter);
        }
    };
    read_all(feed, ranges, stop, |batch, message| {
        weigh(batch, message);
        Ok(())
    })?;
    Ok(Found { letters: chosen.into_values().collect(), strangers, elsewhere })
}

/// Where a message of the dead-letter topic stands.
pub(super) fn place(batch: &RawBatch, message: &RawMessage) -> Option<Place> {
    Some((batch.partition.name.parse().ok()?, message.position.offset()?))
}

/// What a message says of itself.
///
/// # Errors
///
/// What makes it no dead letter.
pub(super) fn head(batch: &RawBatch, message: &RawMessage) -> Result<LetterHead, String> {
    LetterHead::read(batch.headers(message))
}

fn lets_through(filter: &LetterFilter, letter: &Letter) -> bool {
    fn any<T: PartialEq>(wanted: &[T], is: &T) -> bool {
        wanted.is_empty() || wanted.contains(is)
    }
    let head = &letter.head;
    let seen: Option<jiff::Timestamp> = head.first_seen.parse().ok();
    any(&filter.reason, &head.reason)
        && any(&filter.route, &head.route)
        && any(&filter.topic, &head.origin.partition.topic)
        && (filter.origin.is_empty() || filter.origin.contains(&head.origin.text()))
        && filter.since.is_none_or(|since| seen.is_some_and(|seen| seen >= since))
        && filter.until.is_none_or(|until| seen.is_some_and(|seen| seen < until))
        && filter.key.as_ref().is_none_or(|key| letter.key.as_ref() == Some(key))
}

/// What becomes of the letters of a run.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// To be tried again.
    pub(super) chosen: HashSet<Place>,
    /// Tried as often as is allowed: they stay where they are.
    pub(super) spent: HashSet<Place>,
    /// Corrected values, by origin in the stored form.
    pub(super) corrected: HashMap<String, Vec<u8>>,
}

/// A feed of letters as the events that they are of.
pub(super) struct Letters<F> {
    pub(super) feed: F,
    pub(super) selection: Arc<Selection>,
}

impl<F: Feed> Feed for Letters<F> {
    fn start(&mut self, partition: &PartitionRef, after: Position) {
        self.feed.start(partition, after);
    }

    fn pause(&mut self, partition: &PartitionRef, paused: bool) {
        self.feed.pause(partition, paused);
    }

    fn next(&mut self) -> Result<Option<Fed>, String> {
        let next = self.feed.next()?;
        Ok(next.map(|fed| match fed {
            Fed::Batch(batch) => Fed::Batch(self.selection.take(batch)),
            Fed::End(partition) => Fed::End(partition),
        }))
    }
}

impl Selection {
    fn take(&self, mut batch: RawBatch) -> RawBatch {
        let mut messages = std::mem::take(&mut batch.messages);
        for message in &mut messages {
            message.provenance = self.provenance(&mut batch, message);
            message.headers.retain(|(name, _)| !batch.slice(name).starts_with(HEADER_PREFIX.as_bytes()));
        }
        batch.messages = messages;
        batch
    }

    /// What becomes of a message; its value is replaced where there is a corrected one.
    fn provenance(&self, batch: &mut RawBatch, message: &mut RawMessage) -> Provenance {
        let Some(place) = place(batch, message) else { return Provenance::LeftOut(Outcome::Skipped) };
        if self.spent.contains(&place) {
            return Provenance::LeftOut(Outcome::DeadLettered(Reason::Attempts));
        }
        let head = head(batch, message).ok().filter(|_| self.chosen.contains(&place));
        let Some(head) = head else { return Provenance::LeftOut(Outcome::Skipped) };
        let corrected = self.corrected.get(&head.origin.text());
        if let Some(value) = corrected {
            let from = batch.bytes.len();
            batch.bytes.extend_from_slice(value);
            message.value = Some(from..batch.bytes.len());
        }
        // The broker's time of the letter is not that of its event.
        message.timestamp_ms = head.timestamp_ms;
        let LetterHead { origin, attempts, first_seen, mut corrects, content_digest, .. } = head;
        // Either form may stand: the one that was refused now, or one before it.
        if corrected.is_some() {
            corrects.extend(content_digest.filter(|digest| !corrects.contains(digest)));
        }
        Provenance::Carried(Box::new(Carried { origin, attempts, first_seen, corrects }))
    }
}
