//! What a process cost: CPU of user and system, time, peak memory; read from /proc while it runs.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The kernel's clock ticks a second, as /proc counts.
const TICKS: f64 = 100.0;

/// What one run cost.
#[derive(Debug, Default)]
pub struct Cost {
    pub cpu_seconds: f64,
    pub seconds: f64,
    pub peak_bytes: u64,
}

impl Cost {
    pub fn cpu_seconds_per_million(&self, events: u64) -> f64 {
        self.cpu_seconds * 1e6 / events as f64
    }
}

/// Runs it to its end; the last look comes at most 20 ms before that.
pub fn run_measured(command: &mut Command) -> (Cost, String) {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        text
    });
    let mut cost = Cost::default();
    let status = loop {
        look(child.id(), &mut cost);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    cost.seconds = began.elapsed().as_secs_f64();
    assert!(status.success(), "{command:?}: {status}");
    (cost, reader.join().unwrap())
}

fn look(pid: u32, cost: &mut Cost) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    // After the name in brackets: state is field 3, utime and stime are fields 14 and 15.
    if let Some((_, rest)) = read("stat").rsplit_once(')') {
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        cost.cpu_seconds = cost.cpu_seconds.max((ticks(11) + ticks(12)) / TICKS);
    }
    let peak = read("status")
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
    cost.peak_bytes = cost.peak_bytes.max(peak.unwrap_or(0) * 1024);
}
