//! From raw messages to outcomes.
//!
//! The path is `decode -> classify -> validate -> map`, pure functions over one message ([`Pipeline::prepare`]), then
//! `look up -> judge -> apply -> remember -> attest` over one batch of one partition.

mod classify;
mod compile;
mod decode;
mod glob;
mod map;
mod route;
mod template;
mod validate;
mod value;

pub use compile::Pipeline;
pub use glob::Glob;
pub use route::{Delivery, Mapped, Prepared};
pub use template::{Part, Template, TemplateError};
