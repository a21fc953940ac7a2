//! The integration tests: one binary, real servers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod bad_redis;
mod cases;
mod config;
mod dedupe;
mod deployment;
mod durability;
mod examples;
mod fault_proxy;
mod field;
mod generate;
mod ledger;
mod log;
mod outages;
mod poison;
mod policies;
mod redrive;
mod replay;
mod reset;
mod services;
mod slow_relay;
mod source;
mod spine;
mod store;
mod topic;
