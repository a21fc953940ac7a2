//! Values of a document.

use super::{Document, Item, Pointer};

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

/// One value of a document: two words, copied freely. `'d` is the document's life, `'a` the payload's.
#[derive(Clone, Copy, Debug)]
pub struct Node<'d, 'a> {
    document: &'d Document<'a>,
    at: usize,
}

impl<'d, 'a> Node<'d, 'a> {
    /// The value at item `at`, which exists: a document has at least one value.
    pub(super) fn new(document: &'d Document<'a>, at: usize) -> Self {
        Self { document, at }
    }

    pub(super) fn item(&self) -> &'d Item<'a> {
        &self.document.items[self.at]
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self.item() {
            Item::Null => Kind::Null,
            Item::Bool(_) => Kind::Bool,
            Item::Number(_) => Kind::Number,
            Item::Text(_) => Kind::String,
            Item::Array(_) => Kind::Array,
            Item::Object(_) => Kind::Object,
        }
    }

    /// The string, unescaped; `None` for anything else.
    pub fn as_str(&self) -> Option<&'d str> {
        if let Item::Text(text) = self.item() { Some(text) } else { None }
    }

    /// The number exactly as sent; `None` for anything else.
    pub fn as_number(&self) -> Option<&'a str> {
        if let Item::Number(digits) = self.item() { Some(digits) } else { None }
    }

    /// The boolean; `None` for anything else.
    pub fn as_bool(&self) -> Option<bool> {
        if let Item::Bool(value) = self.item() { Some(*value) } else { None }
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self.item(), Item::Null)
    }

    /// Members of an object or elements of an array; 0 for anything else.
    pub fn len(&self) -> usize {
        match self.item() {
            Item::Array(extent) | Item::Object(extent) => extent.len,
            _ => 0,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The member of that name; `None` where there is none, or where this is no object. Linear in the members.
    pub fn get(&self, name: &str) -> Option<Node<'d, 'a>> {
        self.members().find_map(|(member, value)| (member == name).then_some(value))
    }

    /// The element at that index, from 0; `None` where there is none, or where this is no array. Linear in the index.
    pub fn index(&self, index: usize) -> Option<Node<'d, 'a>> {
        self.elements().nth(index)
    }

    /// Names and values in the source's order; none unless it is an object.
    pub fn members(&self) -> Members<'d, 'a> {
        let left = if let Item::Object(extent) = self.item() { extent.len } else { 0 };
        Members { document: self.document, at: self.at + 1, left }
    }

    /// Elements in order; none unless it is an array.
    pub fn elements(&self) -> Elements<'d, 'a> {
        let left = if let Item::Array(extent) = self.item() { extent.len } else { 0 };
        Elements { document: self.document, at: self.at + 1, left }
    }

    /// The value that the pointer names, seen from this one. Allocates nothing.
    pub fn at(&self, pointer: &Pointer) -> Option<Node<'d, 'a>> {
        pointer.steps().iter().try_fold(*self, |node, step| match node.item() {
            Item::Object(_) => node.get(&step.name),
            Item::Array(_) => node.index(step.index?),
            _ => None,
        })
    }

    /// The item behind this value and all that is inside it.
    fn end(&self) -> usize {
        match self.item() {
            Item::Array(extent) | Item::Object(extent) => extent.end,
            _ => self.at + 1,
        }
    }
}

/// Names and values of an object.
#[derive(Clone, Debug)]
pub struct Members<'d, 'a> {
    document: &'d Document<'a>,
    at: usize,
    left: usize,
}

impl<'d, 'a> Iterator for Members<'d, 'a> {
    type Item = (&'d str, Node<'d, 'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = Node::new(self.document, self.at).as_str()?;
        let value = Node::new(self.document, self.at + 1);
        self.at = value.end();
        Some((name, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Elements of an array.
#[derive(Clone, Debug)]
pub struct Elements<'d, 'a> {
    document: &'d Document<'a>,
    at: usize,
    left: usize,
}

impl<'d, 'a> Iterator for Elements<'d, 'a> {
    type Item = Node<'d, 'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let element = Node::new(self.document, self.at);
        self.at = element.end();
        Some(element)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
