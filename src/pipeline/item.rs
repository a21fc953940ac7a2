//! One event on its way through a batch.

use std::sync::Arc;

use crate::event::{Digest, Origin, Outcome, Position, Record, Refusal, RouteNames};
use crate::source::Carried;
use crate::store::Standing;
use crate::telemetry::At;

use super::route::Mapped;

/// One message of a batch, with all that was decided about it so far.
#[derive(Debug)]
pub(super) struct Item {
    /// Its index among the batch's messages.
    pub message: usize,
    /// Where it stands in the log that is read.
    pub position: Position,
    /// Where its event was read first.
    pub origin: Origin,
    /// What an archive or a dead letter tells of it.
    pub carried: Option<Box<Carried>>,
    /// The stored form of `origin`.
    pub origin_text: String,
    /// The route, where classification got that far.
    pub route: Option<Arc<RouteNames>>,
    /// The content digest, where decoding got that far.
    pub content_digest: Option<Digest>,
    /// What the ledger holds for the position already.
    pub attested: Option<Outcome>,
    /// Where it stands in the protocol.
    pub fate: Fate,
    /// The record that a conflicting event met.
    pub conflicting: Option<Standing>,
    /// Digests, as stored, of the records whose origin is this position.
    pub digests: Vec<Digest>,
}

/// How far one event has come.
#[derive(Debug)]
pub(super) enum Fate {
    /// Mapped, not judged yet.
    Open(Box<Mapped>),
    /// Judged and no conflict: all of its effects are to be applied, whoever stored the record.
    Live {
        /// What it asks for.
        mapped: Box<Mapped>,
        /// The record that stands under its identity.
        standing: Standing,
        /// Whether that record is its own.
        own: bool,
        /// Own, and stored by an earlier reading.
        repeated: bool,
        /// Records and states were written together with the judge.
        written: bool,
    },
    /// Settled without another write.
    Settled(Outcome),
    /// To be dead-lettered, unless the ledger holds an outcome.
    Refused(Refusal),
}

impl Item {
    /// Where its event was read first, for alerts.
    pub fn at(&self) -> At<'_> {
        At { offset: self.origin.position.offset(), ..At::partition(&self.origin.partition) }
    }

    /// The content digests of the forms that it corrects, the first one first.
    pub fn corrects(&self) -> &[Digest] {
        self.carried.as_ref().map_or(&[], |carried| &carried.corrects)
    }

    /// The record that judges it, while it is known.
    pub fn judge(&self) -> Option<&Record> {
        match &self.fate {
            Fate::Open(mapped) | Fate::Live { mapped, .. } => mapped.records.first(),
            Fate::Settled(_) | Fate::Refused(_) => None,
        }
    }
}
