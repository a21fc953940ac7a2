//! The first stage: a value as its route's format reads it.

use std::cell::OnceCell;

use super::route::Delivery;
use crate::config::pipelines::Format;
use crate::event::{Document, Envelope, Kind, Limits, Node, Pointer, Reason, Refusal, envelope, unframe};

/// A value of JSON, or an attribute that came as a header.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'d> {
    /// Part of a document.
    Json(Node<'d, 'd>),
    /// An attribute of a binary event.
    Text(&'d str),
}

impl<'d> Found<'d> {
    /// `None` for JSON's null.
    pub(super) fn not_null(self) -> Option<Self> {
        match self {
            Self::Json(node) if node.is_null() => None,
            found => Some(found),
        }
    }

    /// Text as it is, numbers by their digits, booleans by name; `None` for null, arrays and objects.
    pub(super) fn scalar(self) -> Option<&'d str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Json(node) => match node.kind() {
                Kind::String => node.as_str(),
                Kind::Number => node.as_number(),
                Kind::Bool => node.as_bool().map(|value| if value { "true" } else { "false" }),
                Kind::Null | Kind::Array | Kind::Object => None,
            },
        }
    }
}

/// One decoded event. Pointers of a CloudEvent are over the whole event in both of its modes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'d> {
    /// A document of a foreign format.
    Document(Node<'d, 'd>),
    /// A CloudEvent that is one document.
    Structured(Envelope<'d>, Node<'d, 'd>),
    /// A CloudEvent whose attributes are headers and whose data is the document.
    Binary(Envelope<'d>, &'d [(&'d str, Option<&'d [u8]>)], Node<'d, 'd>),
}

impl<'d> Event<'d> {
    /// The value that a pointer names.
    pub(super) fn at(&self, pointer: &Pointer) -> Option<Found<'d>> {
        match *self {
            Self::Document(root) | Self::Structured(_, root) => root.at(pointer).map(Found::Json),
            Self::Binary(_, headers, data) => {
                let mut tokens = pointer.tokens();
                let first = tokens.next()?;
                if first == "data" {
                    return tokens.try_fold(data, step).map(Found::Json);
                }
                if tokens.next().is_some() {
                    return None;
                }
                attribute(headers, first).map(Found::Text)
            }
        }
    }

    /// What a schema describes and a content digest is over.
    pub(super) fn data(&self) -> Option<Node<'d, 'd>> {
        match *self {
            Self::Document(root) => Some(root),
            Self::Structured(_, root) => root.get("data"),
            Self::Binary(_, _, data) => Some(data),
        }
    }

    /// The envelope of a CloudEvent.
    pub(super) fn envelope(&self) -> Option<&Envelope<'d>> {
        match self {
            Self::Document(_) => None,
            Self::Structured(envelope, _) | Self::Binary(envelope, ..) => Some(envelope),
        }
    }
}

/// One step of a pointer.
fn step<'d>(node: Node<'d, 'd>, token: &str) -> Option<Node<'d, 'd>> {
    match node.kind() {
        Kind::Object => node.get(token),
        Kind::Array if token == "0" || !token.starts_with(['0', '+']) => node.index(token.parse().ok()?),
        Kind::Array | Kind::Null | Kind::Bool | Kind::Number | Kind::String => None,
    }
}

/// An attribute of a binary event; its media type has a header of another name. Case does not count in headers' names.
fn attribute<'d>(headers: &[(&str, Option<&'d [u8]>)], name: &str) -> Option<&'d str> {
    let is_it = |header: &str| match name {
        "datacontenttype" => header.eq_ignore_ascii_case("content-type"),
        _ => header
            .split_at_checked("ce_".len())
            .is_some_and(|(prefix, rest)| prefix.eq_ignore_ascii_case("ce_") && rest.eq_ignore_ascii_case(name)),
    };
    let (_, value) = headers.iter().find(|(header, _)| is_it(header))?;
    std::str::from_utf8((*value)?).ok()
}

/// One message with its documents, each parsed at most once however many routes look at it.
pub(super) struct Raw<'m> {
    pub(super) delivery: &'m Delivery<'m>,
    value: &'m [u8],
    limits: &'m Limits,
    plain: OnceCell<Result<Document<'m>, Refusal>>,
    framed: OnceCell<Result<Document<'m>, Refusal>>,
    framed_or_plain: OnceCell<Result<Document<'m>, Refusal>>,
}

impl<'m> Raw<'m> {
    pub(super) fn new(delivery: &'m Delivery<'m>, value: &'m [u8], limits: &'m Limits) -> Self {
        Self {
            delivery,
            value,
            limits,
            plain: OnceCell::new(),
            framed: OnceCell::new(),
            framed_or_plain: OnceCell::new(),
        }
    }

    fn plain(&self) -> Result<&Document<'m>, Refusal> {
        let parse = || match foreign_frame(self.value) {
            Some(refusal) => Err(refusal),
            None => Document::parse(self.value, self.limits),
        };
        self.plain.get_or_init(parse).as_ref().map_err(Refusal::clone)
    }

    fn framed(&self, allow_plain: bool) -> Result<&Document<'m>, Refusal> {
        let cell = if allow_plain { &self.framed_or_plain } else { &self.framed };
        let parse = || Document::parse(unframe(self.value, allow_plain)?, self.limits);
        cell.get_or_init(parse).as_ref().map_err(Refusal::clone)
    }

    /// The event as this format reads it.
    ///
    /// # Errors
    /// Undecodable, framing, or an envelope that is none (schema).
    pub(super) fn decode<'d>(&'d self, format: Format) -> Result<Event<'d>, Refusal> {
        match format {
            Format::Json => Ok(Event::Document(self.plain()?.root())),
            Format::ConfluentJson { allow_plain } => Ok(Event::Document(self.framed(allow_plain)?.root())),
            Format::CloudEvents => match envelope::binary(self.delivery.headers)? {
                Some(envelope) => Ok(Event::Binary(envelope, self.delivery.headers, self.plain()?.root())),
                None => {
                    let document: &'d Document<'d> = self.plain()?;
                    Ok(Event::Structured(envelope::structured(document)?, document.root()))
                }
            },
        }
    }
}

/// Why a value for plain JSON is refused that shows by its first bytes what it is instead. Protobuf and bare Avro do not
/// show: for the parser they are broken JSON.
fn foreign_frame(value: &[u8]) -> Option<Refusal> {
    let detail = match value {
        [0, a, b, c, d, ..] => {
            let schema = u32::from_be_bytes([*a, *b, *c, *d]);
            format!("magic byte 0x00, schema id {schema}: a schema registry's frame, which the route does not take")
        }
        [b'O', b'b', b'j', 1, ..] => "an Avro container file, which the route does not take".to_owned(),
        _ => return None,
    };
    Some(Refusal::new(Reason::Framing, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Origin, Partition, Position};

    fn refusal(value: &[u8]) -> Option<Refusal> {
        let partition = Partition { name: "0".into(), ..Partition::default() };
        let origin = Origin { partition: std::sync::Arc::new(partition), position: Position::Offset(0) };
        let delivery = Delivery { origin: &origin, timestamp_ms: None, key: None, value: Some(value), headers: &[] };
        let limits = Limits::default();
        let raw = Raw::new(&delivery, value, &limits);
        let refusals = [Format::Json, Format::CloudEvents].map(|format| raw.decode(format).map(drop).err());
        assert_eq!(
            refusals[0].as_ref().map(|refusal| refusal.reason),
            refusals[1].as_ref().map(|refusal| refusal.reason)
        );
        refusals.into_iter().next().flatten()
    }

    #[test]
    fn frames_that_show_are_named_where_plain_json_is_due() {
        let framed = refusal(b"\0\0\0\x01\x02{}").unwrap();
        assert_eq!(framed.reason, Reason::Framing);
        assert!(framed.detail.contains("schema id 258"), "{}", framed.detail);
        let container = refusal(b"Obj\x01\x04\x14avro.codec").unwrap();
        assert_eq!(container.reason, Reason::Framing);
        assert!(container.detail.contains("Avro"), "{}", container.detail);
        for broken in [&b"\0\0\0\x01"[..], b"Obj", b"\x0a\x03abc", b"Object"] {
            assert_eq!(refusal(broken).unwrap().reason, Reason::Undecodable, "{broken:?}");
        }
    }
}
