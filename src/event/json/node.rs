//! Values of a document.
use super::{Document, Pointer};

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// One value of a document.
#[derive(Clone, Copy, Debug)]
pub struct Node<'d, 'a> {
    document: &'d Document<'a>,
    at: usize,
}

impl<'d, 'a> Node<'d, 'a> {
    /// What it is.
    pub fn kind(&self) -> Kind {
        todo!()
    }
    /// The string, unescaped.
    pub fn as_str(&self) -> Option<&'d str> {
        todo!()
    }
    /// The number's own digits.
    pub fn as_number(&self) -> Option<&'a str> {
        todo!()
    }
    /// The boolean.
    pub fn as_bool(&self) -> Option<bool> {
        todo!()
    }
    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        todo!()
    }
    /// Members of an object, elements of an array; 0 for anything else.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// A member of an object.
    pub fn get(&self, _name: &str) -> Option<Node<'d, 'a>> {
        todo!()
    }
    /// An element of an array.
    pub fn index(&self, _index: usize) -> Option<Node<'d, 'a>> {
        todo!()
    }
    /// Members in the source's order; none unless it is an object.
    pub fn members(&self) -> Members<'d, 'a> {
        todo!()
    }
    /// Elements in order; none unless it is an array.
    pub fn elements(&self) -> Elements<'d, 'a> {
        todo!()
    }
    /// The value that the pointer names, seen from this one.
    pub fn at(&self, _pointer: &Pointer) -> Option<Node<'d, 'a>> {
        let _ = (self.document, self.at);
        todo!()
    }
}

/// Members of an object.
#[derive(Clone, Debug)]
pub struct Members<'d, 'a>(Node<'d, 'a>);

impl<'d, 'a> Iterator for Members<'d, 'a> {
    type Item = (&'d str, Node<'d, 'a>);
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}

/// Elements of an array.
#[derive(Clone, Debug)]
pub struct Elements<'d, 'a>(Node<'d, 'a>);

impl<'d, 'a> Iterator for Elements<'d, 'a> {
    type Item = Node<'d, 'a>;
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}
