//! `reference`: the reference of all settings.

use std::process::ExitCode;

/// Writes docs/configuration.md to standard output.
pub fn reference() -> Result<ExitCode, anyhow::Error> {
    super::show(crate::config::reference().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
