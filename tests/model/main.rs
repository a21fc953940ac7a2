//! The delivery protocol, explored exhaustively on small worlds.
//!
//! Two instances, of which one may be a zombie, a replay and a redrive work on one partition of three events. Between any two
//! steps an instance may die, an answer be lost, the cache be flushed, a checkpoint be moved, a mapping be deployed. In every
//! state that can be reached, the promises hold (`safety.rs`), and whoever owns the partition can still consume the log. The
//! steps (`steps.rs`, `lane.rs`) call the product's own decisions, `recordkeeper::pipeline::protocol` and `Pending`, so that the model
//! cannot drift away from what runs; and each rule, switched off (`rules.rs`), leads to a state that is wrong.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod events;
mod lane;
mod progress;
mod repair;
mod rules;
mod safety;
mod scenarios;
mod steps;
mod world;
