//! What stands between the product and its dependencies: deadlines, bounded retries, breakers, rates.

mod backoff;
mod breaker;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerState};
