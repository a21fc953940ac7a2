//! Events as lines of JSON: topic, partition, key, value and headers, bytes in base64, null as null.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::stream::Generated;

/// Writes one event and a line feed.
pub(super) fn write_line(out: &mut impl Write, event: &Generated) -> io::Result<()> {
    let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
    // Topics and header names are plain words, so that nothing in here needs an escape.
    write!(
        out,
        r#"{{"topic":"{}","partition":{},"key":"{}","value":"#,
        event.topic,
        event.partition,
        base64(&event.key)
    )?;
    write_optional(out, event.value.as_deref())?;
    write!(out, r#","headers":["#)?;
    for (at, (name, value)) in event.headers.iter().enumerate() {
        write!(out, r#"{}["{name}","#, if at > 0 { "," } else { "" })?;
        write_optional(out, value.as_deref())?;
        write!(out, "]")?;
    }
    writeln!(out, "]}}")
}

fn write_optional(out: &mut impl Write, bytes: Option<&[u8]>) -> io::Result<()> {
    match bytes {
        None => write!(out, "null"),
        Some(bytes) => write!(out, "\"{}\"", STANDARD.encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Reason;
    use crate::generate::{Expected, What};

    #[test]
    fn null_and_empty_stay_different() {
        let mut event = Generated {
            topic: "wallet-events",
            partition: 3,
            key: b"k".to_vec(),
            headers: vec![("a", None), ("b", Some(Vec::new()))],
            value: None,
            what: What::Poison,
            expected: Expected::DeadLettered(Reason::Tombstone),
        };
        let mut out = Vec::new();
        write_line(&mut out, &event).unwrap();
        event.value = Some(b"{}".to_vec());
        write_line(&mut out, &event).unwrap();
        let head = r#"{"topic":"wallet-events","partition":3,"key":"aw==","value":"#;
        let tail = r#","headers":[["a",null],["b",""]]}"#;
        assert_eq!(String::from_utf8(out).unwrap(), format!("{head}null{tail}\n{head}\"e30=\"{tail}\n"));
    }
}
