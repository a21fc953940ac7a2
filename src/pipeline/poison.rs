//! Poisoned routes. Where most of a route's events are refused, something changed upstream: the partitions that carry them wait
//! before the next dead letter goes out, so that a topic is not emptied into quarantine.
//!
//! Counted are events whose outcome the ledger does not hold yet: for each route those that it takes, and for each topic all of
//! them, refused where no route took them. One lock a batch.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::telemetry::{Alert, At};

use super::item::{Fate, Item};
use super::parts::Parts;

/// The name of the route that is none.
const UNCLASSIFIED: &str = "unclassified";

/// When a route counts as poisoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoisonLimit {
    /// Above this percentage of dead letters ...
    pub percent_max: u32,
    /// ... among so many events, the last ones ...
    pub window: usize,
    /// ... once there were so many.
    pub events_min: usize,
}

/// The routes of one pipeline in this process, shared by its lanes. A poisoned one stays so until a new start: events of other
/// partitions that are all right say nothing about those that wait.
#[derive(Debug)]
pub struct Poison {
    limit: PoisonLimit,
    windows: Mutex<Windows>,
}

#[derive(Debug, Default)]
struct Windows {
    routes: HashMap<String, Window>,
    topics: HashMap<String, Window>,
}

/// A poisoned route, as a lane that waits for it tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poisoned {
    /// Its name; `unclassified` for what no route takes.
    pub route: Arc<str>,
    /// What was counted, and what to do.
    pub reason: Arc<str>,
}

#[derive(Debug, Default)]
struct Window {
    /// Whether each was refused, oldest first.
    refused: VecDeque<bool>,
    count: usize,
    poisoned: Option<Poisoned>,
}

impl Window {
    fn push(&mut self, refused: bool, limit: &PoisonLimit) {
        if self.refused.len() == limit.window && self.refused.pop_front() == Some(true) {
            self.count -= 1;
        }
        self.refused.push_back(refused);
        self.count += usize::from(refused);
    }

    /// The newest event that was all right is refused after all.
    fn spoil(&mut self) {
        if let Some(newest) = self.refused.iter_mut().rev().find(|refused| !**refused) {
            *newest = true;
            self.count += 1;
        }
    }

    fn is_over(&self, limit: &PoisonLimit) -> bool {
        self.refused.len() >= limit.events_min && self.count * 100 > self.refused.len() * limit.percent_max as usize
    }

    /// What is to be told where it went over the limit just now.
    fn judge(&mut self, limit: &PoisonLimit, route: &str, what: fmt::Arguments<'_>) -> Option<Poisoned> {
        if self.poisoned.is_some() || !self.is_over(limit) {
            return None;
        }
        let (count, seen, percent) = (self.count, self.refused.len(), limit.percent_max);
        let reason = format!(
            "{what}: {count} of the last {seen} events were refused, more than {percent}%: partitions wait before the next \
             dead letter of it; mend the publisher, or the route with its schema, or raise engine.poison_share_max, then \
             start again"
        );
        self.poisoned = Some(Poisoned { route: route.into(), reason: reason.into() });
        self.poisoned.clone()
    }
}

impl Poison {
    /// Nothing seen yet.
    pub fn new(limit: PoisonLimit) -> Self {
        Self { limit, windows: Mutex::default() }
    }

    /// Counts a judged batch, once. The poisoned route that it has a letter of, if there is one: no letter of the batch may go
    /// out then.
    pub(super) fn count(&self, parts: &Parts, items: &[Item]) -> Option<Poisoned> {
        let mut found = Vec::new();
        let (topic, limit) = (&parts.partition.topic, &self.limit);
        let mut windows = self.windows();
        let Windows { routes, topics } = &mut *windows;
        let of_topic = topics.entry(topic.clone()).or_default();
        for item in items.iter().filter(|item| item.attested.is_none()) {
            let refused = matches!(item.fate, Fate::Refused(_));
            of_topic.push(refused && item.route.is_none(), limit);
            found.extend(of_topic.judge(limit, UNCLASSIFIED, format_args!("what no route takes of topic {topic}")));
            let Some(names) = &item.route else { continue };
            let of_route = match routes.get_mut(&names.route) {
                Some(window) => window,
                None => routes.entry(names.route.clone()).or_default(),
            };
            of_route.push(refused, limit);
            found.extend(of_route.judge(limit, &names.route, format_args!("route {}", names.route)));
        }
        self.tell(parts, windows, found, items)
    }

    /// These items, counted already, were refused only now.
    pub(super) fn spoil(&self, parts: &Parts, items: &[Item], refused: &[usize]) -> Option<Poisoned> {
        let mut found = Vec::new();
        let mut windows = self.windows();
        for names in refused.iter().filter_map(|index| items.get(*index)?.route.as_ref()) {
            let Some(of_route) = windows.routes.get_mut(&names.route) else { continue };
            of_route.spoil();
            found.extend(of_route.judge(&self.limit, &names.route, format_args!("route {}", names.route)));
        }
        self.tell(parts, windows, found, items)
    }

    /// Raises what was found, and looks whether one of the letters to go out has to wait.
    fn tell(
        &self,
        parts: &Parts,
        windows: MutexGuard<'_, Windows>,
        found: Vec<Poisoned>,
        items: &[Item],
    ) -> Option<Poisoned> {
        let poisoned = |item: &Item| match &item.route {
            Some(names) => windows.routes.get(&names.route),
            None => windows.topics.get(&parts.partition.topic),
        };
        let mut letters = items.iter().filter(|item| item.attested.is_none() && matches!(item.fate, Fate::Refused(_)));
        let waits_for = letters.find_map(|item| poisoned(item)?.poisoned.clone());
        drop(windows);
        for Poisoned { reason, .. } in found {
            parts.metrics.alerts.raise(Alert::PoisonedRoute, &At::partition(&parts.partition), reason);
        }
        waits_for
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: PoisonLimit = PoisonLimit { percent_max: 50, window: 10, events_min: 4 };

    /// After how many events it went over the limit.
    fn over_after(events: &[bool]) -> Option<usize> {
        let mut window = Window::default();
        let mut told = events.iter().map(|refused| {
            window.push(*refused, &LIMIT);
            window.judge(&LIMIT, "r", format_args!("route r")).is_some()
        });
        told.position(|told| told).map(|index| index + 1)
    }

    #[test]
    fn a_route_is_poisoned_above_its_share_of_the_last_events_once_there_were_enough() {
        assert_eq!(over_after(&[true; 9]), Some(4), "not before there were enough");
        assert_eq!(over_after(&[false, true].repeat(50)), None, "at the share, not above it");
        let good = [false; 100].to_vec();
        assert_eq!(over_after(&[good, vec![true; 10]].concat()), Some(106), "what was long ago does not count");
    }

    #[test]
    fn it_is_told_once_and_an_event_that_is_refused_late_counts_once() {
        let mut window = Window::default();
        for _ in 0..4 {
            window.push(false, &LIMIT);
        }
        let judge = |window: &mut Window| window.judge(&LIMIT, "r", format_args!("route r"));
        window.spoil();
        window.spoil();
        assert_eq!(judge(&mut window), None);
        window.spoil();
        let told = judge(&mut window).unwrap();
        assert!(told.reason.starts_with("route r: 3 of the last 4 events"), "{}", told.reason);
        assert_eq!(judge(&mut window), None);
        window.spoil();
        window.spoil();
        assert_eq!((window.count, window.refused.len()), (4, 4));
    }
}
