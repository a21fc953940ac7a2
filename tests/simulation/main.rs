//! The real pipeline on simulated seams, under a paused clock, from one seed.
//!
//! Coordinators, workers, lanes, batching, folding, attesting and retries are the product's own; the log, the group, the
//! tables, the cache and the topics are simulated (`seams.rs`, `source.rs`). What goes wrong: calls that never arrive, answers that
//! never come back, calls carried out long after they were given up, partial answers, throttling, outages (`wire.rs`); instances
//! that die, freeze and come back as zombies, partitions that move and appear, checkpoints that are moved or expire, mappings that
//! change (`group.rs`, `scenario.rs`). Whenever a ledger grows, what it says is compared with what the events demand and with what
//! is durable (`world.rs`); in the end everything is. One thread, one seed: a failing seed does the same again.
//!
//! Not in here: states, messages and requests that are refused for good (records are), retention, orders (`reset`), and what the
//! adapters do below the seams (breakers, budgets, filling of calls): the integration tests have those.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod group;
mod instance;
mod scenario;
mod seams;
mod source;
mod wire;
mod world;
