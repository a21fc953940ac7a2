//! Heads: where chains end, signed and kept outside of the tables, so that whoever can write to the tables cannot cut a chain's
//! tail or write it anew without being found out.
//!
//! One line of JSON a head, appended to a file. What can fail is the file; a head that was not written is written later.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::config::pem;
use crate::event::{Digest, FORMAT, Position};

/// The longest that writing heads may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// In front of what is signed: no signature over anything else is one over a head.
const DOMAIN: &str = "recordkeeper head 1";
/// What stands in front of the 32 bytes of an Ed25519 public key in DER (RFC 8410).
const PUBLIC_DER: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Where a chain ended at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The chain's key.
    pub chain: String,
    /// The end of its last entry.
    pub end: Position,
    /// The digest of its last entry.
    pub digest: Digest,
    /// When, in the stored form.
    pub at: String,
}

/// A head's line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    format: u32,
    chain: String,
    end: String,
    digest: String,
    at: String,
    signature: String,
}

impl Head {
    /// What is signed: each part with its length in front.
    fn signed(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for part in [DOMAIN, &self.chain, &self.end.sort_key(), &self.digest.hex(), &self.at] {
            out.extend((part.len() as u64).to_be_bytes());
            out.extend(part.as_bytes());
        }
        out
    }
}

/// Signs heads and appends them to a file.
pub struct Heads {
    file: PathBuf,
    key: Ed25519KeyPair,
    /// Between two heads of a chain, at least.
    pub interval: Duration,
}

impl Heads {
    /// With a private key, PEM (PKCS #8), as `openssl genpkey -algorithm ed25519` makes it. The file is not touched.
    ///
    /// # Errors
    ///
    /// What is wrong with the key, without it.
    pub fn new(file: PathBuf, key: &str, interval: Duration) -> Result<Self, String> {
        let der = pem::block(key, "PRIVATE KEY")
            .ok_or("holds no PEM private key: make one with `openssl genpkey -algorithm ed25519`")?;
        let key = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| "holds a private key that is none of Ed25519")?;
        Ok(Self { file, key, interval })
    }

    /// Appends heads, all of them in one write, and returns once they are on disk.
    ///
    /// # Errors
    ///
    /// Some of them may not have been written: the file cannot be written to, or takes too long.
    pub async fn publish(self: &Arc<Self>, heads: Vec<Head>) -> Result<(), String> {
        let this = self.clone();
        let writing = tokio::task::spawn_blocking(move || this.append(&heads));
        let written = tokio::time::timeout(DEADLINE, writing).await;
        let written = written.map_err(|_| format!("not written within {DEADLINE:?}"))?;
        let written = written.map_err(|_| "writing broke off".to_owned())?;
        written.map_err(|what| format!("{}: {what}", self.file.display()))
    }

    fn append(&self, heads: &[Head]) -> Result<(), String> {
        // A line that a crash cut short must not spoil the one after it.
        let mut text = String::from("\n");
        for head in heads {
            let signature = self.key.try_sign(&head.signed()).map_err(|_| "a head cannot be signed")?;
            let line = Line {
                format: FORMAT,
                chain: head.chain.clone(),
                end: head.end.sort_key(),
                digest: head.digest.hex(),
                at: head.at.clone(),
                signature: STANDARD.encode(signature),
            };
            text.push_str(&serde_json::to_string(&line).map_err(|error| error.to_string())?);
            text.push('\n');
        }
        let file = OpenOptions::new().create(true).append(true).open(&self.file);
        let written = file.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_data()
        });
        written.map_err(|error| error.to_string())
    }
}

/// Checks the signatures of heads.
pub struct HeadKey([u8; 32]);

impl HeadKey {
    /// A public key, PEM, as `openssl pkey -pubout` makes it.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        let der = pem::block(text, "PUBLIC KEY")
            .ok_or("holds no PEM public key: make it with `openssl pkey -pubout` from the private one")?;
        let key = der.strip_prefix(&PUBLIC_DER).and_then(|key| key.try_into().ok());
        key.map(Self).ok_or_else(|| "holds a public key that is none of Ed25519".to_owned())
    }

    /// Reads a line of a file of heads.
    ///
    /// # Errors
    ///
    /// It is no head, or was not signed with the key's other half.
    pub fn read(&self, line: &str) -> Result<Head, String> {
        let line: Line = serde_json::from_str(line).map_err(|_| "it is no head")?;
        if line.format != FORMAT {
            return Err(format!("its format is {}, not {FORMAT}", line.format));
        }
        let head = Head {
            end: Position::from_sort_key(&line.end).ok_or("its end is no position")?,
            digest: Digest::from_hex(&line.digest).ok_or("its digest is none")?,
            chain: line.chain,
            at: line.at,
        };
        let signature = STANDARD.decode(&line.signature).map_err(|_| "its signature is none")?;
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        key.verify(&head.signed(), &signature).map_err(|_| "its signature does not fit")?;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout`.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEICQL5mGfb9z43lmNs3auT+YXGRNFT2aabvU+ynSV1uLz\n-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAYVg1ijOOQbBiOuUTvudf+lzyjCEzwViAjiNQ/NHMOyU=\n-----END PUBLIC KEY-----\n";

    #[tokio::test]
    async fn a_head_reads_back_and_every_part_of_it_is_signed() {
        let file = std::env::temp_dir().join(format!("recordkeeper-heads-{}", std::process::id()));
        let heads = Arc::new(Heads::new(file.clone(), PRIVATE, Duration::from_secs(1)).unwrap());
        let head = |n: u64| Head {
            chain: "g|c|t|i|0|0|0".into(),
            end: Position::Offset(n),
            digest: Digest::of(b"d"),
            at: "2026-01-02T03:04:05.678901Z".into(),
        };
        heads.publish(vec![head(7), head(8)]).await.unwrap();
        heads.publish(vec![head(9)]).await.unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let key = HeadKey::from_pem(PUBLIC).unwrap();
        let read: Vec<Head> = lines.iter().map(|line| key.read(line).unwrap()).collect();
        assert_eq!(read, [head(7), head(8), head(9)]);
        let (digest, other_digest) = (Digest::of(b"d").hex(), Digest::of(b"e").hex());
        for (was, other) in [("g|c", "h|c"), ("0007", "0008"), (&digest, &other_digest), ("05.67", "05.68")] {
            let forged = lines[0].replace(was, other);
            assert_ne!(forged, lines[0], "{was}");
            assert!(key.read(&forged).unwrap_err().contains("signature"), "{forged}");
        }
    }

    #[test]
    fn a_key_of_another_kind_is_refused_and_not_shown() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let other = made.signing_key.serialize_pem();
        for (key, hint) in
            [(other.as_str(), "none of Ed25519"), ("hush", "no PEM private key"), (PUBLIC, "no PEM private")]
        {
            let Err(error) = Heads::new("f".into(), key, Duration::from_secs(1)) else { panic!("taken") };
            assert!(error.contains(hint) && !error.contains("hush"), "{error}");
        }
        assert!(HeadKey::from_pem(PRIVATE).is_err());
    }
}
