//! One JSON text as a borrowed document: parsed once, then validated, matched, digested and mapped on.
mod node;
mod parse;
mod pointer;
mod schema;

pub use node::{Elements, Kind, Members, Node};
pub use pointer::{Pointer, PointerError};
pub use schema::Borrowed;

use super::outcome::Refusal;

/// What a document may hold at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The deepest nesting of arrays and objects.
    pub depth: usize,
    /// The most values in one document.
    pub members: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 128, members: 65_536 }
    }
}

/// One parsed JSON text.
#[derive(Debug)]
pub struct Document<'a> {
    items: Vec<&'a str>,
}

impl<'a> Document<'a> {
    /// Parses exactly one JSON text.
    pub fn parse(_bytes: &'a [u8], _limits: &Limits) -> Result<Self, Refusal> {
        todo!()
    }
    /// The outermost value.
    pub fn root(&self) -> Node<'_, 'a> {
        todo!()
    }
    /// The value that the pointer names.
    pub fn at(&self, pointer: &Pointer) -> Option<Node<'_, 'a>> {
        self.root().at(pointer)
    }
}
