//! What shows only at size or over time: `verify` at a million events, a replay beside live traffic, memory while the store
//! refuses every second write. Each prints what it measured; speed is not asserted.
//!
//! Small by default. `RECORDKEEPER_LONG_EVENTS` says how many events (3,000 at least), `RECORDKEEPER_LONG_SECONDS` how
//! long there is load.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

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
#[allow(dead_code)]
#[path = "../it/tampering.rs"]
mod tampering;

mod beside;
mod memory;
mod supply;
mod verify;

/// A size of the tests: as the variable says, else this one.
fn size(variable: &str, small: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.map_or(small, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn events() -> u64 {
    size("RECORDKEEPER_LONG_EVENTS", 3_000)
}

fn seconds() -> u64 {
    size("RECORDKEEPER_LONG_SECONDS", 6)
}

/// The sum of a metric's lines.
async fn metric(admin: &str, name: &str) -> f64 {
    let page = running::page(admin, "/metrics").await;
    let values = page.lines().filter(|line| line.starts_with(name)).map(|line| line.rsplit_once(' ').unwrap().1);
    values.map(|value| value.parse::<f64>().unwrap()).sum()
}

/// How many positions a process has attested.
async fn attested(admin: &str) -> u64 {
    metric(admin, "recordkeeper_attested_total").await as u64
}

/// A figure of a process in kilobytes, by its name in /proc/PID/status; `None` where the process is gone.
fn kilobytes(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim_start_matches(':').trim().split(' ').next()?.parse().ok())
}
