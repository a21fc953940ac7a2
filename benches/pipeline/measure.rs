//! What a process cost: CPU of user and system, as the kernel adds it up at its end, and peak memory, read while it runs.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The kernel's clock ticks a second, as /proc counts.
const TICKS: f64 = 100.0;

/// What one run cost.
#[derive(Debug, Default)]
pub struct Cost {
    pub cpu_seconds: f64,
    pub peak_bytes: u64,
}

impl Cost {
    pub fn cpu_seconds_per_million(&self, events: u64) -> f64 {
        self.cpu_seconds * 1e6 / events as f64
    }
}

/// Runs it to its end; the last look at its memory comes at most 20 ms before that. No other child may end meanwhile.
pub fn run_measured(command: &mut Command) -> (Cost, String) {
    let before = ended_children();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        text
    });
    let mut cost = Cost::default();
    let status = loop {
        cost.peak_bytes = cost.peak_bytes.max(peak_bytes(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    cost.cpu_seconds = ended_children() - before;
    assert!(status.success(), "{command:?}: {status}");
    (cost, reader.join().unwrap())
}

/// CPU seconds of all children that have ended.
fn ended_children() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the name in brackets comes field 3; cutime and cstime are fields 16 and 17.
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let ticks = rest.split_whitespace().skip(13).take(2).map(|field| field.parse::<f64>().unwrap());
    ticks.sum::<f64>() / TICKS
}

/// Zero once the process has ended.
fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    peak.unwrap_or(0) * 1024
}
