//! `archive`: writes a range of a topic to files, with where each event was read first.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use crate::source::archive::{ArchiveWriter, Compression, Location, Objects, can_hold_files, is_there, write_line};
use crate::source::kafka::{KafkaRanges, KafkaSourceConfig};
use crate::source::range::{Range, read_all};

use super::outside::{group_place, of_topic, ranges};
use super::{EXIT_USAGE, GlobalArgs, PlaceArg, backends, check, run, show, wrong};

/// Arguments of `archive`.
#[derive(Clone, Debug, Args)]
pub struct ArchiveArgs {
    /// The topic
    #[arg(long)]
    pub topic: String,
    /// A partition of it; may be repeated, all by default
    #[arg(long, value_name = "NUMBER")]
    pub partition: Vec<u32>,
    /// Where it begins: earliest, an offset (of one partition), or a time (2026-01-02T03:04:05Z)
    #[arg(long, value_name = "PLACE", default_value = "earliest")]
    pub from: PlaceArg,
    /// Where it ends: latest, the first offset that is left out (of one partition), or a time
    #[arg(long, value_name = "PLACE", default_value = "latest")]
    pub to: PlaceArg,
    /// The directory to write to, or s3://bucket/prefix; one file a partition, files that exist are refused
    #[arg(long, value_name = "DIR|s3://")]
    pub out: Location,
    /// How the files are compressed
    #[arg(long, value_name = "HOW", default_value = "zstd")]
    pub compress: CompressArg,
}

/// How files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressArg {
    /// Not at all
    None,
    /// gzip
    Gzip,
    /// Zstandard
    Zstd,
}

impl From<CompressArg> for Compression {
    fn from(arg: CompressArg) -> Self {
        match arg {
            CompressArg::None => Self::None,
            CompressArg::Gzip => Self::Gzip,
            CompressArg::Zstd => Self::Zstd,
        }
    }
}

/// Writes the range.
pub async fn archive(global: &GlobalArgs, args: &ArchiveArgs) -> Result<ExitCode, anyhow::Error> {
    let loaded = match global.load([]) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let settings = &loaded.settings;
    let Some(pipelines) = check::pipelines(global, settings) else { return Ok(ExitCode::from(EXIT_USAGE)) };
    let pipeline = match of_topic(&pipelines, &args.topic) {
        Ok(pipeline) => pipeline,
        Err(what) => return wrong(what),
    };
    let group = group_place(settings, pipeline)?;
    let ranges = match ranges(&group, &args.topic, &args.partition, args.from, args.to).await? {
        Ok(ranges) => ranges,
        Err(what) => return wrong(what),
    };
    let compression = Compression::from(args.compress);
    let files = ranges.into_iter().filter(|range| !range.is_empty());
    let files: Vec<(Location, Range)> = files.map(|range| (args.out.join(&name(&range, compression)), range)).collect();
    let process = run::start_process(&loaded)?;
    let objects = backends::objects(settings, process.stop.clone());
    let looked = {
        let (out, files, objects) = (args.out.clone(), files.clone(), objects.clone());
        tokio::task::spawn_blocking(move || all_new(&out, &files, &objects)).await??
    };
    if let Err(what) = looked {
        return wrong(what);
    }
    for (file, range) in files {
        let config = backends::kafka_source(settings, pipeline, backends::group_protocol(pipeline.protocol()), true);
        let written = {
            let (file, objects, stop) = (file.clone(), objects.clone(), process.stop.clone());
            tokio::task::spawn_blocking(move || write(config, range, &file, &objects, compression, &stop)).await??
        };
        show(format!("{file} {written} events\n").as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the files can be made, and none of them is there already; the inner error is the user's.
fn all_new(out: &Location, files: &[(Location, Range)], objects: &Objects) -> anyhow::Result<Result<(), String>> {
    if !can_hold_files(out, objects).with_context(|| out.to_string())? {
        return Ok(Err(format!("{out}: there is no such bucket")));
    }
    for (file, _) in files {
        if is_there(file, objects).with_context(|| file.to_string())? {
            return Ok(Err(format!("{file} exists already: choose another --out")));
        }
    }
    Ok(Ok(()))
}

/// `topic-partition-first-last.ndjson`, and how it is compressed.
fn name(range: &Range, compression: Compression) -> String {
    let (first, next) = (range.from.next_offset(), range.to.next_offset());
    let Range { partition, .. } = range;
    format!("{}-{}-{first}-{}{}", partition.topic, partition.name, next.saturating_sub(1), compression.suffix())
}

/// Writes a file, which is there once it is whole; nothing of it where the process is told to stop.
fn write(
    config: KafkaSourceConfig,
    range: Range,
    file: &Location,
    objects: &Objects,
    compression: Compression,
    stop: &CancellationToken,
) -> anyhow::Result<u64> {
    let named = || file.to_string();
    let mut out = ArchiveWriter::begin(file, objects, compression).with_context(named)?;
    match write_all(config, range, &mut out, stop).map_err(anyhow::Error::msg).with_context(named) {
        Ok(written) => {
            out.finish().with_context(named)?;
            Ok(written)
        }
        Err(error) => {
            out.abandon();
            Err(error)
        }
    }
}

fn write_all(
    config: KafkaSourceConfig,
    range: Range,
    out: &mut ArchiveWriter,
    stop: &CancellationToken,
) -> Result<u64, String> {
    let (ranges, mut written) = ([range], 0);
    let mut feed = KafkaRanges::connect(config, ranges.to_vec())?;
    read_all(&mut feed, &ranges, stop, |batch, message| {
        written += 1;
        write_line(out, batch, message).map_err(|error| error.to_string())
    })?;
    Ok(written)
}
