//! Folding: many state changes of a batch become one write an item and group.

use std::collections::HashMap;

use crate::event::{Group, StateKey, StateWrite};

/// One write to make, and what it stands for.
#[derive(Debug)]
pub struct Folded<'a> {
    /// The highest version of its item and group.
    pub write: &'a StateWrite,
    /// The event (by its index in the batch) whose change it is.
    pub event: usize,
    /// How many changes lie below it.
    pub stale: u64,
    /// Events whose change had the version of an earlier one and other content.
    pub ties: Vec<usize>,
}

/// Folds changes given in the log's order, in the order in which items were first seen. Of two changes with one version the
/// earlier stands.
pub fn fold<'a>(changes: impl IntoIterator<Item = (usize, &'a StateWrite)>) -> Vec<Folded<'a>> {
    let mut writes: Vec<Folded<'a>> = Vec::new();
    let mut places: HashMap<(&StateKey, Group), usize> = HashMap::new();
    for (event, write) in changes {
        let place = *places.entry((&write.key, write.group)).or_insert(writes.len());
        let Some(standing) = writes.get_mut(place) else {
            writes.push(Folded { write, event, stale: 0, ties: Vec::new() });
            continue;
        };
        match write.version.cmp(&standing.write.version) {
            std::cmp::Ordering::Less => standing.stale += 1,
            std::cmp::Ordering::Equal if write.attributes == standing.write.attributes => {}
            std::cmp::Ordering::Equal => standing.ties.push(event),
            std::cmp::Ordering::Greater => {
                standing.stale += 1;
                (standing.write, standing.event) = (write, event);
            }
        }
    }
    writes
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
        let seen: Vec<_> = fold.iter().map(|folded| (folded.event, folded.stale, folded.ties.as_slice())).collect();
        assert_eq!(seen, [(1, 2, [4].as_slice()), (5, 0, &[])]);
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
            prop_assert_eq!(folded.len(), table.len());
            for one in folded {
                prop_assert_eq!(&table[&one.write.key], one.write);
            }
        }
    }
}
