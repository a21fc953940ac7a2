//! The integration tests: one binary, real servers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod archives;
mod audit;
mod bad_redis;
mod cases;
mod config;
mod dedupe;
mod deployment;
mod durability;
mod examples;
#[allow(dead_code)]
mod fault_proxy;
mod field;
mod generate;
mod group;
mod hot_index;
mod ledger;
mod lock;
mod log;
mod manifest;
mod outages;
mod poison;
mod policies;
mod redelivery;
mod redrive;
mod replaced_log;
mod replay;
mod reset;
#[allow(dead_code)]
mod running;
mod s3_server;
#[allow(dead_code)]
mod services;
mod slow_relay;
mod source;
mod spine;
mod store;
mod tampering;
mod topic;
