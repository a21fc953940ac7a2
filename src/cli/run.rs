//! `run`.

use std::process::ExitCode;

use super::{GlobalArgs, RunArgs};

/// Consumes events until stopped.
pub async fn run(global: &GlobalArgs, _args: &RunArgs) -> Result<ExitCode, anyhow::Error> {
    let _loaded = match global.load([]) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    anyhow::bail!("run is not yet available")
}
