//! What is kept of an entry's records: one sum a class, so that it can be told which classes the entry's own sum holds.

use crate::event::{Digest, SetDigest};

use super::chains::Fate;

/// From so many classes on, pipelines are told apart no more: each doubles the sums that are tried.
const CLASSES_MAX: usize = 10;
/// Stands for all pipelines that are not told apart.
const ANY: u8 = u8::MAX;

/// What a record is to its entry. Only the whole of a class is in the entry's sum, or nothing of it, but for rare cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A judging record at a position that is called recorded.
    Judge,
    /// A further record there.
    Further,
    /// A further record there, stored after the entry: by a later mapping.
    LateFurther,
    /// At a position that is a dead letter, since an effect was refused for good: the record stands.
    Rejected,
    /// At a position of another outcome: an instance stored it, and did not live to attest it.
    Other,
}

/// Records of one pipeline that are the same to their entry. Pipelines that read the same topic in two groups each make records
/// of their own, which only their own chain attests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    pub pipeline: u8,
    pub part: Part,
}

#[derive(Clone, Debug)]
struct Sum {
    class: Class,
    records: SetDigest,
    count: u64,
}

/// The sums of one entry's records.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums(Vec<Sum>);

impl Sums {
    /// Adds a record.
    pub fn add(&mut self, class: Class, digest: &Digest) {
        let at = self.find(class).unwrap_or_else(|| {
            let pipeline = if self.0.len() < CLASSES_MAX { class.pipeline } else { ANY };
            self.0.push(Sum { class: Class { pipeline, ..class }, records: SetDigest::default(), count: 0 });
            self.0.len() - 1
        });
        if let Some(sum) = self.0.get_mut(at) {
            sum.records.add(digest);
            sum.count += 1;
        }
    }

    fn find(&self, class: Class) -> Option<usize> {
        let exact = self.0.iter().position(|sum| sum.class == class);
        exact.or_else(|| self.0.iter().position(|sum| sum.class == Class { pipeline: ANY, ..class }))
    }

    /// Which classes (bits, in the order of their coming) have to be left out so that the rest is what the entry attests; as
    /// few as possible. `None` where nothing fits.
    pub fn left_out(&self, records: &SetDigest, record_count: u64) -> Option<u32> {
        if self.makes_up(0, records, record_count) {
            return Some(0);
        }
        let mut masks: Vec<u32> = (0..1 << self.0.len()).collect();
        masks.sort_by_key(|mask| mask.count_ones());
        masks.into_iter().find(|mask| self.makes_up(*mask, records, record_count))
    }

    fn makes_up(&self, left_out: u32, records: &SetDigest, record_count: u64) -> bool {
        let (mut sum, mut count) = (SetDigest::default(), 0);
        for (at, class) in self.0.iter().enumerate() {
            if left_out & (1 << at) == 0 {
                sum.add_set(&class.records);
                count += class.count;
            }
        }
        count == record_count && sum == *records
    }

    /// Whether a record's class is among those left out.
    pub fn is_left_out(&self, left_out: u32, class: Class) -> bool {
        left_out != 0 && self.find(class).is_some_and(|at| left_out & (1 << at) != 0)
    }
}

/// What a record at a position of this fate is to its entry. `late`: stored after the entry was.
pub(super) fn part(fate: Fate, judge: bool, late: bool) -> Part {
    match fate {
        Fate::Recorded if judge => Part::Judge,
        Fate::Recorded if late => Part::LateFurther,
        Fate::Recorded => Part::Further,
        Fate::Rejected => Part::Rejected,
        Fate::Other => Part::Other,
    }
}
