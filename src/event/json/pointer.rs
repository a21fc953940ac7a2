//! JSON Pointers (RFC 6901), parsed once and evaluated often.

use std::fmt;

/// Why a text is not a JSON Pointer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// Neither empty nor starting with `/`.
    #[error("a pointer is empty or starts with '/'")]
    NoSlash,
    /// A `~` without 0 or 1 behind it.
    #[error("write '~' as '~0', and '/' inside a name as '~1'")]
    BadEscape,
}

/// A JSON Pointer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pointer {
    text: String,
    steps: Vec<Step>,
}

/// One reference token: as a member's name, and as an index where it can be one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) index: Option<usize>,
}

impl Pointer {
    /// Reads a pointer; the empty one names the whole document.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        let mut tokens = text.split('/');
        if tokens.next() != Some("") {
            return Err(PointerError::NoSlash);
        }
        let steps = tokens
            .map(|token| Ok(Step { name: unescape(token)?, index: index(token) }))
            .collect::<Result<_, PointerError>>()?;
        Ok(Self { text: text.to_owned(), steps })
    }

    /// The pointer as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its reference tokens, unescaped.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &str> {
        self.steps.iter().map(|step| step.name.as_str())
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn unescape(token: &str) -> Result<String, PointerError> {
    let mut pieces = token.split('~');
    let mut out = String::from(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (character, rest) = match piece.as_bytes().first() {
            Some(b'0') => ('~', &piece[1..]),
            Some(b'1') => ('/', &piece[1..]),
            _ => return Err(PointerError::BadEscape),
        };
        out.push(character);
        out.push_str(rest);
    }
    Ok(out)
}

/// An array index: digits without a leading zero.
fn index(token: &str) -> Option<usize> {
    let plain = token.bytes().all(|byte| byte.is_ascii_digit()) && (token == "0" || !token.starts_with('0'));
    if plain { token.parse().ok() } else { None }
}
