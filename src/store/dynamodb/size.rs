//! Sizes by DynamoDB's own rule (developer guide, "Item sizes and formats").

use super::value::Value;
use crate::store::TooLarge;

/// The most bytes of an item: names and values.
pub(crate) const ITEM_BYTES_MAX: usize = 409_600;
/// The most bytes of a partition key's value, in a table or an index.
pub(crate) const PARTITION_KEY_BYTES_MAX: usize = 2_048;
/// The most bytes of a sort key's value, in a table or an index.
pub(crate) const SORT_KEY_BYTES_MAX: usize = 1_024;

/// An item's size.
pub(crate) fn item_bytes<'a>(attributes: impl Iterator<Item = (&'a str, &'a Value)>) -> usize {
    attributes.map(|(name, value)| name.len() + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Number(digits) => number_bytes(digits),
        Value::Bool(_) | Value::Null => 1,
        Value::List(values) => 3 + values.iter().map(|value| 1 + value_bytes(value)).sum::<usize>(),
        Value::Map(values) => map_bytes(values.iter().map(|(name, value)| (name.as_str(), value_bytes(value)))),
    }
}

/// A map's size from its names and the sizes of its values.
pub(crate) fn map_bytes<'a>(entries: impl Iterator<Item = (&'a str, usize)>) -> usize {
    3 + entries.map(|(name, bytes)| 1 + name.len() + bytes).sum::<usize>()
}

/// Plain decimals only: one byte, one for every two significant digits on each side of the point, one for a minus.
pub(crate) fn number_bytes(digits: &str) -> usize {
    let (sign, digits) = digits.strip_prefix('-').map_or((0, digits), |rest| (1, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (mut whole, mut fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if fraction.is_empty() {
        whole = whole.trim_end_matches('0');
    }
    if whole.is_empty() {
        fraction = fraction.trim_start_matches('0');
    }
    let nothing = whole.is_empty() && fraction.is_empty();
    1 + whole.len().div_ceil(2) + fraction.len().div_ceil(2) + if nothing { 0 } else { sign }
}

/// Refuses what is over its limit; `what` is only called then.
pub(crate) fn limit(bytes: usize, limit: usize, what: impl FnOnce() -> String) -> Result<(), TooLarge> {
    if bytes <= limit { Ok(()) } else { Err(TooLarge { what: what(), bytes, limit }) }
}

#[cfg(all(test, feature = "embedded"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            ".*".prop_map(Value::Text),
            "-?[0-9]{1,19}(\\.[0-9]{1,18})?".prop_map(Value::Number),
            any::<bool>().prop_map(Value::Bool),
            Just(Value::Null),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                proptest::collection::btree_map(".{0,8}", inner, 0..4)
                    .prop_map(|map| Value::Map(map.into_iter().collect())),
            ]
        })
    }

    /// The embedded server's own measure, by way of its JSON form.
    fn reference(value: &Value) -> usize {
        fn json(value: &Value) -> serde_json::Value {
            match value {
                Value::Text(text) => serde_json::json!({ "S": text }),
                Value::Number(digits) => serde_json::json!({ "N": digits }),
                Value::Bool(flag) => serde_json::json!({ "BOOL": flag }),
                Value::Null => serde_json::json!({ "NULL": true }),
                Value::List(values) => serde_json::json!({ "L": values.iter().map(json).collect::<Vec<_>>() }),
                Value::Map(values) => {
                    let map: serde_json::Map<_, _> =
                        values.iter().map(|(name, value)| (name.clone(), json(value))).collect();
                    serde_json::json!({ "M": map })
                }
            }
        }
        serde_json::from_value::<dynoxide::AttributeValue>(json(value)).map_or(usize::MAX, |value| value.size())
    }

    proptest! {
        #[test]
        fn sizes_are_those_of_the_embedded_server(value in value()) {
            prop_assert_eq!(value_bytes(&value), reference(&value));
        }
    }

    #[test]
    fn numbers_lose_their_outer_zeros() {
        for (digits, bytes) in
            [("0", 1), ("1", 2), ("100", 2), ("101", 3), ("-1", 3), ("0.001", 2), ("1.5", 3), ("-0", 1)]
        {
            assert_eq!(number_bytes(digits), bytes, "{digits}");
        }
    }
}
