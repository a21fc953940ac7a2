//! The borrowed document as the JSON Schema validator sees it, so that events are validated without being built again.
//!
//! Integers of any size and decimals keep their digits wherever the validator asks about the instance: type, uniqueness,
//! and equality with 64-bit integers. Bounds (`minimum`, `multipleOf`, ...) and constants beyond 64 bits compare as 64-bit
//! floats, because that is what a schema can hold.

use std::borrow::Cow;
use std::collections::HashSet;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, JsonNumber, Node as JsonNode, NodeIdentity, Object};
use serde_json::{Number, Value};

use super::number::Decimal;
use super::{Document, Elements, Item, Kind, Members, Node, Numbers, write_canonical};

/// The representation's marker: `jsonschema::options_for::<Borrowed>()` builds validators of [`Node`].
#[derive(Clone, Copy, Debug)]
pub struct Borrowed;

/// A document of one string, filled again for each property name that is validated.
#[derive(Debug)]
pub struct NameBuffer(Document<'static>);

impl Default for NameBuffer {
    fn default() -> Self {
        Self(Document { items: vec![Item::Null] })
    }
}

impl Json for Borrowed {
    type Node<'a> = Node<'a, 'a>;
    type PreparedKey = String;
    type StringBuffer = NameBuffer;

    // A lookup walks the members, so that one pass over an object of a usual size is cheaper than a few lookups.
    const KEYS_PER_LOOKUP: usize = 8;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(buffer: &mut NameBuffer, string: &str, f: impl FnOnce(Self::Node<'_>) -> T) -> T {
        buffer.0.items.clear();
        buffer.0.items.push(Item::Text(Cow::Owned(string.to_owned())));
        f(buffer.0.root())
    }
}

/// A number by its digits.
#[derive(Clone, Copy, Debug)]
pub struct Digits<'a>(&'a str);

impl JsonNumber for Digits<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    fn as_f64(&self) -> Option<f64> {
        self.0.parse().ok().filter(|value: &f64| value.is_finite())
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0)
    }

    /// For error messages only: the nearest number that serde_json can hold.
    fn to_number(&self) -> Cow<'_, Number> {
        let largest = if self.0.starts_with('-') { f64::MIN } else { f64::MAX };
        Cow::Owned(
            self.as_u64()
                .map(Number::from)
                .or_else(|| self.as_i64().map(Number::from))
                .or_else(|| Number::from_f64(self.as_f64().unwrap_or(largest)))
                .unwrap_or_else(|| Number::from(0)),
        )
    }

    fn is_integer(&self) -> bool {
        Decimal::of(self.0).is_integer()
    }
}

impl Digits<'_> {
    fn equals(&self, expected: &Number) -> bool {
        if expected.is_f64() {
            return self.as_f64() == expected.as_f64();
        }
        value_form(self.0) == value_form(&expected.to_string())
    }
}

/// The form that all spellings of a number's value share.
fn value_form(number: &str) -> String {
    let mut form = String::new();
    Decimal::of(number).write(|piece| form.push_str(piece));
    form
}

impl<'a> JsonNode<'a, Borrowed> for Node<'a, 'a> {
    type Object = Node<'a, 'a>;
    type Array = Node<'a, 'a>;
    type Number = Digits<'a>;

    fn as_object(&self) -> Option<Self> {
        (self.kind() == Kind::Object).then_some(*self)
    }

    fn as_array(&self) -> Option<Self> {
        (self.kind() == Kind::Array).then_some(*self)
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        self.as_str().map(Cow::Borrowed)
    }

    fn as_number(&self) -> Option<Digits<'a>> {
        Node::as_number(self).map(Digits)
    }

    fn as_boolean(&self) -> Option<bool> {
        self.as_bool()
    }

    fn is_null(&self) -> bool {
        Node::is_null(self)
    }

    fn json_type(&self) -> JsonType {
        match self.kind() {
            Kind::Null => JsonType::Null,
            Kind::Bool => JsonType::Boolean,
            Kind::Number => JsonType::Number,
            Kind::String => JsonType::String,
            Kind::Array => JsonType::Array,
            Kind::Object => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match (self.item(), expected) {
            (Item::Null, Value::Null) => true,
            (Item::Bool(mine), Value::Bool(theirs)) => mine == theirs,
            (Item::Number(mine), Value::Number(theirs)) => Digits(mine).equals(theirs),
            (Item::Text(mine), Value::String(theirs)) => mine == theirs,
            (Item::Array(_), Value::Array(theirs)) => {
                self.len() == theirs.len()
                    && self.elements().zip(theirs).all(|(mine, theirs)| mine.equals_value(theirs))
            }
            (Item::Object(_), Value::Object(theirs)) => {
                self.len() == theirs.len()
                    && self
                        .members()
                        .all(|(name, mine)| theirs.get(name).is_some_and(|theirs| mine.equals_value(theirs)))
            }
            _ => false,
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(match self.item() {
            Item::Null => Value::Null,
            Item::Bool(value) => Value::Bool(*value),
            Item::Number(digits) => Value::Number(Digits(digits).to_number().into_owned()),
            Item::Text(text) => Value::String(text.to_string()),
            Item::Array(_) => Value::Array(self.elements().map(|element| element.to_value().into_owned()).collect()),
            Item::Object(_) => Value::Object(
                self.members().map(|(name, value)| (name.to_owned(), value.to_value().into_owned())).collect(),
            ),
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref(self.item()) as usize))
    }
}

impl<'a> Object<'a, Borrowed> for Node<'a, 'a> {
    type Node = Node<'a, 'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a, 'a>;

    fn len(&self) -> usize {
        Node::len(self)
    }

    fn get(&self, key: &String) -> Option<Self> {
        Node::get(self, key)
    }

    fn members(&self) -> Members<'a, 'a> {
        Node::members(self)
    }
}

impl<'a> Array<'a, Borrowed> for Node<'a, 'a> {
    type Node = Node<'a, 'a>;
    type ElementsIter = Elements<'a, 'a>;

    fn len(&self) -> usize {
        Node::len(self)
    }

    fn elements(&self) -> Elements<'a, 'a> {
        Node::elements(self)
    }

    fn is_unique(&self) -> bool {
        let mut seen = HashSet::with_capacity(Node::len(self));
        Node::elements(self).all(|element| {
            let mut form = String::new();
            write_canonical(element, Numbers::ByValue, &mut |piece: &str| form.push_str(piece));
            seen.insert(form)
        })
    }
}
