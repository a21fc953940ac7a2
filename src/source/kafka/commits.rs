//! Which offset to commit for one partition, when there is none, and the thread that commits.

use std::sync::mpsc::Receiver;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};

use super::context::{Context, Note};
use super::wake::Wake;
use crate::event::Position;

/// Commits what it is given, one list after the other, and notes each answer; ends with its sender. A thread of its own,
/// since librdkafka answers asynchronous commits only through a callback that the crate cannot set; a call that waits is
/// bounded by librdkafka's own request timeout.
pub(super) fn run(consumer: &BaseConsumer<Context>, lists: &Receiver<TopicPartitionList>, wake: &Wake) {
    while let Ok(list) = lists.recv() {
        let refused = consumer.commit(&list, CommitMode::Sync).err().map(|error| error.to_string());
        consumer.context().note(Note::Committed(refused));
        wake.wake();
    }
}

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
