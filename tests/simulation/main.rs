//! The real pipeline on simulated seams, under a paused clock, from one seed.
//!
//! Coordinators, workers, lanes, batching, folding, attesting and retries are the product's own; the log, the group, the
//! tables, the cache and the topics are simulated (`seams.rs`, `source.rs`), and everything that can go wrong there does
//! (`wire.rs`): calls that never arrive, answers that never come back, calls carried out long after they were given up, partial
//! answers, throttling, outages; instances that die, freeze and come back as zombies, partitions that move (`group.rs`). Whenever
//! a ledger grows, what it says is compared with what the events demand and with what is durable (`world.rs`); in the end
//! everything is (`scenario.rs`). One thread, one seed: a failing seed does the same again.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod group;
mod instance;
mod scenario;
mod seams;
mod source;
mod wire;
mod world;
