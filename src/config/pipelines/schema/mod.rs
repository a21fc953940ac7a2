//! The JSON Schemas that routes name: files in, whole schemas or diagnostics out.
//!
//! A schema is whole when everything that it refers to is there, every keyword is one, and every pattern compiles. Only
//! files are referred to, by relative paths; nothing is ever fetched.

mod check;
mod keywords;
mod reach;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jsonschema::{Draft, PatternOptions, Retrieve, Uri, Validator};
use serde_json::Value;

use crate::config::{Diagnostic, bounded};
use crate::event::{Borrowed, Document, Limits};

pub(super) use reach::Reach;

/// Larger files of a schema are not read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// One schema with all files that it refers to.
#[derive(Clone, Debug)]
pub struct SchemaSpec {
    files: Arc<[SchemaFile]>,
}

/// One file. Its references are rewritten to `schema:///N#/pointer`, N being the place of the file referred to.
#[derive(Debug)]
struct SchemaFile {
    path: PathBuf,
    bytes: Vec<u8>,
    value: Value,
}

/// Schemas by path, so that each is read, and its problems told, once.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    known: HashMap<PathBuf, Option<SchemaSpec>>,
}

impl Schemas {
    /// The schema at `path`, or `None` where it is not whole; why is pushed to `found` the first time.
    pub(super) fn load(&mut self, path: &Path, found: &mut Vec<Diagnostic>) -> Option<SchemaSpec> {
        if let Some(known) = self.known.get(path) {
            return known.clone();
        }
        let loaded = match SchemaSpec::load(path) {
            Ok(schema) => Some(schema),
            Err(diagnostics) => {
                found.extend(diagnostics);
                None
            }
        };
        self.known.insert(path.to_owned(), loaded.clone());
        loaded
    }
}

impl SchemaSpec {
    fn load(path: &Path) -> Result<Self, Vec<Diagnostic>> {
        let mut files = vec![read(path).map_err(|error| vec![error])?];
        let mut found = Vec::new();
        let mut at = 0;
        while at < files.len() {
            // Rewriting may append the files that this one refers to; the loop comes to them.
            check::resolve_references(&mut files, at, &mut found);
            at += 1;
        }
        check::keywords_and_patterns(&files, &mut found);
        check::references(&files, &mut found);
        let schema = Self { files: files.into() };
        if found.is_empty()
            && let Err(error) = schema.validator()
        {
            found.push(error);
        }
        if found.is_empty() { Ok(schema) } else { Err(found) }
    }

    /// The file that the route names.
    pub fn path(&self) -> &Path {
        &self.files[0].path
    }

    /// The bytes of all files, the one that the route names first, the others in the order of reference.
    pub fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.files.iter().map(|file| file.bytes.as_slice())
    }

    /// A validator of borrowed documents. Formats are asserted, patterns run in linear time.
    ///
    /// # Errors
    /// What the schema compiler refuses, with the pointer inside the schema.
    pub fn validator(&self) -> Result<Validator<Borrowed>, Diagnostic> {
        let files = self.files.iter().enumerate().map(|(at, file)| (uri_of(at), file.value.clone())).collect();
        jsonschema::options_for::<Borrowed>()
            .with_draft(Draft::Draft202012)
            .with_base_uri(uri_of(0))
            .with_retriever(Files(files))
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            .with_pattern_options(PatternOptions::regex())
            .build(&self.files[0].value)
            .map_err(|error| {
                let pointer = error.instance_path().to_string();
                Diagnostic::error(self.path(), None, format!("not a whole schema at {}: {error}", shown(&pointer)))
            })
    }
}

/// Only what was read beforehand can be referred to.
struct Files(HashMap<String, Value>);

impl Retrieve for Files {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        self.0.get(uri.as_str()).cloned().ok_or_else(|| format!("{uri} was not read").into())
    }
}

fn uri_of(file: usize) -> String {
    format!("schema:///{file}")
}

/// The root's empty pointer as something that can be seen.
fn shown(pointer: &str) -> &str {
    if pointer.is_empty() { "/" } else { pointer }
}

fn read(path: &Path) -> Result<SchemaFile, Diagnostic> {
    let bytes = bounded::bytes(path, FILE_BYTES_MAX).map_err(|what| {
        Diagnostic::error(path, None, format!("the schema {what}"))
            .with_hint("`schema` is relative to the pipeline file")
    })?;
    // The event parser is the stricter one: it also refuses a name twice, of which serde_json would keep the last.
    Document::parse(&bytes, &Limits::default())
        .map_err(|refusal| Diagnostic::error(path, None, format!("the schema is no JSON: {}", refusal.detail)))?;
    let value = serde_json::from_slice(&bytes).map_err(|error| {
        let place = (error.line() as u64, error.column() as u64);
        Diagnostic::error(path, Some(place), format!("the schema is no JSON: {error}"))
    })?;
    Ok(SchemaFile { path: path.to_owned(), bytes, value })
}

#[cfg(test)]
mod tests;
