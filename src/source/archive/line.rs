//! One line of an archive.

use std::borrow::Cow;
use std::io::{self, Write};
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::event::Origin;
use crate::source::{Carried, Provenance, RawBatch, RawMessage};

#[derive(Serialize)]
struct Out<'a> {
    origin: String,
    timestamp_ms: Option<i64>,
    key: Option<Part<'a>>,
    value: Option<Part<'a>>,
    headers: Vec<(&'a str, Option<Part<'a>>)>,
}

struct Part<'a>(&'a [u8]);

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &STANDARD.encode(self.0))?;
                map.end()
            }
        }
    }
}

/// Writes a message as one line.
///
/// # Errors
///
/// The writer's.
pub fn write_line(out: &mut impl Write, batch: &RawBatch, message: &RawMessage) -> io::Result<()> {
    let part = |range: &Option<Range<usize>>| range.as_ref().map(|range| Part(batch.slice(range)));
    let line = Out {
        origin: batch.origin(message).text(),
        timestamp_ms: message.timestamp_ms,
        key: part(&message.key),
        value: part(&message.value),
        headers: batch.headers(message).map(|(name, value)| (name, value.map(Part))).collect(),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct In<'a> {
    #[serde(borrow)]
    origin: Cow<'a, str>,
    timestamp_ms: Option<i64>,
    #[serde(borrow)]
    key: Option<InPart<'a>>,
    #[serde(borrow)]
    value: Option<InPart<'a>>,
    #[serde(borrow)]
    headers: Vec<(Cow<'a, str>, Option<InPart<'a>>)>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum InPart<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Base64 {
        #[serde(borrow)]
        base64: Cow<'a, str>,
    },
}

impl InPart<'_> {
    fn append(self, bytes: &mut Vec<u8>) -> Result<Range<usize>, String> {
        let from = bytes.len();
        match self {
            Self::Text(text) => bytes.extend_from_slice(text.as_bytes()),
            Self::Base64 { base64 } => {
                STANDARD.decode_vec(base64.as_bytes(), bytes).map_err(|error| format!("base64: {error}"))?;
            }
        }
        Ok(from..bytes.len())
    }
}

/// Reads a line into a batch, as a message at `position` of the file.
///
/// # Errors
///
/// What is wrong with the line; what was appended is of no use then.
pub(super) fn read_line(line: &[u8], bytes: &mut Vec<u8>) -> Result<RawMessage, String> {
    let line: In<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let origin = Origin::parse(&line.origin).ok_or_else(|| format!("{} is no origin", line.origin))?;
    let mut part = |part: Option<InPart<'_>>| part.map(|part| part.append(bytes)).transpose();
    let (key, value) = (part(line.key)?, part(line.value)?);
    let mut headers = Vec::with_capacity(line.headers.len());
    for (name, value) in line.headers {
        let from = bytes.len();
        bytes.extend_from_slice(name.as_bytes());
        let name = from..bytes.len();
        headers.push((name, value.map(|value| value.append(bytes)).transpose()?));
    }
    let first_seen = line.timestamp_ms.and_then(crate::event::time::from_millis).unwrap_or_default();
    let carried = Carried { origin, attempts: 0, first_seen, corrects: Vec::new() };
    Ok(RawMessage {
        // Set by whoever knows where the line stands.
        position: crate::event::Position::Begin,
        timestamp_ms: line.timestamp_ms,
        key,
        value,
        headers,
        provenance: Provenance::Carried(Box::new(carried)),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{Partition, Position};
    use proptest::prelude::*;

    type Parts = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

    fn batch((key, value, headers): Parts) -> RawBatch {
        let partition = Partition { cluster: "c".into(), topic: "t|".into(), name: "3".into(), ..Partition::default() };
        let mut bytes = Vec::new();
        let mut put = |part: &[u8]| {
            let from = bytes.len();
            bytes.extend_from_slice(part);
            from..bytes.len()
        };
        let key = key.as_deref().map(&mut put);
        let value = value.as_deref().map(&mut put);
        let headers =
            headers.iter().map(|(name, value)| (put(name.as_bytes()), value.as_deref().map(&mut put))).collect();
        let provenance = Provenance::Here;
        let message =
            RawMessage { position: Position::Offset(7), timestamp_ms: Some(9), key, value, headers, provenance };
        RawBatch { partition: Arc::new(partition), bytes, messages: vec![message] }
    }

    fn parts(batch: &RawBatch) -> Parts {
        let message = &batch.messages[0];
        let part = |range: &Option<Range<usize>>| range.as_ref().map(|range| batch.slice(range).to_vec());
        let headers = batch.headers(message).map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)));
        (part(&message.key), part(&message.value), headers.collect())
    }

    proptest! {
        #[test]
        fn every_byte_comes_back_and_null_is_not_empty(
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
            value in proptest::option::of(prop_oneof![".{0,20}".prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..20)]),
            headers in proptest::collection::vec((".{0,5}", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..5))), 0..4),
        ) {
            let before = batch((key, value, headers));
            let mut line = Vec::new();
            write_line(&mut line, &before, &before.messages[0]).unwrap();
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let mut bytes = Vec::new();
            let message = read_line(&line, &mut bytes).unwrap();
            let after = RawBatch { partition: Arc::default(), bytes, messages: vec![message] };
            prop_assert_eq!(parts(&after), parts(&before));
            prop_assert_eq!(after.origin(&after.messages[0]), before.origin(&before.messages[0]));
            prop_assert_eq!(after.messages[0].timestamp_ms, Some(9));
        }
    }

    #[test]
    fn what_is_no_line_says_why() {
        for (bad, hint) in [
            ("", "EOF"),
            ("{}", "missing field"),
            (r#"{"origin":"x","timestamp_ms":null,"key":null,"value":null,"headers":[]}"#, "no origin"),
            (
                r#"{"origin":"c|t|i|0|0|1","timestamp_ms":null,"key":{"base64":"*"},"value":null,"headers":[]}"#,
                "base64",
            ),
            (
                r#"{"origin":"c|t|i|0|0|1","timestamp_ms":null,"key":null,"value":null,"headers":[],"more":1}"#,
                "unknown",
            ),
        ] {
            let error = read_line(bad.as_bytes(), &mut Vec::new()).unwrap_err();
            assert!(error.contains(hint), "{bad}: {error}");
        }
    }
}
