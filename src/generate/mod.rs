//! `recordkeeper generate`: realistic events, and what a correct consumer has to make of them.
//!
//! [`Events`] turns a [`Plan`] (a seed, sizes, shares) into messages, without I/O and always the same; [`run`] sends
//! them to a sink: NDJSON or Kafka. [`Manifest`] folds the same stream into what has to stand at its end. What can fail
//! is [`GenerateError`]: wrong flags, a file, the brokers.

mod compose;
mod event;
mod history;
mod kafka;
mod manifest;
mod ndjson;
mod plan;
mod poison;
mod stream;
mod wallet;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use event::{Headers, TRANSACTION_TOPIC, WALLET_TOPIC};
pub use kafka::KafkaSink;
pub use manifest::{Expected, Manifest};
pub use plan::{Plan, Shares};
pub use stream::{Events, Generated, What};

/// Where the events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the source topics of a Kafka cluster.
    Kafka,
    /// To standard output, as NDJSON.
    Stdout,
    /// To a file, as NDJSON.
    File(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "kafka" => Ok(Self::Kafka),
            "-" => Ok(Self::Stdout),
            file if file.ends_with(".ndjson") => Ok(Self::File(file.into())),
            _ => Err("give kafka, - for standard output, or a file whose name ends in .ndjson".to_owned()),
        }
    }
}

/// Flags of `recordkeeper generate`.
#[derive(clap::Args, Debug, Clone)]
pub struct GenerateArgs {
    /// Where to: kafka, a file NAME.ndjson, or - for standard output
    #[arg(long, default_value = "kafka")]
    pub to: Target,
    /// Kafka's brokers; the settings' own where it is not given
    #[arg(long, value_name = "HOST:PORT,...")]
    pub bootstrap_servers: Option<String>,
    /// How many events
    #[arg(long, default_value_t = 10_000)]
    pub events: u64,
    /// What all choices are drawn from: the same seed and flags make the same events
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Events a second; 0 sends as fast as it can
    #[arg(long, value_name = "EVENTS_PER_S", default_value_t = 0)]
    pub rate: u32,
    /// Partitions of each source topic
    #[arg(long, default_value_t = 8)]
    pub partitions: u32,
    /// How many wallets; a twentieth of the events where it is not given
    #[arg(long)]
    pub wallets: Option<u64>,
    /// Share of all events that concern one wallet
    #[arg(long, value_name = "SHARE", default_value_t = 0.33)]
    pub hot_share: f64,
    /// Share of events sent twice as they are
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    pub duplicates: f64,
    /// Share of events sent again, written down another way and at another envelope time
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    pub resent: f64,
    /// Share of events with other data under an id that was sent
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    pub conflicts: f64,
    /// Share of events that cannot be processed, for every reason
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    pub poison: f64,
    /// Share of events of a type that no route knows
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    pub unknown: f64,
    /// Share of events with a lower version than one that was sent
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    pub stale: f64,
    /// Share of events with other content under a version that was sent
    #[arg(long, value_name = "SHARE", default_value_t = 0.005)]
    pub ties: f64,
    /// Share of events that give a wallet's status ahead of its creation
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    pub out_of_order: f64,
    /// When the first event happened
    #[arg(long, value_name = "TIME", default_value = "2026-01-01T00:00:00Z")]
    pub start_time: jiff::Timestamp,
    /// The least size of an event's value in bytes; 0 leaves events as they are
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub event_bytes: usize,
    /// Where to write what a correct consumer has to show for these events, as JSON
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
}

/// Why nothing, or not everything, was generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Wrong flags; nothing was sent.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file, or `-`.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The brokers cannot be reached or refused something.
    #[error("kafka: {0}")]
    Kafka(String),
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// How many events; fewer than asked for where it was stopped.
    pub events: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Generates and sends, until all is sent and acknowledged or `stop` is cancelled; then writes the manifest, which covers
/// what was sent. `kafka` are librdkafka's options for the cluster, `bootstrap.servers` among them; `args` override that.
pub async fn run(
    args: &GenerateArgs,
    kafka: &[(String, String)],
    stop: CancellationToken,
) -> Result<Report, GenerateError> {
    let plan = Plan::new(args)?;
    if let (Target::File(events), Some(manifest)) = (&args.to, &args.manifest)
        && is_same_file(events, manifest)
    {
        return Err(GenerateError::Usage("--to and --manifest name the same file: give each its own".to_owned()));
    }
    let mut sink = Sink::open(args, kafka, plan.partitions).await?;
    let mut manifest = args.manifest.is_some().then(Manifest::default);
    let mut pace = Pace { started: Instant::now(), rate: args.rate };
    let mut report = Report { events: 0, bytes: 0, elapsed: Duration::ZERO };
    for event in Events::new(plan) {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = pace.wait(report.events) => {}
        }
        sink.send(&event).await?;
        report.events += 1;
        report.bytes += (event.key.len() + event.value.as_ref().map_or(0, Vec::len)) as u64;
        if let Some(manifest) = &mut manifest {
            manifest.add(event.expected);
        }
    }
    sink.finish().await?;
    if let (Some(path), Some(manifest)) = (&args.manifest, manifest) {
        write_manifest(path, &manifest).map_err(|source| GenerateError::Write { path: path.clone(), source })?;
    }
    report.elapsed = pace.started.elapsed();
    Ok(report)
}

/// Whether both paths lead to one file, be it there or still to be made.
fn is_same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| {
        path.canonicalize().ok().or_else(|| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Some(folder.canonicalize().ok()?.join(path.file_name()?))
        })
    };
    a == b || real(a).is_some_and(|a| real(b) == Some(a))
}

fn write_manifest(path: &Path, manifest: &Manifest) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    serde_json::to_writer_pretty(&mut out, &manifest.json())?;
    writeln!(out)?;
    out.flush()
}

/// Keeps to a rate, counted from the beginning, so that a late event is made up for.
struct Pace {
    started: Instant,
    rate: u32,
}

impl Pace {
    /// How many events pass between two chances for others to run.
    const BURST: u64 = 256;

    async fn wait(&mut self, sent: u64) {
        if self.rate > 0 {
            let due = Duration::from_secs_f64(sent as f64 / f64::from(self.rate));
            tokio::time::sleep_until(self.started + due).await;
        } else if sent.is_multiple_of(Self::BURST) {
            tokio::task::yield_now().await;
        }
    }
}

enum Sink {
    Ndjson { out: Box<dyn Write + Send>, path: PathBuf },
    Kafka(Box<KafkaSink>),
}

impl Sink {
    async fn open(args: &GenerateArgs, kafka: &[(String, String)], partitions: u32) -> Result<Self, GenerateError> {
        match &args.to {
            Target::Stdout => Ok(Self::Ndjson { out: Box::new(BufWriter::new(io::stdout())), path: "-".into() }),
            Target::File(path) => {
                let file = File::create(path).map_err(|source| GenerateError::Write { path: path.clone(), source })?;
                Ok(Self::Ndjson { out: Box::new(BufWriter::new(file)), path: path.clone() })
            }
            Target::Kafka => {
                let mut options = kafka.to_vec();
                if let Some(servers) = &args.bootstrap_servers {
                    options.retain(|(name, _)| name != "bootstrap.servers");
                    options.push(("bootstrap.servers".to_owned(), servers.clone()));
                }
                if !options.iter().any(|(name, value)| name == "bootstrap.servers" && !value.is_empty()) {
                    let hint = "no brokers: give --bootstrap-servers, or --to FILE.ndjson for a file";
                    return Err(GenerateError::Usage(hint.to_owned()));
                }
                Ok(Self::Kafka(Box::new(KafkaSink::connect(&options, partitions).await?)))
            }
        }
    }

    async fn send(&mut self, event: &Generated) -> Result<(), GenerateError> {
        match self {
            Self::Ndjson { out, path } => {
                ndjson::write_line(out, event).map_err(|source| GenerateError::Write { path: path.clone(), source })
            }
            Self::Kafka(sink) => sink.send(event).await,
        }
    }

    async fn finish(self) -> Result<(), GenerateError> {
        match self {
            Self::Ndjson { mut out, path } => out.flush().map_err(|source| GenerateError::Write { path, source }),
            Self::Kafka(sink) => sink.finish().await,
        }
    }
}

#[cfg(test)]
mod tests;
