//! One JSON text as a borrowed document: parsed once, then validated, matched, digested and mapped on.
//!
//! Bytes enter; a [`Document`] over them leaves, or a refusal with reason `undecodable` that names the byte and what is
//! wrong there, never the payload. Nothing is repaired: strings are borrowed unless they hold an escape, numbers stay the
//! digits that were sent, and a text that two readers could understand differently (duplicate names, lone surrogates, a
//! byte order mark) is refused.

mod canonical;
mod node;
mod number;
mod parse;
mod pointer;
mod schema;

use std::borrow::Cow;

pub(super) use canonical::{Numbers, write_canonical};
pub use node::{Elements, Kind, Members, Node};
pub use pointer::{Pointer, PointerError};
pub use schema::Borrowed;

use super::outcome::{Reason, Refusal};

/// What a document may hold at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The deepest nesting of arrays and objects. What walks a document may recurse this deep.
    pub depth: usize,
    /// The most values in one document, arrays and objects themselves included.
    pub members: usize,
}

impl Default for Limits {
    /// The documented limits: 128 levels, 65,536 values.
    fn default() -> Self {
        Self { depth: 128, members: 65_536 }
    }
}

/// One parsed JSON text: its values in the source's order, a container before what it holds, a member's name (as a text)
/// before its value.
#[derive(Debug)]
pub struct Document<'a> {
    items: Vec<Item<'a>>,
}

/// One value, or one member's name.
#[derive(Debug)]
enum Item<'a> {
    Null,
    Bool(bool),
    /// Exactly as sent.
    Number(&'a str),
    /// Unescaped.
    Text(Cow<'a, str>),
    Array(Extent),
    Object(Extent),
}

/// What a container spans.
#[derive(Debug)]
struct Extent {
    /// Elements, or members.
    len: usize,
    /// The item after the last one inside. While the container is still open: the container around it.
    end: usize,
}

impl<'a> Document<'a> {
    /// Parses exactly one JSON text.
    ///
    /// Refused with reason `undecodable`: bytes that are not UTF-8, a byte order mark, anything but one JSON text (RFC
    /// 8259), names that occur twice in an object once unescaped, lone surrogates, and what exceeds the limits.
    pub fn parse(bytes: &'a [u8], limits: &Limits) -> Result<Self, Refusal> {
        parse::items(bytes, limits)
            .map(|items| Self { items })
            .map_err(|fault| Refusal::new(Reason::Undecodable, format!("byte {}: {}", fault.at, fault.what)))
    }

    /// The outermost value.
    pub fn root(&self) -> Node<'_, 'a> {
        Node::new(self, 0)
    }

    /// The value that the pointer names, if there is one.
    pub fn at(&self, pointer: &Pointer) -> Option<Node<'_, 'a>> {
        self.root().at(pointer)
    }
}
