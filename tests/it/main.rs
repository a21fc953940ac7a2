//! The integration tests: one binary, real servers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(feature = "embedded")]
mod fault_proxy;
#[cfg(feature = "embedded")]
mod store;
