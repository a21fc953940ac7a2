//! How a chain stands: which epoch it is in, whether it was marked as broken, whether its last entries hang together.

use super::dynamodb::{read, retry};
use super::fence::{Seal, split_seal};
use super::{Chain, ChainEnd, Entry, Epoch, Opening};
use crate::event::{Digest, FORMAT, Position};
use crate::store::Retry;
use crate::store::dynamodb::{Answer, Attributes, Dynamo, Item, StoreTrouble, Value, stored_now};

/// In front of a chain's key: it was found broken.
pub(super) const BROKEN: &str = "broken#";
/// In front of a lineage: its epochs, by number.
pub const EPOCH: &str = "epoch#";
/// The attribute of an epoch whose chain before was sealed.
const TAKEN_OVER: &str = "taken_over";
/// The sort key of a mark.
const MARK_FROM: &str = "0";
/// How many of the last entries are looked at when a lane opens.
const LOOKED_AT: usize = 3;

impl Dynamo {
    /// How the chain's latest epoch stands, marks included.
    pub(super) async fn opening_of(&self, chain: &Chain) -> Result<Opening, Retry> {
        let (chain, begin) = self.latest_of(chain).await?;
        let mark = self.ledger_items(&format!("{BROKEN}{}", chain.key()), None, false, 1).await?.into_iter().next();
        if let Some(mark) = mark {
            let text = |name: &str| mark.get(name).and_then(Value::text).unwrap_or_default().to_owned();
            let broken = Some(format!("marked as broken at {}: {}", text("created_at"), text("reason")));
            return Ok(Opening { epoch: chain.epoch, begin, end: None, broken });
        }
        self.by_its_entries(&chain, begin).await
    }

    /// The same, whatever it was marked as.
    pub(super) async fn unmarked_opening_of(&self, chain: &Chain) -> Result<Opening, Retry> {
        let (chain, begin) = self.latest_of(chain).await?;
        self.by_its_entries(&chain, begin).await
    }

    /// The chain of the latest epoch, and where that was ordered to begin.
    async fn latest_of(&self, chain: &Chain) -> Result<(Chain, Option<Position>), Retry> {
        let key = format!("{EPOCH}{}", chain.lineage());
        let item = self.ledger_items(&key, None, true, 1).await?.into_iter().next();
        let epoch = match &item {
            Some(item) => Some(read_epoch(item).map_err(|what| super::dynamodb::garbled(&key, &what))?),
            None => None,
        };
        let chain = Chain { epoch: epoch.as_ref().map_or(0, |epoch| epoch.number), ..chain.clone() };
        Ok((chain, epoch.map(|epoch| epoch.begin)))
    }

    /// Whether the last entries hang together, and where they end.
    async fn by_its_entries(&self, chain: &Chain, begin: Option<Position>) -> Result<Opening, Retry> {
        let key = chain.key();
        let broken = |what: String| Opening { epoch: chain.epoch, begin, end: None, broken: Some(what) };
        let items: Option<Vec<Item>> = self.last_items(&key, LOOKED_AT).await?.into_iter().collect();
        let Some(items) = items else {
            return Ok(broken("one of its last entries has a value of a foreign kind".to_owned()));
        };
        let (seal, items) = match split_seal(&key, &items) {
            Ok(split) => split,
            Err(what) => return Ok(broken(what.detail)),
        };
        let sealed_by = seal.as_ref().map(|seal| seal.writer.clone());
        let mut end = None;
        // From the last one down: what the entry above says of where it begins, and of the digest before it.
        let mut above: Option<Entry> = None;
        for item in items {
            let (entry, digest) = match read(item) {
                Ok(read) => read,
                Err(what) => return Ok(broken(format!("one of its last entries cannot be read: {what}"))),
            };
            let (from, to) = (entry.from.next_offset(), entry.to.next_offset());
            if let Some(fault) = entry.fault(&key, &digest) {
                return Ok(broken(format!("the entry of offsets {from} up to {to}: {fault}")));
            }
            if let Some(above) = &above
                && (above.from != entry.to || above.previous != digest)
            {
                return Ok(broken(format!("the entry above offset {to} does not go on from the one below")));
            }
            end.get_or_insert_with(|| ChainEnd {
                position: entry.to,
                digest,
                nonce: entry.nonce.clone(),
                sealed_by: sealed_by.clone(),
            });
            above = Some(entry);
        }
        Ok(Opening { epoch: chain.epoch, begin, end: end.or(seal.map(Seal::end)), broken: None })
    }

    /// Marks a chain as broken: no lane opens it any more. Marking it again changes nothing.
    ///
    /// # Errors
    ///
    /// Where it may not be marked.
    pub async fn mark_broken(&self, chain_key: &str, reason: &str, writer: &str) -> Result<(), Retry> {
        let text = |text: &str| Value::Text(text.to_owned());
        self.put_aside(vec![
            ("created_at", Value::Text(stored_now())),
            ("format", Value::Number(FORMAT.to_string())),
            ("from", text(MARK_FROM)),
            ("ledger_id", Value::Text(format!("{BROKEN}{chain_key}"))),
            ("reason", text(reason)),
            ("writer", text(writer)),
        ])
        .await
        .map(drop)
    }

    /// Begins a new epoch of a chain's lineage; false where somebody else began one of this number.
    ///
    /// # Errors
    ///
    /// Where it may not have begun.
    pub async fn put_epoch(&self, chain: &Chain, epoch: &Epoch) -> Result<bool, Retry> {
        let text = |text: &str| Value::Text(text.to_owned());
        let key = format!("{EPOCH}{}", chain.lineage());
        let mut attributes = vec![
            ("created_at", Value::Text(stored_now())),
            ("format", Value::Number(FORMAT.to_string())),
            ("from", Value::Text(format!("{:010}", epoch.number))),
            ("ledger_id", text(&key)),
            ("nonce", text(&epoch.nonce)),
            ("previous", Value::Text(epoch.previous.hex())),
            ("reason", text(&epoch.reason)),
            ("to", Value::Text(epoch.begin.sort_key())),
            ("writer", text(&epoch.writer)),
        ];
        if epoch.taken_over {
            let to = attributes.partition_point(|(name, _)| *name < TAKEN_OVER);
            attributes.insert(to, (TAKEN_OVER, Value::Number("1".to_owned())));
        }
        if self.put_aside(attributes).await? {
            return Ok(true);
        }
        // Its answer may have been lost.
        let standing = self.ledger_items(&key, None, true, 1).await?;
        Ok(standing.first().and_then(|item| read_epoch(item).ok()).is_some_and(|found| found.nonce == epoch.nonce))
    }

    /// Inserts an item that is no entry; false where one stands there already.
    pub(super) async fn put_aside(&self, attributes: Attributes) -> Result<bool, Retry> {
        match self.insert_ledger_items(vec![attributes]).await.pop() {
            Some(Answer::Done) => Ok(true),
            Some(Answer::Exists) => Ok(false),
            Some(Answer::Trouble(trouble)) => Err(retry(trouble)),
            Some(Answer::ConditionFailed(_)) | None => {
                Err(retry(StoreTrouble::Rejected("ledger: no answer".to_owned())))
            }
        }
    }
}

/// Reads an epoch's item.
pub(super) fn read_epoch(item: &Item) -> Result<Epoch, String> {
    let text = |name: &str| item.get(name).and_then(Value::text).ok_or(format!("{name} is missing or no text"));
    Ok(Epoch {
        number: text("from")?.parse().map_err(|_| "from is no epoch")?,
        begin: Position::from_sort_key(text("to")?).ok_or("to is no position")?,
        previous: Digest::from_hex(text("previous")?).ok_or("previous is no digest")?,
        reason: text("reason")?.to_owned(),
        taken_over: item.contains_key(TAKEN_OVER),
        writer: text("writer")?.to_owned(),
        nonce: text("nonce")?.to_owned(),
    })
}
