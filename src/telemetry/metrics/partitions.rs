//! Numbers of the partitions that are owned now. A partition that was lost is gone from the next scrape on: a lag that
//! two instances report would be counted twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::Partition;

use super::catalogue::{ASSIGNED, LAG, LAG_SECONDS, PAUSED, POISONED, STALLED_SECONDS};
use super::exposition::Exposition;

/// What is known of one owned partition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartitionReading {
    /// Messages between the last attested position and the log's end.
    pub lag: u64,
    /// Age of the oldest message that is not attested; zero where all are.
    pub lag_seconds: f64,
    /// Time since it last moved although it has work; zero where it has none.
    pub stalled_seconds: f64,
    /// Whether it is not read at the moment.
    pub paused: bool,
    /// The poisoned route before whose next dead letter it waits.
    pub poisoned_by: Option<Arc<str>>,
}

/// By group, then by topic and partition.
type Groups = BTreeMap<String, BTreeMap<(String, String), PartitionReading>>;

/// The owned partitions of every consumer group of this process.
#[derive(Debug, Default)]
pub struct Partitions {
    groups: Mutex<Groups>,
}

impl Partitions {
    /// The partition is owned from now on.
    pub fn assigned(&self, group: &str, partition: &Partition) {
        let mut groups = self.groups();
        let owned = groups.entry(group.to_owned()).or_default();
        owned.insert((partition.topic.clone(), partition.name.clone()), PartitionReading::default());
    }

    /// A new reading; ignored for a partition that is not owned, so that a late one does not bring it back.
    pub fn read(&self, group: &str, partition: &Partition, reading: PartitionReading) {
        let mut groups = self.groups();
        let Some(owned) = groups.get_mut(group) else { return };
        if let Some(place) = owned.get_mut(&(partition.topic.clone(), partition.name.clone())) {
            *place = reading;
        }
    }

    /// The partition is owned no more. Its group stays, with one partition less.
    pub fn lost(&self, group: &str, partition: &Partition) {
        if let Some(owned) = self.groups().get_mut(group) {
            owned.remove(&(partition.topic.clone(), partition.name.clone()));
        }
    }

    /// Every owned partition: group, topic, partition, reading.
    pub fn all(&self) -> Vec<(String, String, String, PartitionReading)> {
        let groups = self.groups();
        let rows = groups.iter().flat_map(|(group, owned)| {
            owned.iter().map(|((topic, name), reading)| (group.clone(), topic.clone(), name.clone(), reading.clone()))
        });
        rows.collect()
    }

    pub(super) fn render(&self, out: &mut Exposition) {
        let groups = self.groups();
        let rows = || {
            groups.iter().flat_map(|(group, owned)| {
                owned.iter().map(|((topic, name), reading)| ([group.as_str(), topic.as_str(), name.as_str()], reading))
            })
        };
        out.family(&LAG, rows().map(|(labels, reading)| (labels, reading.lag as f64)));
        out.family(&LAG_SECONDS, rows().map(|(labels, reading)| (labels, reading.lag_seconds.max(0.0))));
        out.family(&STALLED_SECONDS, rows().map(|(labels, reading)| (labels, reading.stalled_seconds.max(0.0))));
        let count = |owned: usize| f64::from(u32::try_from(owned).unwrap_or(u32::MAX));
        out.family(&ASSIGNED, groups.iter().map(|(group, owned)| ([group.as_str()], count(owned.len()))));
        let paused =
            |owned: &BTreeMap<_, PartitionReading>| count(owned.values().filter(|reading| reading.paused).count());
        out.family(&PAUSED, groups.iter().map(|(group, owned)| ([group.as_str()], paused(owned))));
        let mut poisoned: BTreeMap<[&str; 2], f64> = BTreeMap::new();
        for (group, owned) in groups.iter() {
            for route in owned.values().filter_map(|reading| reading.poisoned_by.as_deref()) {
                *poisoned.entry([group, route]).or_default() += 1.0;
            }
        }
        out.family(&POISONED, poisoned);
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(name: &str) -> Partition {
        Partition { cluster: "c".into(), topic: "t".into(), topic_id: "i".into(), epoch: 0, name: name.into() }
    }

    fn rendered(partitions: &Partitions) -> String {
        let mut out = Exposition::after(String::new());
        partitions.render(&mut out);
        out.finish()
    }

    #[test]
    fn a_lost_partition_is_gone_at_once_and_a_late_reading_does_not_bring_it_back() {
        let partitions = Partitions::default();
        let poisoned_by = Some("wallet-created".into());
        let reading = PartitionReading { lag: 12, paused: true, poisoned_by, ..PartitionReading::default() };
        for name in ["0", "1"] {
            partitions.assigned("g", &partition(name));
            partitions.read("g", &partition(name), reading.clone());
        }
        assert!(rendered(&partitions).contains("recordkeeper_lag{group=\"g\",topic=\"t\",partition=\"1\"} 12\n"));
        partitions.lost("g", &partition("1"));
        partitions.read("g", &partition("1"), reading);
        let text = rendered(&partitions);
        assert!(!text.contains("partition=\"1\""), "{text}");
        assert!(text.contains("recordkeeper_assigned_partitions{group=\"g\"} 1\n"));
        assert!(text.contains("recordkeeper_paused_partitions{group=\"g\"} 1\n"));
        assert!(text.contains("recordkeeper_poisoned_partitions{group=\"g\",route=\"wallet-created\"} 1\n"));
        partitions.lost("g", &partition("0"));
        assert!(rendered(&partitions).contains("recordkeeper_assigned_partitions{group=\"g\"} 0\n"));
    }
}
