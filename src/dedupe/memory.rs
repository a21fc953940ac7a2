//! To be written.
/// Stub.
pub struct MemoryDedupe;
