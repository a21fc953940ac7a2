//! `generate`.

use std::process::ExitCode;

use super::GlobalArgs;
use crate::generate::GenerateArgs;

/// Generates sample events.
pub async fn generate(_global: &GlobalArgs, _args: &GenerateArgs) -> Result<ExitCode, anyhow::Error> {
    anyhow::bail!("generate is not yet available")
}
