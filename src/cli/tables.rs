//! `tables`.

use std::process::ExitCode;

use super::{GlobalArgs, TablesArgs};

/// Creates or describes the tables.
pub async fn tables(_global: &GlobalArgs, _args: &TablesArgs) -> Result<ExitCode, anyhow::Error> {
    anyhow::bail!("tables is not yet available")
}
