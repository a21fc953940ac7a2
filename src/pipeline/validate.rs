//! The third stage: an event against its route's schema.

use super::classify::Classified;
use crate::event::{Reason, Refusal};

/// An event that its route's schema accepts.
#[derive(Debug)]
pub(super) struct Valid<'p, 'd>(pub(super) Classified<'p, 'd>);

/// Checks the data against the route's schema.
///
/// # Errors
/// What the schema says first, with the place in the data and in the schema, and without the data itself.
pub(super) fn validate<'p, 'd>(classified: Classified<'p, 'd>) -> Result<Valid<'p, 'd>, Refusal> {
    let Some(data) = classified.event.data() else {
        return Err(Refusal::new(Reason::Schema, "the event has no data"));
    };
    match classified.keeping.validator.validate(data) {
        Ok(()) => Ok(Valid(classified)),
        Err(error) => {
            let (at, rule) = (error.instance_path().to_string(), error.schema_path().to_string());
            let at = if at.is_empty() { "/" } else { &at };
            Err(Refusal::new(Reason::Schema, format!("the data at {at} breaks the schema's {rule}")))
        }
    }
}
