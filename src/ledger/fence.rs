//! Fencing: who takes a run over seals its chains where they end and goes on in chains of the next epoch.
//!
//! An entry is inserted only where nothing begins at its place yet, and a seal stands exactly where the next entry of the process
//! before would begin. So that process can extend none of its chains any more, whatever it still believes to hold. The epoch is
//! the fencing token. An operator's new epoch seals the chain that it leaves behind in the same way.

use super::dynamodb::{garbled, unanswered};
use super::{Chain, ChainEnd, Epoch};
use crate::event::{Digest, FORMAT, Position};
use crate::store::Retry;
use crate::store::dynamodb::{Dynamo, Item, Value, stored_now};

/// The attribute that makes an item a seal: the epoch that goes on.
const SEALED_FOR: &str = "sealed_for";
/// How often a chain may grow between a look at its end and the seal.
const TRIES: u32 = 100;

/// What came of taking chains over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Each goes on in this epoch, for the caller alone; in the order of the chains.
    Tokens(Vec<u32>),
    /// They cannot, for this reason.
    Refused(String),
}

/// The last item of a chain that cannot be extended.
pub(super) struct Seal {
    /// Where the chain's last entry ends.
    pub at: Position,
    /// Which process set it.
    pub writer: String,
}

impl Seal {
    pub(super) fn read(item: &Item) -> Result<Self, String> {
        let text = |name: &str| item.get(name).and_then(Value::text).ok_or(format!("{name} is missing or no text"));
        let at = Position::from_sort_key(text("from")?).ok_or("from is no position")?;
        Ok(Self { at, writer: text("writer")?.to_owned() })
    }

    /// The end of a chain that has no entry.
    pub(super) fn end(self) -> ChainEnd {
        let (digest, nonce) = (Digest::of(b""), String::new());
        ChainEnd { position: self.at, digest, nonce, sealed_by: Some(self.writer) }
    }
}

pub(super) fn is_seal(item: &Item) -> bool {
    item.contains_key(SEALED_FOR)
}

/// The seal of a chain, if it has one, and its entries: items in order, the last one first.
pub(super) fn split_seal<'a>(chain_key: &str, items: &'a [Item]) -> Result<(Option<Seal>, &'a [Item]), Retry> {
    match items.split_first() {
        Some((last, entries)) if is_seal(last) => {
            Ok((Some(Seal::read(last).map_err(|what| garbled(chain_key, &what))?), entries))
        }
        _ => Ok((None, items)),
    }
}

impl Dynamo {
    /// Takes chains over from whoever may still extend them: seals each where it ends, or, where it has no entry, where it would
    /// begin, and begins the next epoch there. Asked again after an error, it takes over once more.
    ///
    /// # Errors
    ///
    /// Where it is unknown how far it got.
    pub async fn take_over(&self, chains: &[(Chain, Position)], writer: &str) -> Result<Fence, Retry> {
        let mut tokens = Vec::with_capacity(chains.len());
        for (chain, begin) in chains {
            let partition = &chain.partition;
            let opening = self.opening_of(chain).await?;
            if let Some(why) = opening.broken {
                return Ok(Fence::Refused(format!("the chain {} is broken: {why}", chain.key())));
            }
            let meanwhile = || Ok(Fence::Refused(format!("{partition}: another process takes it over")));
            let sealed = self.seal(&Chain { epoch: opening.epoch, ..chain.clone() }, *begin, writer).await?;
            let Some(end) = sealed else { return meanwhile() };
            let epoch = Epoch {
                // The next one, so that of two who saw the same seal one is refused.
                number: opening.epoch.saturating_add(1),
                begin: end.position,
                previous: end.digest,
                reason: "taken over".to_owned(),
                taken_over: true,
                writer: writer.to_owned(),
                nonce: uuid::Uuid::new_v4().simple().to_string(),
            };
            if !self.put_epoch(chain, &epoch).await? {
                return meanwhile();
            }
            tokens.push(epoch.number);
        }
        Ok(Fence::Tokens(tokens))
    }

    /// Seals a chain that is left behind for another epoch, so that nobody who has opened it meanwhile extends it, one that is
    /// marked as broken included. Where its last entries are broken it has no end to be sealed at, and nobody opens it. False
    /// where it has gone on in another epoch.
    ///
    /// # Errors
    ///
    /// Where it is unknown how far it got; asked again, it does the rest.
    pub async fn leave_behind(&self, chain: &Chain, writer: &str) -> Result<bool, Retry> {
        let opening = self.unmarked_opening_of(chain).await?;
        if opening.epoch != chain.epoch {
            return Ok(false);
        }
        if opening.broken.is_some() {
            return Ok(true);
        }
        Ok(self.seal(chain, opening.begin.unwrap_or(Position::Begin), writer).await?.is_some())
    }

    /// Seals a chain, and tells where it ends; `None` where it has gone on in another epoch.
    async fn seal(&self, chain: &Chain, begin: Position, writer: &str) -> Result<Option<ChainEnd>, Retry> {
        for _ in 0..TRIES {
            let opening = self.unmarked_opening_of(chain).await?;
            if opening.epoch != chain.epoch {
                return Ok(None);
            }
            let end = match (opening.end, opening.begin) {
                (Some(end), _) if end.sealed_by.is_some() => return Ok(Some(end)),
                (Some(end), _) => end,
                (None, begun) => Seal { at: begun.unwrap_or(begin), writer: writer.to_owned() }.end(),
            };
            let sealed = self.put_aside(vec![
                ("created_at", Value::Text(stored_now())),
                ("format", Value::Number(FORMAT.to_string())),
                ("from", Value::Text(end.position.sort_key())),
                ("ledger_id", Value::Text(chain.key())),
                (SEALED_FOR, Value::Number(chain.epoch.saturating_add(1).to_string())),
                ("writer", Value::Text(writer.to_owned())),
            ]);
            if sealed.await? {
                return Ok(Some(end));
            }
            // It grew, or a seal's answer was lost.
        }
        Err(unanswered(&format!("{} grows too fast to be sealed", chain.key())))
    }
}
