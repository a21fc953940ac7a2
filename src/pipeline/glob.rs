//! Patterns in which `*` stands for any run of characters, and nothing else is special.

/// A pattern over a whole text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    pattern: String,
}

impl Glob {
    /// Every text is a pattern.
    pub fn new(pattern: &str) -> Self {
        Self { pattern: pattern.to_owned() }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// Whether the whole of `text` fits. Linear in pattern times text at worst.
    pub fn matches(&self, text: &[u8]) -> bool {
        let mut pieces = self.pattern.as_bytes().split(|byte| *byte == b'*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let mut last = None;
        for piece in pieces {
            if let Some(middle) = last.replace(piece) {
                let Some(at) = find(rest, middle) else { return false };
                rest = &rest[at + middle.len()..];
            }
        }
        match last {
            None => rest.is_empty(),
            Some(last) => rest.ends_with(last),
        }
    }

    /// Whether everything that `other` matches is sure to match here too. May say no where it is so for a subtle reason.
    pub fn covers(&self, other: &Self) -> bool {
        // Taking the other's stars as letters that only a star of ours can take is sound: each stands for any text.
        let stars_as_unmatched: Vec<u8> =
            other.pattern.bytes().map(|byte| if byte == b'*' { 0xff } else { byte }).collect();
        self.pattern == other.pattern || self.matches(&stars_as_unmatched)
    }
}

fn find(text: &[u8], piece: &[u8]) -> Option<usize> {
    if piece.is_empty() {
        return Some(0);
    }
    text.windows(piece.len()).position(|window| window == piece)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stars_take_any_run() {
        for (pattern, text, fits) in [
            ("evm:*", "evm:1:0xab", true),
            ("evm:*", "solana:x", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("a**a", "aa", true),
            ("wallet.created", "wallet.created", true),
            ("wallet.created", "wallet.created2", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text.as_bytes()), fits, "{pattern} over {text}");
        }
    }

    #[test]
    fn a_wider_pattern_covers_a_narrower_one() {
        assert!(Glob::new("*").covers(&Glob::new("evm:*")));
        assert!(Glob::new("evm:*").covers(&Glob::new("evm:1:*")));
        assert!(Glob::new("evm:*").covers(&Glob::new("evm:1")));
        assert!(!Glob::new("evm:1:*").covers(&Glob::new("evm:*")));
        assert!(!Glob::new("*a").covers(&Glob::new("a*")));
    }

    proptest! {
        #[test]
        fn what_is_covered_matches(wide in "[ab*]{0,6}", narrow in "[ab*]{0,6}", text in "[ab]{0,8}") {
            let (wide, narrow) = (Glob::new(&wide), Glob::new(&narrow));
            if wide.covers(&narrow) && narrow.matches(text.as_bytes()) {
                prop_assert!(wide.matches(text.as_bytes()));
            }
        }
    }
}
