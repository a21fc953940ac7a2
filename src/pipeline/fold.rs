//! Folding: many state changes of a batch become one write an item and group.

use std::collections::HashMap;

use crate::event::{Group, StateKey, StateWrite};

/// One write to make, and the event (by its index in the batch) whose change it is.
#[derive(Debug)]
pub struct Folded<'a> {
    /// The write.
    pub write: &'a StateWrite,
    /// The event it comes from.
    pub event: usize,
}

/// What folding decided without asking the store.
#[derive(Debug, Default)]
pub struct Fold<'a> {
    /// The highest version of each item and group, in the order in which items were first seen.
    pub writes: Vec<Folded<'a>>,
    /// Changes below a higher version of the same batch.
    pub stale: u64,
    /// Events whose change has the version of an earlier one in the batch and other content; by index.
    pub ties: Vec<usize>,
}

/// Folds changes given in the log's order. Of two changes with one version the earlier stands.
pub fn fold<'a>(changes: impl IntoIterator<Item = (usize, &'a StateWrite)>) -> Fold<'a> {
    let mut fold = Fold::default();
    let mut places: HashMap<(&StateKey, Group), usize> = HashMap::new();
    for (event, write) in changes {
        let Some(place) = places.get(&(&write.key, write.group)).copied() else {
            places.insert((&write.key, write.group), fold.writes.len());
            fold.writes.push(Folded { write, event });
            continue;
        };
        let Some(standing) = fold.writes.get_mut(place) else { continue };
        match write.version.cmp(&standing.write.version) {
            std::cmp::Ordering::Less => fold.stale += 1,
            std::cmp::Ordering::Equal if write.attributes == standing.write.attributes => {}
            std::cmp::Ordering::Equal => fold.ties.push(event),
            std::cmp::Ordering::Greater => {
                fold.stale += 1;
                *standing = Folded { write, event };
            }
        }
    }
    fold
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{StateValue, Version};
    use proptest::prelude::*;

    fn write(wallet: u8, group: Group, version: u64, label: &str) -> StateWrite {
        StateWrite {
            key: StateKey::Wallet { wallet_id: format!("ext:{wallet}") },
            group,
            version: Version::from_parts(&[version]).unwrap(),
            attributes: vec![("label", StateValue::Text(label.into()))],
        }
    }

    #[test]
    fn the_highest_version_stands_and_a_tie_changes_nothing() {
        let writes = [
            write(1, Group::Profile, 1, "a"),
            write(1, Group::Profile, 3, "c"),
            write(1, Group::Profile, 2, "b"),
            write(1, Group::Profile, 3, "c"),
            write(1, Group::Profile, 3, "other"),
            write(1, Group::Status, 1, "s"),
        ];
        let fold = fold(writes.iter().enumerate());
        assert_eq!(fold.writes.len(), 2);
        assert_eq!((fold.writes[0].event, fold.writes[1].event), (1, 5));
        assert_eq!(fold.stale, 2);
        assert_eq!(fold.ties, vec![4]);
    }

    proptest! {
        /// One write at a time against a table, or folded first: the same end.
        #[test]
        fn folding_ends_where_single_writes_end(list in proptest::collection::vec((0u8..3, 0u64..5, 0u8..3), 0..30)) {
            let writes: Vec<_> = list.iter()
                .map(|(wallet, version, label)| write(*wallet, Group::Profile, *version, &label.to_string())).collect();
            let mut table: HashMap<StateKey, StateWrite> = HashMap::new();
            for one in &writes {
                match table.get(&one.key) {
                    Some(standing) if standing.version >= one.version => {}
                    _ => { table.insert(one.key.clone(), one.clone()); }
                }
            }
            let folded = fold(writes.iter().enumerate());
            prop_assert_eq!(folded.writes.len(), table.len());
            for one in folded.writes {
                prop_assert_eq!(&table[&one.write.key], one.write);
            }
        }
    }
}
