//! One batch of one partition, from bytes to outcomes.

use crate::event::{Digest, Origin, Outcome, Position, Reason, Refusal};
use crate::guard::failpoint;
use crate::ledger::{Chain, Entry};
use crate::source::{Provenance, RawBatch, RawMessage};
use crate::telemetry::BatchTally;
use crate::telemetry::metrics::Stage;

use super::apply::apply;
use super::item::{Fate, Item};
use super::judge::{judge, look_up, remember};
use super::parts::Parts;
use super::poison::Poisoned;
use super::protocol::{self, Effects, Repair, Settled};
use super::request;
use super::route::{Delivery, Mapped, Prepared};
use super::settle::{Again, ask};
use super::turn::Turn;
use tokio::sync::watch;
use tokio::time::Instant;

/// Where a batch's lane lets one batch at a time.
#[derive(Debug, Default)]
pub struct Gates {
    judge: Turn,
    apply: Turn,
    held: watch::Sender<Option<Held>>,
}

/// A batch that waits for as long as its lane lives; all before it are done.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its ticket.
    pub ticket: u64,
    /// What it waits for.
    pub poisoned: Poisoned,
}

impl Gates {
    /// Tells of a batch that waits.
    pub fn held(&self) -> watch::Receiver<Option<Held>> {
        self.held.subscribe()
    }

    /// Where a batch stays that must not go on, in its turn to apply.
    pub(super) async fn hold(&self, ticket: u64, poisoned: Poisoned) {
        self.held.send_replace(Some(Held { ticket, poisoned }));
        std::future::pending().await
    }
}

/// What became of a batch.
#[derive(Debug)]
pub struct Done {
    /// Every message's position and outcome, in order.
    pub outcomes: Vec<(Position, Outcome)>,
    /// Digests of the records whose origin is one of these positions, in the positions' order.
    pub digests: Vec<(Position, Digest)>,
    /// Of the events that were read elsewhere first and now stand recorded: the position here, and their origin.
    pub fills: Vec<(Position, Origin)>,
    /// For the counters.
    pub tally: BatchTally,
}

/// Takes one batch through the protocol up to (and without) attesting. `ticket` counts the lane's batches from zero;
/// `ledger_end` is what the lane knows of the ledger now. Ends only when everything in the batch is durable; never where it
/// has a letter of a poisoned route ([`Gates::held`]). Dropping it gives the batch up: whatever was written stays, and a later reading finds it.
pub async fn process(
    parts: &Parts,
    chain: &Chain,
    gates: &Gates,
    batch: &RawBatch,
    ticket: u64,
    ledger_end: Position,
) -> Done {
    let mut laps = Laps { parts, since: Instant::now() };
    let mut tally = BatchTally::default();
    let mut items = prepare(parts, batch);
    laps.lap(Stage::Prepare);
    failpoint::hit("prepared");

    keep_attested(parts, chain, ledger_end, &mut items).await;
    look_up(parts, &mut items).await;
    laps.lap(Stage::LookUp);
    failpoint::hit("looked_up");

    gates.judge.wait(ticket).await;
    judge(parts, &mut items, &mut tally).await;
    gates.judge.pass(ticket);
    laps.lap(Stage::Judge);
    failpoint::hit("judged");

    gates.apply.wait(ticket).await;
    apply(parts, batch, &mut items, &mut tally, |poisoned| gates.hold(ticket, poisoned)).await;
    laps.lap(Stage::Apply);
    failpoint::hit("applied");

    remember(parts, &items).await;
    gates.apply.pass(ticket);
    laps.lap(Stage::Remember);
    failpoint::hit("remembered");
    finish(items, tally)
}

/// Times the stages of one batch.
struct Laps<'a> {
    parts: &'a Parts,
    since: Instant,
}

impl Laps<'_> {
    fn lap(&mut self, stage: Stage) {
        let now = Instant::now();
        self.parts.metrics.stages.observe(stage, now.duration_since(self.since));
        self.since = now;
    }
}

/// Decode, classify, validate, map; and the limits of tables and topics, so that all that can be known by now is decided.
fn prepare(parts: &Parts, batch: &RawBatch) -> Vec<Item> {
    let prefix = parts.partition.key();
    let mut headers = Vec::new();
    let mut items = Vec::with_capacity(batch.messages.len());
    for (index, raw) in batch.messages.iter().enumerate() {
        let (origin, origin_text, carried) = match &raw.provenance {
            Provenance::Carried(carried) => (carried.origin.clone(), carried.origin.text(), Some(carried.clone())),
            Provenance::Here | Provenance::LeftOut(_) | Provenance::Damaged(_) => {
                let origin = Origin { partition: parts.partition.clone(), position: raw.position };
                (origin, format!("{prefix}|{}", raw.position), None)
            }
        };
        let mut item = Item {
            message: index,
            position: raw.position,
            origin_text,
            route: None,
            content_digest: None,
            attested: None,
            fate: Fate::Settled(Outcome::Skipped),
            conflicting: None,
            digests: Vec::new(),
            origin,
            carried,
        };
        let unread = match &raw.provenance {
            Provenance::LeftOut(outcome) => Some(Fate::Settled(*outcome)),
            Provenance::Damaged(why) => Some(Fate::Refused(Refusal::new(Reason::Undecodable, why))),
            Provenance::Here | Provenance::Carried(_) => None,
        };
        if let Some(fate) = unread {
            item.fate = fate;
            items.push(item);
            continue;
        }
        headers.clear();
        headers.extend(batch.headers(raw));
        let delivery = delivery(batch, raw, &item.origin, &headers);
        match parts.pipeline.prepare(&delivery) {
            Prepared::Event(mut mapped) => {
                item.route = mapped.records.first().map(|judge| judge.names.clone());
                item.content_digest = Some(mapped.content_digest);
                restrict(parts, &item, &mut mapped);
                item.fate = match over_limits(parts, &mapped) {
                    Some(refusal) => Fate::Refused(refusal),
                    None if mapped.records.is_empty() => {
                        Fate::Refused(Refusal::new(Reason::Mapping, "the route makes no record to judge by"))
                    }
                    None => Fate::Open(mapped),
                };
            }
            Prepared::Skipped => {}
            Prepared::Refused { refusal, route, content_digest } => {
                item.route = route;
                item.content_digest = content_digest;
                item.fate = Fate::Refused(refusal);
            }
        }
        items.push(item);
    }
    items
}

/// A message of a batch, with its headers, as the pure half takes it.
pub fn delivery<'a>(
    batch: &'a RawBatch,
    raw: &'a RawMessage,
    origin: &'a Origin,
    headers: &'a [(&'a str, Option<&'a [u8]>)],
) -> Delivery<'a> {
    Delivery {
        origin,
        timestamp_ms: raw.timestamp_ms,
        key: raw.key.as_ref().map(|key| batch.slice(key)),
        value: raw.value.as_ref().map(|value| batch.slice(value)),
        headers,
    }
}

/// Takes away what the run does not apply, and notes what a corrected event stands for.
fn restrict(parts: &Parts, item: &Item, mapped: &mut Mapped) {
    let effects = parts.purpose.effects();
    if effects < Effects::State {
        mapped.states.clear();
    }
    if effects < Effects::All {
        mapped.request = None;
    }
    if let Some(corrects) = item.corrects().first() {
        mapped.records.iter_mut().for_each(|record| record.corrects = Some(*corrects));
    }
}

fn over_limits(parts: &Parts, mapped: &Mapped) -> Option<Refusal> {
    let records = mapped.records.iter().filter_map(|record| parts.store.check_record(record).err());
    let states = mapped.states.iter().filter_map(|write| parts.store.check_state(write).err());
    if let Some(error) = records.chain(states).next() {
        return Some(Refusal::new(Reason::TooLarge, error.to_string()));
    }
    let request = mapped.request.as_ref()?;
    let bytes = request::message(request, &mapped.records.first()?.occurred_at).bytes();
    let limit = parts.requests.bytes_max();
    (bytes > limit).then(|| {
        Refusal::new(Reason::TooLarge, format!("creation request is {bytes} bytes, the topic takes at most {limit}"))
    })
}

/// At positions that the ledger holds already: a dead letter, a skip or a gap is left alone; a recorded event or a duplicate
/// is done again, and keeps its outcome also where today's pipeline would refuse it.
async fn keep_attested(parts: &Parts, chain: &Chain, ledger_end: Position, items: &mut [Item]) {
    let (Some(first), Some(last)) = (items.first().map(|item| item.position), items.last().map(|item| item.position))
    else {
        return;
    };
    if first > ledger_end {
        return;
    }
    let entries = attested_entries(parts, chain, first, last.min(ledger_end)).await;
    let mut entries = entries.iter().peekable();
    for item in items {
        let position = item.position;
        while entries.next_if(|entry| entry.to < position).is_some() {}
        let Some(entry) = entries.peek().filter(|entry| entry.from < position) else { continue };
        let index = position.next_offset().saturating_sub(entry.from.next_offset() + 1);
        let Some(attested) = entry.outcomes.get(index) else { continue };
        item.attested = Some(attested);
        let mapped = matches!(item.fate, Fate::Open(_));
        if protocol::repair(attested, mapped) == Repair::Leave {
            item.fate = Fate::Settled(attested);
        }
    }
}

/// The entries that hold `first..=last`, a page at a time.
async fn attested_entries(parts: &Parts, chain: &Chain, first: Position, last: Position) -> Vec<Entry> {
    const PAGE: usize = 50;
    let mut entries: Vec<Entry> = Vec::new();
    let mut after = Position::before_offset(first.next_offset().saturating_sub(1));
    // Each page moves `after` up by at least one entry, and `last` bounds it.
    while after < last {
        let page = ask(parts, || async { parts.ledger.entries(chain, after, PAGE).await.map_err(Again::from) });
        let Some(page) = page.await else { break };
        let Some(end) = page.last().map(|entry| entry.to) else { break };
        after = end;
        entries.extend(page);
    }
    entries
}

fn finish(items: Vec<Item>, tally: BatchTally) -> Done {
    let mut done = Done { outcomes: Vec::with_capacity(items.len()), digests: Vec::new(), fills: Vec::new(), tally };
    for item in items {
        let position = item.position;
        let settled = match &item.fate {
            Fate::Live { own: true, .. } => Settled::Own,
            Fate::Live { own: false, .. } => Settled::Copy,
            Fate::Settled(outcome) => Settled::Left(*outcome),
            Fate::Refused(refusal) => Settled::Refused(refusal.reason),
            // Judging ends only when none is open. Going on would lose the event; stopping here loses nothing.
            Fate::Open(_) => unreachable!("{}: an event left its judge without a verdict", item.origin_text),
        };
        let outcome = protocol::outcome(item.attested, settled);
        let repeated = item.attested.is_some() || matches!(item.fate, Fate::Live { repeated: true, .. });
        match outcome {
            Outcome::Recorded => {
                done.tally.recorded += 1;
                done.tally.repeated += u64::from(repeated);
            }
            Outcome::Duplicate => done.tally.duplicate += 1,
            // A message where the ledger has a hole or a loss: counted with what is left out, as the ledger says.
            Outcome::Skipped | Outcome::Hole | Outcome::Lost => done.tally.skipped += 1,
            Outcome::DeadLettered(reason) => done.tally.dead_letter(reason),
        }
        done.outcomes.push((position, outcome));
        // An entry attests records read elsewhere first only where it says that it fills their positions.
        if item.carried.is_some() {
            if !matches!(outcome, Outcome::Recorded | Outcome::Duplicate) {
                continue;
            }
            done.fills.push((position, item.origin));
        }
        done.digests.extend(item.digests.into_iter().map(|digest| (position, digest)));
    }
    done
}
