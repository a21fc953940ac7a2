//! Memory while the store refuses every second write.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::deployment::{Deployment, RUN_MAX};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::manifest::assert_end_state;
use crate::running::Running;
use crate::supply::Supply;
use crate::{attested, kilobytes, ledger, seconds};

const FAILS: [Fault; 4] = [
    Fault::ServerFails,
    Fault::CutAfterApply,
    Fault::StatementFails { at: 3, code: "InternalServerError" },
    Fault::StatementsFailFrom { at: 5, code: "InternalServerError" },
];
const FAILS_OR_SLOWS_DOWN: [Fault; 6] = [
    Fault::ServerFails,
    Fault::StatementsFailFrom { at: 5, code: "InternalServerError" },
    Fault::CallFails { code: "ThrottlingException" },
    Fault::CallFailsUnexplained { code: "ProvisionedThroughputExceededException" },
    Fault::StatementFails { at: 3, code: "ThrottlingError" },
    Fault::StatementsFailFrom { at: 5, code: "ThrottlingError" },
];

/// How much the last third of a phase may be above the middle one: the larger of this many kilobytes and this part.
const GROWTH_KB: u64 = 20 * 1024;
const GROWTH_PART: u64 = 7;

/// Samples of a phase, at least, whatever the machine.
const SAMPLES_MIN: usize = 9;

/// A run under load.
struct Load<'a> {
    deployment: &'a Deployment,
    run: &'a Running,
    admin: String,
    supply: Supply,
    /// Events that wait to be recorded, at least, while there is load.
    backlog: u64,
    period: Duration,
    began: Instant,
}

impl Load<'_> {
    /// Looks at the process's memory for some time, with or without events coming in; it does not grow. Prints a line a minute.
    async fn watch(&mut self, what: &str, time: Duration, load: bool) {
        let mut ticks = tokio::time::interval(self.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (began, mut samples, mut shown) = (Instant::now(), Vec::new(), 0);
        while began.elapsed() < time || samples.len() < SAMPLES_MIN {
            ticks.tick().await;
            let attested = attested(&self.admin).await;
            if load && self.supply.taken - attested < self.backlog {
                self.supply.publish(self.deployment, self.backlog).await;
            }
            samples.push(kilobytes(self.run.pid(), "VmRSS").expect("it runs"));
            if began.elapsed().as_secs() / 60 > shown || began.elapsed() >= time {
                shown = began.elapsed().as_secs() / 60;
                let (minute, rss) = (self.began.elapsed().as_secs_f64() / 60.0, samples[samples.len() - 1] / 1024);
                eprintln!("{minute:6.1} | {what:<22} | {rss:5} MB | {attested:9} | {:9}", self.supply.taken);
            }
        }
        let third = samples.len() / 3;
        let (middle, last) = (median(&samples[third..2 * third]), median(&samples[2 * third..]));
        let peak = samples.iter().max().unwrap();
        eprintln!("{what}: {middle} kB in the middle third, {last} kB in the last, {peak} kB at most");
        assert!(last <= middle + (middle / GROWTH_PART).max(GROWTH_KB), "{what}: grew from {middle} kB to {last} kB");
    }

    /// Waits until everything published is attested.
    async fn drained(&self) {
        let drained = async {
            while attested(&self.admin).await < self.supply.taken {
                tokio::time::sleep(self.period).await;
            }
        };
        tokio::time::timeout(RUN_MAX, drained).await.expect("all is recorded in time");
    }
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// For half of the time the refusals are errors, then throttles are among them, which slow the writes down; then there is
/// nothing to do. In no phase does memory grow, and in the end everything is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn memory_is_flat_while_every_second_write_is_refused() {
    let time = Duration::from_secs(seconds());
    let deployment = Deployment::start("long-memory", "wallets", 8).await;
    let store = FaultProxy::start(&deployment.dynamodb).await;
    let env = [
        ("AWS_ENDPOINT_URL_DYNAMODB", store.endpoint.as_str()),
        // Partitions are paused and taken up again all the time.
        ("RECORDKEEPER_ENGINE_LANE_BYTES_MAX", "1MiB"),
        ("RECORDKEEPER_ENGINE_BATCH_BYTES_MAX", "256KiB"),
    ];
    let run = Running::start(&deployment, "run.log", &["run", "--summary", "json"], &env);
    let long = time >= Duration::from_secs(60);
    let mut load = Load {
        deployment: &deployment,
        run: &run,
        admin: run.admin().await,
        supply: Supply::new(10_000_000, 31),
        backlog: if long { 10_000 } else { 200 },
        period: Duration::from_millis(if long { 1_000 } else { 100 }),
        began: Instant::now(),
    };
    eprintln!("minute | phase                  |      RSS |  attested | published");
    for (seed, what, faults) in [(1, "errors", &FAILS[..]), (2, "errors and throttles", &FAILS_OR_SLOWS_DOWN)] {
        store.spoil_half(seed, faults);
        load.watch(what, time / 2, true).await;
        let (spoiled, of) = store.spoil_none();
        eprintln!("{what}: {spoiled} of {of} write calls refused");
        assert!(spoiled > 0 && spoiled * 2 + 10 > of, "{spoiled} of {of}");
    }
    let mended = Instant::now();
    load.drained().await;
    eprintln!("all recorded {:.0} s after the last refusal", mended.elapsed().as_secs_f64());
    load.watch("idle", time / 6, false).await;
    let supply = load.supply;
    run.terminate().await;
    let (code, stdout) = run.ended().await;
    assert_eq!(code, Some(0));
    let summary: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let manifest = supply.manifest();
    for count in ["consumed", "recorded", "duplicate"] {
        assert_eq!(summary[count], manifest[count], "{count}");
    }
    assert_end_state(&deployment, &manifest).await;
    ledger::assert_holds(&deployment, supply.taken).await;
}
