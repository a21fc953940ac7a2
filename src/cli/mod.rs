//! The command line: one file a subcommand.
//!
//! Arguments come in, an exit code goes out: 0 done, 1 failed at run time, 2 wrong usage or configuration. Results go to
//! standard output, findings and the log to standard error.

pub mod archive;
mod backends;
pub mod check;
mod check_event;
#[cfg(feature = "embedded")]
mod embedded;
pub mod generate;
pub mod get;
pub mod health;
mod lanes;
pub mod new_epoch;
mod outside;
mod ready;
pub mod reference;
pub mod repair;
pub mod reset;
pub mod run;
mod table;
pub mod tables;
pub mod verify;
mod verify_source;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{self, ConfigArgs, Diagnostic, Loaded, Override};

/// The exit code of wrong usage or configuration; clap's own is the same.
pub const EXIT_USAGE: u8 = 2;

/// Keeps the records of blockchain wallets: Kafka in, validated and deduplicated, DynamoDB out.
#[derive(Debug, Parser)]
#[command(name = "recordkeeper", version, propagate_version = true)]
pub struct Cli {
    /// What all subcommands take.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What all subcommands take.
#[derive(Clone, Debug, Args)]
pub struct GlobalArgs {
    /// The configuration file
    #[arg(long, global = true, env = "RECORDKEEPER_CONFIG", value_name = "FILE")]
    config: Option<OsString>,
    /// The directory of pipeline files
    #[arg(long, global = true, env = "RECORDKEEPER_PIPELINES", value_name = "DIR", default_value = "pipelines")]
    pub pipelines: PathBuf,
    /// A pipeline to use; may be repeated, all by default
    #[arg(long, global = true, value_name = "NAME")]
    pub pipeline: Vec<String>,
    /// A setting (no secret) that wins over variable and file; may be repeated
    #[arg(long, global = true, value_name = "SECTION.NAME=VALUE", value_parser = parse_override)]
    set: Vec<Override>,
}

impl GlobalArgs {
    /// What the configuration is loaded from. An empty variable counts as not set.
    pub fn config_args(&self) -> ConfigArgs {
        let file = self.config.clone().filter(|file| !file.is_empty()).map(PathBuf::from);
        ConfigArgs { file, overrides: self.set.clone(), brought: Vec::new() }
    }

    /// Whether a setting was given by flag or by one of these variables.
    pub fn is_given(&self, setting: &str, variables: &[&str]) -> bool {
        self.set.iter().any(|given| given.name == setting)
            || variables.iter().any(|variable| std::env::var_os(variable).is_some())
    }

    /// The configuration, its warnings reported; else everything that is wrong with it reported, and the exit code.
    /// `brought` are the settings that embedded parts bring along.
    pub fn load(&self, brought: impl IntoIterator<Item = Override>) -> Result<Loaded, ExitCode> {
        let loaded = self.load_again(brought)?;
        report(&loaded.warnings);
        Ok(loaded)
    }

    /// As [`GlobalArgs::load`], for whom its warnings were reported to before.
    fn load_again(&self, brought: impl IntoIterator<Item = Override>) -> Result<Loaded, ExitCode> {
        let args = ConfigArgs { brought: brought.into_iter().collect(), ..self.config_args() };
        config::load_from_process(&args, check::by_adapters).map_err(|found| {
            report(&found);
            ExitCode::from(EXIT_USAGE)
        })
    }
}

/// Writes a result to standard output. A reader that has seen enough (`| head -1`) is no failure.
fn show(result: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(result).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Says what is wrong with usage or configuration, and gives the exit code.
fn wrong(what: impl std::fmt::Display) -> Result<ExitCode, anyhow::Error> {
    writeln!(std::io::stderr().lock(), "error: {what}")?;
    Ok(ExitCode::from(EXIT_USAGE))
}

/// Writes findings to standard error, one after the other.
pub fn report(found: &[Diagnostic]) {
    let mut err = std::io::stderr().lock();
    for finding in found {
        // Where standard error is gone there is nowhere left to say so; the exit code still tells.
        let _ = writeln!(err, "{finding}");
    }
}

fn parse_override(text: &str) -> Result<Override, String> {
    let (name, value) = text.split_once('=').ok_or("write section.name=value")?;
    Ok(Override::new(name, value))
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Consume events until stopped
    Run(RunArgs),
    /// Check configuration and pipelines, and show what applies; or try one event
    Check(CheckArgs),
    /// Create or describe the tables
    Tables(TablesArgs),
    /// Look up a wallet, a user or a record
    Get(GetArgs),
    /// Move a group to another position of a topic, on record in the ledger
    Reset(ResetArgs),
    /// Read a range of a topic, or an archive, again, under a ledger of its own
    Replay(Box<repair::args::ReplayArgs>),
    /// Try dead letters again; or list, show and dismiss them
    Redrive(Box<repair::args::RedriveArgs>),
    /// Write a range of a topic to files, to be replayed some day
    Archive(archive::ArchiveArgs),
    /// Leave a partition's broken ledger chain behind, on record, and begin a new one
    NewEpoch(NewEpochArgs),
    /// Audit the records and the ledger: whether each bears the other out
    Verify(VerifyArgs),
    /// Generate sample events
    Generate(crate::generate::GenerateArgs),
    /// Ask a running instance whether it is alive (for container checks without a shell)
    Health(HealthArgs),
    /// Write the reference of all settings (Markdown)
    Reference,
}

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Bring broker, tables and dedupe along in this process, feed it sample events, and keep nothing at exit
    #[arg(long)]
    pub embedded: bool,
    /// End once every source is read to its end and drained
    #[arg(long)]
    pub until_idle: bool,
    /// Write a summary at the end
    #[arg(long, value_name = "FORM")]
    pub summary: Option<SummaryForm>,
}

/// How a summary looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SummaryForm {
    /// One line of JSON.
    Json,
    /// For people.
    Table,
}

/// Arguments of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// A file with one event's value: show what the pipelines make of it
    #[arg(long, value_name = "FILE", requires = "topic")]
    pub event: Option<PathBuf>,
    /// The topic that the event is read from
    #[arg(long, value_name = "TOPIC", requires = "event")]
    pub topic: Option<String>,
    /// The event's key
    #[arg(long, value_name = "KEY", requires = "event")]
    pub key: Option<String>,
    /// A header of the event; may be repeated
    #[arg(long, value_name = "NAME=VALUE", requires = "event", value_parser = parse_header)]
    pub header: Vec<(String, String)>,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Arguments of `tables`.
#[derive(Clone, Debug, Args)]
pub struct TablesArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: TablesCommand,
}

/// The subcommands of `tables`.
#[derive(Clone, Debug, Subcommand)]
pub enum TablesCommand {
    /// Create what is absent; what exists is left as it is
    Create {
        /// Also the topics that the pipelines read and write
        #[arg(long)]
        topics: bool,
    },
    /// Show what is there
    Describe,
}

/// Arguments of `get`.
#[derive(Clone, Debug, Args)]
pub struct GetArgs {
    /// What to look up.
    #[command(subcommand)]
    pub command: GetCommand,
}

/// The subcommands of `get`.
#[derive(Clone, Debug, Subcommand)]
pub enum GetCommand {
    /// A wallet: its state, its users, its latest records
    Wallet(GetOne),
    /// A user's wallets
    User(GetOne),
    /// A record, by `source|id` or `source|id|name`; in each part `%` is written `%25`, and `|` is written `%7C`
    Record(GetOne),
}

/// What is looked up, and how.
#[derive(Clone, Debug, Args)]
pub struct GetOne {
    /// Its id
    pub id: String,
    /// Read what was last written; refused where only an index can answer
    #[arg(long)]
    pub strong: bool,
    /// Records shown at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
}

/// Arguments of `reset`.
#[derive(Clone, Debug, Args)]
pub struct ResetArgs {
    /// The topic
    #[arg(long)]
    pub topic: String,
    /// A partition of it; may be repeated, all by default
    #[arg(long, value_name = "NUMBER")]
    pub partition: Vec<u32>,
    /// Where the group goes on: earliest, latest, the offset that it reads first (of one partition), or a time
    /// (2026-01-02T03:04:05Z)
    #[arg(long, value_name = "PLACE")]
    pub to: PlaceArg,
    /// Why; it stays in the ledger
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Do it; without, only what would be done is shown
    #[arg(long)]
    pub execute: bool,
}

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceArg {
    /// Where the log (for a group: its ledger) begins.
    Earliest,
    /// The log's end as it is now.
    Latest,
    /// Just before this offset.
    Offset(u64),
    /// Just before the first message that is not older.
    Time(jiff::Timestamp),
}

impl std::str::FromStr for PlaceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map(Self::Offset).map_err(|_| "no offset is that large".to_owned())
            }
            _ => text.parse().map(Self::Time).map_err(|_| {
                "give earliest, latest, an offset such as 42, or a time such as 2026-01-02T03:04:05Z".to_owned()
            }),
        }
    }
}

/// Arguments of `new-epoch`.
#[derive(Clone, Debug, Args)]
pub struct NewEpochArgs {
    /// The topic
    #[arg(long)]
    pub topic: String,
    /// The partition
    #[arg(long, value_name = "NUMBER")]
    pub partition: u32,
    /// The offset that the new chain begins with; by default, where the old one is no longer sound
    #[arg(long, value_name = "OFFSET")]
    pub from: Option<u64>,
    /// Why; it stays in the ledger
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Do it; without, only what would be done is shown
    #[arg(long)]
    pub execute: bool,
}

/// Arguments of `verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// One line of JSON for each finding, and one for the summary
    #[arg(long)]
    pub json: bool,
    /// A file of heads, as ledger.heads_file names it: also finds chains that were cut or rewritten
    #[arg(long, value_name = "FILE", requires = "heads_key")]
    pub heads: Option<PathBuf>,
    /// The public key that the heads were signed with the other half of: Ed25519, PEM
    #[arg(long, value_name = "FILE", requires = "heads")]
    pub heads_key: Option<PathBuf>,
    /// Hold entries whose records differ against the source, as far as it has their events: names the records by their keys
    #[arg(long)]
    pub source: bool,
    /// Mark the chains that faults were found in as broken: no instance reads their partitions any more, until a new epoch
    #[arg(long)]
    pub mark_broken: bool,
    /// Read units a second that it may take, over both tables; as many as the tables give by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub read_units: Option<u32>,
}

/// Arguments of `health`.
#[derive(Clone, Debug, Args)]
pub struct HealthArgs {
    /// Ask here instead of the configured admin port (http only)
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_behind_the_subcommand() {
        for line in [
            ["recordkeeper", "--pipeline", "a", "--pipeline", "b", "check"],
            ["recordkeeper", "check", "--pipeline", "a", "--pipeline", "b"],
        ] {
            assert_eq!(Cli::try_parse_from(line).unwrap().global.pipeline, ["a", "b"]);
        }
    }

    #[test]
    fn an_event_needs_its_topic() {
        assert!(Cli::try_parse_from(["recordkeeper", "check", "--event", "f"]).is_err());
        assert!(Cli::try_parse_from(["recordkeeper", "check", "--key", "k"]).is_err());
        assert!(
            Cli::try_parse_from(["recordkeeper", "check", "--event", "f", "--topic", "t", "--header", "a=b"]).is_ok()
        );
    }
}
