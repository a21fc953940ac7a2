//! `reference`: the reference of all settings.

use std::io::Write as _;
use std::process::ExitCode;

/// Writes docs/configuration.md to standard output.
pub fn reference() -> Result<ExitCode, anyhow::Error> {
    std::io::stdout().lock().write_all(crate::config::reference().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
