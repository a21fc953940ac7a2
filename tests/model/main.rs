//! The delivery protocol, explored exhaustively on small worlds.
//!
//! Two instances, of which one may be a zombie, and a replay or redrive, which another process may take up, work on one
//! partition of three events. Between any two steps an instance may die, an answer be lost, the cache be flushed, a checkpoint be
//! moved, a mapping be deployed, an entry of the ledger be altered. In every state that can be reached, the promises hold
//! (`safety.rs`), whoever owns the partition can still consume the log, and whoever takes the run up can end it (`progress.rs`). The
//! steps (`steps.rs`, `lane.rs`, `repair.rs`) call the product's own decisions, `recordkeeper::pipeline::protocol`, `Pending` and
//! `audit::SoundPrefix`, so that the model cannot drift away from what runs; and each rule, switched off (`rules.rs`), leads to a
//! state that is wrong. Only in which order seals and epochs are inserted (`src/ledger/fence.rs`, `src/cli/new_epoch.rs`), and
//! which epoch a lane opens (`src/engine/open.rs`), is said here once more.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod chains;
mod events;
mod lane;
mod progress;
mod repair;
mod rules;
mod safety;
mod scenarios;
mod steps;
mod world;
