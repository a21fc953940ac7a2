//! The borrowed document as jsonschema sees it.

/// The representation's marker: `jsonschema::options_for::<Borrowed>()` builds validators of [`super::Node`].
#[derive(Clone, Copy, Debug)]
pub struct Borrowed;
