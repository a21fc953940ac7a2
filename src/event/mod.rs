//! The domain: events, what is kept of them, and the rules that give values one form.
//!
//! Nothing in here knows async, I/O or a vendor. Bytes enter; typed values or a [`Refusal`] leave.

pub mod ids;
mod outcome;
mod position;
mod record;
mod request;
mod state;
pub mod time;
mod version;

pub use ids::{Digest, SetDigest};
pub use outcome::{Outcome, Reason, Refusal};
pub use position::{Origin, Partition, PartitionRef, Position};
pub use record::{FORMAT, Record, RouteNames};
pub use request::{CreationRequest, request_digest};
pub use state::{Group, StateKey, StateValue, StateWrite};
pub use version::Version;
