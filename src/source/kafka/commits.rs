//! Which offset to commit for one partition, and when there is none.

use crate::event::Position;

/// One partition's commits in one assignment: they never go back.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// The next offset that the engine's last checkpoint stands for.
    wanted: Option<u64>,
    /// The highest next offset sent to the broker and not refused since.
    sent: Option<u64>,
    /// The highest next offset that the broker has confirmed.
    confirmed: Option<u64>,
}

impl Commits {
    /// Takes a checkpoint. False where it lies below one of this assignment: it is left out.
    pub(super) fn checkpoint(&mut self, done: Position) -> bool {
        let next = done.next_offset();
        if self.wanted.is_some_and(|wanted| next < wanted) {
            return false;
        }
        self.wanted = Some(next);
        true
    }

    /// The next offset to be sent, where there is news.
    pub(super) fn pending(&self) -> Option<u64> {
        self.wanted.filter(|wanted| self.sent.is_none_or(|sent| *wanted > sent))
    }

    pub(super) fn sent(&mut self, next: u64) {
        self.sent = Some(next);
    }

    /// The broker's answer to what was sent last; refused, it is sent again with the next commit.
    pub(super) fn answered(&mut self, confirmed: bool) {
        if confirmed {
            self.confirmed = self.sent;
        } else {
            self.sent = self.confirmed;
        }
    }

    /// The first offset that is not checkpointed.
    pub(super) fn next(&self) -> Option<u64> {
        self.wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_never_goes_back_and_a_refused_one_is_sent_again() {
        let mut commits = Commits::default();
        assert_eq!(commits.pending(), None);
        assert!(commits.checkpoint(Position::Offset(9)));
        assert_eq!(commits.pending(), Some(10));
        commits.sent(10);
        assert_eq!(commits.pending(), None);
        commits.answered(false);
        assert_eq!(commits.pending(), Some(10));
        commits.sent(10);
        commits.answered(true);
        assert!(!commits.checkpoint(Position::Offset(4)));
        assert_eq!(commits.pending(), None);
        assert!(commits.checkpoint(Position::Offset(10)));
        assert_eq!(commits.pending(), Some(11));
    }

    #[test]
    fn a_partition_that_is_done_up_to_its_beginning_commits_offset_zero() {
        let mut commits = Commits::default();
        assert!(commits.checkpoint(Position::Begin));
        assert_eq!(commits.pending(), Some(0));
    }
}
