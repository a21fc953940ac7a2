//! Handles to registered metrics, by closed label.

use std::marker::PhantomData;
use std::time::Duration;

use metrics::{Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::PrometheusRecorder;

use crate::dedupe::{DedupeError, Known};

use super::catalogue::{self, CATALOGUE, Family, Kind};
use super::labels::{ClosedLabel, LookUp, Remembered};

pub use metrics::Gauge;

const METADATA: Metadata<'static> = Metadata::new("recordkeeper", Level::INFO, None);

/// Gives every family its help text.
pub(super) fn describe(recorder: &PrometheusRecorder) {
    for family in CATALOGUE {
        match family.kind {
            Kind::Counter => recorder.describe_counter(family.name.into(), None, family.help.into()),
            Kind::Gauge => recorder.describe_gauge(family.name.into(), None, family.help.into()),
            Kind::Histogram(_) => recorder.describe_histogram(family.name.into(), None, family.help.into()),
        }
    }
}

fn key(family: &'static Family, values: &[&'static str]) -> Key {
    debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
    let labels: Vec<Label> =
        family.labels.iter().zip(values).map(|(label, value)| Label::from_static_parts(label.name, value)).collect();
    Key::from_parts(family.name, labels)
}

/// One gauge; label values in the order of the family's labels.
pub(super) fn gauge(recorder: &PrometheusRecorder, family: &'static Family, values: &[&'static str]) -> Gauge {
    recorder.register_gauge(&key(family, values), &METADATA)
}

/// One counter for each value of a label.
#[derive(Clone, Debug)]
pub struct Counters<L> {
    each: Vec<metrics::Counter>,
    label: PhantomData<L>,
}

impl<L: ClosedLabel> Counters<L> {
    pub(super) fn register(recorder: &PrometheusRecorder, family: &'static Family) -> Self {
        let counter = |value: &L| recorder.register_counter(&key(family, &[value.name()]), &METADATA);
        Self { each: L::ALL.iter().map(counter).collect(), label: PhantomData }
    }

    /// Adds to one of them.
    pub fn add(&self, label: L, count: usize) {
        if let Some(counter) = self.each.get(label.index()) {
            counter.increment(count as u64);
        }
    }
}

/// One counter for each pair of values of two labels.
#[derive(Clone, Debug)]
pub struct CounterGrid<A, B> {
    each: Vec<metrics::Counter>,
    labels: PhantomData<(A, B)>,
}

impl<A: ClosedLabel, B: ClosedLabel> CounterGrid<A, B> {
    pub(super) fn register(recorder: &PrometheusRecorder, family: &'static Family) -> Self {
        let pairs = A::ALL.iter().flat_map(|a| B::ALL.iter().map(move |b| [a.name(), b.name()]));
        let each = pairs.map(|pair| recorder.register_counter(&key(family, &pair), &METADATA)).collect();
        Self { each, labels: PhantomData }
    }

    /// Adds to one of them.
    pub fn add(&self, a: A, b: B, count: usize) {
        if let Some(counter) = self.each.get(a.index() * B::ALL.len() + b.index()) {
            counter.increment(count as u64);
        }
    }
}

/// One histogram of seconds for each value of a label.
#[derive(Clone, Debug)]
pub struct Timers<L> {
    each: Vec<metrics::Histogram>,
    label: PhantomData<L>,
}

impl<L: ClosedLabel> Timers<L> {
    pub(super) fn register(recorder: &PrometheusRecorder, family: &'static Family) -> Self {
        let histogram = |value: &L| recorder.register_histogram(&key(family, &[value.name()]), &METADATA);
        Self { each: L::ALL.iter().map(histogram).collect(), label: PhantomData }
    }

    /// One observation: a batch or a call, not an event.
    pub fn observe(&self, label: L, took: Duration) {
        if let Some(histogram) = self.each.get(label.index()) {
            histogram.record(took);
        }
    }
}

/// What the dedupe cache counts.
#[derive(Clone, Debug)]
pub struct DedupeMetrics {
    look_ups: Counters<LookUp>,
    remembered: Counters<Remembered>,
}

impl DedupeMetrics {
    pub(super) fn register(recorder: &PrometheusRecorder) -> Self {
        Self {
            look_ups: Counters::register(recorder, &catalogue::DEDUPE_LOOKUPS),
            remembered: Counters::register(recorder, &catalogue::DEDUPE_REMEMBERED),
        }
    }

    /// A look-up was answered; `garbled` of the ids that are not known held what does not read back.
    pub(crate) fn answered(&self, answers: &[Option<Known>], garbled: usize) {
        let known = answers.iter().flatten().count();
        self.look_ups.add(LookUp::Known, known);
        self.look_ups.add(LookUp::Garbled, garbled);
        self.look_ups.add(LookUp::Unknown, answers.len().saturating_sub(known + garbled));
    }

    /// A look-up of so many ids was not answered.
    pub(crate) fn unanswered(&self, error: &DedupeError, ids: usize) {
        let result = match error {
            DedupeError::Open => LookUp::Open,
            DedupeError::Away(_) => LookUp::Away,
            DedupeError::Garbled(_) => LookUp::Garbled,
        };
        self.look_ups.add(result, ids);
    }

    /// So many ids were taken.
    pub(crate) fn remembered(&self, ids: usize) {
        self.remembered.add(Remembered::Ok, ids);
    }

    /// So many ids were not taken.
    pub(crate) fn not_remembered(&self, error: &DedupeError, ids: usize) {
        let result = match error {
            DedupeError::Open => Remembered::Open,
            DedupeError::Away(_) | DedupeError::Garbled(_) => Remembered::Away,
        };
        self.remembered.add(result, ids);
    }
}
