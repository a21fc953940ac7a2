//! To be written.
/// Stub.
pub struct Backoff;
