//! Chains in DynamoDB: one item an entry, under the chain's key and where the entry begins.
//!
//! An append inserts if absent: two writers that believe in the same end cannot both extend it.

use futures::future::BoxFuture;

use super::fence::{self, Seal, split_seal};
use super::standing::{BROKEN, EPOCH, read_epoch};
use super::{Appended, Chain, ChainEnd, Entry, Fills, Kept, Ledger, Opening, Order, Outcomes, StartItem};
use crate::event::ids::escape_into;
use crate::event::{Digest, FORMAT, Partition, Position, SetDigest};
use crate::store::dynamodb::read::{Query, Range};
use crate::store::dynamodb::{Answer, Attributes, Dynamo, Item, StoreTrouble, Table, Value, stored_now};
use crate::store::{Retry, RetryCause};

/// The sort key of a start item.
const START_FROM: &str = "0";
/// In front of a start item's key.
const START: &str = "start#";
/// In front of a group's and topic's key: the logs that the group read under the topic's name.
const LOG: &str = "log#";
/// In front of the keys of what is neither an entry nor a start item.
const ASIDE: [&str; 5] = ["order#", "meta#", "run#", "dismissed#", LOG];

impl Ledger for Dynamo {
    fn end<'a>(&'a self, chain: &'a Chain) -> BoxFuture<'a, Result<Option<ChainEnd>, Retry>> {
        Box::pin(async move {
            let key = chain.key();
            let items = self.ledger_items(&key, None, true, 2).await?;
            let (seal, entries) = split_seal(&key, &items)?;
            let Some(item) = entries.first() else { return Ok(seal.map(Seal::end)) };
            let (entry, digest) = read_checked(item, &key)?;
            let sealed_by = seal.map(|seal| seal.writer);
            Ok(Some(ChainEnd { position: entry.to, digest, nonce: entry.nonce, sealed_by }))
        })
    }

    fn opening<'a>(&'a self, chain: &'a Chain) -> BoxFuture<'a, Result<Opening, Retry>> {
        Box::pin(self.opening_of(chain))
    }

    fn entries<'a>(
        &'a self,
        chain: &'a Chain,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Entry>, Retry>> {
        Box::pin(async move {
            let key = chain.key();
            // The entry that begins at or below `after` may reach above it.
            let below = Some(Range::AtMost(after.sort_key()));
            let mut entries = Vec::new();
            for item in self.ledger_items(&key, below, true, 1).await?.iter().filter(|item| !fence::is_seal(item)) {
                let (entry, _) = read_checked(item, &key)?;
                if entry.to > after {
                    entries.push(entry);
                }
            }
            let left = limit.saturating_sub(entries.len());
            for item in self.ledger_items(&key, Some(Range::Above(after.sort_key())), false, left).await? {
                if !fence::is_seal(&item) {
                    entries.push(read_checked(&item, &key)?.0);
                }
            }
            entries.truncate(limit);
            Ok(entries)
        })
    }

    fn append<'a>(&'a self, entries: &'a [(&'a Chain, &'a Entry)]) -> BoxFuture<'a, Vec<Appended>> {
        Box::pin(async move {
            let items = entries.iter().map(|(chain, entry)| attributes(&chain.key(), entry)).collect();
            let answers = self.insert_ledger_items(items).await;
            answers.into_iter().map(appended).collect()
        })
    }

    fn start_item<'a>(&'a self, chain: &'a Chain, proposed: &'a StartItem) -> BoxFuture<'a, Result<StartItem, Retry>> {
        Box::pin(async move {
            let starts = proposed
                .starts
                .iter()
                .map(|(name, position)| (name.clone(), Value::Text(position.sort_key())))
                .collect();
            let attributes = vec![
                ("created_at", Value::Text(stored_now())),
                ("format", Value::Number(FORMAT.to_string())),
                ("from", Value::Text(START_FROM.to_owned())),
                ("ledger_id", Value::Text(start_key(chain))),
                ("starts", Value::map(starts)),
            ];
            if let Some(Answer::Trouble(trouble)) = self.insert_ledger_items(vec![attributes]).await.pop() {
                return Err(retry(trouble));
            }
            // Whoever was first: what stands counts.
            let standing = self.find_start_item(chain).await?;
            standing.ok_or_else(|| unanswered("the start item came and went"))
        })
    }

    fn begin_log<'a>(&'a self, chain: &'a Chain) -> BoxFuture<'a, Result<bool, Retry>> {
        Box::pin(async move {
            let Partition { cluster, topic, topic_id, epoch, .. } = &*chain.partition;
            let mut key = LOG.to_owned();
            escape_into(&mut key, &chain.group);
            for part in [cluster, topic] {
                key.push('|');
                escape_into(&mut key, part);
            }
            let mut log = String::new();
            escape_into(&mut log, topic_id);
            log.push_str(&format!("|{epoch}"));
            self.put_aside(vec![
                ("created_at", Value::Text(stored_now())),
                ("format", Value::Number(FORMAT.to_string())),
                ("from", Value::Text(log.clone())),
                ("ledger_id", Value::Text(key.clone())),
            ])
            .await?;
            let unnamed = format!("|{epoch}");
            // One that had no id then is the same one: its brokers have learnt of topic ids since. So three tell whether there is
            // another one.
            let logs = self.ledger_items(&key, None, false, 3).await?;
            let known =
                |item: &Item| item.get("from").and_then(Value::text).is_some_and(|from| from == log || from == unnamed);
            Ok(!logs.iter().all(known))
        })
    }

    fn find_start_item<'a>(&'a self, chain: &'a Chain) -> BoxFuture<'a, Result<Option<StartItem>, Retry>> {
        Box::pin(async move {
            let key = start_key(chain);
            let Some(item) = self.ledger_items(&key, None, false, 1).await?.into_iter().next() else { return Ok(None) };
            read_start(&item).map(Some).map_err(|what| garbled(&key, &what))
        })
    }
}

impl Dynamo {
    /// Writes an order down, before it is carried out.
    ///
    /// # Errors
    ///
    /// Where it may not have been written.
    pub async fn put_order(&self, chain: &Chain, order: &Order) -> Result<(), Retry> {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut attributes = vec![
            ("created_at", text(&order.ordered_at)),
            ("format", Value::Number(FORMAT.to_string())),
            ("from", Value::Text(format!("{}|{}", order.ordered_at, order.nonce))),
            ("ledger_end", Value::Text(order.ledger_end.sort_key())),
            ("ledger_id", Value::Text(format!("order#{}", chain.key()))),
            ("nonce", text(&order.nonce)),
            ("reason", text(&order.reason)),
            ("to", Value::Text(order.to.sort_key())),
            ("writer", text(&order.writer)),
        ];
        if let Some(checkpoint) = order.checkpoint {
            attributes.insert(0, ("checkpoint", Value::Text(checkpoint.sort_key())));
        }
        match self.insert_ledger_items(vec![attributes]).await.pop() {
            // The nonce is fresh: what exists is this very order, after a lost answer.
            Some(Answer::Done | Answer::Exists) => Ok(()),
            Some(Answer::Trouble(trouble)) => Err(retry(trouble)),
            Some(Answer::ConditionFailed(_)) | None => Err(unanswered("no answer")),
        }
    }

    /// Items under a key above a sort key, in order, at most `limit`.
    pub(super) async fn ledger_items_above(
        &self,
        key: &str,
        above: Option<String>,
        limit: usize,
    ) -> Result<Vec<Item>, Retry> {
        self.ledger_items(key, above.map(Range::Above), false, limit).await
    }

    /// The items of a chain, or under another of the ledger's keys, in order, above `after`, at most `limit`, each with where it
    /// begins, as an audit reads them.
    ///
    /// # Errors
    ///
    /// Where they cannot be read.
    pub async fn kept_items(
        &self,
        key: &str,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<(Option<Position>, Kept)>, Retry> {
        let query = of_chain(key, after.map(|after| Range::Above(after.sort_key())), false, limit);
        let items = self.query_unchecked(query).await?;
        let garbled =
            || Kept::Garbled { key: key.to_owned(), from: String::new(), what: "a value of a foreign kind".to_owned() };
        let from = |item: &Item| item.get("from").and_then(Value::text).and_then(Position::from_sort_key);
        let kept = |item: Option<Item>| match item {
            Some(item) => (from(&item), read_kept(&item)),
            None => (None, garbled()),
        };
        Ok(items.into_iter().map(kept).collect())
    }

    /// The last items of a chain, the last one first; `None` for one with a value of a foreign kind.
    pub(super) async fn last_items(&self, key: &str, limit: usize) -> Result<Vec<Option<Item>>, Retry> {
        Ok(self.query_unchecked(of_chain(key, None, true, limit)).await?)
    }

    pub(super) async fn ledger_items(
        &self,
        key: &str,
        range: Option<Range>,
        last_first: bool,
        limit: usize,
    ) -> Result<Vec<Item>, Retry> {
        self.query(of_chain(key, range, last_first, limit)).await.map_err(Retry::from)
    }
}

fn of_chain(key: &str, range: Option<Range>, last_first: bool, limit: usize) -> Query {
    Query {
        table: Table::Ledger,
        index: false,
        key: key.to_owned(),
        range,
        newest_first: last_first,
        limit,
        strong: true,
        start: None,
    }
}

/// The key of a group's start item on a topic. It has fewer parts than any chain's key.
fn start_key(chain: &Chain) -> String {
    let mut key = START.to_owned();
    let partition = &chain.partition;
    for part in [&*chain.group, &partition.cluster, &partition.topic, &partition.topic_id] {
        escape_into(&mut key, part);
        key.push('|');
    }
    key.push_str(&partition.epoch.to_string());
    key
}

/// Reads any item of the ledger's table. An entry is not compared with its digest.
pub fn read_kept(item: &Item) -> Kept {
    let text = |name: &str| item.get(name).and_then(Value::text).unwrap_or_default().to_owned();
    let key = text("ledger_id");
    let kept = if ASIDE.iter().any(|prefix| key.starts_with(prefix)) {
        Ok(Kept::Aside)
    } else if let Some(of) = key.strip_prefix(START) {
        read_start(item).map(|item| Kept::Start { key: of.to_owned(), item })
    } else if let Some(of) = key.strip_prefix(EPOCH) {
        read_epoch(item).map(|epoch| Kept::Epoch { key: of.to_owned(), epoch })
    } else if let Some(of) = key.strip_prefix(BROKEN) {
        Ok(Kept::Broken { chain: of.to_owned(), reason: text("reason") })
    } else if fence::is_seal(item) {
        Seal::read(item).map(|seal| Kept::Seal { chain: key.clone(), at: seal.at })
    } else {
        read(item).map(|(entry, digest)| Kept::Entry { chain: key.clone(), entry: Box::new(entry), digest })
    };
    let checked = Table::Ledger.check_read(item).and(kept);
    checked.unwrap_or_else(|what| Kept::Garbled { key, from: text("from"), what })
}

fn attributes(chain_key: &str, entry: &Entry) -> Attributes {
    let text = |text: &str| Value::Text(text.to_owned());
    let mut attributes = vec![
        ("attested_at", text(&entry.attested_at)),
        ("digest", Value::Text(entry.digest(chain_key).hex())),
        ("format", Value::Number(FORMAT.to_string())),
        ("from", Value::Text(entry.from.sort_key())),
        ("ledger_id", text(chain_key)),
        ("nonce", text(&entry.nonce)),
        ("outcomes", Value::Text(entry.outcomes.text())),
        ("previous", Value::Text(entry.previous.hex())),
        ("record_count", Value::Number(entry.record_count.to_string())),
        ("records", Value::Text(entry.records.hex())),
        ("revision", text(&entry.revision)),
        ("to", Value::Text(entry.to.sort_key())),
        ("writer", text(&entry.writer)),
    ];
    if !entry.fills.is_empty() {
        let fills = entry.fills.texts().map(|(partition, offsets)| (partition.to_owned(), Value::Text(offsets)));
        attributes.insert(2, ("fills", Value::map(fills.collect())));
    }
    attributes
}

fn appended(answer: Answer) -> Appended {
    match answer {
        Answer::Done => Appended::Done,
        Answer::Exists => Appended::Refused,
        Answer::ConditionFailed(_) => {
            let detail = "ledger: an INSERT was answered as if it had a condition".to_owned();
            Appended::Retry(Retry { cause: RetryCause::Unavailable, after: None, detail })
        }
        Answer::Trouble(trouble) => Appended::Retry(retry(trouble)),
    }
}

/// An entry cannot be given up: what the store refuses waits until somebody mends it.
pub(super) fn retry(trouble: StoreTrouble) -> Retry {
    match trouble {
        StoreTrouble::Retry(retry) => retry,
        StoreTrouble::Rejected(detail) => Retry { cause: RetryCause::Refused, after: None, detail },
    }
}

/// The store says nothing that makes sense.
pub(super) fn unanswered(what: &str) -> Retry {
    retry(StoreTrouble::Rejected(format!("ledger: {what}")))
}

pub(super) fn garbled(key: &str, what: &str) -> Retry {
    let detail = format!("ledger: {key}: {what}: run `recordkeeper verify`");
    Retry { cause: RetryCause::Refused, after: None, detail }
}

/// An entry that fits its own digest.
fn read_checked(item: &Item, chain_key: &str) -> Result<(Entry, Digest), Retry> {
    let (entry, digest) = read(item).map_err(|what| garbled(chain_key, &what))?;
    if entry.digest(chain_key) != digest {
        return Err(garbled(chain_key, &format!("the entry from {} does not fit its digest", entry.from)));
    }
    Ok((entry, digest))
}

pub(super) fn read(item: &Item) -> Result<(Entry, Digest), String> {
    let text = |name: &str| item.get(name).and_then(Value::text).ok_or(format!("{name} is missing or no text"));
    let position = |name: &str| Position::from_sort_key(text(name)?).ok_or(format!("{name} is no position"));
    let digest = |name: &str| Digest::from_hex(text(name)?).ok_or(format!("{name} is no digest"));
    let entry = Entry {
        from: position("from")?,
        to: position("to")?,
        outcomes: Outcomes::parse(text("outcomes")?).ok_or("outcomes cannot be read")?,
        records: SetDigest::from_hex(text("records")?).ok_or("records is no digest")?,
        fills: read_fills(item)?,
        record_count: item.get("record_count").and_then(Value::integer).ok_or("record_count is no count")?,
        revision: text("revision")?.to_owned(),
        writer: text("writer")?.to_owned(),
        nonce: text("nonce")?.to_owned(),
        previous: digest("previous")?,
        attested_at: text("attested_at")?.to_owned(),
    };
    Ok((entry, digest("digest")?))
}

fn read_fills(item: &Item) -> Result<Fills, String> {
    let fills = match item.get("fills") {
        None => return Ok(Fills::default()),
        Some(Value::Map(fills)) => fills.iter().map(|(key, offsets)| Some((key.as_str(), offsets.text()?))),
        Some(_) => return Err("fills is no map".to_owned()),
    };
    let fills: Option<Vec<(&str, &str)>> = fills.collect();
    fills.and_then(Fills::parse).ok_or("fills cannot be read".to_owned())
}

fn read_start(item: &Item) -> Result<StartItem, String> {
    let Some(Value::Map(starts)) = item.get("starts") else { return Err("starts is no map".to_owned()) };
    let read = |(name, value): &(String, Value)| {
        let position = value.text().and_then(Position::from_sort_key).ok_or(format!("start of {name} is no position"));
        Ok((name.clone(), position?))
    };
    Ok(StartItem { starts: starts.iter().map(read).collect::<Result<_, String>>()? })
}
