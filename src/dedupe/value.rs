//! The stored form of what is remembered: a format byte, the content digest, the origin's text.

use crate::event::{Digest, Origin};

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
    Origin::parse(origin)?;
    Some(Known { content_digest: Digest(digest), origin: origin.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
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
        fn noise_is_nothing_known(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&bytes), None);
        }
    }
}
