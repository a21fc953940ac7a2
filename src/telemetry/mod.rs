//! What the process tells about itself: metrics, alerts, logs, and the admin port that shows them.
//!
//! [`Metrics`] is made once and its handles are given to the parts; [`logs::init`] comes first of all. What can fail is
//! starting: a filter that does not read, a port that is taken.

mod admin;
mod alert;
mod breakers;
mod health;
pub mod logs;
pub mod metrics;
mod tally;

pub use admin::{AdminError, AdminServer, AdminState};
pub use alert::{Alert, Alerts, At};
pub use breakers::{Breakers, Call, Guarded, Watched};
pub use health::{Condition, Dependency, Heartbeat, Heartbeats, Readiness};
pub use metrics::{DedupeMetrics, Metrics};
pub use tally::{BatchTally, Summary, Tally};
