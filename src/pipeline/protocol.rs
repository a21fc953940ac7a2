//! The decisions of the delivery protocol, as pure functions.
//!
//! Everything that decides what becomes of an event, where a lane starts and what is appended to a ledger stands here, so
//! that a model can call the very same rules.

use crate::dedupe::Known;
use crate::event::{Digest, Outcome, Position};
use crate::store::Standing;

/// What the judge's record says about one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The record is this event's own.
    Recorded {
        /// It stood before: this very delivery was seen earlier.
        repeated: bool,
    },
    /// The same event was recorded from another origin.
    Duplicate,
    /// Another event stands under this identity.
    Conflict,
}

/// The verdict on an event, given the record that stands under its identity.
pub fn verdict(content_digest: &Digest, origin: &str, standing: &Standing) -> Verdict {
    if standing.content_digest != *content_digest {
        Verdict::Conflict
    } else if standing.origin == origin {
        Verdict::Recorded { repeated: true }
    } else {
        Verdict::Duplicate
    }
}

/// Whether the cache settles an event: known with the same content under another origin. This very delivery is not
/// settled by it (a crash may have come between remembering and attesting), nor is other content.
pub fn known_is_duplicate(content_digest: &Digest, origin: &str, known: &Known) -> bool {
    known.content_digest == *content_digest && known.origin != origin
}

/// What a position that the ledger already holds asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Its record and effects are made sure of again; the outcome stays.
    Redo,
    /// Nothing: a dead letter, a skip or a gap stays what it is, whatever today's pipeline would make of it.
    Leave,
}

/// What to do at a position whose outcome is attested already.
pub fn repair(attested: Outcome) -> Repair {
    match attested {
        Outcome::Recorded | Outcome::Duplicate => Repair::Redo,
        Outcome::Skipped | Outcome::DeadLettered(_) | Outcome::Hole | Outcome::Lost => Repair::Leave,
    }
}

/// Where a lane begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneStart {
    /// The lane reads just above this.
    pub after: Position,
    /// Positions `(from, to]` that the log no longer holds and no entry does: to be attested as lost.
    pub lost: Option<(Position, Position)>,
    /// The checkpoint, where it stands outside of what the ledger holds: moved by a tool, not followed.
    pub reset_ignored: Option<Position>,
}

/// A lane starts at the lower of checkpoint and ledger end, but not below where the ledger begins: what lies there is not the
/// group's, and no entry could say what became of it. Without a checkpoint it starts at the ledger's end; above the ledger's
/// end only where the log itself starts above it.
pub fn lane_start(
    checkpoint: Option<Position>,
    ledger_begin: Position,
    ledger_end: Position,
    log_start: Position,
) -> LaneStart {
    let wanted = checkpoint.map_or(ledger_end, |checkpoint| checkpoint.max(ledger_begin).min(ledger_end));
    LaneStart {
        after: wanted.max(log_start),
        lost: (log_start > ledger_end).then_some((ledger_end, log_start)),
        reset_ignored: checkpoint.filter(|checkpoint| *checkpoint > ledger_end || *checkpoint < ledger_begin),
    }
}

/// How far a lane may be checkpointed: everything at or below is durable, and attested.
pub fn checkpoint(processed: Position, ledger_end: Position) -> Position {
    processed.min(ledger_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(content: &[u8], origin: &str) -> Standing {
        Standing { content_digest: Digest::of(content), origin: origin.into(), record_digest: Digest::of(b"r") }
    }

    #[test]
    fn identity_is_judged_by_content_then_origin() {
        let digest = Digest::of(b"a");
        assert_eq!(verdict(&digest, "o", &standing(b"a", "o")), Verdict::Recorded { repeated: true });
        assert_eq!(verdict(&digest, "o", &standing(b"a", "p")), Verdict::Duplicate);
        assert_eq!(verdict(&digest, "o", &standing(b"b", "o")), Verdict::Conflict);
        assert_eq!(verdict(&digest, "o", &standing(b"b", "p")), Verdict::Conflict);
    }

    #[test]
    fn the_cache_settles_only_copies_from_elsewhere() {
        let known = Known { content_digest: Digest::of(b"a"), origin: "o".into() };
        assert!(known_is_duplicate(&Digest::of(b"a"), "p", &known));
        assert!(!known_is_duplicate(&Digest::of(b"a"), "o", &known));
        assert!(!known_is_duplicate(&Digest::of(b"b"), "p", &known));
    }

    #[test]
    fn a_lane_starts_at_the_lower_of_checkpoint_and_ledger() {
        let at = Position::Offset;
        let start = |checkpoint, ledger, log| lane_start(checkpoint, at(4), ledger, log);
        let plain = |after| LaneStart { after, lost: None, reset_ignored: None };
        assert_eq!(start(Some(at(5)), at(9), Position::Begin), plain(at(5)));
        assert_eq!(start(None, at(9), Position::Begin), plain(at(9)));
        assert_eq!(
            start(Some(at(12)), at(9), Position::Begin),
            LaneStart { reset_ignored: Some(at(12)), ..plain(at(9)) }
        );
        assert_eq!(
            start(Some(at(3)), at(9), Position::Begin),
            LaneStart { reset_ignored: Some(at(3)), ..plain(at(4)) }
        );
        assert_eq!(start(Some(at(5)), at(9), at(7)), plain(at(7)));
        assert_eq!(start(Some(at(5)), at(9), at(19)), LaneStart { lost: Some((at(9), at(19))), ..plain(at(19)) });
        let anew = lane_start(None, Position::Begin, Position::Begin, Position::Begin);
        assert_eq!(anew, plain(Position::Begin));
    }
}
