//! The second stage: which route an event takes.

use super::compile::{Does, Keeping, Route};
use super::decode::{Event, Raw};
use super::route::Delivery;
use crate::config::pipelines::{Format, MatchSpec, Tombstone};
use crate::event::{Reason, Refusal};

/// An event with the route that takes it.
#[derive(Debug)]
pub(super) struct Classified<'p, 'd> {
    pub(super) route: &'p Route,
    pub(super) keeping: &'p Keeping,
    pub(super) delivery: &'d Delivery<'d>,
    pub(super) event: Event<'d>,
}

/// What classification comes to.
#[derive(Debug)]
pub(super) enum Class<'p, 'd> {
    /// A route takes it.
    Taken(Classified<'p, 'd>),
    /// A route leaves it out.
    Skipped,
    /// No route takes it; with the event, where it was decoded on the way.
    Refused(Refusal, Option<Event<'d>>),
}

/// What becomes of a value of no content: null, or no bytes.
pub(super) fn classify_nothing<'p>(
    mut candidates: impl Iterator<Item = &'p Route>,
    delivery: &Delivery<'_>,
) -> Class<'static, 'static> {
    // There is no content to tell routes apart by: the first whose key and headers fit decides.
    let first = candidates.find(|route| fits(&route.matches, delivery));
    match (delivery.value, first) {
        (_, Some(Route { does: Does::Skip, format: None, .. })) => Class::Skipped,
        (None, Some(Route { tombstone: Tombstone::Skip, .. })) => Class::Skipped,
        (None, _) => Class::Refused(Refusal::new(Reason::Tombstone, "the value is null"), None),
        (Some(_), _) => Class::Refused(Refusal::new(Reason::Empty, "the value has no bytes"), None),
    }
}

/// The first route, in order, whose match fits. A value that a route's format cannot read goes on to the next one; if
/// none takes it, the first such failure is why.
pub(super) fn classify<'p, 'd>(candidates: impl Iterator<Item = &'p Route>, raw: &'d Raw<'_>) -> Class<'p, 'd> {
    let mut unreadable: Option<Refusal> = None;
    let mut seen: Option<(Format, Result<Event<'d>, ()>)> = None;
    for route in candidates.filter(|route| fits(&route.matches, raw.delivery)) {
        let Some(format) = route.format else { return Class::Skipped };
        let decoded = match seen {
            Some((before, decoded)) if before == format => decoded,
            _ => raw.decode(format).map_err(|refusal| {
                unreadable.get_or_insert(refusal);
            }),
        };
        seen = Some((format, decoded));
        let Ok(event) = decoded else { continue };
        if !content_fits(&route.matches, &event) {
            continue;
        }
        return match &route.does {
            Does::Skip => Class::Skipped,
            Does::Keep(keeping) => Class::Taken(Classified { route, keeping, delivery: raw.delivery, event }),
        };
    }
    let unclassified = || Refusal::new(Reason::Unclassified, "no route matches");
    let event = seen.and_then(|(_, decoded)| decoded.ok());
    Class::Refused(unreadable.unwrap_or_else(unclassified), event)
}

fn fits(matches: &MatchSpec, delivery: &Delivery<'_>) -> bool {
    let key = matches.key.as_ref().is_none_or(|glob| delivery.key.is_some_and(|key| glob.matches(key)));
    key && matches.headers.iter().all(|(name, glob)| {
        let header = delivery.headers.iter().find(|(header, _)| header == name);
        header.and_then(|(_, value)| *value).is_some_and(|value| glob.matches(value))
    })
}

fn content_fits(matches: &MatchSpec, event: &Event<'_>) -> bool {
    matches.content.iter().all(|(pointer, glob)| {
        event.at(pointer).and_then(|found| found.scalar()).is_some_and(|text| glob.matches(text.as_bytes()))
    })
}
