//! Texts with holes: `{/item_id}@{/block_hash}`.

use std::fmt;

use crate::event::Pointer;

/// A text in which every `{/pointer}` is filled from the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// One piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Stands as it is.
    Text(String),
    /// Filled from the event.
    At(Pointer),
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A `{` that nothing closes.
    #[error("`{{` is not closed")]
    Open,
    /// A `}` that nothing opened.
    #[error("`}}` closes nothing")]
    Close,
    /// What stands in the braces is no pointer.
    #[error("`{{{pointer}}}` holds no pointer: {why}")]
    Pointer {
        /// What stands there.
        pointer: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Template {
    /// Reads a template. Braces cannot be written literally.
    ///
    /// # Errors
    /// Unbalanced braces, or braces around something that is not a JSON Pointer with at least one token.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (literal, braced) = rest.split_at(open);
            let braced = braced.strip_prefix('{').ok_or(TemplateError::Close)?;
            let (pointer, after) = braced.split_once('}').ok_or(TemplateError::Open)?;
            if !literal.is_empty() {
                parts.push(Part::Text(literal.to_owned()));
            }
            let broken = |why: String| TemplateError::Pointer { pointer: pointer.to_owned(), why };
            if pointer.is_empty() {
                return Err(broken("it is empty".to_owned()));
            }
            parts.push(Part::At(Pointer::parse(pointer).map_err(|error| broken(error.to_string()))?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The pieces in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The pointers in order.
    pub fn pointers(&self) -> impl Iterator<Item = &Pointer> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::At(pointer) => Some(pointer),
        })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::At(pointer) => write!(f, "{{{pointer}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_read_back() {
        for text in ["evm:1:{/from_address}", "{/item_id}@{/block_hash}", "plain", ""] {
            assert_eq!(Template::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Template::parse("{/a}{/b}").unwrap().pointers().count(), 2);
    }

    #[test]
    fn braces_must_hold_pointers() {
        assert_eq!(Template::parse("{/a"), Err(TemplateError::Open));
        assert_eq!(Template::parse("a}"), Err(TemplateError::Close));
        assert!(matches!(Template::parse("{item_id}"), Err(TemplateError::Pointer { .. })));
        assert!(matches!(Template::parse("{}"), Err(TemplateError::Pointer { .. })));
    }
}
