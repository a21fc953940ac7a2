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

#[cfg(test)]
pub(super) fn value_of(node: Node<'_, '_>) -> Value {
    JsonNode::to_value(&node).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::json::{Limits, tests::values};
    use proptest::prelude::*;
    use serde_json::json;

    fn document(text: &str) -> Document<'_> {
        Document::parse(text.as_bytes(), &Limits::default()).unwrap()
    }

    fn is_valid(schema: &Value, text: &str) -> bool {
        jsonschema::options_for::<Borrowed>().build(schema).unwrap().is_valid(document(text).root())
    }

    #[test]
    fn events_are_validated_where_they_lie() {
        let schema = json!({
            "type": "object",
            "required": ["wallet_id", "version"],
            "additionalProperties": false,
            "propertyNames": {"maxLength": 9},
            "properties": {
                "wallet_id": {"type": "string", "pattern": "^evm:", "maxLength": 9},
                "version": {"oneOf": [{"type": "integer", "minimum": 0}, {"type": "array", "items": {"type": "integer"}}]},
                "role": {"enum": ["owner", "viewer"]}
            }
        });
        assert!(is_valid(
            &schema,
            r#"{"wallet_id":"evm:\u00e9\u00e9\u00e9\u00e9\u00e9","version":18446744073709551616}"#
        ));
        assert!(is_valid(&schema, r#"{"wallet_id":"evm:1","version":[1,2],"role":"owner"}"#));
        for bad in [
            r#"{"wallet_id":"evm:1"}"#,
            r#"{"wallet_id":"sol:1","version":1}"#,
            r#"{"wallet_id":"evm:123456","version":1}"#,
            r#"{"wallet_id":"evm:1","version":-1}"#,
            r#"{"wallet_id":"evm:1","version":1.5}"#,
            r#"{"wallet_id":"evm:1","version":[1,"2"]}"#,
            r#"{"wallet_id":"evm:1","version":1,"role":"Owner"}"#,
            r#"{"wallet_id":"evm:1","version":1,"extra":1}"#,
            "[]",
        ] {
            assert!(!is_valid(&schema, bad), "{bad}");
        }
    }

    #[test]
    fn an_error_says_where_and_why() {
        let schema = json!({"properties": {"a": {"items": {"type": "string"}}}});
        let validator = jsonschema::options_for::<Borrowed>().build(&schema).unwrap();
        let document = document(r#"{"a":["x",5]}"#);
        let error = validator.validate(document.root()).unwrap_err();
        assert_eq!(error.instance_path().to_string(), "/a/1");
        assert_eq!(error.to_string(), "5 is not of type \"string\"");
    }

    /// Equal for a float, different by their digits.
    #[test]
    fn numbers_are_compared_exactly() {
        let unique = json!({"uniqueItems": true});
        assert!(is_valid(&unique, "[18446744073709551617,18446744073709551618,0.1,0.10000000000000000001]"));
        assert!(!is_valid(&unique, "[18446744073709551617,18446744073709551617.0]"));
        assert!(!is_valid(&unique, r#"[{"a":1,"b":[]},{"b":[],"a":10e-1}]"#));
        assert!(!is_valid(&unique, "[0,-0.0]"));

        let constant = json!({"const": 9_007_199_254_740_993_u64});
        assert!(is_valid(&constant, "9007199254740993"));
        assert!(!is_valid(&constant, "9007199254740992"));
        let inside = json!({"const": [9_007_199_254_740_993_u64]});
        assert!(is_valid(&inside, "[9007199254740993.0]"));
        assert!(!is_valid(&inside, "[9007199254740993.00000001]"));
        assert!(is_valid(&json!({"const": 0.1}), "0.10"));

        let integer = json!({"type": "integer"});
        for text in ["18446744073709551616", "1.0", "1e400", "-0"] {
            assert!(is_valid(&integer, text), "{text}");
        }
        assert!(!is_valid(&integer, "9007199254740993.1"));
        assert!(!is_valid(&json!({"maximum": 10}), "1e400"));
        assert!(is_valid(&json!({"maximum": 10}), "-1e400"));
    }

    /// What the validator relies on and its own checks look at: see `jsonschema::json::conformance`.
    #[test]
    fn nodes_keep_the_validators_contract() {
        let text = r#"{"string":"h\u00e9llo","integer":42,"float":1.5,"object":{"nested":"value"},"array":[10,20]}"#;
        let document = document(text);
        let root = document.root();
        let member = |name: &str| Object::get(&root, &Borrowed::prepare_key(name)).unwrap();
        assert!(Object::get(&root, &Borrowed::prepare_key("missing")).is_none());
        assert_eq!(member("string").string_length(), Some(5));
        assert_eq!(member("integer").string_length(), None);
        let integer = JsonNode::as_number(&member("integer")).unwrap();
        assert_eq!((integer.as_u64(), integer.as_i64(), integer.as_f64()), (Some(42), Some(42), Some(42.0)));
        assert_eq!(integer.to_number().as_ref(), &Number::from(42));
        let float = JsonNode::as_number(&member("float")).unwrap();
        assert_eq!((float.as_u64(), float.as_i64(), float.as_f64()), (None, None, Some(1.5)));
        assert!(!float.is_integer());
        assert!(member("integer").equals_value(&json!(42.0)) && !member("integer").equals_value(&json!(43)));
        assert!(member("object").equals_value(&json!({"nested": "value"})));
        assert!(!member("object").equals_value(&json!({"nested": "value", "more": 1})));
        assert_eq!(root.identity(), document.root().identity());
        assert_eq!(member("object").identity(), member("object").identity());
        assert_ne!(member("object").identity(), root.identity());
        assert_ne!(member("object").identity(), member("array").identity());
        let mut buffer = NameBuffer::default();
        for name in ["héllo", "", "second"] {
            Borrowed::with_string_node(&mut buffer, name, |node| assert_eq!(node.as_str(), Some(name)));
        }
    }

    proptest! {
        #[test]
        fn a_value_equals_itself_and_serde_json_agrees_on_others(first in values(), second in values()) {
            let (text, other) = (first.to_string(), second.to_string());
            prop_assert!(document(&text).root().equals_value(&first));
            let equal = jsonschema::json::cmp::equal(&first, &second);
            prop_assert_eq!(document(&text).root().equals_value(&second), equal);
            let pair = format!("[{text},{other}]");
            prop_assert_eq!(Array::is_unique(&document(&pair).root()), !equal);
        }
    }
}
