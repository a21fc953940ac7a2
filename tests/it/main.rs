//! The integration tests: one binary, real servers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod services;
mod source;
mod topic;
