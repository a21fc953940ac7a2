//! Parts that run in the process instead of beside it.

#[cfg(feature = "embedded")]
pub mod dynamodb;
pub mod kafka;
