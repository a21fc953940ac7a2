//! `get`.

use std::process::ExitCode;

use super::{GetArgs, GlobalArgs};

/// Looks up a wallet, a user or a record.
pub async fn get(_global: &GlobalArgs, _args: &GetArgs) -> Result<ExitCode, anyhow::Error> {
    anyhow::bail!("get is not yet available")
}
