//! Whether a file is what a PEM setting asks for, so that a wrong file is told before anything connects.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::bounded;

/// No bundle of authorities is larger.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Whether the file holds at least one certificate, and each that it holds is whole.
///
/// # Errors
///
/// What is wrong with it; follows the file's name in a message.
pub(super) fn certificates(path: &Path) -> Result<(), String> {
    // What stands beside the certificates, comments included, may be in any encoding.
    let text = String::from_utf8_lossy(&bounded::bytes(path, FILE_BYTES_MAX)?).into_owned();
    let certificates: Vec<_> = blocks(&text).filter(|(label, _)| label.ends_with("CERTIFICATE")).collect();
    if certificates.is_empty() {
        return Err("holds no PEM certificate (`-----BEGIN CERTIFICATE-----`)".to_owned());
    }
    if certificates.iter().any(|(_, body)| !body.as_deref().is_some_and(is_der)) {
        return Err("holds a PEM certificate that is not whole".to_owned());
    }
    Ok(())
}

/// Whether the file holds a private key. An encrypted one is not looked into.
///
/// # Errors
///
/// What is wrong with it; follows the file's name in a message.
pub(super) fn key(path: &Path) -> Result<(), String> {
    let text = String::from_utf8_lossy(&bounded::bytes(path, FILE_BYTES_MAX)?).into_owned();
    let held = blocks(&text).any(|(label, body)| label.ends_with("PRIVATE KEY") && body.is_some());
    if held { Ok(()) } else { Err("holds no PEM private key (`-----BEGIN PRIVATE KEY-----`)".to_owned()) }
}

/// The bytes of the first block with this label, which may be a secret.
pub(crate) fn block(text: &str, label: &str) -> Option<Vec<u8>> {
    let body = blocks(text).find(|(found, _)| *found == label)?.1?;
    STANDARD.decode(body).ok()
}

/// Each block's label, and what stands between its lines; `None` where its last line is missing.
fn blocks(text: &str) -> impl Iterator<Item = (&str, Option<String>)> {
    text.split("-----BEGIN ").skip(1).filter_map(|block| {
        let (label, rest) = block.split_once("-----")?;
        let body =
            rest.split_once(&format!("-----END {label}-----")).map(|(body, _)| body.split_whitespace().collect());
        Some((label, body))
    })
}

/// Whether this is base64 of an ASN.1 sequence.
fn is_der(body: &str) -> bool {
    STANDARD.decode(body).is_ok_and(|der| der.first() == Some(&0x30))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("recordkeeper-pem-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn real_ones_are_taken_and_what_is_none_is_told() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, private) = (made.cert.pem(), made.signing_key.serialize_pem());
        let good = file("good", &format!("# an authority\n{certificate}\n{certificate}"));
        assert_eq!(certificates(&good), Ok(()));
        assert!(key(&good).unwrap_err().contains("no PEM private key"));
        let held = file("key", &private);
        assert_eq!(key(&held), Ok(()));
        assert!(certificates(&held).unwrap_err().contains("no PEM certificate"));
        let cut = file("cut", &certificate[..certificate.len() / 2]);
        assert!(certificates(&cut).unwrap_err().contains("not whole"));
        let spoiled = file("spoiled", &certificate.replacen("MII", "?II", 1));
        assert!(certificates(&spoiled).unwrap_err().contains("not whole"));
        for path in [good, held, cut, spoiled] {
            std::fs::remove_file(path).unwrap();
        }
    }
}
