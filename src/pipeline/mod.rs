//! From raw messages to outcomes.
//!
//! The path is `decode -> classify -> validate -> map`, pure functions over one message ([`Pipeline::prepare`]), then
//! `look up -> judge -> apply -> remember -> attest` over one batch of one partition.

mod route;

pub use route::{Delivery, Mapped, Prepared};
