//! The stream itself: a seed in, events out, no I/O. The same plan gives the same bytes.
//!
//! What is not ordinary goes to the partition of what it refers to, after it: so what has to become of each event does
//! not depend on how partitions are mixed or cut into batches.

use fastrand::Rng;

use super::compose::Composer;
use super::event::{Event, Headers, Json, TimeForm};
use super::history::History;
use super::manifest::{Expected, state_of};
use super::plan::Plan;
use super::poison::spoil;
use super::wallet::{FIRST_USER, IDENTITY, PROFILE, STATUS, Slot, USERS};
use crate::event::Reason;
use crate::topic::kafka::partition_of;

/// Why an event is in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// As publishers mean it.
    Ordinary,
    /// The same message again.
    Duplicate,
    /// The same event, written down another way.
    Resent,
    /// Other data under a known identity.
    Conflict,
    /// Nothing that can be processed.
    Poison,
    /// A type that no route knows.
    Unknown,
    /// A version below one that was sent.
    Stale,
    /// Other content under a version that was sent.
    Tie,
    /// A status ahead of its wallet's creation.
    OutOfOrder,
}

/// One message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The topic.
    pub topic: &'static str,
    /// The partition that the key gives.
    pub partition: u32,
    /// The key.
    pub key: Vec<u8>,
    /// Headers in order.
    pub headers: Headers,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Why it is in the stream.
    pub what: What,
    /// What has to become of it.
    pub expected: Expected,
}

/// The events of a plan, in order.
#[derive(Debug)]
pub struct Events {
    plan: Plan,
    rng: Rng,
    composer: Composer,
    history: History,
    sent: u64,
    hot_sent: u64,
    /// A wallet whose status went ahead, to be created by the next ordinary event.
    owed: Option<usize>,
    /// Others of them, to be created some time; fewer than there are wallets.
    owed_late: Vec<usize>,
}

impl Events {
    /// A stream from its beginning.
    pub fn new(plan: Plan) -> Self {
        Self {
            rng: Rng::with_seed(plan.seed),
            composer: Composer::new(&plan),
            history: History::default(),
            sent: 0,
            hot_sent: 0,
            owed: None,
            owed_late: Vec::new(),
            plan,
        }
    }

    fn roll(&mut self) -> What {
        let shares = &self.plan.shares;
        let mut left = self.rng.f64();
        for (share, what) in [
            (shares.duplicates, What::Duplicate),
            (shares.resent, What::Resent),
            (shares.conflicts, What::Conflict),
            (shares.poison, What::Poison),
            (shares.unknown, What::Unknown),
            (shares.stale, What::Stale),
            (shares.ties, What::Tie),
            (shares.out_of_order, What::OutOfOrder),
        ] {
            if left < share {
                return what;
            }
            left -= share;
        }
        What::Ordinary
    }

    /// What the roll asks for; an ordinary event where nothing fits it yet.
    fn make(&mut self, what: What) -> Generated {
        let made = match what {
            What::Ordinary => None,
            What::Duplicate => self.again(),
            What::Resent => self.resend(),
            What::Conflict => self.conflict(),
            What::Poison => Some(self.poison()),
            What::Unknown => Some(self.unknown()),
            What::Stale => self.versioned(What::Stale),
            What::Tie => self.versioned(What::Tie),
            What::OutOfOrder => self.status_first(),
        };
        match made {
            Some(made) => made,
            None => self.ordinary(),
        }
    }

    fn again(&mut self) -> Option<Generated> {
        let event = self.history.pick(&mut self.rng)?.clone();
        Some(self.finish(&event, What::Duplicate, Expected::Duplicate))
    }

    /// Another envelope time, another order of members, now and then the other mode: the same event by its content.
    fn resend(&mut self) -> Option<Generated> {
        let mut event = self.history.pick(&mut self.rng)?.clone();
        event.at = event.time_form.fit(self.composer.now());
        event.style.rotate += 1;
        event.style.spaced = !event.style.spaced;
        if self.plan.event_bytes == 0 && event.id.is_ascii() && self.rng.u32(0..4) == 0 {
            event.style.binary = !event.style.binary;
        }
        Some(self.finish(&event, What::Resent, Expected::Duplicate))
    }

    fn conflict(&mut self) -> Option<Generated> {
        let mut event = self.history.pick(&mut self.rng)?.clone();
        let member = match event.kind {
            "wallet.requested" => "alias",
            "wallet.created" => "owner",
            "wallet.updated" => "label",
            "wallet.status_changed" => "reason",
            "mapping.granted" => "granted_by",
            "mapping.revoked" => "revoked_by",
            _ => "transaction_id",
        };
        event.set(member, Json::Text(format!("other-{}", self.sent)));
        Some(self.finish(&event, What::Conflict, Expected::DeadLettered(Reason::Conflict)))
    }

    fn poison(&mut self) -> Generated {
        let wallet = self.pick_wallet();
        let event = match self.rng.u32(0..8) {
            0 => self.composer.request(&mut self.rng).0,
            1..4 => self.composer.transaction(wallet, &mut self.rng),
            _ => {
                let slot = self.rng.usize(0..FIRST_USER + USERS);
                let version = self.composer.wallet(wallet).next_version(slot, &mut self.rng);
                self.composer.state(wallet, slot, version, &mut self.rng)
            }
        };
        let whole = event.clone();
        let (headers, value, reason) = spoil(event, self.plan.event_bytes, &mut self.rng);
        Generated { headers, value, ..self.finish(&whole, What::Poison, Expected::DeadLettered(reason)) }
    }

    fn unknown(&mut self) -> Generated {
        let wallet = self.pick_wallet();
        let mut event = self.composer.transaction(wallet, &mut self.rng);
        event.kind = "wallet.renamed";
        self.finish(&event, What::Unknown, Expected::DeadLettered(Reason::Unclassified))
    }

    /// A stale version or a tie; `None` where the wallet has no state yet.
    fn versioned(&mut self, what: What) -> Option<Generated> {
        let wallet = self.pick_wallet();
        let written = self.composer.wallet(wallet).versions;
        let slots: Vec<Slot> = (0..written.len()).filter(|slot| written[*slot].is_some()).collect();
        let slot = *self.rng.choice(&slots)?;
        let version = match what {
            What::Stale => self.composer.wallet(wallet).lower_version(slot, &mut self.rng)?,
            _ => written[slot]?,
        };
        let mut event = self.composer.state(wallet, slot, version, &mut self.rng);
        if slot == STATUS {
            // All other states say something new each time.
            event.set("reason", Json::Text(format!("case {}", event.id)));
        }
        Some(self.record(&event, what, false))
    }

    /// The first that is heard of a wallet is its status. Its creation follows at once, some time, or never.
    fn status_first(&mut self) -> Option<Generated> {
        let wallet = self.composer.next_wallet()?;
        match self.rng.u32(0..4) {
            0 | 1 if self.owed.is_none() => self.owed = Some(wallet),
            3 => {}
            _ => self.owed_late.push(wallet),
        }
        Some(self.advance(wallet, STATUS, What::OutOfOrder))
    }

    fn ordinary(&mut self) -> Generated {
        if let Some(wallet) = self.owed.take() {
            return self.advance(wallet, IDENTITY, What::Ordinary);
        }
        if !self.owed_late.is_empty() && self.rng.u32(0..100) == 0 {
            let place = self.rng.usize(0..self.owed_late.len());
            let wallet = self.owed_late.swap_remove(place);
            return self.advance(wallet, IDENTITY, What::Ordinary);
        }
        // Wallets appear all along the stream, not all at its beginning.
        let due = 1 + (self.sent as f64 / self.plan.events as f64 * self.plan.wallets as f64) as u64;
        if self.composer.wallets() < due
            && let Some(wallet) = self.composer.next_wallet()
        {
            return self.advance(wallet, IDENTITY, What::Ordinary);
        }
        if self.rng.u32(0..100) < 4 {
            let (event, new_request) = self.composer.request(&mut self.rng);
            return self.record(&event, What::Ordinary, new_request);
        }
        let wallet = self.pick_wallet();
        let slot = match self.rng.u32(0..100) {
            0..55 => {
                let event = self.composer.transaction(wallet, &mut self.rng);
                return self.record(&event, What::Ordinary, false);
            }
            55..58 => IDENTITY,
            58..74 => PROFILE,
            74..84 => STATUS,
            _ => FIRST_USER + self.rng.usize(0..USERS),
        };
        self.advance(wallet, slot, What::Ordinary)
    }

    /// The next version of a state.
    fn advance(&mut self, wallet: usize, slot: Slot, what: What) -> Generated {
        let version = self.composer.wallet(wallet).next_version(slot, &mut self.rng);
        let event = self.composer.state(wallet, slot, version, &mut self.rng);
        self.composer.sent(wallet, slot, version);
        self.record(&event, what, false)
    }

    fn record(&mut self, event: &Event, what: What, new_request: bool) -> Generated {
        self.history.push(event, &mut self.rng);
        if new_request {
            self.composer.requested(event, &mut self.rng);
        }
        self.finish(event, what, Expected::Recorded { state: state_of(event), new_request })
    }

    fn finish(&mut self, event: &Event, what: What, expected: Expected) -> Generated {
        let (headers, value) = event.encode(self.plan.event_bytes);
        let key = event.key.clone().into_bytes();
        // Both are far below 2^31.
        let partition = partition_of(&key, self.plan.partitions as i32) as u32;
        Generated { topic: event.topic, partition, key, headers, value: Some(value), what, expected }
    }

    /// The hot wallet as often as it takes to keep its share, else any of those known so far.
    fn pick_wallet(&mut self) -> usize {
        let behind = (self.hot_sent as f64) < self.plan.hot_share * self.sent as f64;
        let chance = if behind { (self.plan.hot_share * 2.0).min(1.0) } else { self.plan.hot_share / 2.0 };
        let known = self.composer.wallets().max(1) as usize;
        if known == 1 || self.rng.f64() < chance { 0 } else { self.rng.usize(1..known) }
    }
}

impl Iterator for Events {
    type Item = Generated;

    fn next(&mut self) -> Option<Generated> {
        if self.sent >= self.plan.events {
            return None;
        }
        self.composer.tick(&mut self.rng);
        let what = self.roll();
        let made = self.make(what);
        self.sent += 1;
        self.hot_sent += u64::from(made.key == self.composer.hot_key());
        Some(made)
    }
}

impl TimeForm {
    pub(super) fn any(rng: &mut Rng) -> Self {
        [Self::Micros, Self::Micros, Self::Millis, Self::Seconds, Self::Offset][rng.usize(0..5)]
    }
}
