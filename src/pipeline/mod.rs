//! From raw messages to outcomes.
//!
//! The path is `decode -> classify -> validate -> map`, pure functions over one message ([`Pipeline::prepare`]), then
//! `look up -> judge -> apply -> remember` over one batch of one partition ([`process`]). What leaves is one outcome a
//! position, for the ledger. Nothing here fails as a whole: what cannot be processed is a dead letter, and what cannot be
//! stored is asked again until it can be.

mod apply;
mod batch;
mod classify;
mod compile;
mod decode;
mod fold;
mod glob;
mod item;
mod judge;
mod letter;
mod map;
mod parts;
mod pending;
mod poison;
pub mod protocol;
mod request;
mod route;
mod settle;
mod template;
mod turn;
mod validate;
mod value;

pub use batch::{Done, Gates, Held, delivery, process};
pub use compile::Pipeline;
pub use glob::Glob;
pub use letter::{HEADER_PREFIX, LetterHead};
pub use parts::Parts;
pub use pending::{Pending, Portion};
pub use poison::{Poison, PoisonLimit, Poisoned};
pub use request::KIND as REQUEST_KIND;
pub use route::{Delivery, Mapped, Prepared};
pub use settle::{Again, Patience, ask};
pub use template::{Part, Template, TemplateError};
