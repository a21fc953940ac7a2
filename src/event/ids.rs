//! Identities: record ids, digests, and the hashes that spread keys.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Appends `part` with `%` written `%25` and `|` written `%7C`, so that parts joined by `|` read back unambiguously.
pub fn escape_into(out: &mut String, part: &str) {
    for piece in part.split_inclusive(['%', '|']) {
        match piece.as_bytes().last() {
            Some(b'%') => {
                out.push_str(&piece[..piece.len() - 1]);
                out.push_str("%25");
            }
            Some(b'|') => {
                out.push_str(&piece[..piece.len() - 1]);
                out.push_str("%7C");
            }
            _ => out.push_str(piece),
        }
    }
}

/// The inverse of [`escape_into`]; `None` where a `%` is not one of the two escapes.
pub fn unescape(part: &str) -> Option<String> {
    let mut out = String::with_capacity(part.len());
    let mut rest = part;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let escape = rest.get(at..at + 3)?;
        out.push(match escape {
            "%25" => '%',
            "%7C" => '|',
            _ => return None,
        });
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Some(out)
}

/// `source|id` for the judging record, `source|id|name` for a further one, each part escaped.
pub fn record_id(source: &str, id: &str, name: Option<&str>) -> String {
    let mut out = String::with_capacity(source.len() + id.len() + 16);
    escape_into(&mut out, source);
    out.push('|');
    escape_into(&mut out, id);
    if let Some(name) = name {
        out.push('|');
        escape_into(&mut out, name);
    }
    out
}

/// A SHA-256 digest; shown in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 lower-case hex digits; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut out = [0; 32];
        for (place, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            *place = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(out))
    }

    /// The 64 lower-case hex digits.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = String::with_capacity(64);
        for byte in self.0 {
            out.push(DIGITS[usize::from(byte >> 4)] as char);
            out.push(DIGITS[usize::from(byte & 15)] as char);
        }
        out
    }

    /// The first eight bytes, big-endian: what shards are computed from.
    pub fn leading_u64(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(first)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

/// A digest of a set of records: the sum of their record digests modulo 2^256, so that order does not matter and sets add.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetDigest(Digest);

impl SetDigest {
    /// Adds one record's digest.
    pub fn add(&mut self, digest: &Digest) {
        let mut carry = 0u16;
        for (mine, theirs) in self.0.0.iter_mut().zip(&digest.0).rev() {
            let sum = u16::from(*mine) + u16::from(*theirs) + carry;
            *mine = (sum & 0xff) as u8;
            carry = sum >> 8;
        }
    }

    /// Adds another set's digest.
    pub fn add_set(&mut self, other: &Self) {
        self.add(&other.0);
    }

    /// Takes another set out again.
    pub fn remove_set(&mut self, other: &Self) {
        let mut borrow = 0i16;
        for (mine, theirs) in self.0.0.iter_mut().zip(&other.0.0).rev() {
            let difference = i16::from(*mine) - i16::from(*theirs) - borrow;
            *mine = (difference & 0xff) as u8;
            borrow = i16::from(difference < 0);
        }
    }

    /// The set of this one record.
    pub fn of(digest: &Digest) -> Self {
        Self(*digest)
    }

    /// The stored form: 64 hex digits.
    pub fn hex(&self) -> String {
        self.0.hex()
    }

    /// The inverse of [`SetDigest::hex`].
    pub fn from_hex(text: &str) -> Option<Self> {
        Digest::from_hex(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn record_ids_cannot_run_into_each_other() {
        assert_eq!(record_id("a|b", "c%d", None), "a%7Cb|c%25d");
        assert_ne!(record_id("a", "b|c", None), record_id("a", "b", Some("c")));
    }

    proptest! {
        #[test]
        fn escaping_reads_back(text in any::<String>()) {
            let mut out = String::new();
            escape_into(&mut out, &text);
            prop_assert!(!out.contains('|'));
            prop_assert_eq!(unescape(&out), Some(text));
        }

        #[test]
        fn set_digests_ignore_order(items in proptest::collection::vec(any::<[u8; 32]>(), 0..8)) {
            let sum = |items: &[[u8; 32]]| {
                let mut set = SetDigest::default();
                items.iter().for_each(|item| set.add(&Digest(*item)));
                set
            };
            let mut reversed = items.clone();
            reversed.reverse();
            prop_assert_eq!(sum(&items), sum(&reversed));
            prop_assert_eq!(SetDigest::from_hex(&sum(&items).hex()), Some(sum(&items)));
            for at in 0..=items.len() {
                let mut rest = sum(&items);
                rest.remove_set(&sum(&items[..at]));
                prop_assert_eq!(rest, sum(&items[at..]));
            }
        }
    }

    #[test]
    fn hex_is_strict() {
        let digest = Digest::of(b"x");
        assert_eq!(Digest::from_hex(&digest.hex()), Some(digest));
        assert_eq!(Digest::from_hex(&digest.hex().to_uppercase()), None);
        assert_eq!(Digest::from_hex("ab"), None);
    }
}
