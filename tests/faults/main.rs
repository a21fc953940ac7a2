//! Rounds of faults on real processes: brokers, Redis, a DynamoDB server behind a proxy that spoils answers, and several
//! instances of the built binary. A round draws its faults from a seed, and ends by comparing tables, topics and ledger with
//! what the generated events demand.
//!
//! `RECORDKEEPER_FAULT_ROUNDS` says how many rounds, `RECORDKEEPER_FAULT_SEED` the first one's seed.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

// Shared with the integration tests, which use more of them.
#[allow(dead_code)]
#[path = "../it/deployment.rs"]
mod deployment;
#[allow(dead_code)]
#[path = "../it/fault_proxy.rs"]
mod fault_proxy;
#[path = "../it/ledger.rs"]
mod ledger;
#[allow(dead_code)]
#[path = "../it/manifest.rs"]
mod manifest;
#[allow(dead_code)]
#[path = "../it/running.rs"]
mod running;
#[allow(dead_code)]
#[path = "../it/services/mod.rs"]
mod services;

mod fleet;
mod inject;
mod plan;
mod round;
mod store;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use plan::Plan;
use round::{Figures, Ground};

/// Only a round that hangs takes so long.
const ROUND_MAX: Duration = Duration::from_secs(900);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// What happened in a round, in order; shown where it fails.
#[derive(Debug)]
pub struct History {
    began: Instant,
    notes: Mutex<Vec<String>>,
}

impl History {
    fn begin() -> Self {
        Self { began: Instant::now(), notes: Mutex::default() }
    }

    pub fn note(&self, text: impl std::fmt::Display) {
        self.notes.lock().unwrap().push(format!("{:5.1}s {text}", self.began.elapsed().as_secs_f64()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_broken_meanwhile_every_round_ends_as_the_manifest_says() {
    let rounds = number("RECORDKEEPER_FAULT_ROUNDS").unwrap_or(3);
    let first = number("RECORDKEEPER_FAULT_SEED").unwrap_or(1);
    let ground = Ground::default();
    let (mut total, mut failed) = (Figures::default(), BTreeMap::new());
    for seed in first..first + rounds {
        let (plan, history) = (Plan::of(seed), History::begin());
        let name = format!("round-{seed}");
        let played = tokio::time::timeout(ROUND_MAX, round::play(&plan, &name, &ground, &history));
        match AssertUnwindSafe(played).catch_unwind().await {
            Ok(Ok(figures)) => {
                println!("{plan}: {figures}, {}s", history.began.elapsed().as_secs());
                if std::env::var_os("RECORDKEEPER_FAULT_HISTORY").is_some() {
                    println!("  {}", history.notes.lock().unwrap().join("\n  "));
                }
                total.add(&figures);
            }
            broken => {
                let fault = broken.err();
                let text = fault.as_ref().and_then(|fault| fault.downcast_ref::<String>()).map(String::as_str);
                let text = text.or_else(|| fault.as_ref()?.downcast_ref::<&str>().copied());
                let text = text.unwrap_or("did not end in time").to_owned();
                println!("{plan}: FAILED\n  {}\n  {text}", history.notes.lock().unwrap().join("\n  "));
                failed.insert(seed, text);
            }
        }
        keep_logs(seed, failed.contains_key(&seed));
    }
    println!("{} rounds: {total}; failing seeds: {:?}", rounds, failed.keys().collect::<Vec<_>>());
    assert!(failed.is_empty(), "failing seeds (RECORDKEEPER_FAULT_SEED repeats one): {failed:#?}");
}

/// A failed round's folder goes where the next run does not remove it.
fn keep_logs(seed: u64, failed: bool) {
    let scratch = services::scratch("");
    let prefix = format!("round-{seed}-");
    for entry in std::fs::read_dir(&scratch).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(&prefix) {
            continue;
        }
        if failed {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
            std::fs::rename(entry.path(), &kept).unwrap();
            println!("  the instances' logs: {}", kept.display());
        } else {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}
