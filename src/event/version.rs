//! Versions of state: one to four unsigned 64-bit integers, compared part by part.

use std::fmt;

use super::json::Node;
use super::outcome::Refusal;

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

/// A version as events carry it: an integer, or an array of one to four.
pub fn parse_version(_node: Node<'_, '_>) -> Result<Version, Refusal> {
    todo!()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn missing_parts_are_zero() {
        assert_eq!(Version::from_parts(&[3]), Version::from_parts(&[3, 0]));
        assert_eq!(Version::from_parts(&[]), None);
        assert_eq!(Version::from_parts(&[1; 5]), None);
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
