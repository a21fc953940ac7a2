//! Where something stands in a partition's log.

use std::fmt;
use std::sync::Arc;

use super::ids::{escape_into, unescape};

/// A place in one partition's log. Ordered as the log is; only source adapters interpret the number.
///
/// Ranges over positions are half open to the left, `(from, to]`: a range from [`Position::Begin`] to offset 9 covers
/// the ten offsets 0 to 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    /// Before the first position that the log can hold.
    Begin,
    /// A record's own offset (not the next one).
    Offset(u64),
}

impl Position {
    /// The position just before offset `next`: where a lane stands that reads `next` first.
    pub fn before_offset(next: u64) -> Self {
        match next.checked_sub(1) {
            None => Self::Begin,
            Some(last) => Self::Offset(last),
        }
    }

    /// The first offset above this position: what Kafka calls the committed offset.
    pub fn next_offset(self) -> u64 {
        match self {
            Self::Begin => 0,
            Self::Offset(last) => last.saturating_add(1),
        }
    }

    /// The offset, except before the beginning.
    pub fn offset(self) -> Option<u64> {
        match self {
            Self::Begin => None,
            Self::Offset(offset) => Some(offset),
        }
    }

    /// How many positions lie in `(self, to]`; zero where `to` is not above.
    pub fn distance_to(self, to: Self) -> u64 {
        to.next_offset().saturating_sub(self.next_offset())
    }

    /// Text that sorts like positions do: `0` for the beginning, `1` and twenty digits for an offset.
    pub fn sort_key(self) -> String {
        match self {
            Self::Begin => "0".to_owned(),
            Self::Offset(offset) => format!("1{offset:020}"),
        }
    }

    /// The inverse of [`Position::sort_key`]; `None` for any other text.
    pub fn from_sort_key(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Self::Begin);
        }
        let digits = text.strip_prefix('1').filter(|digits| digits.len() == 20)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        digits.parse().ok().map(Self::Offset)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => f.write_str("BEGIN"),
            Self::Offset(offset) => write!(f, "{offset}"),
        }
    }
}

/// One partition of one topic of one cluster, told apart from a later topic of the same name by the topic's id.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The cluster's own id.
    pub cluster: String,
    /// The topic's name.
    pub topic: String,
    /// The topic's id as the cluster gives it; empty where the cluster has none.
    pub topic_id: String,
    /// Zero unless an operator tells topics of one name apart where there is no topic id.
    pub epoch: u32,
    /// The partition's name inside the topic: for Kafka its number.
    pub name: String,
}

/// A partition as it is handed around: cheap to clone, one allocation a partition.
pub type PartitionRef = Arc<Partition>;

impl Partition {
    /// Whether another one is the same partition of the same topic, whichever log the topic's name stands for.
    pub fn is_at_place_of(&self, other: &Self) -> bool {
        (&self.cluster, &self.topic, &self.name) == (&other.cluster, &other.topic, &other.name)
    }

    /// All parts, escaped and joined by `|`: `cluster|topic|topic id|epoch|partition`.
    pub fn key(&self) -> String {
        let mut key = String::with_capacity(96);
        for part in [&self.cluster, &self.topic, &self.topic_id] {
            escape_into(&mut key, part);
            key.push('|');
        }
        key.push_str(&self.epoch.to_string());
        key.push('|');
        escape_into(&mut key, &self.name);
        key
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.name)
    }
}

/// Where an event was first read. Believed only from the source itself, from archives and from dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The partition it stood in.
    pub partition: PartitionRef,
    /// Its own position there.
    pub position: Position,
}

impl Origin {
    /// The stored form: [`Partition::key`], `|`, and the offset in decimal.
    pub fn text(&self) -> String {
        format!("{}|{}", self.partition.key(), self.position.next_offset().saturating_sub(1))
    }

    /// The inverse of [`Origin::text`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('|');
        let cluster = unescape(parts.next()?)?;
        let topic = unescape(parts.next()?)?;
        let topic_id = unescape(parts.next()?)?;
        let epoch = parts.next()?.parse().ok()?;
        let name = unescape(parts.next()?)?;
        let offset = parts.next()?.parse().ok()?;
        if parts.next().is_some() {
            return None;
        }
        let partition = Arc::new(Partition { cluster, topic, topic_id, epoch, name });
        Some(Self { partition, position: Position::Offset(offset) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sort_keys_sort_like_positions() {
        let positions = [
            Position::Begin,
            Position::Offset(0),
            Position::Offset(9),
            Position::Offset(10),
            Position::Offset(u64::MAX),
        ];
        let keys: Vec<_> = positions.iter().map(|p| p.sort_key()).collect();
        assert!(keys.is_sorted());
        for (position, key) in positions.iter().zip(&keys) {
            assert_eq!(Position::from_sort_key(key), Some(*position));
        }
        for bad in ["", "1", "00", "1+0000000000000000001", "2", "199999999999999999999"] {
            assert_eq!(Position::from_sort_key(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_origin_reads_back_whatever_its_names_hold() {
        let partition = Partition {
            cluster: "a|b%".into(),
            topic: "t".into(),
            topic_id: String::new(),
            epoch: 3,
            name: "7".into(),
        };
        let origin = Origin { partition: Arc::new(partition), position: Position::Offset(42) };
        assert_eq!(origin.text(), "a%7Cb%25|t||3|7|42");
        assert_eq!(Origin::parse(&origin.text()), Some(origin));
    }

    #[test]
    fn a_lane_that_starts_at_offset_s_begins_just_before_it() {
        assert_eq!(Position::before_offset(0), Position::Begin);
        assert_eq!(Position::before_offset(5), Position::Offset(4));
        assert_eq!(Position::Offset(4).next_offset(), 5);
        assert_eq!(Position::Begin.distance_to(Position::Offset(9)), 10);
    }
}
