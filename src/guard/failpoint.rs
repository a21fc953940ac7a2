//! Places where a debug build can be told to die, so that tests can kill the process between two steps.
//!
//! `RECORDKEEPER_FAILPOINT=judged:3` kills the process (SIGKILL, nothing is cleaned up) when it comes by `judged` for the
//! third time. Release builds have no failpoints.

#[cfg(debug_assertions)]
use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// Passes the failpoint `name`; does not come back where it is the one that was asked for.
#[cfg(debug_assertions)]
pub fn hit(name: &str) {
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static HITS: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("RECORDKEEPER_FAILPOINT").ok()?;
        let (name, count) = text.split_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    if let Some((wanted, count)) = wanted
        && wanted == name
        && HITS.fetch_add(1, Ordering::SeqCst) + 1 == *count
    {
        kill();
    }
}

/// Passes the failpoint `name`: nothing in a release build.
#[cfg(not(debug_assertions))]
pub fn hit(_name: &str) {}

/// As abrupt as SIGKILL: no destructor, no flush, no exit handler.
#[cfg(debug_assertions)]
fn kill() -> ! {
    let pid = std::process::id().to_string();
    let _ = std::process::Command::new("kill").args(["-9", &pid]).status();
    std::process::abort()
}
