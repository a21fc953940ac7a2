//! How a source position ends, and why an event is refused.

use std::fmt;

/// What became of one source position. Every position ends in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its record stands under its own origin (now, or since an earlier reading).
    Recorded,
    /// The same event stands under another origin.
    Duplicate,
    /// Left out by a route's rule or by an order.
    Skipped,
    /// In the dead-letter topic, for this reason.
    DeadLettered(Reason),
    /// No event ever stood here (transaction markers, compaction).
    Hole,
    /// The log no longer held it when the lane came by (retention).
    Lost,
}

impl Outcome {
    /// The letters that stand for it in a ledger entry: one, and a second one for the reason of a dead letter.
    pub fn code(self) -> &'static str {
        match self {
            Self::Recorded => "r",
            Self::Duplicate => "d",
            Self::Skipped => "s",
            Self::Hole => "h",
            Self::Lost => "l",
            Self::DeadLettered(reason) => match reason {
                Reason::Tombstone => "xt",
                Reason::Empty => "xe",
                Reason::Undecodable => "xu",
                Reason::Framing => "xf",
                Reason::Unclassified => "xq",
                Reason::Schema => "xs",
                Reason::Mapping => "xm",
                Reason::TooLarge => "xl",
                Reason::Conflict => "xc",
                Reason::Rejected => "xr",
                Reason::Denied => "xd",
                Reason::Attempts => "xa",
            },
        }
    }

    /// The inverse of [`Outcome::code`].
    pub fn from_code(code: &str) -> Option<Self> {
        let plain = [Self::Recorded, Self::Duplicate, Self::Skipped, Self::Hole, Self::Lost];
        let letters = Reason::ALL.map(Self::DeadLettered);
        plain.into_iter().chain(letters).find(|outcome| outcome.code() == code)
    }
}

/// Why an event cannot be processed: the reason of its dead letter (docs/publishing.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A null value.
    Tombstone,
    /// A value of no bytes.
    Empty,
    /// Not UTF-8, not one JSON text, a byte order mark, duplicate names, lone surrogates, too deep.
    Undecodable,
    /// A frame in front of the JSON that the route does not know.
    Framing,
    /// No route matches.
    Unclassified,
    /// The route's JSON Schema, or the CloudEvents envelope, refuses it.
    Schema,
    /// A pointer, id, address, amount, version or time that the route needs is missing or malformed.
    Mapping,
    /// Larger than a table, a key or a topic takes.
    TooLarge,
    /// Another event stands under this identity, or another request under this request id.
    Conflict,
    /// Refused by the store for good.
    Rejected,
    /// Refused by a policy.
    Denied,
    /// Redriven as often as allowed.
    Attempts,
}

impl Reason {
    /// Every reason, in the order of the docs.
    pub const ALL: [Self; 12] = [
        Self::Tombstone,
        Self::Empty,
        Self::Undecodable,
        Self::Framing,
        Self::Unclassified,
        Self::Schema,
        Self::Mapping,
        Self::TooLarge,
        Self::Conflict,
        Self::Rejected,
        Self::Denied,
        Self::Attempts,
    ];

    /// The inverse of [`Reason::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// The name used in headers, metrics and summaries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tombstone => "tombstone",
            Self::Empty => "empty",
            Self::Undecodable => "undecodable",
            Self::Framing => "framing",
            Self::Unclassified => "unclassified",
            Self::Schema => "schema",
            Self::Mapping => "mapping",
            Self::TooLarge => "too_large",
            Self::Conflict => "conflict",
            Self::Rejected => "rejected",
            Self::Denied => "denied",
            Self::Attempts => "attempts",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One event's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// What exactly, for a person; at most [`Refusal::DETAIL_BYTES_MAX`] bytes and no payload.
    pub detail: String,
}

impl Refusal {
    /// The most bytes that a detail may have.
    pub const DETAIL_BYTES_MAX: usize = 1024;

    /// A refusal; a longer detail is cut at a character's boundary.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > Self::DETAIL_BYTES_MAX {
            let cut = (0..=Self::DETAIL_BYTES_MAX).rev().find(|at| detail.is_char_boundary(*at)).unwrap_or(0);
            detail.truncate(cut);
        }
        Self { reason, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_code_of_its_own() {
        for reason in Reason::ALL {
            let outcome = Outcome::DeadLettered(reason);
            assert_eq!(Outcome::from_code(outcome.code()), Some(outcome));
            assert_eq!(Reason::from_name(reason.name()), Some(reason));
        }
        assert_eq!(Outcome::from_code("x"), None);
        assert_eq!(Reason::from_name(""), None);
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let refusal = Refusal::new(Reason::Mapping, "é".repeat(600));
        assert_eq!(refusal.detail.len(), 1024);
        let refusal = Refusal::new(Reason::Mapping, format!("a{}", "é".repeat(600)));
        assert_eq!(refusal.detail.len(), 1023);
    }
}
