//! Archive files, read line by line. A file is a partition: what it holds is known by its digest, a position is a line.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::line::read_line;
use super::location::{Location, is_archive};
use super::objects::Objects;
use crate::event::{Digest, Origin, Partition, PartitionRef, Position};
use crate::source::range::{Fed, Feed, Range};
use crate::source::{Provenance, RawBatch, RawMessage};

/// A longer line is refused: it is held in memory.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// So many files are open at once, at most; each takes up to 20 MiB. The others wait for their turn.
const OPEN_MAX: usize = 32;
/// What a compressed file may refer back to: 16 MiB. `archive` writes with less.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;
/// One step of reading takes about so long, at most.
const STEP: Duration = Duration::from_secs(1);
/// So many files are taken at once, at most.
const FILES_MAX: usize = 1_000;

/// Why files cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// They are not what was meant.
    #[error("{0}")]
    Wrong(String),
    /// Where they are does not answer.
    #[error("{0}")]
    Away(String),
}

impl Trouble {
    fn of(place: &Location, error: &io::Error) -> Self {
        let what = format!("{place}: {error}");
        if error.kind() == io::ErrorKind::TimedOut { Self::Away(what) } else { Self::Wrong(what) }
    }
}

/// The files that a place stands for: those right below, where it is a folder, in the order of their names.
///
/// # Errors
///
/// Where a folder cannot be listed, holds no archive or too many. Blocks.
pub fn files_of(place: Location, objects: &Objects) -> Result<Vec<Location>, Trouble> {
    let named = |error: io::Error| Trouble::of(&place, &error);
    let files = match &place {
        Location::Disk(path) if path.is_dir() => {
            let entries = std::fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(named)?;
            let mut paths: Vec<_> = entries.iter().map(std::fs::DirEntry::path).collect();
            paths.sort();
            let archives = paths.iter().filter(|path| is_archive(&path.to_string_lossy()) && path.is_file());
            let told = |path: &PathBuf| path.to_str().is_some();
            if let Some(path) = archives.clone().find(|path| !told(path)) {
                return Err(Trouble::Wrong(format!("{}: give it a name in UTF-8", path.display())));
            }
            archives.map(|path| Location::from(path.as_path())).collect()
        }
        Location::S3(prefix) if prefix.is_prefix() => objects.list(prefix, FILES_MAX).map_err(named)?,
        Location::Disk(_) | Location::S3(_) => vec![place.clone()],
    };
    match files.len() {
        0 => Err(Trouble::Wrong(format!("{place}: holds no archive (.ndjson, .ndjson.gz, .ndjson.zst)"))),
        1..=FILES_MAX => Ok(files),
        _ => Err(Trouble::Wrong(format!("{place}: holds more than {FILES_MAX} archives: name them in parts"))),
    }
}

/// What one look over a file has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveFile {
    /// Where it is.
    pub place: Location,
    /// Tells whether it was changed since.
    version: String,
    /// All of it.
    pub range: Range,
    /// The origin of the first line that can be read.
    pub first_origin: Option<Origin>,
}

impl ArchiveFile {
    /// Reads the file once: how many lines it has, and its digest, so that it is known again.
    ///
    /// # Errors
    ///
    /// Where it cannot be read to its end.
    pub fn look(place: Location, objects: &Objects) -> Result<Self, Trouble> {
        let (mut lines, version) = open(&place, objects).map_err(|error| Trouble::of(&place, &error))?;
        let (mut hash, mut count, mut first_origin) = (Sha256::new(), 0, None);
        let mut line = Vec::new();
        while next_line(&mut lines, &mut line).map_err(|error| Trouble::of(&place, &at(count, error)))? {
            hash.update(&line);
            hash.update(b"\n");
            if first_origin.is_none() {
                let read = read_line(&line, &mut Vec::new());
                first_origin = read.ok().and_then(|message| match message.provenance {
                    Provenance::Carried(carried) => Some(carried.origin),
                    Provenance::Here | Provenance::LeftOut(_) | Provenance::Damaged(_) => None,
                });
            }
            count += 1;
        }
        let mut digest = Digest(hash.finalize().into()).hex();
        digest.truncate(32);
        let partition = Partition {
            cluster: "archive".to_owned(),
            topic: place.file_name(),
            topic_id: digest,
            epoch: 0,
            name: "0".to_owned(),
        };
        let to = Position::before_offset(count);
        let range = Range { partition: Arc::new(partition), from: Position::Begin, to, log_start: Position::Begin };
        Ok(Self { place, version, range, first_origin })
    }
}

/// When a batch is handed over.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At so many messages.
    pub messages_max: usize,
    /// At so many bytes; one message may exceed it.
    pub bytes_max: usize,
}

struct Reading {
    file: ArchiveFile,
    lines: Box<dyn BufRead + Send>,
    /// The line that the file stands at.
    at: u64,
    /// The first line that is wanted.
    from: u64,
}

/// See the module.
pub struct ArchiveFiles {
    files: Vec<ArchiveFile>,
    objects: Objects,
    limits: Limits,
    /// Started, and not opened yet.
    waiting: VecDeque<(ArchiveFile, Position)>,
    reading: VecDeque<Reading>,
    paused: BTreeSet<PartitionRef>,
    ready: VecDeque<Fed>,
}

impl ArchiveFiles {
    /// Of these files, in batches of so many messages and bytes at most.
    pub fn new(files: Vec<ArchiveFile>, objects: Objects, messages_max: usize, bytes_max: usize) -> Self {
        Self {
            files,
            objects,
            limits: Limits { messages_max, bytes_max },
            waiting: VecDeque::new(),
            reading: VecDeque::new(),
            paused: BTreeSet::new(),
            ready: VecDeque::new(),
        }
    }

    fn begin(&self, file: ArchiveFile, after: Position) -> Result<Reading, String> {
        let (lines, version) = open(&file.place, &self.objects).map_err(|error| format!("{}: {error}", file.place))?;
        if version != file.version {
            return Err(format!("{}: it was changed after it was looked over", file.place));
        }
        Ok(Reading { file, lines, at: 0, from: after.next_offset() })
    }

    /// The next batch of the file whose turn it is, empty where lines were passed over; whether the file has come to its end.
    fn batch(reading: &mut Reading, limits: Limits) -> Result<(RawBatch, bool), String> {
        let range = &reading.file.range;
        let mut batch = RawBatch { partition: range.partition.clone(), bytes: Vec::new(), messages: Vec::new() };
        let (mut line, until) = (Vec::new(), Instant::now() + STEP);
        let is_full =
            |batch: &RawBatch| batch.messages.len() >= limits.messages_max || batch.bytes.len() >= limits.bytes_max;
        while !is_full(&batch) && Instant::now() < until {
            if Position::before_offset(reading.at) >= range.to {
                return Ok((batch, true));
            }
            let more = next_line(&mut reading.lines, &mut line);
            if !more.map_err(|error| format!("{}: {}", reading.file.place, at(reading.at, error)))? {
                return Err(format!("{}: it became shorter while it was read", reading.file.place));
            }
            reading.at += 1;
            if reading.at <= reading.from {
                continue;
            }
            let before = batch.bytes.len();
            let read = read_line(&line, &mut batch.bytes);
            let message = read.unwrap_or_else(|why| {
                batch.bytes.truncate(before);
                batch.bytes.extend_from_slice(&line);
                let provenance = Provenance::Damaged(format!("line of an archive: {why}"));
                let value = Some(before..batch.bytes.len());
                let position = Position::Begin;
                RawMessage { position, timestamp_ms: None, key: None, value, headers: Vec::new(), provenance }
            });
            batch.messages.push(RawMessage { position: Position::Offset(reading.at - 1), ..message });
        }
        Ok((batch, false))
    }
}

impl Feed for ArchiveFiles {
    fn start(&mut self, partition: &PartitionRef, after: Position) {
        let file = self.files.iter().find(|file| file.range.partition == *partition);
        self.waiting.extend(file.map(|file| (file.clone(), after)));
    }

    fn pause(&mut self, partition: &PartitionRef, paused: bool) {
        if paused {
            self.paused.insert(partition.clone());
        } else {
            self.paused.remove(partition);
        }
    }

    fn next(&mut self) -> Result<Option<Fed>, String> {
        if let Some(ready) = self.ready.pop_front() {
            return Ok(Some(ready));
        }
        if self.reading.len() < OPEN_MAX
            && let Some((file, after)) = self.waiting.pop_front()
        {
            let reading = self.begin(file, after)?;
            self.reading.push_back(reading);
        }
        let free = |reading: &Reading| !self.paused.contains(&reading.file.range.partition);
        let Some(turn) = self.reading.iter().position(free) else { return Ok(None) };
        let Some(mut reading) = self.reading.remove(turn) else { return Ok(None) };
        let (batch, ended) = Self::batch(&mut reading, self.limits)?;
        if !batch.messages.is_empty() {
            self.ready.push_back(Fed::Batch(batch));
        }
        if ended {
            self.ready.push_back(Fed::End(reading.file.range.partition.clone()));
        } else {
            self.reading.push_back(reading);
        }
        Ok(self.ready.pop_front())
    }
}

/// What the file says, unpacked by what it begins with, whatever its name; and what tells whether it was changed since.
fn open(place: &Location, objects: &Objects) -> io::Result<(Box<dyn BufRead + Send>, String)> {
    Ok(match place {
        Location::Disk(path) => {
            let about = std::fs::metadata(path)?;
            if !about.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
            }
            let file = File::open(path)?;
            let about = file.metadata()?;
            let version = format!("{} bytes, {:?}", about.len(), about.modified()?);
            (unpack(BufReader::new(file))?, version)
        }
        Location::S3(name) => {
            let object = objects.open(name)?;
            let version = object.found().etag.clone();
            (unpack(object)?, version)
        }
    })
}

fn unpack(mut packed: impl BufRead + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    let begin = packed.fill_buf()?;
    Ok(if begin.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(packed)))
    } else if begin.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut unpacked = zstd::stream::read::Decoder::with_buffer(packed)?;
        unpacked.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        Box::new(BufReader::new(unpacked))
    } else {
        Box::new(packed)
    })
}

/// The next line without its end; false at the end of the file.
fn next_line(lines: &mut (impl BufRead + ?Sized), line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = lines.take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > LINE_BYTES_MAX {
        return Err(io::Error::other(format!("a line of more than {LINE_BYTES_MAX} bytes")));
    }
    Ok(read > 0)
}

fn at(lines: u64, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("after {lines} lines: {error}"))
}
