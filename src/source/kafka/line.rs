//! The questions that wait for the lookup thread, and whether their answers are still wanted.
//!
//! One line for all of them: what failed goes to its end, so that nothing waits for what cannot be answered. Bounded: of
//! looks at the cluster one of a kind waits, and a partition is asked for once as long as its answer is wanted.

use std::collections::{HashSet, VecDeque};
use std::mem::discriminant;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::context::Key;

/// Who holds it still waits for one partition's answer: dropping it takes the question back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ticket(Arc<()>);

/// A partition that is asked for.
#[derive(Debug)]
#[must_use = "a partition whose question is not put is never read"]
pub(super) struct Asked {
    pub(super) key: Key,
    ticket: Weak<()>,
}

impl Ticket {
    /// A question about one partition, with the ticket that keeps it wanted.
    pub(super) fn ask(key: Key) -> (Self, Asked) {
        let ticket = Arc::new(());
        let asked = Asked { key, ticket: Arc::downgrade(&ticket) };
        (Self(ticket), asked)
    }
}

impl Asked {
    pub(super) fn is_wanted(&self) -> bool {
        self.ticket.strong_count() > 0
    }
}

/// What the reader asks.
#[derive(Debug)]
pub(super) enum Question {
    /// Where these partitions stand. Each is tried again until it is answered or no longer wanted.
    Assignments(Vec<Asked>),
    /// Whether the cluster answers and these topics exist.
    Probe(Vec<String>),
    /// How much of these topics' partitions the group has not committed, without those that are ours.
    Others { topics: Vec<String>, ours: HashSet<Key> },
}

#[derive(Debug)]
struct Waiting {
    question: Question,
    not_before: Instant,
}

/// The line.
#[derive(Debug, Default)]
pub(super) struct Line(VecDeque<Waiting>);

impl Line {
    /// To the end of the line; a look at the cluster takes the place of one of its kind that waits already.
    pub(super) fn push(&mut self, question: Question, not_before: Instant) {
        let kind = discriminant(&question);
        let same = self.0.iter_mut().find(|waiting| discriminant(&waiting.question) == kind);
        match (&question, same) {
            (Question::Assignments(asked), _) if asked.is_empty() => {}
            (Question::Probe(_) | Question::Others { .. }, Some(same)) => same.question = question,
            _ => self.0.push_back(Waiting { question, not_before }),
        }
    }

    /// The first that may be put now, without what is no longer wanted.
    pub(super) fn next(&mut self, now: Instant) -> Option<Question> {
        self.0.retain_mut(|waiting| match &mut waiting.question {
            Question::Assignments(asked) => {
                asked.retain(Asked::is_wanted);
                !asked.is_empty()
            }
            Question::Probe(_) | Question::Others { .. } => true,
        });
        let first = self.0.iter().position(|waiting| waiting.not_before <= now)?;
        self.0.remove(first).map(|waiting| waiting.question)
    }

    /// How long until one may be put; `None` where none waits.
    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        self.0.iter().map(|waiting| waiting.not_before.saturating_duration_since(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(500);

    fn ask(numbers: &[i32]) -> (Vec<Ticket>, Question) {
        let (tickets, asked) = numbers.iter().map(|number| Ticket::ask(("t".to_owned(), *number))).unzip();
        (tickets, Question::Assignments(asked))
    }

    fn numbers(question: Option<Question>) -> Vec<i32> {
        let Some(Question::Assignments(asked)) = question else { panic!("{question:?}") };
        asked.iter().map(|asked| asked.key.1).collect()
    }

    fn probe(topic: &str) -> Question {
        Question::Probe(vec![topic.to_owned()])
    }

    #[test]
    fn one_partition_taken_back_leaves_the_others_asked_for() {
        let (mut line, now) = (Line::default(), Instant::now());
        let (mut tickets, question) = ask(&[0, 1, 2]);
        line.push(question, now);
        drop(tickets.remove(1));
        assert_eq!(numbers(line.next(now)), [0, 2]);
    }

    #[test]
    fn what_nobody_wants_any_more_is_not_asked() {
        let (mut line, now) = (Line::default(), Instant::now());
        let (tickets, question) = ask(&[0, 1]);
        line.push(question, now);
        drop(tickets);
        assert!(line.next(now).is_none());
        assert_eq!(line.due_in(now), None);
    }

    #[test]
    fn what_failed_lets_the_others_pass_and_comes_back_after_a_pause() {
        let (mut line, now) = (Line::default(), Instant::now());
        let (_failed, question) = ask(&[7]);
        line.push(question, now + SOON);
        let (_later, question) = ask(&[8]);
        line.push(question, now);
        assert_eq!(numbers(line.next(now)), [8]);
        assert!(line.next(now).is_none());
        assert_eq!(line.due_in(now), Some(SOON));
        assert_eq!(numbers(line.next(now + SOON)), [7]);
    }

    #[test]
    fn what_is_due_again_is_not_passed_by_what_came_after_it() {
        let (mut line, now) = (Line::default(), Instant::now());
        let (_failed, question) = ask(&[7]);
        line.push(question, now + SOON);
        line.push(probe("t"), now + SOON);
        assert_eq!(numbers(line.next(now + SOON)), [7]);
    }

    #[test]
    fn of_looks_at_the_cluster_only_the_newest_waits() {
        let (mut line, now) = (Line::default(), Instant::now());
        for topic in ["old", "older", "new"] {
            line.push(probe(topic), now);
            line.push(Question::Others { topics: vec![topic.to_owned()], ours: HashSet::new() }, now);
        }
        assert!(matches!(line.next(now), Some(Question::Probe(topics)) if topics == ["new"]));
        assert!(matches!(line.next(now), Some(Question::Others { topics, .. }) if topics == ["new"]));
        assert!(line.next(now).is_none());
    }
}
