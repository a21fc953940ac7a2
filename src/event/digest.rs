//! The content digest: over what was sent, in one form, so that the same event sent again compares equal and nothing that
//! a mapping makes of it can change the comparison.

use sha2::{Digest as _, Sha256};

use super::ids::Digest;
use super::json::{Node, Numbers, write_canonical};

/// SHA-256 over source, id and type (each as an 8-byte big-endian length and its bytes), then a zero byte where there is no
/// data, else a one byte and the data's canonical form: members sorted by name, strings escaped one way, numbers by the
/// digits that were sent (`1.0` and `1` differ), no white space.
///
/// For a foreign format the type is empty and the data is the whole document.
pub fn content_digest(source: &str, id: &str, kind: &str, data: Option<Node<'_, '_>>) -> Digest {
    let mut sink = Sink { hash: Sha256::new(), buffer: [0; 512], used: 0 };
    for part in [source, id, kind] {
        sink.put(&(part.len() as u64).to_be_bytes());
        sink.put(part.as_bytes());
    }
    match data {
        None => sink.put(&[0]),
        Some(node) => {
            sink.put(&[1]);
            write_canonical(node, Numbers::AsSent, &mut |piece: &str| sink.put(piece.as_bytes()));
        }
    }
    sink.finish()
}

/// Gathers the many small pieces of the canonical form, which the hash would take one by one at a price.
struct Sink {
    hash: Sha256,
    buffer: [u8; 512],
    used: usize,
}

impl Sink {
    fn put(&mut self, piece: &[u8]) {
        if piece.len() > self.buffer.len() - self.used {
            self.hash.update(&self.buffer[..self.used]);
            self.used = 0;
        }
        if piece.len() > self.buffer.len() {
            self.hash.update(piece);
        } else {
            self.buffer[self.used..self.used + piece.len()].copy_from_slice(piece);
            self.used += piece.len();
        }
    }

    fn finish(mut self) -> Digest {
        self.hash.update(&self.buffer[..self.used]);
        Digest(self.hash.finalize().into())
    }
}
