//! What an entry fills in other chains: origins of events that were refused, or lost, where they were read first.

use std::collections::BTreeMap;

use crate::event::{Origin, Position};

/// Positions of other partitions, by partition. Stored as a map from the partition's key to `3-7,12`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fills {
    by_partition: BTreeMap<String, Vec<(u64, u64)>>,
    bytes: usize,
}

impl Fills {
    /// The most bytes that a range of offsets has in its stored form.
    const RANGE_BYTES: usize = 42;

    /// Adds an origin; false where it is there already.
    pub fn push(&mut self, origin: &Origin) -> bool {
        let Some(offset) = origin.position.offset() else { return false };
        let key = origin.partition.key();
        let anew = !self.holds(&key, origin.position);
        if anew {
            self.push_range(key, offset, offset);
        }
        anew
    }

    /// Adds all that another holds.
    pub fn merge(&mut self, other: &Self) {
        for (key, ranges) in other.ranges() {
            ranges.iter().for_each(|(first, last)| self.push_range(key.to_owned(), *first, *last));
        }
    }

    fn push_range(&mut self, key: String, first: u64, last: u64) {
        if !self.by_partition.contains_key(&key) {
            self.bytes += key.len();
        }
        let ranges = self.by_partition.entry(key).or_default();
        // Those that overlap it or touch it become one with it.
        let from = ranges.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = ranges.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
        let begin = ranges.get(from).filter(|_| from < to).map_or(first, |(begin, _)| first.min(*begin));
        let end = ranges.get(to.wrapping_sub(1)).filter(|_| from < to).map_or(last, |(_, end)| last.max(*end));
        self.bytes = (self.bytes + Self::RANGE_BYTES).saturating_sub((to - from) * Self::RANGE_BYTES);
        ranges.splice(from..to, [(begin, end)]);
    }

    /// Whether there is anything.
    pub fn is_empty(&self) -> bool {
        self.by_partition.is_empty()
    }

    /// Whether the stored form may have more bytes than this.
    pub fn is_over(&self, bytes_max: usize) -> bool {
        self.bytes > bytes_max
    }

    /// Whether this position of the partition with this key is among them.
    pub fn holds(&self, partition_key: &str, position: Position) -> bool {
        let (Some(ranges), Some(offset)) = (self.by_partition.get(partition_key), position.offset()) else {
            return false;
        };
        let at = ranges.partition_point(|(_, last)| *last < offset);
        ranges.get(at).is_some_and(|(first, _)| *first <= offset)
    }

    /// Each partition's key and its ranges of offsets, first and last, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (&str, &[(u64, u64)])> {
        self.by_partition.iter().map(|(key, ranges)| (key.as_str(), ranges.as_slice()))
    }

    /// The stored form: a partition's key and its offsets, in the keys' order.
    pub fn texts(&self) -> impl Iterator<Item = (&str, String)> {
        self.ranges().map(|(key, ranges)| {
            let range = |(first, last): &(u64, u64)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            };
            (key, ranges.iter().map(range).collect::<Vec<_>>().join(","))
        })
    }

    /// The inverse of [`Fills::texts`]; `None` for any other text.
    pub fn parse<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let mut out = Self::default();
        for (key, text) in texts {
            let mut ranges: Vec<(u64, u64)> = Vec::new();
            for range in text.split(',') {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
                let above = ranges.last().is_none_or(|(_, before)| before.saturating_add(1) < first);
                if first > last || !above {
                    return None;
                }
                ranges.push((first, last));
            }
            out.bytes += key.len() + ranges.len() * Self::RANGE_BYTES;
            out.by_partition.insert(key.to_owned(), ranges);
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::event::Partition;
    use proptest::prelude::*;

    fn origin(name: u8, offset: u64) -> Origin {
        let partition = Partition { topic: "t".into(), name: name.to_string(), ..Partition::default() };
        Origin { partition: Arc::new(partition), position: Position::Offset(offset) }
    }

    proptest! {
        #[test]
        fn what_was_pushed_is_held_once_in_whatever_order_and_reads_back(pushed in proptest::collection::vec((0u8..3, 0u64..30), 0..60)) {
            let mut fills = Fills::default();
            let mut other = Fills::default();
            for (at, (name, offset)) in pushed.iter().enumerate() {
                if at % 3 == 0 { &mut other } else { &mut fills }.push(&origin(*name, *offset));
            }
            fills.merge(&other);
            let there: BTreeSet<_> = pushed.iter().copied().collect();
            for name in 0..3 {
                for offset in 0..30 {
                    let origin = origin(name, offset);
                    let held = fills.holds(&origin.partition.key(), origin.position);
                    prop_assert_eq!(held, there.contains(&(name, offset)));
                }
            }
            let texts: Vec<(&str, String)> = fills.texts().collect();
            let bytes: usize = texts.iter().map(|(key, text)| key.len() + text.len()).sum();
            prop_assert!(!fills.is_over(fills.bytes) && bytes <= fills.bytes);
            let read = Fills::parse(texts.iter().map(|(key, text)| (*key, text.as_str())));
            prop_assert_eq!(read, Some(fills.clone()));
        }
    }

    #[test]
    fn only_the_stored_form_is_read() {
        for bad in ["", "3-", "5-3", "3,4", "4,3", "a", "1,1"] {
            assert_eq!(Fills::parse([("k", bad)]), None, "{bad}");
        }
    }
}
