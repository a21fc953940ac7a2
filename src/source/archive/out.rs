//! A file of an archive that is written: it is there once it is whole.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;

use super::Compression;
use super::location::Location;
use super::objects::Objects;
use super::upload::Upload;

/// Whether there is such a file. Blocks.
///
/// # Errors
///
/// Where the disk or S3 does not say.
pub fn is_there(place: &Location, objects: &Objects) -> io::Result<bool> {
    match place {
        Location::Disk(path) => path.try_exists(),
        Location::S3(name) => Ok(objects.find(name)?.is_some()),
    }
}

/// Whether files can be made below: a folder is made on the way, a bucket is not. Blocks.
///
/// # Errors
///
/// Where S3 does not say.
pub fn can_hold_files(place: &Location, objects: &Objects) -> io::Result<bool> {
    match place {
        Location::Disk(_) => Ok(true),
        Location::S3(name) => objects.has_bucket(name),
    }
}

enum Packed {
    Plain(Target),
    Gzip(GzEncoder<Target>),
    Zstd(ZstdEncoder<'static, Target>),
}

/// See the module. Blocks. It ends with [`finish`](Self::finish) or [`abandon`](Self::abandon).
pub struct ArchiveWriter {
    packed: Packed,
}

impl ArchiveWriter {
    /// Begins the file; its folder is made where there is none.
    ///
    /// # Errors
    ///
    /// Where it cannot be written to.
    pub fn begin(place: &Location, objects: &Objects, compression: Compression) -> io::Result<Self> {
        let target = match place {
            Location::Disk(path) => {
                path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                // Another process may be at the same file.
                let unfinished = path.with_added_extension(format!("{}.part", std::process::id()));
                // What an earlier process of this number left may be another name of a file that is whole.
                match std::fs::remove_file(&unfinished) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
                Target::File { out: BufWriter::new(File::create_new(&unfinished)?), unfinished, whole: path.clone() }
            }
            Location::S3(name) => Target::Object(Upload::new(objects.clone(), name.clone())),
        };
        let packed = match compression {
            Compression::None => Packed::Plain(target),
            Compression::Gzip => Packed::Gzip(GzEncoder::new(target, flate2::Compression::default())),
            Compression::Zstd => Packed::Zstd(ZstdEncoder::new(target, 0)?),
        };
        Ok(Self { packed })
    }

    /// The file is there from now on, and outlives a crash of the machine.
    ///
    /// # Errors
    ///
    /// Where it could not be written as a whole. Then nothing is there, unless S3 did not answer at the end, or the disk
    /// failed after the file was whole.
    pub fn finish(mut self) -> io::Result<()> {
        let packed = match &mut self.packed {
            Packed::Plain(_) => Ok(()),
            Packed::Gzip(encoder) => encoder.try_finish(),
            Packed::Zstd(encoder) => encoder.do_finish(),
        };
        let finished = packed.and_then(|()| self.target().finish());
        if finished.is_err() {
            self.target().abandon();
        }
        finished
    }

    /// Leaves nothing of it.
    pub fn abandon(mut self) {
        self.target().abandon();
    }

    fn target(&mut self) -> &mut Target {
        match &mut self.packed {
            Packed::Plain(target) => target,
            Packed::Gzip(encoder) => encoder.get_mut(),
            Packed::Zstd(encoder) => encoder.get_mut(),
        }
    }
}

impl Write for ArchiveWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.packed {
            Packed::Plain(out) => out.write(bytes),
            Packed::Gzip(out) => out.write(bytes),
            Packed::Zstd(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.packed {
            Packed::Plain(out) => out.flush(),
            Packed::Gzip(out) => out.flush(),
            Packed::Zstd(out) => out.flush(),
        }
    }
}

/// Gives a file its name, not over one that came meanwhile: as a rename would. Some file systems have no hard links; there, of two
/// that come at the same moment, the later one stands.
fn give_name(unfinished: &Path, whole: &Path) -> io::Result<()> {
    match std::fs::hard_link(unfinished, whole) {
        Ok(()) => std::fs::remove_file(unfinished),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(io::Error::other("it exists already")),
        Err(_) if !whole.try_exists()? => std::fs::rename(unfinished, whole),
        Err(error) => Err(error),
    }
}

enum Target {
    File { out: BufWriter<File>, unfinished: PathBuf, whole: PathBuf },
    Object(Upload),
}

impl Target {
    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::File { out, unfinished, whole } => {
                out.flush()?;
                out.get_ref().sync_all()?;
                give_name(unfinished, whole)?;
                // The name is the folder's.
                let folder = whole.parent().filter(|folder| !folder.as_os_str().is_empty());
                File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
            }
            Self::Object(upload) => upload.finish(),
        }
    }

    fn abandon(&mut self) {
        match self {
            Self::File { unfinished, .. } => {
                match std::fs::remove_file(&*unfinished) {
                    Ok(()) => {}
                    // It has its whole name already: what failed came after.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => tracing::warn!(file = %unfinished.display(), %error, "an unfinished file is left"),
                }
            }
            Self::Object(upload) => upload.abandon(),
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File { out, .. } => out.write(bytes),
            Self::Object(upload) => upload.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File { out, .. } => out.flush(),
            Self::Object(upload) => upload.flush(),
        }
    }
}
