//! What stands between the product and its dependencies: jittered delays and circuit breakers.
//!
//! Nothing in here does I/O and nothing fails; deadlines are [`tokio::time::timeout`] at the call itself.

mod backoff;
mod breaker;
pub mod failpoint;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerSettings, BreakerState, Permit, Settled};
