//! Parts that run in the process instead of beside it.

pub mod kafka;
