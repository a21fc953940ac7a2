//! What a cluster says about a topic, and what of it an operator should know.

use std::time::Duration;

/// What the readiness check reports about a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicReport {
    /// How many partitions.
    pub partitions: usize,
    /// The lowest number of replicas of a partition.
    pub replication: usize,
    /// How many replicas must have a message before it counts; `None` where the cluster does not tell.
    pub min_insync_replicas: Option<u32>,
    /// How long messages are kept, in milliseconds, -1 for ever; `None` where the cluster does not tell.
    pub retention_ms: Option<i64>,
    /// The largest batch, in bytes; `None` where the cluster does not tell.
    pub message_bytes_max: Option<usize>,
}

impl TopicReport {
    /// The largest batch, in bytes; Kafka's default where the cluster does not tell.
    pub fn bytes_max(&self) -> usize {
        self.message_bytes_max.unwrap_or(MESSAGE_BYTES_DEFAULT)
    }

    /// How messages that are acknowledged by all replicas in sync could be lost all the same, with what to do. Nothing where
    /// the cluster tells no settings, as the embedded one.
    pub fn durability_doubts(&self, topic: &str) -> Option<String> {
        match (self.replication, self.min_insync_replicas?) {
            (0 | 1, _) => Some(format!(
                "topic {topic} has one replica: the loss of one broker loses its messages; give it more replicas"
            )),
            (replication, 0 | 1) => Some(format!(
                "topic {topic} has {replication} replicas and min.insync.replicas 1: a message may be acknowledged by one \
                 broker alone and lost with it; set min.insync.replicas to {}",
                // Of two replicas both would have to be there at all times, so that a third one is the better advice.
                if replication == 2 {
                    "2, or better have 3 replicas".to_owned()
                } else {
                    (replication - 1).to_string()
                }
            )),
            _ => None,
        }
    }

    /// Whether messages go away sooner than `least` after they came, with what to do.
    pub fn retention_doubts(&self, topic: &str, least: Duration) -> Option<String> {
        let kept = Duration::from_millis(u64::try_from(self.retention_ms?).ok()?);
        (kept < least).then(|| {
            format!(
                "topic {topic} keeps messages for {} hours only, and they wait for a person: set its retention.ms to -1",
                kept.as_secs() / 3600
            )
        })
    }
}

/// Kafka's default for `max.message.bytes`.
const MESSAGE_BYTES_DEFAULT: usize = 1_048_588;

#[cfg(test)]
mod tests {
    use super::*;

    fn report(replication: usize, min_insync_replicas: Option<u32>, retention_ms: Option<i64>) -> TopicReport {
        TopicReport { partitions: 1, replication, min_insync_replicas, retention_ms, message_bytes_max: None }
    }

    #[test]
    fn acknowledged_messages_that_one_broker_could_lose_are_told() {
        for (replication, in_sync, told) in [
            (1, Some(1), Some("one replica")),
            (3, Some(1), Some("min.insync.replicas to 2")),
            (2, Some(1), Some("3 replicas")),
            (3, Some(2), None),
            (3, None, None),
            (1, None, None),
        ] {
            let doubts = report(replication, in_sync, None).durability_doubts("t");
            match told {
                Some(told) => assert!(doubts.as_ref().is_some_and(|doubts| doubts.contains(told)), "{doubts:?}"),
                None => assert_eq!(doubts, None),
            }
        }
    }

    #[test]
    fn letters_that_do_not_wait_are_told() {
        let fortnight = Duration::from_secs(14 * 24 * 3600);
        let doubts = |retention_ms| report(3, Some(2), retention_ms).retention_doubts("t", fortnight);
        let week_ms = 7 * 24 * 3600 * 1000;
        assert!(doubts(Some(week_ms)).is_some_and(|doubts| doubts.contains("168 hours")));
        assert_eq!([Some(2 * week_ms), Some(-1), None].map(doubts), [None, None, None]);
    }
}
