//! JSON Pointers (RFC 6901), parsed once.
use std::fmt;

/// Why a text is not a JSON Pointer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// Neither empty nor starting with `/`.
    #[error("a pointer is empty or starts with '/'")]
    NoSlash,
    /// A `~` without 0 or 1 behind it.
    #[error("write '~' as ~0 and '/' inside a name as ~1")]
    BadEscape,
}

/// A JSON Pointer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pointer {
    text: String,
    tokens: Vec<String>,
}

impl Pointer {
    /// Reads a pointer.
    pub fn parse(_text: &str) -> Result<Self, PointerError> {
        todo!()
    }
    /// The pointer as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// Its reference tokens, unescaped.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tokens.iter().map(String::as_str)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
