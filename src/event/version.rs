//! Versions of state: one to four unsigned 64-bit integers, compared part by part.

use std::fmt;

use super::json::{Kind, Node};
use super::outcome::{Reason, Refusal};

/// A version; missing parts are zero, so `3`, `[3]` and `[3,0]` are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version([u64; 4]);

impl Version {
    /// From one to four parts; `None` for none or more.
    pub fn from_parts(parts: &[u64]) -> Option<Self> {
        if parts.is_empty() || parts.len() > 4 {
            return None;
        }
        let mut version = [0; 4];
        version[..parts.len()].copy_from_slice(parts);
        Some(Self(version))
    }

    /// The stored form: four parts of twenty digits, so that text compares as versions do. The empty text, below all of
    /// them, stands for "never written".
    pub fn stored(self) -> String {
        let [a, b, c, d] = self.0;
        format!("{a:020}{b:020}{c:020}{d:020}")
    }

    /// The inverse of [`Version::stored`]; `None` for any other text, the empty one included.
    pub fn from_stored(text: &str) -> Option<Self> {
        if text.len() != 80 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let mut version = [0; 4];
        for (part, place) in version.iter_mut().enumerate() {
            *place = text[part * 20..part * 20 + 20].parse().ok()?;
        }
        Some(Self(version))
    }
}

impl fmt::Display for Version {
    /// Without trailing zero parts: `3`, or `3.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.iter().rposition(|part| *part != 0).unwrap_or(0);
        for (at, part) in self.0[..=used].iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            write!(f, "{part}")?;
        }
        Ok(())
    }
}

/// A version as events carry it: an integer from 0 to 2^64-1, or an array of one to four of them. Anything else, `1.0` and
/// `"1"` included, is refused with reason `mapping`.
pub fn parse_version(node: Node<'_, '_>) -> Result<Version, Refusal> {
    let part = |node: Node<'_, '_>| node.as_number().and_then(|digits| digits.parse::<u64>().ok());
    let version = match node.kind() {
        Kind::Number => part(node).map(|only| Version([only, 0, 0, 0])),
        Kind::Array if node.len() <= 4 => {
            let mut parts = [0; 4];
            node.elements()
                .zip(&mut parts)
                .try_fold((), |(), (element, place)| part(element).map(|value| *place = value))
                .and_then(|()| Version::from_parts(&parts[..node.len()]))
        }
        _ => None,
    };
    version.ok_or_else(|| {
        Refusal::new(Reason::Mapping, "a version is an integer from 0 to 2^64-1, or an array of one to four")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::json::{Document, Limits};
    use proptest::prelude::*;

    #[test]
    fn missing_parts_are_zero() {
        assert_eq!(Version::from_parts(&[3]), Version::from_parts(&[3, 0]));
        assert_eq!(Version::from_parts(&[]), None);
        assert_eq!(Version::from_parts(&[1; 5]), None);
    }

    #[test]
    fn what_is_no_stored_version_is_none_and_people_read_no_zeros() {
        let plus = format!("+{}", "0".repeat(79));
        for bad in ["", "0", &"0".repeat(79), &"0".repeat(81), &plus, &"9".repeat(80)] {
            assert_eq!(Version::from_stored(bad), None, "{bad}");
        }
        for (parts, shown) in [(&[0][..], "0"), (&[3], "3"), (&[3, 1], "3.1"), (&[0, 0, 2], "0.0.2")] {
            assert_eq!(Version::from_parts(parts).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn events_carry_integers_or_arrays_of_them() {
        let parse = |json: &str| {
            let document = Document::parse(json.as_bytes(), &Limits::default()).unwrap();
            parse_version(document.root()).map_err(|refusal| refusal.reason)
        };
        for (json, parts) in
            [("0", &[0][..]), ("18446744073709551615", &[u64::MAX]), ("[3]", &[3]), ("[1, 2,3,4]", &[1, 2, 3, 4])]
        {
            assert_eq!(parse(json).ok(), Version::from_parts(parts), "{json}");
        }
        for bad in [
            "18446744073709551616",
            "-1",
            "-0",
            "1.0",
            "1e2",
            "\"1\"",
            "null",
            "{}",
            "[]",
            "[1,2,3,4,5]",
            "[[1]]",
            "[1,\"2\"]",
        ] {
            assert_eq!(parse(bad), Err(Reason::Mapping), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_compares_as_versions_do(a in any::<[u64; 4]>(), b in any::<[u64; 4]>()) {
            let (a, b) = (Version(a), Version(b));
            prop_assert_eq!(a.cmp(&b), a.stored().cmp(&b.stored()));
            prop_assert_eq!(Version::from_stored(&a.stored()), Some(a));
            prop_assert!(a.stored().as_str() > "");
        }
    }
}
