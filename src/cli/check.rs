//! `check`: says everything that is wrong with configuration and pipelines, or what applies.

use std::io::Write as _;
use std::process::ExitCode;

use super::{CheckArgs, EXIT_USAGE, GlobalArgs, report, table};
use crate::config::{self, Effective, Severity};

/// Reports all findings at once; without errors shows the effective configuration and which source won.
pub fn check(global: &GlobalArgs, _args: &CheckArgs) -> Result<ExitCode, anyhow::Error> {
    let loaded = config::load_from_process(&global.config_args());
    let (found, effective) = match loaded {
        Ok(loaded) => (loaded.warnings, loaded.effective),
        Err(found) => (found, Vec::new()),
    };
    report(&found);
    if found.iter().any(|finding| finding.severity == Severity::Error) {
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let mut out = std::io::stdout().lock();
    table::write(&mut out, &rows(&effective))?;
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}

fn rows(effective: &[Effective]) -> Vec<[String; 3]> {
    let head = ["setting", "from", "value"].map(str::to_owned);
    let shown = effective.iter().map(|setting| {
        let value = if setting.shown_value.is_empty() { "\"\"".to_owned() } else { setting.shown_value.clone() };
        [setting.name.clone(), setting.origin.to_string(), value]
    });
    std::iter::once(head).chain(shown).collect()
}
