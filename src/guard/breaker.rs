//! To be written.
/// Stub.
pub struct Breaker;
/// Stub.
pub struct BreakerState;
