//! The standard record: what is kept of one event, for ever.

use std::sync::Arc;

use super::ids::Digest;
use super::position::Origin;

/// The format number that records, states, ledger entries, Redis values, requests and dead letters carry.
pub const FORMAT: u32 = 1;

/// What all records of one route share.
#[derive(Debug, PartialEq, Eq)]
pub struct RouteNames {
    /// The pipeline's name.
    pub pipeline: String,
    /// The route's name.
    pub route: String,
    /// The mapping's revision: a digest over the route as configured.
    pub mapping_revision: String,
}

/// One record as the mapping made it. The store adds what it alone knows: the clock, the wallet's shard, the digest.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// `source|id` for the judge, `source|id|name` for further records.
    pub record_id: String,
    /// The record's type, such as `wallet.created` or `transfer.out`.
    pub kind: String,
    /// When it happened, `2026-01-02T03:04:05.678901Z`.
    pub occurred_at: String,
    /// The event's source.
    pub source: String,
    /// The event's id.
    pub event_id: String,
    /// Standard fields; numbers by the source's own digits.
    pub fields: Vec<(Arc<str>, String)>,
    /// Digest of what was sent.
    pub content_digest: Digest,
    /// Where the event that was recorded was first read.
    pub origin: Origin,
    /// Pipeline, route and mapping revision.
    pub names: Arc<RouteNames>,
    /// The event's correlation id, or its record id where it carries none.
    pub correlation_id: String,
    /// W3C trace context, carried through.
    pub traceparent: Option<String>,
    /// The content digest of the event as it was read first, where this is a corrected form of it.
    pub corrects: Option<Digest>,
    /// The canonical id of the wallet that the record belongs to, if any.
    pub wallet_id: Option<String>,
}
