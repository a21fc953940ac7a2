//! What `replay` and `redrive` take.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::cli::{PlaceArg, SummaryForm};
use crate::event::Reason;
use crate::pipeline::protocol::Effects;
use crate::source::archive::Location;

/// What every run takes that reads again.
#[derive(Clone, Debug, Args)]
pub struct RunAgainArgs {
    /// The run's name: one that was begun is taken up again where its ledger ends. A new one by default
    #[arg(long, value_name = "NAME")]
    pub run: Option<RunName>,
    /// Messages a second at most, or unlimited
    #[arg(long, value_name = "N", default_value = "1000")]
    pub rate: RateArg,
    /// How the summary at the end looks
    #[arg(long, value_name = "FORM", default_value = "table")]
    pub summary: SummaryForm,
}

/// The name of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunName(pub String);

impl FromStr for RunName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a name has 1 to 64 of A-Z a-z 0-9 . _ -".to_owned())
        }
    }
}

/// Messages a second at most; none is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateArg(pub Option<NonZeroU32>);

impl FromStr for RateArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "unlimited" => Ok(Self(None)),
            _ => text
                .parse()
                .map(|rate| Self(Some(rate)))
                .map_err(|_| "give a number from 1 on, or unlimited".to_owned()),
        }
    }
}

/// Arguments of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The topic to read again
    #[arg(long, conflicts_with = "archive", required_unless_present_any = ["archive", "run"])]
    pub topic: Option<String>,
    /// A partition of it; may be repeated, all by default
    #[arg(long, value_name = "NUMBER", requires = "topic")]
    pub partition: Vec<u32>,
    /// Where it begins: earliest (the default), the offset that is read first (of one partition), or a time
    /// (2026-01-02T03:04:05Z)
    #[arg(long, value_name = "PLACE", requires = "topic")]
    pub from: Option<PlaceArg>,
    /// Where it ends: latest (the default), the first offset that is not read any more (of one partition), or a time
    #[arg(long, value_name = "PLACE", requires = "topic")]
    pub to: Option<PlaceArg>,
    /// A file that `archive` wrote, or a directory of them; in S3 s3://bucket/key or s3://bucket/prefix/. May be repeated
    #[arg(long, value_name = "FILE|DIR|s3://")]
    pub archive: Vec<Location>,
    /// What is applied; all sends creation requests again, under their ids
    #[arg(long, value_name = "WHICH")]
    pub effects: Option<EffectsArg>,
    /// Write nothing: say what would be recorded, is present, remapped, stale or in conflict
    #[arg(long)]
    pub diff: bool,
    /// What runs have in common.
    #[command(flatten)]
    pub again: RunAgainArgs,
}

/// What a replay applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EffectsArg {
    /// Records alone
    None,
    /// Records, wallets and mappings (the default)
    State,
    /// Records, wallets, mappings and creation requests
    All,
}

impl From<EffectsArg> for Effects {
    fn from(arg: EffectsArg) -> Self {
        match arg {
            EffectsArg::None => Self::None,
            EffectsArg::State => Self::State,
            EffectsArg::All => Self::All,
        }
    }
}

/// Arguments of `redrive`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RedriveArgs {
    /// Look at dead letters instead.
    #[command(subcommand)]
    pub command: Option<RedriveCommand>,
    /// Which letters.
    #[command(flatten)]
    pub filter: LetterFilter,
    /// Corrected events, one a line: {"origin": "...", "value": ...}; only these letters are redriven
    #[arg(long, value_name = "FILE")]
    pub corrected: Option<PathBuf>,
    /// Letters that were tried so often (5 times by default) stay where they are
    #[arg(long, value_name = "N")]
    pub attempts_max: Option<u32>,
    /// Do it; without, only what would be done is shown
    #[arg(long)]
    pub execute: bool,
    /// What runs have in common.
    #[command(flatten)]
    pub again: RunAgainArgs,
}

/// The subcommands of `redrive`.
#[derive(Clone, Debug, Subcommand)]
pub enum RedriveCommand {
    /// List dead letters that are neither recorded since nor dismissed
    List {
        /// Which letters.
        #[command(flatten)]
        filter: LetterFilter,
        /// One line of JSON a letter
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter
    Show {
        /// Its origin, as `list` shows it
        origin: String,
        /// Its key and value, too
        #[arg(long)]
        payload: bool,
    },
    /// Leave dead letters for good, on record
    Dismiss {
        /// Which letters.
        #[command(flatten)]
        filter: LetterFilter,
        /// Why; it stays in the ledger
        #[arg(long, value_name = "TEXT")]
        why: String,
        /// Do it; without, only what would be done is shown
        #[arg(long)]
        execute: bool,
    },
}

/// Which dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct LetterFilter {
    /// Those with this reason; may be repeated
    #[arg(long, value_name = "REASON", value_parser = parse_reason)]
    pub reason: Vec<Reason>,
    /// Those that this route refused; may be repeated
    #[arg(long, value_name = "ROUTE")]
    pub route: Vec<String>,
    /// Those of this source topic; may be repeated
    #[arg(long, value_name = "TOPIC")]
    pub topic: Vec<String>,
    /// The one with this origin, as `list` shows it; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Vec<String>,
    /// Those whose events came at or after this time
    #[arg(long, value_name = "TIME")]
    pub since: Option<jiff::Timestamp>,
    /// Those whose events came before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<jiff::Timestamp>,
    /// Those with this key
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// So many at most
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

fn parse_reason(text: &str) -> Result<Reason, String> {
    Reason::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        format!("give one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_rate_are_what_they_say() {
        assert!("march_2.again-1".parse::<RunName>().is_ok());
        for bad in ["", "a b", "a|b", "a/b", &"x".repeat(65)] {
            assert!(bad.parse::<RunName>().is_err(), "{bad}");
        }
        assert_eq!("unlimited".parse(), Ok(RateArg(None)));
        assert_eq!("7".parse(), Ok(RateArg(NonZeroU32::new(7))));
        for bad in ["0", "-1", "", "fast"] {
            assert!(bad.parse::<RateArg>().is_err(), "{bad}");
        }
    }
}
