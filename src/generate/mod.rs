//! To be written.

/// What to generate.
#[derive(Clone, Debug, clap::Args)]
pub struct GenerateArgs {}
