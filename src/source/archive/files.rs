//! Archive files, read line by line. A file is a partition: what it holds is known by its digest, a position is a line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::line::read_line;
use crate::event::{Digest, Origin, Partition, PartitionRef, Position};
use crate::source::range::{Fed, Feed, Range};
use crate::source::{Provenance, RawBatch, RawMessage};

/// A longer line is refused: it is held in memory.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What one look over a file has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveFile {
    /// Where it is.
    pub path: PathBuf,
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
    pub fn look(path: &Path) -> Result<Self, String> {
        let named = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut lines = open(path).map_err(named)?;
        let (mut hash, mut count, mut first_origin) = (Sha256::new(), 0, None);
        let mut line = Vec::new();
        while next_line(&mut lines, &mut line).map_err(|error| at(path, count, &error))? {
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
            topic: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            topic_id: digest,
            epoch: 0,
            name: "0".to_owned(),
        };
        let to = Position::before_offset(count);
        let range = Range { partition: Arc::new(partition), from: Position::Begin, to, log_start: Position::Begin };
        Ok(Self { path: path.to_owned(), range, first_origin })
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
    /// The line that is read next.
    next: u64,
    paused: bool,
}

/// See the module.
pub struct ArchiveFiles {
    files: Vec<ArchiveFile>,
    limits: Limits,
    reading: VecDeque<Reading>,
    fault: Option<String>,
    ready: VecDeque<Fed>,
}

impl ArchiveFiles {
    /// Of these files, in batches of so many messages and bytes at most.
    pub fn new(files: Vec<ArchiveFile>, messages_max: usize, bytes_max: usize) -> Self {
        let limits = Limits { messages_max, bytes_max };
        Self { files, limits, reading: VecDeque::new(), fault: None, ready: VecDeque::new() }
    }

    fn begin(file: &ArchiveFile, after: Position) -> Result<Reading, String> {
        let named = |error: std::io::Error| format!("{}: {error}", file.path.display());
        let mut lines = open(&file.path).map_err(named)?;
        let (mut line, next) = (Vec::new(), after.next_offset());
        for passed in 0..next {
            next_line(&mut lines, &mut line).map_err(|error| at(&file.path, passed, &error))?;
        }
        Ok(Reading { file: file.clone(), lines, next, paused: false })
    }

    /// The next batch of the file whose turn it is; whether it has come to its end.
    fn batch(reading: &mut Reading, limits: Limits) -> Result<(RawBatch, bool), String> {
        let range = &reading.file.range;
        let mut batch = RawBatch { partition: range.partition.clone(), bytes: Vec::new(), messages: Vec::new() };
        let mut line = Vec::new();
        while batch.messages.len() < limits.messages_max && batch.bytes.len() < limits.bytes_max {
            if Position::before_offset(reading.next) >= range.to {
                return Ok((batch, true));
            }
            let more = next_line(&mut reading.lines, &mut line);
            if !more.map_err(|error| at(&reading.file.path, reading.next, &error))? {
                return Err(format!("{}: it became shorter while it was read", reading.file.path.display()));
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
            batch.messages.push(RawMessage { position: Position::Offset(reading.next), ..message });
            reading.next += 1;
        }
        Ok((batch, false))
    }
}

impl Feed for ArchiveFiles {
    fn start(&mut self, partition: &PartitionRef, after: Position) {
        let Some(file) = self.files.iter().find(|file| file.range.partition == *partition) else { return };
        match Self::begin(file, after) {
            Ok(reading) => self.reading.push_back(reading),
            Err(why) => drop(self.fault.get_or_insert(why)),
        }
    }

    fn pause(&mut self, partition: &PartitionRef, paused: bool) {
        for reading in self.reading.iter_mut().filter(|reading| reading.file.range.partition == *partition) {
            reading.paused = paused;
        }
    }

    fn next(&mut self) -> Result<Option<Fed>, String> {
        if let Some(why) = &self.fault {
            return Err(why.clone());
        }
        if let Some(ready) = self.ready.pop_front() {
            return Ok(Some(ready));
        }
        let Some(turn) = self.reading.iter().position(|reading| !reading.paused) else { return Ok(None) };
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

/// By what the file begins with, whatever its name.
fn open(path: &Path) -> std::io::Result<Box<dyn BufRead + Send>> {
    let mut file = BufReader::new(File::open(path)?);
    let begin = file.fill_buf()?;
    Ok(if begin.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(file)))
    } else if begin.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(file)?))
    } else {
        Box::new(file)
    })
}

/// The next line without its end; false at the end of the file.
fn next_line(lines: &mut (impl BufRead + ?Sized), line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let read = lines.take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > LINE_BYTES_MAX {
        return Err(std::io::Error::other(format!("a line of more than {LINE_BYTES_MAX} bytes")));
    }
    Ok(read > 0)
}

fn at(path: &Path, lines: u64, error: &std::io::Error) -> String {
    format!("{}: after {lines} lines: {error}", path.display())
}
