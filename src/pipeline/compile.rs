//! Stub.
use super::route::*;
/// a
pub struct Pipeline;
impl Pipeline {
    /// a
    pub fn name(&self) -> &str {
        ""
    }
    /// a
    pub fn revision(&self) -> &str {
        ""
    }
    /// a
    pub fn prepare(&self, _: &Delivery<'_>) -> Prepared {
        Prepared::Skipped
    }
}
