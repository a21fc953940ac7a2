//! `archive`: writes a range of a topic to files, with where each event was read first.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::source::archive::{Compression, write_line};
use crate::source::kafka::KafkaRanges;
use crate::source::range::{Range, read_all};

use super::outside::{group_place, of_topic, ranges};
use super::{EXIT_USAGE, GlobalArgs, PlaceArg, backends, check, show, wrong};

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
    /// The directory to write to, one file a partition; files that exist are refused
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
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
    std::fs::create_dir_all(&args.out).with_context(|| format!("{}", args.out.display()))?;
    let compression = Compression::from(args.compress);
    let files = ranges.into_iter().filter(|range| !range.is_empty());
    let files: Vec<(PathBuf, Range)> = files.map(|range| (args.out.join(name(&range, compression)), range)).collect();
    if let Some((file, _)) = files.iter().find(|(file, _)| file.exists()) {
        return wrong(format!("{} exists already: choose another --out", file.display()));
    }
    for (file, range) in files {
        let config = backends::kafka_source(settings, pipeline, backends::group_protocol(pipeline.protocol()), true);
        let written = {
            let file = file.clone();
            tokio::task::spawn_blocking(move || write(config, range, &file, compression)).await??
        };
        show(format!("{} {written} events\n", file.display()).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `topic-partition-first-last.ndjson`, and how it is compressed.
fn name(range: &Range, compression: Compression) -> String {
    let (first, next) = (range.from.next_offset(), range.to.next_offset());
    let Range { partition, .. } = range;
    format!("{}-{}-{first}-{}{}", partition.topic, partition.name, next.saturating_sub(1), compression.suffix())
}

/// Under another name until it is whole.
fn write(
    config: crate::source::kafka::KafkaSourceConfig,
    range: Range,
    file: &Path,
    compression: Compression,
) -> anyhow::Result<u64> {
    let unfinished = file.with_added_extension("part");
    let named = || format!("{}", unfinished.display());
    let out = BufWriter::new(File::create(&unfinished).with_context(named)?);
    let ranges = [range];
    let mut feed = KafkaRanges::connect(config, ranges.to_vec()).map_err(anyhow::Error::msg)?;
    let (out, written) = match compression {
        Compression::None => {
            let mut out = out;
            let written = write_all(&mut feed, &ranges, &mut out)?;
            (out, written)
        }
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
            let written = write_all(&mut feed, &ranges, &mut encoder)?;
            (encoder.finish().with_context(named)?, written)
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(out, 0).with_context(named)?;
            let written = write_all(&mut feed, &ranges, &mut encoder)?;
            (encoder.finish().with_context(named)?, written)
        }
    };
    let whole = out.into_inner().map_err(io::IntoInnerError::into_error).with_context(named)?;
    whole.sync_all().with_context(named)?;
    std::fs::rename(&unfinished, file).with_context(named)?;
    Ok(written)
}

fn write_all(feed: &mut KafkaRanges, ranges: &[Range], out: &mut impl Write) -> anyhow::Result<u64> {
    let (mut written, mut failed) = (0, None);
    read_all(feed, ranges, |batch, message| {
        if failed.is_none() {
            match write_line(out, batch, message) {
                Ok(()) => written += 1,
                Err(error) => failed = Some(error),
            }
        }
    })
    .map_err(anyhow::Error::msg)?;
    match failed {
        None => Ok(written),
        Some(error) => Err(anyhow::Error::new(error).context("the archive cannot be written")),
    }
}
