//! The stored form of what is remembered: a format byte, the content digest, the origin's text.

use crate::event::Digest;

use super::Known;

/// The number of this form; it stands in every key and every value.
pub(super) const FORMAT: u8 = 1;

const DIGEST_END: usize = 1 + 32;

/// Writes the stored form into `out`, replacing what was there.
pub(super) fn encode(known: &Known, out: &mut Vec<u8>) {
    out.clear();
    out.push(FORMAT);
    out.extend_from_slice(&known.content_digest.0);
    out.extend_from_slice(known.origin.as_bytes());
}

/// Reads the stored form back; `None` for anything else, newer formats included.
pub(super) fn decode(bytes: &[u8]) -> Option<Known> {
    if *bytes.first()? != FORMAT {
        return None;
    }
    let digest = bytes.get(1..DIGEST_END)?.try_into().ok()?;
    let origin = std::str::from_utf8(bytes.get(DIGEST_END..)?).ok()?;
    reads_as_origin(origin).then_some(())?;
    Some(Known { content_digest: Digest(digest), origin: origin.to_owned() })
}

/// Whether [`Origin::parse`](crate::event::Origin::parse) takes the text. Every hit is checked: nothing is built.
fn reads_as_origin(text: &str) -> bool {
    let escaped_well = |part: &str| {
        let mut pieces = part.split('%');
        pieces.next();
        pieces.all(|piece| piece.starts_with("25") || piece.starts_with("7C"))
    };
    let mut parts = text.split('|');
    let [cluster, topic, topic_id, epoch, name, offset] = std::array::from_fn(|_| parts.next());
    parts.next().is_none()
        && [cluster, topic, topic_id, name].iter().all(|part| part.is_some_and(escaped_well))
        && epoch.is_some_and(|epoch| epoch.parse::<u32>().is_ok())
        && offset.is_some_and(|offset| offset.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Origin;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reads_back_and_nothing_cut_or_damaged_does(digest: [u8; 32], offset: u64, cut in 0usize..40) {
            let known = Known { content_digest: Digest(digest), origin: format!("cluster|topic|id|0|7|{offset}") };
            let mut bytes = Vec::new();
            encode(&known, &mut bytes);
            prop_assert_eq!(decode(&bytes), Some(known));
            prop_assert_eq!(decode(&bytes[..cut]), None);
            bytes[0] = FORMAT + 1;
            prop_assert_eq!(decode(&bytes), None);
        }

        #[test]
        fn an_origin_is_what_parses_as_one(
            parts in proptest::collection::vec("(%25|%7C|%2|%|a|é|25|\\+?[0-9]{1,3}|99999999999)*", 4..8),
            numbers in any::<(bool, u32, u64)>(),
        ) {
            let mut parts = parts;
            if let (true, epoch, offset) = numbers {
                parts.splice(3.., [epoch.to_string(), parts[3].clone(), offset.to_string()]);
            }
            let text = parts.join("|");
            prop_assert_eq!(reads_as_origin(&text), Origin::parse(&text).is_some(), "{}", text);
        }

        #[test]
        fn noise_is_nothing_known(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&bytes), None);
        }
    }
}
