//! recordkeeper keeps the records of blockchain wallets. See ARCHITECTURE.md for the rooms and what may know what.

pub mod audit;
pub mod cli;
pub mod config;
pub mod dedupe;
pub mod embedded;
pub mod engine;
pub mod event;
pub mod generate;
pub mod guard;
pub mod ledger;
pub mod lock;
pub mod pipeline;
pub mod redis;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod topic;
