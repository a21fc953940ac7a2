//! Stored values, free of the vendor's types, and the digest over an item's attributes.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use sha2::{Digest as _, Sha256};

use crate::event::Digest;

/// A stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number by its digits.
    Number(String),
    /// True or false.
    Bool(bool),
    /// Nothing, as a value.
    Null,
    /// Values in order.
    List(Vec<Value>),
    /// Values by name, sorted and each name once: [`Value::map`] makes it so.
    Map(Vec<(String, Value)>),
}

/// An item as stored, by attribute name.
pub type Item = BTreeMap<String, Value>;

/// Attributes on their way into the store, sorted by name.
pub(crate) type Attributes = Vec<(&'static str, Value)>;

impl Value {
    /// Values by name, in whatever order they come; of a name given twice the last counts.
    pub fn map(mut entries: Vec<(String, Self)>) -> Self {
        // The fields of records come sorted.
        if !entries.is_sorted_by(|a, b| a.0 < b.0) {
            entries.reverse();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries.dedup_by(|later, first| later.0 == first.0);
        }
        Self::Map(entries)
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Bool(_) | Self::Null | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// The number, if it is one that fits.
    pub fn integer(&self) -> Option<u64> {
        match self {
            Self::Number(digits) => digits.parse().ok(),
            Self::Text(_) | Self::Bool(_) | Self::Null | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// In the vendor's form; texts are moved, not copied.
    pub(crate) fn into_attribute(self) -> AttributeValue {
        match self {
            Self::Text(text) => AttributeValue::S(text),
            Self::Number(digits) => AttributeValue::N(digits),
            Self::Bool(flag) => AttributeValue::Bool(flag),
            Self::Null => AttributeValue::Null(true),
            Self::List(values) => AttributeValue::L(values.into_iter().map(Self::into_attribute).collect()),
            Self::Map(values) => {
                AttributeValue::M(values.into_iter().map(|(name, value)| (name, value.into_attribute())).collect())
            }
        }
    }

    /// From the vendor's form; `None` for kinds that nothing here ever stores (sets, bytes).
    pub(crate) fn from_attribute(attribute: AttributeValue) -> Option<Self> {
        Some(match attribute {
            AttributeValue::S(text) => Self::Text(text),
            AttributeValue::N(digits) => Self::Number(digits),
            AttributeValue::Bool(flag) => Self::Bool(flag),
            AttributeValue::Null(_) => Self::Null,
            AttributeValue::L(values) => {
                Self::List(values.into_iter().map(Self::from_attribute).collect::<Option<_>>()?)
            }
            AttributeValue::M(values) => {
                let entry = |(name, value)| Some((name, Self::from_attribute(value)?));
                Self::map(values.into_iter().map(entry).collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }

    fn hash_into(&self, hash: &mut Sha256) {
        match self {
            Self::Text(text) => hash_part(hash, b'S', text),
            Self::Number(digits) => hash_part(hash, b'N', digits),
            Self::Bool(flag) => hash.update([b'B', u8::from(*flag)]),
            Self::Null => hash.update(b"0"),
            Self::List(values) => {
                hash_count(hash, b'L', values.len());
                values.iter().for_each(|value| value.hash_into(hash));
            }
            Self::Map(values) => {
                hash_count(hash, b'M', values.len());
                for (name, value) in values {
                    hash_part(hash, b'K', name);
                    value.hash_into(hash);
                }
            }
        }
    }
}

/// Texts and numbers as they are (a number beyond 64 bits as a text), the rest as in JSON.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(digits) => match digits.parse::<u64>() {
                Ok(number) => serializer.serialize_u64(number),
                Err(_) => serializer.serialize_str(digits),
            },
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Null => serializer.serialize_unit(),
            Self::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    list.serialize_element(value)?;
                }
                list.end()
            }
            Self::Map(values) => {
                let mut map = serializer.serialize_map(Some(values.len()))?;
                for (name, value) in values {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

/// A whole item from the vendor's form; `None` where a value is of a kind that nothing here stores.
pub(crate) fn item_from_attributes(attributes: HashMap<String, AttributeValue>) -> Option<Item> {
    attributes.into_iter().map(|(name, value)| Some((name, Value::from_attribute(value)?))).collect()
}

/// The attribute that holds the digest over all others.
pub(crate) const RECORD_DIGEST: &str = "record_digest";

/// SHA-256 over every attribute but `record_digest`: in the names' order, each name and value with its kind and length in
/// front. The attributes must come sorted by name.
pub fn record_digest<'a>(attributes: impl Iterator<Item = (&'a str, &'a Value)>) -> Digest {
    let mut hash = Sha256::new();
    for (name, value) in attributes.filter(|(name, _)| *name != RECORD_DIGEST) {
        hash_part(&mut hash, b'A', name);
        value.hash_into(&mut hash);
    }
    Digest(hash.finalize().into())
}

fn hash_part(hash: &mut Sha256, kind: u8, text: &str) {
    hash_count(hash, kind, text.len());
    hash.update(text.as_bytes());
}

fn hash_count(hash: &mut Sha256, kind: u8, count: usize) {
    hash.update([kind]);
    hash.update((count as u64).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(pairs: &[(&str, Value)]) -> Item {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn digest(item: &Item) -> Digest {
        record_digest(item.iter().map(|(name, value)| (name.as_str(), value)))
    }

    #[test]
    fn the_digest_sees_every_attribute_but_itself() {
        let text = |text: &str| Value::Text(text.to_owned());
        let base = item(&[("a", text("1")), ("b", text("2"))]);
        let mut with_own = base.clone();
        with_own.insert(RECORD_DIGEST.to_owned(), text("whatever"));
        assert_eq!(digest(&base), digest(&with_own));
        for other in [
            item(&[("a", text("12")), ("b", text(""))]),
            item(&[("a", text("1"))]),
            item(&[("a", Value::Number("1".into())), ("b", text("2"))]),
            item(&[("a", Value::List(vec![text("1")])), ("b", text("2"))]),
            item(&[("a", text("1")), ("c", text("2"))]),
        ] {
            assert_ne!(digest(&base), digest(&other), "{other:?}");
        }
    }

    #[test]
    fn a_map_is_sorted_and_the_last_of_a_name_counts() {
        let entry = |name: &str, value: &str| (name.to_owned(), Value::Text(value.to_owned()));
        let unsorted = vec![entry("b", "1"), entry("a", "2"), entry("b", "3")];
        assert_eq!(Value::map(unsorted), Value::Map(vec![entry("a", "2"), entry("b", "3")]));
        let twice = vec![entry("a", "1"), entry("a", "2")];
        assert_eq!(Value::map(twice), Value::Map(vec![entry("a", "2")]));
    }

    #[test]
    fn the_digest_never_changes_between_versions() {
        let fields = [("amount".to_owned(), Value::Text("1".into()))].into_iter().collect();
        let item = item(&[("fields", Value::Map(fields)), ("format", Value::Number("1".into()))]);
        assert_eq!(digest(&item).hex(), "dc56ac2f7b92bb2c79198395d9cd28149354a92fc28315aa8144faf140bb55e5");
    }

    #[test]
    fn items_become_json() {
        let item = item(&[("format", Value::Number("1".into())), ("tags", Value::List(vec![Value::Text("x".into())]))]);
        assert_eq!(serde_json::to_string(&item).unwrap(), r#"{"format":1,"tags":["x"]}"#);
    }
}
