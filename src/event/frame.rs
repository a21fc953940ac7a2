//! Confluent's framing: a zero byte and a schema id in front of the JSON.

use super::outcome::{Reason, Refusal};

/// The magic byte and the schema id.
const FRAME_BYTES: usize = 5;

/// The JSON behind a Confluent frame (a zero byte, then four bytes of schema id, big-endian).
///
/// With `allow_plain` a value without a frame, which starts as an object or array does, is itself the JSON.
///
/// Refused with reason `framing`, naming the magic byte and the schema id: a frame cut short, another magic byte, a message
/// index in front of the body (Protobuf), a body that does not start as an object or array does (Avro), an empty body. The
/// schema id itself is not looked up; the route's own schema decides.
pub fn unframe(value: &[u8], allow_plain: bool) -> Result<&[u8], Refusal> {
    let refuse = |detail: String| Err(Refusal::new(Reason::Framing, detail));
    let Some(&magic) = value.first() else {
        return refuse("no bytes, expected magic byte 0x00, a schema id and JSON".to_owned());
    };
    if magic != 0 {
        return match (starts_json(magic), allow_plain) {
            (true, true) => Ok(value),
            (true, false) => refuse(format!(
                "magic byte {magic:#04x}, expected 0x00: this is JSON without a frame, which the route does not take"
            )),
            (false, _) => refuse(format!("magic byte {magic:#04x}, expected 0x00")),
        };
    }
    let Some((frame, body)) = value.split_at_checked(FRAME_BYTES) else {
        return refuse(format!("magic byte 0x00, but the frame is cut short after {} of 5 bytes", value.len()));
    };
    let schema = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]);
    match body.first() {
        Some(&first) if starts_json(first) => Ok(body),
        Some(0) => {
            refuse(format!("magic byte 0x00, schema id {schema}: a message index (Protobuf) in front of the body"))
        }
        Some(first) => refuse(format!(
            "magic byte 0x00, schema id {schema}: the body starts with {first:#04x}, not as JSON does (Avro?)"
        )),
        None => refuse(format!("magic byte 0x00, schema id {schema}: no body")),
    }
}

/// Whether an event's JSON can start with this byte: an object, an array, or white space in front of one. A bare string,
/// number or literal is JSON too, but no event, and its first byte is one that Avro and Protobuf use.
fn starts_json(byte: u8) -> bool {
    matches!(byte, b'{' | b'[' | b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The case's lines: what they are, and their values.
    fn case() -> Vec<(String, Vec<u8>)> {
        let lines = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cases/confluent_framed.jsonl"));
        let text = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap().to_owned();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .map(|line| (text(&line, "note"), base64(&text(&line, "value"))))
            .collect()
    }

    fn base64(text: &str) -> Vec<u8> {
        const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let sextets: Vec<_> = text.chars().filter_map(|digit| DIGITS.find(digit)).collect();
        let bits = |chunk: &[usize]| chunk.iter().fold(0, |bits, sextet| bits << 6 | sextet) << (6 * (4 - chunk.len()));
        let bytes = |chunk: &[usize]| (bits(chunk) as u32).to_be_bytes()[1..chunk.len()].to_vec();
        sextets.chunks(4).flat_map(bytes).collect()
    }

    #[test]
    fn framed_and_plain_json_come_out_and_all_else_names_its_frame() {
        let expected = [
            None,
            None,
            Some("magic byte 0x00, schema id 5: no body"),
            Some("magic byte 0x00, but the frame is cut short after 3 of 5 bytes"),
            Some("magic byte 0x01, expected 0x00"),
            Some("magic byte 0x00, schema id 5: a message index (Protobuf) in front of the body"),
            Some("magic byte 0x00, schema id 5: the body starts with 0x02, not as JSON does (Avro?)"),
            Some("magic byte 0x48, expected 0x00"),
        ];
        let case = case();
        assert_eq!(case.len(), expected.len());
        for ((note, value), expected) in case.iter().zip(expected) {
            match (unframe(value, true), expected) {
                (Ok(body), None) => assert!(serde_json::from_slice::<serde_json::Value>(body).is_ok(), "{note}"),
                (Err(refusal), Some(detail)) => {
                    assert_eq!((refusal.reason, refusal.detail.as_str()), (Reason::Framing, detail), "{note}");
                }
                (outcome, _) => panic!("{note}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn plain_json_needs_the_routes_leave() {
        assert_eq!(unframe(b" {}", true), Ok(&b" {}"[..]));
        assert!(unframe(b"{}", false).unwrap_err().detail.contains("without a frame"));
        assert_eq!(unframe(b"", true).unwrap_err().reason, Reason::Framing);
        assert_eq!(unframe(b"\0\0\0\x01\x02[]", false), Ok(&b"[]"[..]));
    }
}
