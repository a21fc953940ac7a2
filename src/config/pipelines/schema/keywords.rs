//! The keywords of JSON Schema 2020-12, and where subschemas stand under them.

use serde_json::Value;

/// What stands under a keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// No schema.
    Plain,
    /// One schema.
    One,
    /// A list of schemas.
    List,
    /// Schemas by name.
    Map,
}

use Holds::{List, Map, One, Plain};

/// Keyword, what stands under it, and whether that applies to the same value as the schema around it.
pub(super) const KEYWORDS: &[(&str, Holds, bool)] = &[
    ("$schema", Plain, false),
    ("$id", Plain, false),
    ("$ref", Plain, true),
    ("$defs", Map, false),
    ("$comment", Plain, false),
    ("$vocabulary", Plain, false),
    ("$anchor", Plain, false),
    ("$dynamicRef", Plain, false),
    ("$dynamicAnchor", Plain, false),
    ("definitions", Map, false),
    ("allOf", List, true),
    ("anyOf", List, true),
    ("oneOf", List, true),
    ("not", One, true),
    ("if", One, true),
    ("then", One, true),
    ("else", One, true),
    ("dependentSchemas", Map, true),
    ("prefixItems", List, false),
    ("items", One, false),
    ("contains", One, false),
    ("properties", Map, false),
    ("patternProperties", Map, false),
    ("additionalProperties", One, false),
    ("propertyNames", One, false),
    ("unevaluatedItems", One, false),
    ("unevaluatedProperties", One, false),
    ("type", Plain, false),
    ("enum", Plain, false),
    ("const", Plain, false),
    ("multipleOf", Plain, false),
    ("maximum", Plain, false),
    ("exclusiveMaximum", Plain, false),
    ("minimum", Plain, false),
    ("exclusiveMinimum", Plain, false),
    ("maxLength", Plain, false),
    ("minLength", Plain, false),
    ("pattern", Plain, false),
    ("maxItems", Plain, false),
    ("minItems", Plain, false),
    ("uniqueItems", Plain, false),
    ("maxContains", Plain, false),
    ("minContains", Plain, false),
    ("maxProperties", Plain, false),
    ("minProperties", Plain, false),
    ("required", Plain, false),
    ("dependentRequired", Plain, false),
    ("format", Plain, false),
    ("contentEncoding", Plain, false),
    ("contentMediaType", Plain, false),
    ("contentSchema", One, false),
    ("title", Plain, false),
    ("description", Plain, false),
    ("default", Plain, false),
    ("deprecated", Plain, false),
    ("readOnly", Plain, false),
    ("writeOnly", Plain, false),
    ("examples", Plain, false),
];

/// A subschema with the keyword that it stands under.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sub<'s> {
    pub(super) value: &'s Value,
    pub(super) in_place: bool,
}

/// The schemas directly under this one, each with its pointer.
pub(super) fn subschemas<'s>(schema: &'s Value, pointer: &str) -> Vec<(String, Sub<'s>)> {
    let mut out = Vec::new();
    for (keyword, holds, in_place) in KEYWORDS {
        let Some(value) = schema.get(keyword) else { continue };
        let here = format!("{pointer}/{keyword}");
        let in_place = *in_place;
        match (holds, value) {
            (One, value) => out.push((here, Sub { value, in_place })),
            (List, Value::Array(items)) => {
                out.extend(items.iter().enumerate().map(|(at, value)| (format!("{here}/{at}"), Sub { value, in_place })));
            }
            (Map, Value::Object(members)) => {
                out.extend(
                    members.iter().map(|(name, value)| (format!("{here}/{}", escape(name)), Sub { value, in_place })),
                );
            }
            _ => {}
        }
    }
    out
}

/// A name as a token of a JSON Pointer.
pub(super) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
