//! Values taken from an event: texts, attributes of states, filled templates.

use super::decode::{Event, Found};
use super::template::{Part, Template};
use crate::config::pipelines::ValueSpec;
use crate::event::{
    Kind, Node, Pointer, Reason, Refusal, StateValue, WalletId, canonical_address, canonical_amount,
};

/// An event with what its values may refer to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'d, 't> {
    pub(super) event: Event<'d>,
    /// The event's time in the stored form.
    pub(super) time: &'t str,
}

/// A refusal for the mapping, naming where.
pub(super) fn refuse(at: impl std::fmt::Display, why: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::Mapping, format!("{at}: {why}"))
}

/// A refusal of the event's rules, with where it was met.
fn placed(at: &impl std::fmt::Display, refusal: Refusal) -> Refusal {
    Refusal::new(refusal.reason, format!("{at}: {}", refusal.detail))
}

impl<'d> Values<'d, '_> {
    /// Present and not null.
    pub(super) fn present(&self, pointer: &Pointer) -> Option<Found<'d>> {
        self.event.at(pointer)?.not_null()
    }

    /// Whether a condition holds; none holds.
    pub(super) fn holds(&self, when: Option<&Pointer>) -> bool {
        when.is_none_or(|pointer| self.present(pointer).is_some())
    }

    /// The node at a pointer that must be there.
    pub(super) fn node(&self, pointer: &Pointer) -> Result<Node<'d, 'd>, Refusal> {
        match self.present(pointer) {
            Some(Found::Json(node)) => Ok(node),
            Some(Found::Text(_)) => Err(refuse(pointer, "an attribute of the envelope cannot stand here")),
            None => Err(refuse(pointer, "nothing there")),
        }
    }

    /// The scalar at a pointer; `None` for null and what is absent.
    pub(super) fn scalar(&self, pointer: &Pointer) -> Result<Option<&'d str>, Refusal> {
        match self.present(pointer) {
            None => Ok(None),
            Some(found) => found.scalar().map(Some).ok_or_else(|| refuse(pointer, "an array or object cannot stand here")),
        }
    }

    /// A template with its holes filled.
    pub(super) fn fill(&self, template: &Template) -> Result<String, Refusal> {
        fill(&self.event, template)
    }

    /// A wallet's canonical id.
    pub(super) fn wallet(&self, template: &Template) -> Result<WalletId, Refusal> {
        WalletId::parse(&self.fill(template)?).map_err(|refusal| placed(template, refusal))
    }

    /// A value as a text; `None` where there is none. `chain` is the wallet's, for addresses.
    pub(super) fn text(&self, spec: &ValueSpec, chain: Option<&str>) -> Result<Option<String>, Refusal> {
        match spec {
            ValueSpec::At(pointer) => Ok(match self.present(pointer) {
                None => None,
                Some(found) => Some(match (found.scalar(), found) {
                    (Some(text), _) => text.to_owned(),
                    (None, Found::Json(node)) => {
                        let mut out = String::new();
                        write_json(node, &mut out);
                        out
                    }
                    (None, Found::Text(text)) => text.to_owned(),
                }),
            }),
            ValueSpec::Literal(text) => Ok(Some(text.clone())),
            ValueSpec::Template(template) => self.fill(template).map(Some),
            ValueSpec::Amount(pointer) => {
                let Some(found) = self.present(pointer) else { return Ok(None) };
                let digits = match found {
                    Found::Text(text) => Some(text),
                    Found::Json(node) => node.as_number().or_else(|| node.as_str()),
                };
                let digits = digits.ok_or_else(|| refuse(pointer, "an amount is a number or a text of digits"))?;
                canonical_amount(digits)
                    .map(|amount| Some(amount.to_owned()))
                    .map_err(|refusal| placed(pointer, refusal))
            }
            ValueSpec::Address(pointer) => {
                let Some(address) = self.scalar(pointer)? else { return Ok(None) };
                let chain = chain.ok_or_else(|| refuse(pointer, "no wallet tells the address's chain"))?;
                canonical_address(chain, address).map(Some).map_err(|refusal| placed(pointer, refusal))
            }
            ValueSpec::EventTime => Ok(Some(self.time.to_owned())),
        }
    }

    /// A value as an attribute of a state: arrays of texts are lists, objects of texts are maps sorted by name.
    pub(super) fn state(&self, spec: &ValueSpec, chain: &str) -> Result<Option<StateValue>, Refusal> {
        if let ValueSpec::At(pointer) = spec
            && let Some(Found::Json(node)) = self.present(pointer)
        {
            let only_texts = || refuse(pointer, "lists and tables may hold texts only");
            match node.kind() {
                Kind::Array => {
                    let texts = node.elements().map(|item| item.as_str().map(str::to_owned));
                    return texts.collect::<Option<_>>().map(|list| Some(StateValue::List(list))).ok_or_else(only_texts);
                }
                Kind::Object => {
                    let texts = node.members().map(|(name, item)| Some((name.to_owned(), item.as_str()?.to_owned())));
                    let mut map: Vec<_> = texts.collect::<Option<_>>().ok_or_else(only_texts)?;
                    map.sort();
                    return Ok(Some(StateValue::Map(map)));
                }
                Kind::Null | Kind::Bool | Kind::Number | Kind::String => {}
            }
        }
        Ok(self.text(spec, Some(chain))?.map(StateValue::Text))
    }
}

/// A template with its holes filled from an event.
pub(super) fn fill(event: &Event<'_>, template: &Template) -> Result<String, Refusal> {
    let mut out = String::with_capacity(96);
    for part in template.parts() {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::At(pointer) => {
                let found = event.at(pointer).and_then(Found::not_null).ok_or_else(|| refuse(pointer, "nothing there"))?;
                let text = found.scalar().ok_or_else(|| refuse(pointer, "an array or object cannot stand here"))?;
                out.push_str(text);
            }
        }
    }
    Ok(out)
}

/// JSON without white space, members in the source's order, numbers by their digits. The parser bounds the depth.
fn write_json(node: Node<'_, '_>, out: &mut String) {
    let quote = |text: &str, out: &mut String| out.push_str(&serde_json::Value::from(text).to_string());
    match node.kind() {
        Kind::Null => out.push_str("null"),
        Kind::Bool => out.push_str(if node.as_bool() == Some(true) { "true" } else { "false" }),
        Kind::Number => out.push_str(node.as_number().unwrap_or_default()),
        Kind::String => quote(node.as_str().unwrap_or_default(), out),
        Kind::Array => {
            out.push('[');
            for (at, item) in node.elements().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_json(item, out);
            }
            out.push(']');
        }
        Kind::Object => {
            out.push('{');
            for (at, (name, item)) in node.members().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                quote(name, out);
                out.push(':');
                write_json(item, out);
            }
            out.push('}');
        }
    }
}
