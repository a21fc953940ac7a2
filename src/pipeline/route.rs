//! What the pure half of the pipeline takes and gives.

use std::sync::Arc;

use crate::event::{CreationRequest, Digest, Origin, Record, Refusal, RouteNames, StateWrite};

/// One message as read, borrowed from its batch.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Where it stands; topic and partition are in it.
    pub origin: &'a Origin,
    /// Broker's time in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// An event that passed decode, classify, validate and map: everything that it asks for.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// Digest of what was sent (the judge compares it).
    pub content_digest: Digest,
    /// The judge first, then the further records.
    pub records: Vec<Record>,
    /// State changes; (key, group) unique.
    pub states: Vec<StateWrite>,
    /// A wallet to be created.
    pub request: Option<CreationRequest>,
    /// Whether the route asks for one transaction.
    pub transactional: bool,
}

/// What the pure half decides about one message.
#[derive(Clone, Debug)]
pub enum Prepared {
    /// To be recorded, unless it is a duplicate or a conflict.
    Event(Box<Mapped>),
    /// Left out by a route's rule.
    Skipped,
    /// A dead letter.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The route, where classification got that far.
        route: Option<Arc<RouteNames>>,
        /// The content digest, where decoding got that far.
        content_digest: Option<Digest>,
    },
}
