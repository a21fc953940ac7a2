//! What a round does, drawn from its seed.

use std::fmt;

/// What can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Kill9At(&'static str, u32),
    Kill9Anywhere,
    SigstopZombie,
    RebalanceStorm,
    BrokerRestart,
    LeaderLost,
    RedisFlush,
    RedisOom,
    RedisReadonly,
    RedisDown,
    CutAfterApply,
    CallThrottled,
    CallThrottledUnexplained,
    UnprocessedKeys,
    StatementThrottledIn200,
    SlowAnswers,
    ServerError,
    StoreDiskFull,
    OffsetsExpired,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill9At(..) => "kill9_at",
            Self::Kill9Anywhere => "kill9_anywhere",
            Self::SigstopZombie => "sigstop_zombie",
            Self::RebalanceStorm => "rebalance_storm",
            Self::BrokerRestart => "broker_restart",
            Self::LeaderLost => "leader_lost",
            Self::RedisFlush => "redis_flush",
            Self::RedisOom => "redis_oom",
            Self::RedisReadonly => "redis_readonly",
            Self::RedisDown => "redis_down",
            Self::CutAfterApply => "cut_after_apply",
            Self::CallThrottled => "call_throttled",
            Self::CallThrottledUnexplained => "call_throttled_unexplained",
            Self::UnprocessedKeys => "unprocessed_keys",
            Self::StatementThrottledIn200 => "statement_throttled_in_200",
            Self::SlowAnswers => "slow_answers",
            Self::ServerError => "server_error",
            Self::StoreDiskFull => "store_disk_full",
            Self::OffsetsExpired => "offsets_expired",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill9At(failpoint, times) => write!(f, "kill9_at({failpoint}:{times})"),
            other => f.write_str(other.name()),
        }
    }
}

/// One round.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Nodes of the Kafka cluster: one or three.
    pub nodes: usize,
    pub protocol: &'static str,
    pub instances: usize,
    pub events: u64,
    pub batch: u32,
    /// Each with whether the instances catch up before it.
    pub faults: Vec<(Kind, bool)>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let nodes = if seed.is_multiple_of(3) { 3 } else { 1 };
        let steps = ["prepared", "looked_up", "judged", "applied", "remembered"];
        let rare = ["attesting", "attested", "checkpointed"];
        // A step that each batch takes is sure to come several times, one that a worker takes for all of its lanes only once.
        let kill = |rng: &mut fastrand::Rng| match rng.usize(0..steps.len() + rare.len()) {
            step if step < steps.len() => Kind::Kill9At(steps[step], rng.u32(1..=3)),
            step => Kind::Kill9At(rare[step - steps.len()], 1),
        };
        let mut others = vec![
            Kind::Kill9Anywhere,
            Kind::SigstopZombie,
            Kind::RebalanceStorm,
            Kind::RedisFlush,
            Kind::RedisOom,
            Kind::RedisReadonly,
            Kind::RedisDown,
            Kind::CutAfterApply,
            Kind::CallThrottled,
            Kind::CallThrottledUnexplained,
            Kind::UnprocessedKeys,
            Kind::StatementThrottledIn200,
            Kind::SlowAnswers,
            Kind::ServerError,
            Kind::StoreDiskFull,
            Kind::OffsetsExpired,
        ];
        rng.shuffle(&mut others);
        let mut faults = others.split_off(others.len() - rng.usize(3..=4));
        faults.push(kill(&mut rng));
        if nodes == 3 {
            faults.push(Kind::LeaderLost);
        } else if rng.u32(0..3) == 0 {
            faults.push(Kind::BrokerRestart);
        }
        rng.shuffle(&mut faults);
        Self {
            seed,
            nodes,
            protocol: if rng.bool() { "classic" } else { "consumer" },
            instances: rng.usize(1..=3),
            events: rng.u64(2_000..=4_000),
            batch: rng.u32(10..=60),
            faults: faults.into_iter().map(|kind| (kind, rng.bool())).collect(),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(|(kind, _)| kind.to_string()).collect();
        write!(
            f,
            "seed {} ({} node(s), {} protocol, {} instance(s), batches of {}; {})",
            self.seed,
            self.nodes,
            self.protocol,
            self.instances,
            self.batch,
            faults.join(", ")
        )
    }
}
