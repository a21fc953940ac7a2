//! CloudEvents 1.0 envelopes.
use super::json::Document;
use super::outcome::Refusal;

/// The attributes of a CloudEvent that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'d> {
    /// `source`
    pub source: &'d str,
    /// `id`
    pub id: &'d str,
    /// `type`
    pub kind: &'d str,
    /// `time`, checked but as it was sent.
    pub time: Option<&'d str>,
    /// `datacontenttype`
    pub datacontenttype: Option<&'d str>,
    /// `correlationid`
    pub correlation_id: Option<&'d str>,
    /// `traceparent`
    pub traceparent: Option<&'d str>,
}

/// The envelope of a structured event; its data is the root's member `data`.
pub fn structured<'d>(_doc: &'d Document<'_>) -> Result<Envelope<'d>, Refusal> {
    todo!()
}

/// The envelope of a binary event from its headers; `None` without `ce_specversion`.
pub fn binary<'h>(_headers: &'h [(&'h str, Option<&'h [u8]>)]) -> Result<Option<Envelope<'h>>, Refusal> {
    todo!()
}

/// Whether the identity fits its key.
pub fn check_identity(_source: &str, _id: &str) -> Result<(), Refusal> {
    todo!()
}
