//! Corrected events for letters, from a file: one JSON text a line.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::{Digest, Origin};

use super::args::LetterFilter;

/// A larger file is refused: it is held in memory.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Corrections {
    /// The file's digest; empty without a file.
    pub(super) digest: String,
    /// Values by the origin of their letter, in the stored form.
    pub(super) by_origin: HashMap<String, Vec<u8>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    origin: String,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    value_base64: Option<String>,
}

impl Corrections {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// What is wrong with it, with the line.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let name = file.display();
        let about = std::fs::metadata(file).map_err(|error| format!("{name}: {error}"))?;
        if !about.is_file() {
            return Err(format!("{name}: not a regular file"));
        }
        let bytes = about.len();
        if bytes > BYTES_MAX {
            return Err(format!("{name}: {bytes} bytes are more than {BYTES_MAX}: split the file"));
        }
        let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
        let mut by_origin = HashMap::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let at = |what: String| format!("{name}:{}: {what}", index + 1);
            let (origin, value) = Self::line(line).map_err(at)?;
            if by_origin.insert(origin.clone(), value).is_some() {
                return Err(at(format!("a second event for {origin}")));
            }
        }
        if by_origin.is_empty() {
            return Err(format!("{name}: corrects nothing"));
        }
        Ok(Self { digest: Digest::of(text.as_bytes()).hex(), by_origin })
    }

    fn line(line: &str) -> Result<(String, Vec<u8>), String> {
        let line: Line<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if Origin::parse(&line.origin).is_none() {
            return Err(format!("{} is no origin: `redrive list` shows them", line.origin));
        }
        let value = match (line.value, line.value_base64) {
            (Some(value), None) => value.get().as_bytes().to_vec(),
            (None, Some(text)) => STANDARD.decode(text).map_err(|error| format!("value_base64: {error}"))?,
            (Some(_), Some(_)) | (None, None) => return Err("give either value or value_base64".to_owned()),
        };
        Ok((line.origin, value))
    }

    /// With a file, only the letters that it names; `None` where the filter lets none of them through.
    pub(super) fn narrow(&self, mut filter: LetterFilter) -> Option<LetterFilter> {
        if !self.digest.is_empty() {
            let named = |origin: &&String| filter.origin.is_empty() || filter.origin.contains(origin);
            filter.origin = self.by_origin.keys().filter(named).cloned().collect();
            if filter.origin.is_empty() {
                return None;
            }
        }
        Some(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_letter_and_what_it_should_have_been() {
        let read = |line: &str| Corrections::line(line);
        let (origin, value) = read(r#"{"origin":"c|t|i|0|3|42","value":{"a": 1.50}}"#).unwrap();
        assert_eq!((origin.as_str(), value.as_slice()), ("c|t|i|0|3|42", br#"{"a": 1.50}"#.as_slice()));
        assert_eq!(read(r#"{"origin":"c|t|i|0|3|42","value_base64":"AQI="}"#).unwrap().1, [1, 2]);
        for (bad, hint) in [
            ("{", "EOF"),
            (r#"{"origin":"42","value":1}"#, "no origin"),
            (r#"{"origin":"c|t|i|0|3|42"}"#, "either"),
            (r#"{"origin":"c|t|i|0|3|42","value":1,"value_base64":""}"#, "either"),
            (r#"{"origin":"c|t|i|0|3|42","value_base64":"*"}"#, "value_base64"),
            (r#"{"origin":"c|t|i|0|3|42","valeu":1}"#, "unknown field"),
        ] {
            assert!(read(bad).unwrap_err().contains(hint), "{bad}");
        }
    }
}
