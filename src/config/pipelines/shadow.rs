//! Routes that an earlier route leaves nothing for.

use super::spec::{Format, RouteSpec};
use crate::event::Pointer;
use crate::pipeline::Glob;

/// Whether every event that `later` matches is sure to be taken by `earlier`.
pub(super) fn covers(earlier: &RouteSpec, later: &RouteSpec) -> bool {
    let (wide, narrow) = (&earlier.matches, &later.matches);
    wide.topic == narrow.topic
        && reads_all_of(earlier, later)
        && wide.key.as_ref().is_none_or(|wide| narrow.key.as_ref().is_some_and(|narrow| wide.covers(narrow)))
        && wide.headers.iter().all(|(name, wide)| {
            // Only the first header of a name is looked at, so one entry decides.
            narrow.headers.iter().any(|(other, narrow)| other == name && wide.covers(narrow))
        })
        && wide.content.iter().all(|wide| covered(wide, &narrow.content))
}

fn covered((pointer, wide): &(Pointer, Glob), narrow: &[(Pointer, Glob)]) -> bool {
    narrow.iter().any(|(other, narrow)| other == pointer && wide.covers(narrow))
}

/// Whether what the later route can read the earlier one can read too: what it cannot goes on to the later one.
fn reads_all_of(earlier: &RouteSpec, later: &RouteSpec) -> bool {
    match (earlier.format, later.format) {
        (None, _) => true,
        (Some(Format::Json), Some(Format::CloudEvents)) => earlier.matches.content.is_empty(),
        (wide, narrow) => wide == narrow,
    }
}
