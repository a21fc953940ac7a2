//! Where the files of archives are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Compression;

/// A file, or a folder of files, on disk or in S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// On disk.
    Disk(PathBuf),
    /// In S3.
    S3(ObjectName),
}

/// An object, or the common beginning of some, in S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// The bucket.
    pub bucket: String,
    /// The object's key. Where it is empty or ends with `/` it stands for what is right below.
    pub key: String,
}

const SCHEME: &str = "s3://";

impl Location {
    /// A place below this one.
    pub fn join(&self, name: &str) -> Self {
        match self {
            Self::Disk(folder) => Self::Disk(folder.join(name)),
            Self::S3(ObjectName { bucket, key }) => {
                let slash = if key.is_empty() || key.ends_with('/') { "" } else { "/" };
                Self::S3(ObjectName { bucket: bucket.clone(), key: format!("{key}{slash}{name}") })
            }
        }
    }

    /// The last part of its name.
    pub fn file_name(&self) -> String {
        match self {
            Self::Disk(file) => file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            Self::S3(object) => object.key.rsplit('/').next().unwrap_or_default().to_owned(),
        }
    }

    /// The same, wherever the process works.
    pub fn absolute(self) -> Self {
        match self {
            Self::Disk(file) => Self::Disk(std::path::absolute(&file).unwrap_or(file)),
            object @ Self::S3(_) => object,
        }
    }
}

impl ObjectName {
    /// Whether it stands for the objects right below.
    pub(super) fn is_prefix(&self) -> bool {
        self.key.is_empty() || self.key.ends_with('/')
    }
}

/// Whether this is the name of an archive's file.
pub(super) fn is_archive(name: &str) -> bool {
    [Compression::None, Compression::Gzip, Compression::Zstd].iter().any(|how| name.ends_with(how.suffix()))
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix(SCHEME) else {
            return match text.split_once("://") {
                Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                    Err(format!("{scheme}:// is not known: give a path, or s3://bucket/key"))
                }
                _ if text.is_empty() => Err("give a path, or s3://bucket/key".to_owned()),
                _ => Ok(Self::from(Path::new(text))),
            };
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        // Some that are older than the rules have upper case letters and `_`.
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if bucket.len() < 3 || !bucket.bytes().all(sound) {
            return Err(format!("{text} names no bucket: write s3://bucket/key"));
        }
        Ok(Self::S3(ObjectName { bucket: bucket.to_owned(), key: key.to_owned() }))
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Self::Disk(path.to_owned())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(path) => path.display().fmt(f),
            Self::S3(object) => object.fmt(f),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.bucket, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_path_or_an_object() {
        for (text, below, name) in [
            ("a/b", "a/b/x.ndjson", "b"),
            ("/", "/x.ndjson", ""),
            ("s3://my-bucket", "s3://my-bucket/x.ndjson", ""),
            ("s3://my-bucket/", "s3://my-bucket/x.ndjson", ""),
            ("s3://my-bucket/a/b", "s3://my-bucket/a/b/x.ndjson", "b"),
            ("s3://my-bucket/a/b/", "s3://my-bucket/a/b/x.ndjson", ""),
        ] {
            let place: Location = text.parse().unwrap();
            assert_eq!(place.join("x.ndjson").to_string(), below);
            assert_eq!(place.file_name(), name);
        }
        for bad in ["", "s3://", "s3:///key", "s3://b", "s3://my bucket/key", "gs://bucket/key", "https://bucket/key"] {
            assert!(bad.parse::<Location>().unwrap_err().contains("s3://bucket/key"), "{bad}");
        }
    }
}
