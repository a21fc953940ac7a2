//! How events are batched, how much may be in memory, and how long things may take.

use std::time::Duration;

use crate::config::reader::Reader;
use crate::config::setting::{Fault, section};
use crate::config::{ByteSize, Share, Threads};

section! {
    /// Batches, memory and deadlines of the consumer.
    "engine" => EngineSettings {
        /// Threads that each own some partitions from end to end.
        worker_threads: Threads = "cores" ["1"..="256"];
        /// Events in a batch, at most. DynamoDB takes 25 a call, so a batch fills whole calls.
        batch_messages_max: usize = "500" ["1"..="10000"];
        /// Bytes in a batch, at most; a larger single event is a batch of its own.
        batch_bytes_max: ByteSize = "4MiB" ["64KiB"..="256MiB"];
        /// How long a batch waits for more events. It costs latency at low rates and saves calls.
        linger: Duration = "10ms" ["0s"..="10s"];
        /// Batches of one partition in flight at once.
        batches_in_flight: usize = "4" ["1"..="64"];
        /// Bytes of one partition in memory, at most; above it the partition is paused.
        lane_bytes_max: ByteSize = "16MiB" ["1MiB"..="1GiB"];
        /// Bytes of all partitions in memory, at most; above it all are paused.
        memory_bytes_max: ByteSize = "256MiB" ["16MiB"..="64GiB"];
        /// How often a partition's progress is written to its ledger, at most.
        attest_interval: Duration = "250ms" ["10ms"..="1m"];
        /// How long a shutdown or a revocation may drain. Saying good-bye takes up to 8s more; both together stay below the
        /// orchestrator's grace period (30s in Kubernetes and ECS).
        drain_deadline: Duration = "20s" ["1s"..="10m"];
        /// Which share of a route's last events may be refused. Above it the partitions that carry such events wait before the next
        /// dead letter, and an alert goes out: a schema that changed upstream must not empty a topic into quarantine.
        poison_share_max: Share = "50%" ["1%"..="99%"];
        /// How many events of a route are its last ones, over all partitions of the process.
        poison_window: usize = "200" ["10"..="100000"];
        /// How many events of a route have to be seen before its share counts.
        poison_events_min: usize = "100" ["1"..="100000"];
        /// How long a start may wait until everything it needs is there.
        start_deadline: Duration = "60s" ["1s"..="10m"];
    }
}

impl EngineSettings {
    pub(super) fn check(&self, reader: &mut Reader<'_>) {
        if reader.are_sound(&["engine.lane_bytes_max"]) && self.batch_bytes_max > self.lane_bytes_max {
            reader.complain(
                "engine.batch_bytes_max",
                Fault::new("is above engine.lane_bytes_max: no batch would be whole"),
            );
        }
        if reader.are_sound(&["engine.poison_window"]) && self.poison_events_min > self.poison_window {
            let fault = Fault::with_hint("is above engine.poison_window", "so many are never seen; lower it");
            reader.complain("engine.poison_events_min", fault);
        }
        if reader.are_sound(&["engine.memory_bytes_max"]) && self.lane_bytes_max > self.memory_bytes_max {
            reader.complain("engine.lane_bytes_max", Fault::new("is above engine.memory_bytes_max"));
        }
    }
}
