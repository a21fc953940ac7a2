//! Archives: files of events with where each was read first, one JSON text a line, plain or compressed, on disk or in S3.
//!
//! A line: `{"origin": "cluster|topic|topic id|epoch|partition|offset", "timestamp_ms": n or null, "key": part, "value": part,
//! "headers": [[name, part], ...]}`; a part is null, a text (whose UTF-8 it is), or `{"base64": "..."}`.

mod files;
mod line;
mod location;
mod objects;
mod out;
mod upload;

pub use files::{ArchiveFile, ArchiveFiles, Trouble, files_of};
pub use line::write_line;
pub use location::{Location, ObjectName};
pub use objects::{Objects, ObjectsConfig};
pub use out::{ArchiveWriter, can_hold_files, is_there};

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// What the file's name ends with.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => ".ndjson",
            Self::Gzip => ".ndjson.gz",
            Self::Zstd => ".ndjson.zst",
        }
    }
}
