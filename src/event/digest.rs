//! The content digest: over what was sent, in one form, so that the same event sent again compares equal and nothing that
//! a mapping makes of it can change the comparison.

use sha2::{Digest as _, Sha256};

use super::ids::Digest;
use super::json::{Node, Numbers, write_canonical};

/// SHA-256 over source, id and type (each as an 8-byte big-endian length and its bytes), then a zero byte where there is no
/// data, else a one byte and the data's canonical form: members sorted by name, strings escaped one way, numbers by the
/// digits that were sent (`1.0` and `1` differ), no white space.
///
/// For a foreign format the type is empty and the data is the whole document.
pub fn content_digest(source: &str, id: &str, kind: &str, data: Option<Node<'_, '_>>) -> Digest {
    let mut sink = Sink::new();
    for part in [source, id, kind] {
        sink.put(&(part.len() as u64).to_be_bytes());
        sink.put(part.as_bytes());
    }
    match data {
        None => sink.put(&[0]),
        Some(node) => {
            sink.put(&[1]);
            write_canonical(node, Numbers::AsSent, &mut |piece: &str| sink.put(piece.as_bytes()));
        }
    }
    sink.finish()
}

/// The most bytes gathered before the hash takes them.
const GATHERED_BYTES_MAX: usize = 4096;

/// Gathers the many small pieces of the canonical form, which the hash would take one by one at a price.
struct Sink {
    hash: Sha256,
    gathered: Vec<u8>,
}

impl Sink {
    fn new() -> Self {
        Self { hash: Sha256::new(), gathered: Vec::with_capacity(GATHERED_BYTES_MAX) }
    }

    fn put(&mut self, piece: &[u8]) {
        if self.gathered.len() + piece.len() > GATHERED_BYTES_MAX {
            self.hash.update(&self.gathered);
            self.gathered.clear();
            if piece.len() > GATHERED_BYTES_MAX {
                return self.hash.update(piece);
            }
        }
        self.gathered.extend_from_slice(piece);
    }

    fn finish(mut self) -> Digest {
        self.hash.update(&self.gathered);
        Digest(self.hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::json::{Document, Limits, tests::values};
    use proptest::prelude::*;
    use serde_json::Value;

    fn digest_of(data: &str) -> Digest {
        let document = Document::parse(data.as_bytes(), &Limits::default()).unwrap();
        content_digest("/s", "1", "t", Some(document.root()))
    }

    /// Fixed for ever: records hold it.
    #[test]
    fn the_form_is_the_documented_one() {
        let mut form = Vec::new();
        for part in ["/s", "1", "t"] {
            form.extend((part.len() as u64).to_be_bytes());
            form.extend(part.as_bytes());
        }
        assert_eq!(content_digest("/s", "1", "t", None), Digest::of(&[&form[..], &[0]].concat()));
        let canonical = r#"{"":[],"B":{},"a\"\\":[1.0,10e-1,-0,true,false,null],"z":"é/\u000a\u0000"}"#;
        let sent =
            r#" {"z": "\u00e9\/\n\u0000", "a\u0022\\":[1.0, 10e-1, -0, true, false, null], "B" : { }, "": [ ] }"#;
        assert_eq!(digest_of(sent), Digest::of(&[&form[..], &[1], canonical.as_bytes()].concat()));
        assert_eq!(
            content_digest("/s", "1", "t", None).hex(),
            "0d34e2fd22f4fd4c83b38d0645dfc92c2eb267924ba5453750ab040bfcda62ae"
        );
    }

    #[test]
    fn other_content_has_another_digest() {
        let bare = |source: &str, id: &str, kind: &str| content_digest(source, id, kind, None);
        let all = [
            bare("a", "b", "c"),
            bare("ab", "", "c"),
            bare("", "ab", "c"),
            bare("a", "bc", ""),
            digest_of("null"),
            digest_of("1"),
            digest_of("1.0"),
            digest_of("1e0"),
            digest_of("\"1\""),
            digest_of("[1]"),
            digest_of("[[1]]"),
            digest_of("[1,1]"),
            digest_of("[11]"),
            digest_of("{}"),
            digest_of("[]"),
            digest_of("{\"a\":1}"),
            digest_of("{\"a\":\"1\"}"),
            content_digest("/s", "1", "t", None),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    /// The value written with its members the other way round and every character of its strings escaped.
    fn spelled_otherwise(value: &Value) -> String {
        let string = |text: &str| {
            let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
            format!("\"{escaped}\"")
        };
        match value {
            Value::String(text) => string(text),
            Value::Array(elements) => {
                let elements: Vec<_> = elements.iter().map(spelled_otherwise).collect();
                format!("[ {} ]", elements.join(" ,\n"))
            }
            Value::Object(members) => {
                let members: Vec<_> = members
                    .iter()
                    .rev()
                    .map(|(name, value)| format!("{} : {}", string(name), spelled_otherwise(value)))
                    .collect();
                format!("{{\t{}\r}}", members.join(" , "))
            }
            other => other.to_string(),
        }
    }

    proptest! {
        #[test]
        fn order_white_space_and_escapes_do_not_count(value in values()) {
            prop_assert_eq!(digest_of(&value.to_string()), digest_of(&spelled_otherwise(&value)));
        }

        #[test]
        fn values_count(first in values(), second in values()) {
            prop_assert_eq!(digest_of(&first.to_string()) == digest_of(&second.to_string()), first == second);
        }

        /// Pieces smaller and larger than the buffer, at every fill of it.
        #[test]
        fn the_buffer_does_not_show(lengths in proptest::collection::vec(0_usize..5000, 0..12)) {
            let mut sink = Sink::new();
            let mut whole = Vec::new();
            for (byte, length) in (1_u8..).zip(lengths) {
                let piece = vec![byte; length];
                sink.put(&piece);
                whole.extend(piece);
            }
            prop_assert_eq!(sink.finish(), Digest::of(&whole));
        }
    }
}
