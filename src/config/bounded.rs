//! Files are read no further than their limit: what was named may be a device, a pipe, or the wrong file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The bytes of a file.
///
/// # Errors
///
/// Why it cannot be had; follows the file's name in a message.
pub(super) fn bytes(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let refuse = |error: std::io::Error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    File::open(path).map_err(refuse)?.take(bytes_max + 1).read_to_end(&mut bytes).map_err(refuse)?;
    if bytes.len() as u64 > bytes_max { Err(format!("is larger than {bytes_max} bytes")) } else { Ok(bytes) }
}

/// The text of a file.
///
/// # Errors
///
/// As [`bytes`], or it is not UTF-8.
pub(super) fn text(path: &Path, bytes_max: u64) -> Result<String, String> {
    String::from_utf8(bytes(path, bytes_max)?).map_err(|_| "cannot be read: it is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_to_its_limit_only() {
        assert_eq!(bytes(Path::new("/dev/null"), 1000), Ok(Vec::new()));
        let own = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/bounded.rs");
        let whole = std::fs::read_to_string(own).unwrap();
        assert_eq!(text(Path::new(own), whole.len() as u64), Ok(whole.clone()));
        assert_eq!(bytes(Path::new(own), 1000), Err("is larger than 1000 bytes".to_owned()));
        assert!(text(Path::new(own), whole.len() as u64 - 1).is_err());
    }
}
