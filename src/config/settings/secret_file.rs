//! Secrets that stand in files of their own, as orchestrators mount them.

use std::path::Path;

use crate::config::reader::Reader;
use crate::config::setting::Fault;
use crate::config::{Secret, bounded};

/// No password is longer.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The secret of setting `name`, given by itself or by the file of setting `name_file`. `None` where none is given, and
/// after an error.
pub(super) fn read(reader: &mut Reader<'_>, name: &str, given: Option<Secret>, file: Option<&Path>) -> Option<Secret> {
    let Some(file) = file else { return given };
    let setting = format!("{name}_file");
    if given.is_some() {
        reader.complain(&setting, Fault::new(format!("and {name} are both given; one has to go")));
        return None;
    }
    match read_file(file) {
        Ok(secret) => Some(secret),
        Err(what) => {
            reader.complain(&setting, Fault::new(format!("{} {what}", file.display())));
            None
        }
    }
}

/// The secret in a file, without the line break at its end.
pub(super) fn read_file(file: &Path) -> Result<Secret, String> {
    let text = bounded::text(file, SECRET_BYTES_MAX)?;
    // Editors and `echo` end a file with a line break that belongs to no password.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text {
        "" => Err("is empty".to_owned()),
        _ if text.contains('\0') => Err("holds a NUL".to_owned()),
        _ => Ok(Secret::new(text)),
    }
}
