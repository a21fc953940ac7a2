//! What a run was told, as it stands in the ledger table.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Partition, Position};
use crate::source::range::Range;

/// A range of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RangeSpec {
    cluster: String,
    topic: String,
    topic_id: String,
    epoch: u32,
    partition: String,
    /// The range is `(from, to]`; both as sort keys.
    from: String,
    to: String,
}

impl RangeSpec {
    pub(super) fn of(range: &Range) -> Self {
        let Partition { cluster, topic, topic_id, epoch, name } = &*range.partition;
        Self {
            cluster: cluster.clone(),
            topic: topic.clone(),
            topic_id: topic_id.clone(),
            epoch: *epoch,
            partition: name.clone(),
            from: range.from.sort_key(),
            to: range.to.sort_key(),
        }
    }

    /// The range, of a log that holds nothing at or below its beginning.
    ///
    /// # Errors
    ///
    /// Where it cannot be understood.
    pub(super) fn range(&self) -> anyhow::Result<Range> {
        let position = |text: &str| {
            Position::from_sort_key(text).ok_or_else(|| anyhow::anyhow!("the run on record names no position: {text}"))
        };
        let partition = Partition {
            cluster: self.cluster.clone(),
            topic: self.topic.clone(),
            topic_id: self.topic_id.clone(),
            epoch: self.epoch,
            name: self.partition.clone(),
        };
        let from = position(&self.from)?;
        Ok(Range { partition: Arc::new(partition), from, to: position(&self.to)?, log_start: from })
    }
}
