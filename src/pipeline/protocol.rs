//! The decisions of the delivery protocol, as pure functions.
//!
//! Everything that decides what becomes of an event, where a lane starts and what is appended to a ledger stands here, so
//! that a model can call the very same rules.

use crate::dedupe::Known;
use crate::event::{Digest, Outcome, Position, Reason};
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
    /// What a person made of this event is recorded, and stands for it.
    Corrected,
    /// Another event stands under this identity.
    Conflict,
}

/// The verdict on an event, given the record that stands under its identity. What an event corrects counts as the same event.
pub fn verdict(content_digest: &Digest, corrects: &[Digest], origin: &str, standing: &Standing) -> Verdict {
    let same = standing.content_digest == *content_digest || corrects.contains(&standing.content_digest);
    if !same && standing.corrects.as_ref() == Some(content_digest) {
        Verdict::Corrected
    } else if !same {
        Verdict::Conflict
    } else if standing.origin == origin {
        Verdict::Recorded { repeated: true }
    } else {
        Verdict::Duplicate
    }
}

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Events are read for the first time, as far as the ledger knows.
    Live,
    /// Events are read again, from a log, an archive or the dead letters: so much of what they ask for is made sure of.
    Repair(Effects),
}

/// How much of what an event asks for is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effects {
    /// Its records alone.
    None,
    /// Records and states.
    State,
    /// Records, states and requests.
    All,
}

impl Purpose {
    /// How much is applied.
    pub fn effects(self) -> Effects {
        match self {
            Self::Live => Effects::All,
            Self::Repair(effects) => effects,
        }
    }

    /// Whether ids are remembered when all that is applied is applied. The cache settles later deliveries, so what was left
    /// out here would never be made up for.
    pub fn remembers(self) -> bool {
        self.effects() == Effects::All
    }
}

/// Whether the cache is asked about an event. Not at a position that the ledger holds, nor where events are read again: that
/// repairs, and the cache knows nothing of what has to be repaired.
pub fn asks_cache(purpose: Purpose, attested: Option<Outcome>) -> bool {
    purpose == Purpose::Live && attested.is_none()
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

/// What to do at a position whose outcome is attested already. `mapped`: whether today's pipeline makes an event of it.
pub fn repair(attested: Outcome, mapped: bool) -> Repair {
    match attested {
        Outcome::Recorded | Outcome::Duplicate if mapped => Repair::Redo,
        Outcome::Recorded | Outcome::Duplicate => Repair::Leave,
        Outcome::Skipped | Outcome::DeadLettered(_) | Outcome::Hole | Outcome::Lost => Repair::Leave,
    }
}

/// How the protocol left one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settled {
    /// Its record stands under its own origin, its effects are applied.
    Own,
    /// The same event's record stands under another origin, its effects are applied.
    Copy,
    /// No more was to be done: the cache knew it, or a rule leaves it out.
    Left(Outcome),
    /// Refused, its dead letter is out.
    Refused(Reason),
}

/// What becomes of a position: what the ledger holds of it already stays.
pub fn outcome(attested: Option<Outcome>, settled: Settled) -> Outcome {
    attested.unwrap_or(match settled {
        Settled::Own => Outcome::Recorded,
        Settled::Copy => Outcome::Duplicate,
        Settled::Left(outcome) => outcome,
        Settled::Refused(reason) => Outcome::DeadLettered(reason),
    })
}

/// Whether a refused event's dead letter goes out: not where the ledger holds an outcome, since that stays.
pub fn letter_goes_out(attested: Option<Outcome>) -> bool {
    attested.is_none()
}

/// Where a chain without entries ends: at the start item's position, or, for a partition that is not in it and so appeared
/// later, at the log's start.
pub fn chain_begin(in_start_item: Option<Position>, log_start: Position) -> Position {
    in_start_item.unwrap_or(log_start)
}

/// The position that ledger or checkpoint name and the log does not reach: it is not the log that they speak of, and the
/// partition must not be read.
pub fn beyond_log(checkpoint: Option<Position>, ledger_end: Position, log_end: Position) -> Option<Position> {
    let named = checkpoint.unwrap_or(ledger_end).max(ledger_end);
    (named > log_end).then_some(named)
}

/// What a refused append means, now that the chain's end was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extended {
    /// By this very entry; its answer was lost.
    Found,
    /// By somebody else, or by this entry and somebody else: true, whoever wrote it.
    Others,
    /// By nobody ever again: another process sealed it and goes on elsewhere.
    Sealed,
    /// Not at all: the refusal and the end contradict each other.
    Nowhere,
}

/// An append of an entry that begins at `from` was refused; the chain's last entry ends at `end` and has this nonce. It may be
/// sealed.
pub fn refused_append(from: Position, nonce: &str, end: Option<(Position, &str)>, sealed: bool) -> Extended {
    match end {
        Some(_) if sealed => Extended::Sealed,
        Some((position, last)) if position > from => {
            if last == nonce {
                Extended::Found
            } else {
                Extended::Others
            }
        }
        Some(_) | None => Extended::Nowhere,
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

/// What it takes to move a group to another position of a partition, by order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Forward: the positions `(from, to]` are attested as skipped, or, up to `log_start`, as lost.
    Skip {
        /// The ledger's end.
        from: Position,
        /// The log holds nothing at or below.
        log_start: Position,
        /// Where the ledger ends then.
        to: Position,
    },
    /// Back, or to where the ledger ends: the checkpoint alone moves. What the ledger holds above it is made sure of again.
    Checkpoint,
}

/// Why a group cannot be moved there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmovable {
    /// No entry could say what becomes of it.
    #[error("the ledger begins at offset {}: what lies below is not the group's", .0.next_offset())]
    BelowLedger(Position),
    /// It cannot be read.
    #[error("the log begins at offset {}", .0.next_offset())]
    BelowLog(Position),
    /// It is not this log that the ledger speaks of: no lane would read it.
    #[error("the ledger ends at offset {}, above the log: it was truncated, or replaced: see source.kafka.topic_epochs", .0.next_offset())]
    AnotherLog(Position),
    /// It does not exist yet.
    #[error("the log ends before offset {}", .0.next_offset())]
    AboveLog(Position),
}

/// How a group is moved to just above `to`.
///
/// # Errors
///
/// Where there is nothing that it could read or attest there.
pub fn move_to(to: Position, ledger: (Position, Position), log: (Position, Position)) -> Result<Move, Unmovable> {
    let ((ledger_begin, ledger_end), (log_start, log_end)) = (ledger, log);
    if beyond_log(None, ledger_end, log_end).is_some() {
        Err(Unmovable::AnotherLog(ledger_end))
    } else if to > log_end {
        Err(Unmovable::AboveLog(log_end))
    } else if to < log_start {
        Err(Unmovable::BelowLog(log_start))
    } else if to < ledger_begin {
        Err(Unmovable::BelowLedger(ledger_begin))
    } else if to > ledger_end {
        Ok(Move::Skip { from: ledger_end, log_start, to })
    } else {
        Ok(Move::Checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(content: &[u8], origin: &str) -> Standing {
        let record_digest = Digest::of(b"r");
        Standing { content_digest: Digest::of(content), origin: origin.into(), record_digest, corrects: None }
    }

    #[test]
    fn identity_is_judged_by_content_then_origin() {
        let digest = Digest::of(b"a");
        let judged = |content, origin| verdict(&digest, &[], "o", &standing(content, origin));
        assert_eq!(judged(b"a", "o"), Verdict::Recorded { repeated: true });
        assert_eq!(judged(b"a", "p"), Verdict::Duplicate);
        assert_eq!(judged(b"b", "o"), Verdict::Conflict);
        assert_eq!(judged(b"b", "p"), Verdict::Conflict);
    }

    #[test]
    fn what_an_event_corrects_is_the_same_event_and_nothing_else_is() {
        let (digest, earlier) = (Digest::of(b"a"), [Digest::of(b"b"), Digest::of(b"B")]);
        let judged = |content, origin| verdict(&digest, &earlier, "o", &standing(content, origin));
        assert_eq!(judged(b"b", "o"), Verdict::Recorded { repeated: true });
        assert_eq!(judged(b"a", "o"), Verdict::Recorded { repeated: true });
        assert_eq!(judged(b"B", "o"), Verdict::Recorded { repeated: true });
        assert_eq!(judged(b"b", "p"), Verdict::Duplicate);
        assert_eq!(judged(b"c", "o"), Verdict::Conflict);
    }

    /// Whether it comes again from where it was read first or from elsewhere; what the correction itself says comes again as ever.
    #[test]
    fn a_correction_stands_for_what_it_corrects() {
        for origin in ["o", "p"] {
            let standing = Standing { corrects: Some(Digest::of(b"a")), ..standing(b"b", origin) };
            assert_eq!(verdict(&Digest::of(b"a"), &[], "o", &standing), Verdict::Corrected);
            assert_eq!(verdict(&Digest::of(b"c"), &[], "o", &standing), Verdict::Conflict);
            assert_ne!(verdict(&Digest::of(b"b"), &[Digest::of(b"a")], "o", &standing), Verdict::Corrected);
        }
    }

    #[test]
    fn only_a_live_run_asks_the_cache_and_only_one_that_applies_all_tells_it() {
        let repairs = [Effects::None, Effects::State, Effects::All].map(Purpose::Repair);
        assert!(repairs.iter().all(|purpose| !asks_cache(*purpose, None)));
        assert_eq!(repairs.map(Purpose::remembers), [false, false, true]);
        assert!(Purpose::Live.remembers() && asks_cache(Purpose::Live, None));
    }

    #[test]
    fn the_cache_settles_only_copies_from_elsewhere() {
        let known = Known { content_digest: Digest::of(b"a"), origin: "o".into() };
        assert!(known_is_duplicate(&Digest::of(b"a"), "p", &known));
        assert!(!known_is_duplicate(&Digest::of(b"a"), "o", &known));
        assert!(!known_is_duplicate(&Digest::of(b"b"), "p", &known));
    }

    #[test]
    fn what_the_ledger_holds_stays() {
        let dead = Outcome::DeadLettered(Reason::Schema);
        assert_eq!(repair(Outcome::Recorded, true), Repair::Redo);
        assert_eq!(repair(Outcome::Duplicate, true), Repair::Redo);
        for attested in [Outcome::Recorded, Outcome::Duplicate] {
            assert_eq!(repair(attested, false), Repair::Leave);
        }
        for attested in [Outcome::Skipped, dead, Outcome::Hole, Outcome::Lost] {
            assert_eq!(repair(attested, true), Repair::Leave);
        }
        assert_eq!(outcome(Some(dead), Settled::Own), dead);
        assert_eq!(outcome(None, Settled::Refused(Reason::Schema)), dead);
        assert!(!asks_cache(Purpose::Live, Some(Outcome::Recorded)));
        assert!(!letter_goes_out(Some(Outcome::Recorded)) && letter_goes_out(None));
    }

    #[test]
    fn a_refused_append_tells_who_extended_the_chain() {
        let at = Position::Offset;
        assert_eq!(refused_append(at(3), "n", Some((at(4), "n")), false), Extended::Found);
        assert_eq!(refused_append(at(3), "n", Some((at(4), "m")), false), Extended::Others);
        assert_eq!(refused_append(at(3), "n", Some((at(3), "m")), false), Extended::Nowhere);
        assert_eq!(refused_append(at(3), "n", None, false), Extended::Nowhere);
        for end in [3, 4] {
            assert_eq!(refused_append(at(3), "n", Some((at(end), "n")), true), Extended::Sealed);
        }
    }

    #[test]
    fn a_log_that_ends_below_what_is_known_of_it_is_another_log() {
        let at = Position::Offset;
        assert_eq!(beyond_log(None, at(4), at(4)), None);
        assert_eq!(beyond_log(Some(at(6)), at(4), at(6)), None);
        assert_eq!(beyond_log(Some(at(7)), at(4), at(6)), Some(at(7)));
        assert_eq!(beyond_log(Some(at(2)), at(7), at(6)), Some(at(7)));
        assert_eq!(chain_begin(None, at(2)), at(2));
        assert_eq!(chain_begin(Some(at(5)), at(2)), at(5));
    }

    #[test]
    fn a_group_is_moved_only_to_what_it_can_read_and_attest() {
        let at = Position::Offset;
        let moved = |to| move_to(at(to), (at(10), at(50)), (at(5), at(90)));
        assert_eq!(moved(10), Ok(Move::Checkpoint));
        assert_eq!(moved(50), Ok(Move::Checkpoint));
        assert_eq!(moved(90), Ok(Move::Skip { from: at(50), log_start: at(5), to: at(90) }));
        assert_eq!(moved(91), Err(Unmovable::AboveLog(at(90))));
        assert_eq!(moved(9), Err(Unmovable::BelowLedger(at(10))));
        assert_eq!(moved(5), Err(Unmovable::BelowLedger(at(10))));
        assert_eq!(moved(4), Err(Unmovable::BelowLog(at(5))));
        assert_eq!(move_to(at(30), (at(10), at(50)), (at(5), at(40))), Err(Unmovable::AnotherLog(at(50))));
    }

    #[test]
    fn a_lane_starts_at_the_lower_of_checkpoint_and_ledger() {
        let at = Position::Offset;
        let start = |checkpoint, ledger, log| lane_start(checkpoint, at(4), ledger, log);
        let plain = |after| LaneStart { after, lost: None, reset_ignored: None };
        assert_eq!(start(Some(at(5)), at(9), Position::Begin), plain(at(5)));
        assert_eq!(start(None, at(9), Position::Begin), plain(at(9)));
        assert_eq!(start(Some(at(9)), at(9), Position::Begin), plain(at(9)), "both ends of the ledger are followed");
        assert_eq!(start(Some(at(4)), at(9), Position::Begin), plain(at(4)));
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
