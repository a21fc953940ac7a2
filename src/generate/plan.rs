//! What to generate: numbers that were checked once.

use super::{GenerateArgs, GenerateError};

/// Shares of all events, each from 0 to 1 and together at most 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// The same message again.
    pub duplicates: f64,
    /// The same event again, written down another way and at another envelope time.
    pub resent: f64,
    /// Other data under an identity that was sent.
    pub conflicts: f64,
    /// What no consumer can process.
    pub poison: f64,
    /// A type that no route knows.
    pub unknown: f64,
    /// A version below one that was sent.
    pub stale: f64,
    /// Other content under a version that was sent.
    pub ties: f64,
    /// A status ahead of the creation of its wallet; fewer once all wallets are created.
    pub out_of_order: f64,
}

/// A checked plan: the same plan makes the same events.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// How many events.
    pub events: u64,
    /// What all choices are drawn from.
    pub seed: u64,
    /// Partitions of each source topic, at least one.
    pub partitions: u32,
    /// How many wallets, at least one.
    pub wallets: u64,
    /// The share of all events that concern one wallet.
    pub hot_share: f64,
    /// The shares of what is not ordinary.
    pub shares: Shares,
    /// When the first event happened, in microseconds since 1970.
    pub start_us: i64,
    /// The least size of a structured event's value, in bytes; 0 for no padding.
    pub event_bytes: usize,
}

impl Plan {
    /// The largest padding: well below what brokers take by default.
    const EVENT_BYTES_MAX: usize = 900_000;

    /// Checks what was asked for; [`GenerateError::Usage`] names the flag that is wrong.
    pub fn new(args: &GenerateArgs) -> Result<Self, GenerateError> {
        let shares = Shares {
            duplicates: args.duplicates,
            resent: args.resent,
            conflicts: args.conflicts,
            poison: args.poison,
            unknown: args.unknown,
            stale: args.stale,
            ties: args.ties,
            out_of_order: args.out_of_order,
        };
        let named = [
            ("--hot-share", args.hot_share),
            ("--duplicates", shares.duplicates),
            ("--resent", shares.resent),
            ("--conflicts", shares.conflicts),
            ("--poison", shares.poison),
            ("--unknown", shares.unknown),
            ("--stale", shares.stale),
            ("--ties", shares.ties),
            ("--out-of-order", shares.out_of_order),
        ];
        for (flag, share) in named {
            if !(0.0..=1.0).contains(&share) {
                return Err(GenerateError::Usage(format!("{flag} is {share}: give a share from 0 to 1")));
            }
        }
        let sum: f64 = named[1..].iter().map(|(_, share)| share).sum();
        if sum > 1.0 {
            return Err(GenerateError::Usage(format!("the shares of what is not ordinary add up to {sum}: at most 1")));
        }
        if args.partitions == 0 || args.partitions > 100_000 {
            return Err(GenerateError::Usage("--partitions: give a number from 1 to 100000".to_owned()));
        }
        if args.wallets == Some(0) {
            return Err(GenerateError::Usage("--wallets: at least 1".to_owned()));
        }
        if args.event_bytes > Self::EVENT_BYTES_MAX {
            let max = Self::EVENT_BYTES_MAX;
            return Err(GenerateError::Usage(format!("--event-bytes: at most {max}")));
        }
        let start_us = args.start_time.as_microsecond();
        if !(0..=7_258_118_400_000_000).contains(&start_us) {
            return Err(GenerateError::Usage("--start-time: give a time from 1970 to 2199".to_owned()));
        }
        Ok(Self {
            events: args.events,
            seed: args.seed,
            partitions: args.partitions,
            wallets: args.wallets.unwrap_or((args.events / 20).clamp(1, 100_000)),
            hot_share: args.hot_share,
            shares,
            start_us,
            event_bytes: args.event_bytes,
        })
    }
}
