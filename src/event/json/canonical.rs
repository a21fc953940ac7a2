//! The canonical form of a value: members sorted by the bytes of their names, one way of escaping, no white space.

use super::number::Decimal;
use super::{Item, Node};

/// How numbers appear in the canonical form.
#[derive(Clone, Copy, Debug)]
pub(in crate::event) enum Numbers {
    /// By the digits that were sent: `1` and `1.0` differ.
    AsSent,
    /// By their value: `1` and `1.0` are the same.
    ByValue,
}

/// Hands the canonical form to `put`, piece by piece. Recurses as deep as the document, which its limits bound.
pub(in crate::event) fn write_canonical(node: Node<'_, '_>, numbers: Numbers, put: &mut impl FnMut(&str)) {
    Writer { numbers, put, members: Vec::new() }.value(node);
}

struct Writer<'p, 'd, 'a, P> {
    numbers: Numbers,
    put: &'p mut P,
    /// The members of all objects that are being written, sorted, innermost last: one allocation for all of them.
    members: Vec<(&'d str, Node<'d, 'a>)>,
}

impl<'d, 'a, P: FnMut(&str)> Writer<'_, 'd, 'a, P> {
    fn value(&mut self, node: Node<'d, 'a>) {
        match node.item() {
            Item::Null => (self.put)("null"),
            Item::Bool(true) => (self.put)("true"),
            Item::Bool(false) => (self.put)("false"),
            Item::Number(digits) => match self.numbers {
                Numbers::AsSent => (self.put)(digits),
                Numbers::ByValue => Decimal::of(digits).write(&mut *self.put),
            },
            Item::Text(text) => self.string(text),
            Item::Array(_) => self.array(node),
            Item::Object(_) => self.object(node),
        }
    }

    fn array(&mut self, node: Node<'d, 'a>) {
        let mut before = "[";
        for element in node.elements() {
            (self.put)(before);
            before = ",";
            self.value(element);
        }
        (self.put)(if node.is_empty() { "[]" } else { "]" });
    }

    fn object(&mut self, node: Node<'d, 'a>) {
        let start = self.members.len();
        self.members.extend(node.members());
        let end = self.members.len();
        self.members[start..end].sort_unstable_by_key(|(name, _)| *name);
        let mut before = "{";
        for at in start..end {
            let (name, value) = self.members[at];
            (self.put)(before);
            before = ",";
            self.string(name);
            (self.put)(":");
            self.value(value);
        }
        self.members.truncate(start);
        (self.put)(if start == end { "{}" } else { "}" });
    }

    /// Quotes, backslashes and control characters are escaped; all else is itself.
    fn string(&mut self, text: &str) {
        (self.put)("\"");
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
            (self.put)(&rest[..at]);
            match rest.as_bytes()[at] {
                b'"' => (self.put)("\\\""),
                b'\\' => (self.put)("\\\\"),
                control => (self.put)(&format!("\\u{control:04x}")),
            }
            rest = &rest[at + 1..];
        }
        (self.put)(rest);
        (self.put)("\"");
    }
}
