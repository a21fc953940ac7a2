//! What the system says about this process; nothing where it has no /proc.

use std::fs;

use super::catalogue::{PROCESS_CPU, PROCESS_FDS, PROCESS_MEMORY, PROCESS_START};
use super::exposition::Exposition;

/// Clock ticks a second in /proc: fixed at 100 in Linux' interface to programs.
const TICKS: f64 = 100.0;

pub(super) fn render(out: &mut Exposition) {
    if let Some((cpu_seconds, started)) = times() {
        out.family(&PROCESS_CPU, [([], cpu_seconds)]);
        out.family(&PROCESS_START, [([], started)]);
    }
    if let Some(bytes) = resident_bytes() {
        out.family(&PROCESS_MEMORY, [([], bytes)]);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        out.family(&PROCESS_FDS, [([], f64::from(u32::try_from(entries.count()).unwrap_or(u32::MAX)))]);
    }
}

/// CPU seconds used, and the second since 1970 when the process started.
fn times() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the program's name in parentheses, may hold blanks: fields are counted after it, from the third.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let booted = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = booted.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(((field(14)? + field(15)?) / TICKS, booted + field(22)? / TICKS))
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = kib.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_plausible() {
        let (_, started) = times().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(started <= now + 1.0 && started > now - 86_400.0, "{started} {now}");
        assert!(resident_bytes().unwrap() > 1_000_000.0);
    }
}
