//! Whether a schema leaves room for a value at a pointer.

use serde_json::{Map, Value};

use super::SchemaSpec;
use super::check::spot_of;
use crate::config::nearest;

/// What a schema says about a value somewhere inside what it describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config::pipelines) enum Reach {
    /// It describes the value.
    Described,
    /// It says nothing; the name that it does describe and that is nearest.
    Unmentioned(Option<String>),
    /// There can be no such value; the nearest name.
    RuledOut(Option<String>),
}

impl Reach {
    /// What two schemas say together that both apply.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::RuledOut(near), Self::RuledOut(other)) => Self::RuledOut(near.or(other)),
            (ruled @ Self::RuledOut(_), _) | (_, ruled @ Self::RuledOut(_)) => ruled,
            (Self::Described, _) | (_, Self::Described) => Self::Described,
            (Self::Unmentioned(near), Self::Unmentioned(other)) => Self::Unmentioned(near.or(other)),
        }
    }
}

impl SchemaSpec {
    /// What the schema says about the value that these tokens lead to.
    pub(in crate::config::pipelines) fn reach(&self, tokens: &[&str]) -> Reach {
        self.reach_from(&self.files[0].value, tokens)
    }

    // Ends: a whole schema has no circle without a step into the value, and each such step takes a token.
    fn reach_from(&self, schema: &Value, tokens: &[&str]) -> Reach {
        let members = match schema {
            Value::Bool(false) => return Reach::RuledOut(None),
            Value::Object(members) => members,
            _ => return Reach::Unmentioned(None),
        };
        let Some((token, rest)) = tokens.split_first() else { return Reach::Described };
        let mut reach = self.reach_here(members, token, rest);
        let referred = members.get("$ref").and_then(Value::as_str).and_then(spot_of);
        if let Some(target) = referred.and_then(|(file, pointer)| self.files.get(file)?.value.pointer(&pointer)) {
            reach = reach.and(self.reach_from(target, tokens));
        }
        for part in members.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            reach = reach.and(self.reach_from(part, tokens));
        }
        for keyword in ["anyOf", "oneOf"] {
            for choice in members.get(keyword).and_then(Value::as_array).into_iter().flatten() {
                // A choice that rules the value out leaves the others.
                if self.reach_from(choice, tokens) == Reach::Described {
                    reach = reach.and(Reach::Described);
                }
            }
        }
        reach
    }

    /// What the schema's own keywords say.
    fn reach_here(&self, members: &Map<String, Value>, token: &str, rest: &[&str]) -> Reach {
        let index: Option<usize> = token.parse().ok();
        let object = allows(members, "object");
        let array = allows(members, "array") && index.is_some();
        if !object && !array {
            return Reach::RuledOut(None);
        }
        if let (true, Some(index)) = (array && !object, index) {
            let prefix = members.get("prefixItems").and_then(|items| items.get(index));
            let item = prefix.or_else(|| members.get("items"));
            return item.map_or(Reach::Unmentioned(None), |item| self.reach_from(item, rest));
        }
        let properties = members.get("properties").and_then(Value::as_object);
        if let Some(property) = properties.and_then(|properties| properties.get(token)) {
            return self.reach_from(property, rest);
        }
        let near = nearest(token, properties.into_iter().flat_map(|properties| properties.keys()).map(String::as_str))
            .map(str::to_owned);
        if members.contains_key("patternProperties") || array {
            return Reach::Unmentioned(near);
        }
        match members.get("additionalProperties") {
            Some(Value::Bool(false)) => Reach::RuledOut(near),
            Some(additional @ Value::Object(_)) => self.reach_from(additional, rest),
            _ => Reach::Unmentioned(near),
        }
    }
}

/// Whether `type` allows this type.
fn allows(members: &Map<String, Value>, kind: &str) -> bool {
    match members.get("type") {
        Some(Value::String(only)) => only == kind,
        Some(Value::Array(some)) => some.iter().any(|one| one == kind),
        _ => true,
    }
}
