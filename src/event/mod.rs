//! The domain: events, what is kept of them, and the rules that give values one form.
//!
//! Nothing in here knows async, I/O or a vendor. Bytes enter; typed values or a [`Refusal`] leave.

mod address;
mod amount;
mod digest;
pub mod envelope;
mod frame;
pub mod ids;
pub mod json;
mod outcome;
mod position;
mod record;
mod request;
mod state;
pub mod time;
mod version;

pub use address::{WalletId, canonical_address, check_chain, check_user_id};
pub use amount::canonical_amount;
pub use digest::content_digest;
pub use envelope::Envelope;
pub use frame::unframe;
pub use ids::{Digest, SetDigest};
pub use json::{Borrowed, Document, Kind, Limits, Node, Pointer, PointerError};
pub use outcome::{Outcome, Reason, Refusal};
pub use position::{Origin, Partition, PartitionRef, Position};
pub use record::{FORMAT, Record, RouteNames};
pub use request::{CreationRequest, request_digest};
pub use state::{Group, StateKey, StateValue, StateWrite};
pub use time::canonical_time;
pub use version::{Version, parse_version};
