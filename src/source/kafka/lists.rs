//! Partitions and offsets as librdkafka takes them.

use rdkafka::Offset;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::context::Key;

pub(super) fn offset_of(next: u64) -> Offset {
    Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX))
}

pub(super) fn list_of<'a>(keys: impl IntoIterator<Item = (&'a Key, Offset)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for ((topic, number), offset) in keys {
        let mut element = list.add_partition(topic, *number);
        if offset != Offset::Invalid {
            // Fails only for negative offsets, which no caller has.
            element.set_offset(offset).unwrap_or_default();
        }
    }
    list
}
