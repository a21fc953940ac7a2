//! Configuration: files, variables and flags in; checked types or diagnostics out.

mod diagnostics;
pub mod pipelines;

pub use diagnostics::{Diagnostic, Severity, nearest};
