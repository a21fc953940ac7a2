//! CloudEvents 1.0 envelopes, structured (all in the JSON) and binary (attributes in Kafka headers, data in the value).
//!
//! Only the attributes that are used here are read; others are allowed and ignored. Refused with reason `schema`: what the
//! specification refuses in those attributes. Taken more strictly than it: ids have limits (reason `too_large`), `source` has
//! no white space or control characters (whether it is a URI reference beyond that is not checked), and data is JSON, so
//! `data_base64` is refused. A time that is not RFC 3339 has reason `mapping`.

use super::json::{Document, Kind, Node};
use super::outcome::{Reason, Refusal};
use super::time::check_time;

/// The most bytes of an event's id.
const ID_BYTES_MAX: usize = 512;

/// The most bytes of source and id as a record id holds them: escaped, with a `|` between them.
const IDENTITY_BYTES_MAX: usize = 1024;

/// The header that tells the modes apart.
const CONTENT_TYPE: &str = "content-type";

/// The prefix of binary mode's headers.
const HEADER_PREFIX: &str = "ce_";

/// What headers with that prefix are read for.
const HEADER_ATTRIBUTES: [&str; 7] = ["specversion", "source", "id", "type", "time", "correlationid", "traceparent"];

/// The media types of structured mode start with this.
const STRUCTURED_MEDIA_TYPE: &[u8] = b"application/cloudevents";

/// The attributes of a CloudEvent that are used here, as they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'d> {
    /// `source`: with `id` the event's identity; [`check_identity`] passed.
    pub source: &'d str,
    /// `id`
    pub id: &'d str,
    /// `type`, not empty.
    pub kind: &'d str,
    /// `time`: RFC 3339, not yet in the stored form.
    pub time: Option<&'d str>,
    /// `datacontenttype`; in binary mode the header `content-type`.
    pub datacontenttype: Option<&'d str>,
    /// `correlationid`, an extension; `None` where it is empty.
    pub correlation_id: Option<&'d str>,
    /// `traceparent`, an extension, carried through unchecked; `None` where it is empty.
    pub traceparent: Option<&'d str>,
}

/// The envelope of an event in structured mode. Its data is the root's member `data`; absent and `null` differ.
pub fn structured<'d>(doc: &'d Document<'_>) -> Result<Envelope<'d>, Refusal> {
    let root = doc.root();
    if root.kind() != Kind::Object {
        return Err(schema("a CloudEvent is a JSON object"));
    }
    let mut found = Attributes::default();
    for (name, value) in root.members() {
        if name == "data_base64" {
            return Err(schema("data_base64 is not taken; send the data as JSON in data"));
        }
        if let Some(place) = found.place(name) {
            *place = text(name, value)?;
        }
    }
    found.check()
}

/// An attribute's text; `null` is an absent attribute, as the JSON format has it.
fn text<'d>(name: &str, value: Node<'d, '_>) -> Result<Option<&'d str>, Refusal> {
    match value.as_str() {
        Some(text) => Ok(Some(text)),
        None if value.is_null() => Ok(None),
        None => Err(schema(format!("attribute {name} is not a string"))),
    }
}

/// The envelope of an event in binary mode, from its headers (`ce_id`, …; names in any case, values UTF-8 as they are: the
/// Kafka binding has no percent-encoding). Its data is the whole value.
///
/// `None` without a header `ce_specversion`, and where `content-type` says that the event is structured: such events may
/// carry the same headers.
pub fn binary<'h>(headers: &'h [(&'h str, Option<&'h [u8]>)]) -> Result<Option<Envelope<'h>>, Refusal> {
    let mut is_event = false;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case(CONTENT_TYPE) && is_structured(value.unwrap_or_default()) {
            return Ok(None);
        }
        is_event |= attribute_of(name) == Some("specversion");
    }
    if !is_event {
        return Ok(None);
    }
    let mut found = Attributes::default();
    for (header, value) in headers {
        let Some((name, place)) = attribute_of(header).and_then(|name| found.place(name).map(|place| (name, place)))
        else {
            continue;
        };
        let text = std::str::from_utf8(value.unwrap_or_default())
            .map_err(|_| schema(format!("the header of attribute {name} is not UTF-8")))?;
        if place.replace(text).is_some() {
            return Err(schema(format!("attribute {name} has two headers")));
        }
    }
    found.check().map(Some)
}

/// Whether a content type is one of structured mode.
fn is_structured(content_type: &[u8]) -> bool {
    content_type
        .get(..STRUCTURED_MEDIA_TYPE.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(STRUCTURED_MEDIA_TYPE))
}

/// The attribute that a header of binary mode holds, if it is one that is used here.
fn attribute_of(header: &str) -> Option<&'static str> {
    if header.eq_ignore_ascii_case(CONTENT_TYPE) {
        return Some("datacontenttype");
    }
    let (prefix, name) = header.split_at_checked(HEADER_PREFIX.len())?;
    if !prefix.eq_ignore_ascii_case(HEADER_PREFIX) {
        return None;
    }
    HEADER_ATTRIBUTES.into_iter().find(|attribute| name.eq_ignore_ascii_case(attribute))
}

/// Refuses an identity without source or id (reason `schema`), or one that is too long for its key (`too_large`): an id of
/// more than 512 bytes, or more than 1,024 bytes for both, escaped as in a record id and with the `|` between them.
pub fn check_identity(source: &str, id: &str) -> Result<(), Refusal> {
    if source.is_empty() || id.is_empty() {
        return Err(schema(format!("{} is empty", if source.is_empty() { "source" } else { "id" })));
    }
    if id.len() > ID_BYTES_MAX {
        let detail = format!("an id of {} bytes, the limit is {ID_BYTES_MAX} bytes", id.len());
        return Err(Refusal::new(Reason::TooLarge, detail));
    }
    let length = escaped_len(source) + 1 + escaped_len(id);
    if length > IDENTITY_BYTES_MAX {
        let detail = format!("source and id have {length} bytes escaped, the limit is {IDENTITY_BYTES_MAX} bytes");
        return Err(Refusal::new(Reason::TooLarge, detail));
    }
    Ok(())
}

/// The bytes of a part as [`super::ids::escape_into`] writes it.
fn escaped_len(part: &str) -> usize {
    part.len() + 2 * part.bytes().filter(|byte| matches!(byte, b'%' | b'|')).count()
}

fn schema(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Schema, detail)
}

/// Attributes as found, not yet checked.
#[derive(Default)]
struct Attributes<'d> {
    specversion: Option<&'d str>,
    source: Option<&'d str>,
    id: Option<&'d str>,
    kind: Option<&'d str>,
    time: Option<&'d str>,
    datacontenttype: Option<&'d str>,
    correlation_id: Option<&'d str>,
    traceparent: Option<&'d str>,
}

impl<'d> Attributes<'d> {
    /// Where the attribute of that name goes, if it is used here.
    fn place(&mut self, name: &str) -> Option<&mut Option<&'d str>> {
        match name {
            "specversion" => Some(&mut self.specversion),
            "source" => Some(&mut self.source),
            "id" => Some(&mut self.id),
            "type" => Some(&mut self.kind),
            "time" => Some(&mut self.time),
            "datacontenttype" => Some(&mut self.datacontenttype),
            "correlationid" => Some(&mut self.correlation_id),
            "traceparent" => Some(&mut self.traceparent),
            _ => None,
        }
    }

    fn check(self) -> Result<Envelope<'d>, Refusal> {
        let required = |name: &str, value: Option<&'d str>| {
            value.filter(|text| !text.is_empty()).ok_or_else(|| schema(format!("attribute {name} is missing or empty")))
        };
        if required("specversion", self.specversion)? != "1.0" {
            return Err(schema("attribute specversion is not 1.0"));
        }
        let source = required("source", self.source)?;
        let id = required("id", self.id)?;
        let kind = required("type", self.kind)?;
        if source.chars().any(|character| character.is_whitespace() || character.is_control()) {
            return Err(schema("attribute source is no URI reference: it has white space or control characters"));
        }
        check_identity(source, id)?;
        if let Some(time) = self.time {
            check_time(time)?;
        }
        let optional = |value: Option<&'d str>| value.filter(|text| !text.is_empty());
        Ok(Envelope {
            source,
            id,
            kind,
            time: self.time,
            datacontenttype: self.datacontenttype,
            correlation_id: optional(self.correlation_id),
            traceparent: optional(self.traceparent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::json::Limits;

    const MINIMAL: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;

    fn reason_of(json: &str) -> Option<Reason> {
        let document = Document::parse(json.as_bytes(), &Limits::default()).unwrap();
        structured(&document).err().map(|refusal| refusal.reason)
    }

    #[test]
    fn a_structured_event_is_read_whatever_else_it_carries() {
        let json = r#"{"specversion":"1.0","id":"a|1","source":"/wallets","type":"wallet.created","subject":7,
            "time":"2026-01-02T03:04:05Z","datacontenttype":"application/json","correlationid":"c\u002d1",
            "traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","data":{}}"#;
        let document = Document::parse(json.as_bytes(), &Limits::default()).unwrap();
        let envelope = structured(&document).unwrap();
        assert_eq!((envelope.source, envelope.id, envelope.kind), ("/wallets", "a|1", "wallet.created"));
        assert_eq!(envelope.time, Some("2026-01-02T03:04:05Z"));
        assert_eq!(envelope.correlation_id, Some("c-1"));
        assert!(envelope.traceparent.is_some());
        assert_eq!(envelope.datacontenttype, Some("application/json"));
    }

    #[test]
    fn wrong_envelopes_are_refused_by_the_attribute() {
        assert_eq!(reason_of(MINIMAL), None);
        assert_eq!(reason_of("[]"), Some(Reason::Schema));
        for (from, to) in [
            (r#""specversion":"1.0","#, ""),
            ("1.0", "0.3"),
            (r#""1.0""#, "1.0"),
            (r#""id":"1","#, ""),
            (r#""id":"1""#, r#""id":1"#),
            (r#""id":"1""#, r#""id":"""#),
            (r#""id":"1""#, r#""id":null"#),
            ("/s", ""),
            ("/s", "/a b"),
            ("/s", "/a\\n"),
            (r#""t""#, r#""""#),
            (r#""t""#, r#""t","data_base64":"AA==""#),
            (r#""t""#, r#""t","time":5"#),
            (r#""t""#, r#""t","correlationid":true"#),
        ] {
            assert_eq!(reason_of(&MINIMAL.replacen(from, to, 1)), Some(Reason::Schema), "{from} -> {to}");
        }
        assert_eq!(reason_of(&MINIMAL.replace(r#""t""#, r#""t","time":"yesterday""#)), Some(Reason::Mapping));
        assert_eq!(reason_of(&MINIMAL.replace(r#""t""#, r#""t","time":null,"correlationid":"""#)), None);
    }

    #[test]
    fn identities_are_measured_as_they_are_stored() {
        let reason = |source: &str, id: &str| check_identity(source, id).err().map(|refusal| refusal.reason);
        assert_eq!(reason("s", &"i".repeat(512)), None);
        assert_eq!(reason("s", &"i".repeat(513)), Some(Reason::TooLarge));
        assert_eq!(reason(&"s".repeat(1022), "i"), None);
        assert_eq!(reason(&"s".repeat(1023), "i"), Some(Reason::TooLarge));
        assert_eq!(reason(&"s".repeat(1022), "|"), Some(Reason::TooLarge));
        assert_eq!(reason("", "i"), Some(Reason::Schema));
        assert_eq!(reason("s", ""), Some(Reason::Schema));
        let (source, id) = ("a|b%", "%|");
        assert_eq!(crate::event::ids::record_id(source, id, None).len(), escaped_len(source) + 1 + escaped_len(id));
    }

    #[test]
    fn awkward_ids_pass_as_they_are_unless_they_are_too_long() {
        let lines = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cases/awkward_ids.jsonl"));
        for line in lines.lines() {
            let id = serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
            let document = Document::parse(line.as_bytes(), &Limits::default()).unwrap();
            match structured(&document) {
                Ok(envelope) => assert_eq!(envelope.id, id),
                Err(refusal) => {
                    assert_eq!(refusal.reason, Reason::TooLarge);
                    assert!(id.len() > 512);
                }
            }
        }
    }

    #[test]
    fn a_binary_event_is_read_from_its_headers() {
        let headers: [(&str, Option<&[u8]>); 7] = [
            ("ce_specversion", Some(b"1.0")),
            ("CE_Id", Some("naïve%20".as_bytes())),
            ("ce_source", Some(b"/s")),
            ("ce_type", Some(b"t")),
            ("ce_unused", Some(b"\xff")),
            ("Content-Type", Some(b"application/json")),
            ("other", None),
        ];
        let envelope = binary(&headers).unwrap().unwrap();
        assert_eq!((envelope.id, envelope.source, envelope.kind), ("naïve%20", "/s", "t"));
        assert_eq!(envelope.datacontenttype, Some("application/json"));

        let refused = |extra: (&'static str, Option<&'static [u8]>)| {
            let mut headers = headers.to_vec();
            headers.push(extra);
            binary(&headers).err().map(|refusal| refusal.reason)
        };
        assert_eq!(refused(("ce_id", Some(b"2"))), Some(Reason::Schema));
        assert_eq!(refused(("ce_time", Some(b"\xff"))), Some(Reason::Schema));
        assert_eq!(refused(("ce_time", Some(b"now"))), Some(Reason::Mapping));
        assert_eq!(binary(&headers[..3]).err().map(|refusal| refusal.reason), Some(Reason::Schema));
    }

    #[test]
    fn structured_events_and_other_messages_are_not_binary() {
        let structured: [(&str, Option<&[u8]>); 2] =
            [("ce_specversion", Some(b"1.0")), ("content-type", Some(b"Application/CloudEvents+json; charset=UTF-8"))];
        assert_eq!(binary(&structured), Ok(None));
        assert_eq!(binary(&[("ce_id", Some(b"1")), ("content-type", Some(b"\xff"))]), Ok(None));
        assert_eq!(binary(&[]), Ok(None));
    }
}
