//! To be written.
/// Stub.
pub struct RedisDedupe;
