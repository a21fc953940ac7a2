//! One round of looking for partitions: what was found, and what has to be asked again.

use super::context::Key;
use super::line::Asked;
use crate::event::{PartitionRef, Position};
use crate::source::Assignment;

/// Of more reasons than this only the number is told.
const REASONS_MAX: usize = 3;

/// A partition whose log's ends are still to be asked.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) partition: PartitionRef,
    pub(super) checkpoint: Option<Position>,
}

/// Every partition that was asked for is in one of these.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) found: Vec<(Asked, Assignment)>,
    /// And why.
    pub(super) failed: Vec<(Asked, String)>,
    /// Not come to, since one before took its time to fail: that wait is not to add up.
    pub(super) untried: Vec<Asked>,
}

impl Round {
    /// `ends` gives the first offset of a log and the one above its last, and may wait for its deadline before it fails.
    pub(super) fn of(
        prepared: Vec<(Asked, Result<Prepared, String>)>,
        mut ends: impl FnMut(&Key) -> Result<(u64, u64), String>,
    ) -> Self {
        let (mut round, mut waited) = (Self::default(), false);
        for (asked, prepared) in prepared {
            match prepared {
                Err(why) => round.failed.push((asked, why)),
                Ok(_) if waited => round.untried.push(asked),
                Ok(Prepared { partition, checkpoint }) => match ends(&asked.key) {
                    Ok((low, high)) => {
                        let (log_start, log_end) = (Position::before_offset(low), Position::before_offset(high));
                        // It gets its number when the engine is told of it.
                        round.found.push((asked, Assignment { partition, number: 0, checkpoint, log_start, log_end }));
                    }
                    Err(why) => {
                        waited = true;
                        round.failed.push((asked, why));
                    }
                },
            }
        }
        round
    }
}

/// What to tell of failures whose partitions are still wanted.
pub(super) fn trouble(failed: &[(Asked, String)]) -> Option<String> {
    let mut reasons: Vec<&str> = Vec::new();
    for (_, why) in failed.iter().filter(|(asked, _)| asked.is_wanted()) {
        // One reason may be that of many, such as a topic's.
        if !reasons.contains(&why.as_str()) {
            reasons.push(why);
        }
    }
    let more = reasons.len().saturating_sub(REASONS_MAX);
    reasons.truncate(REASONS_MAX);
    let text = reasons.join("; ");
    match (text.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(text),
        (false, more) => Some(format!("{text}; and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::line::Ticket;
    use super::*;
    use crate::event::Partition;

    type Outcome = Result<Prepared, String>;

    fn prepared(number: i32) -> Outcome {
        let partition = Arc::new(Partition {
            cluster: "c".into(),
            topic: "t".into(),
            topic_id: String::new(),
            epoch: 0,
            name: number.to_string(),
        });
        Ok(Prepared { partition, checkpoint: Some(Position::Offset(4)) })
    }

    fn ask(outcomes: Vec<Outcome>) -> (Vec<Ticket>, Vec<(Asked, Outcome)>) {
        let asked = (0..).map(|number| Ticket::ask(("t".to_owned(), number)));
        asked.zip(outcomes).map(|((ticket, asked), outcome)| (ticket, (asked, outcome))).unzip()
    }

    #[test]
    fn one_partition_that_cannot_be_looked_up_does_not_stop_the_others() {
        let (_tickets, asked) = ask(vec![prepared(0), Err("t/1 has no leader".into()), prepared(2)]);
        let round = Round::of(asked, |_| Ok((3, 9)));
        let found: Vec<i32> = round.found.iter().map(|(asked, _)| asked.key.1).collect();
        assert_eq!(found, [0, 2]);
        let assignment = &round.found[1].1;
        assert_eq!(assignment.partition.name, "2");
        assert_eq!(assignment.checkpoint, Some(Position::Offset(4)));
        assert_eq!((assignment.log_start, assignment.log_end), (Position::Offset(2), Position::Offset(8)));
        assert_eq!((round.failed.len(), round.untried.len()), (1, 0));
        assert_eq!(trouble(&round.failed).as_deref(), Some("t/1 has no leader"));
    }

    #[test]
    fn after_one_wait_the_rest_is_left_to_a_round_of_its_own_and_none_is_forgotten() {
        let (_tickets, asked) = ask(vec![prepared(0), prepared(1), prepared(2), Err("gone".into()), prepared(4)]);
        let mut calls = 0;
        let round = Round::of(asked, |key| {
            calls += 1;
            if key.1 == 1 { Err("offsets of t/1: timed out".into()) } else { Ok((0, 0)) }
        });
        assert_eq!(calls, 2);
        assert_eq!(round.found.len(), 1);
        let failed: Vec<i32> = round.failed.iter().map(|(asked, _)| asked.key.1).collect();
        let untried: Vec<i32> = round.untried.iter().map(|asked| asked.key.1).collect();
        assert_eq!((failed, untried), (vec![1, 3], vec![2, 4]));
    }

    #[test]
    fn trouble_names_some_reasons_once_and_none_of_what_was_given_back() {
        let why = |number: usize| Err(format!("t/{number}"));
        let (mut tickets, asked) = ask(vec![why(0), why(1), why(1), why(2), why(3), why(4)]);
        let failed = Round::of(asked, |_| Ok((0, 0))).failed;
        drop(tickets.remove(0));
        assert_eq!(trouble(&failed).as_deref(), Some("t/1; t/2; t/3; and 1 more"));
        drop(tickets);
        assert_eq!(trouble(&failed), None);
    }
}
