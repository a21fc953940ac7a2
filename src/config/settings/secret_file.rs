//! Secrets that stand in files of their own, as orchestrators mount them.

use std::path::Path;

use crate::config::Secret;
use crate::config::reader::Reader;
use crate::config::setting::Fault;

/// No password is longer.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The secret of setting `name`, given by itself or by the file of setting `name_file`. `None` after an error.
pub(super) fn read(
    reader: &mut Reader<'_>,
    name: &str,
    given: Option<Secret>,
    file: Option<&Path>,
) -> Option<Option<Secret>> {
    let Some(file) = file else { return Some(given) };
    let setting = format!("{name}_file");
    if given.is_some() {
        reader.complain(&setting, Fault::new(format!("and {name} are both given; one has to go")));
        return None;
    }
    match read_file(file) {
        Ok(secret) => Some(Some(secret)),
        Err(what) => {
            reader.complain(&setting, Fault::new(format!("{} {what}", file.display())));
            None
        }
    }
}

fn read_file(file: &Path) -> Result<Secret, String> {
    let size = std::fs::metadata(file).map_err(|error| format!("cannot be read: {error}"))?.len();
    if size > SECRET_BYTES_MAX {
        return Err(format!("is larger than {SECRET_BYTES_MAX} bytes"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
    // Editors and `echo` end a file with a line break that belongs to no password.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(Secret::new(text)) }
}
