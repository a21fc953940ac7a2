//! What the reader thread hands over: events in order, of which only batches need room.
//!
//! Bounds: batches by their number; assignments and revocations by the group's own pace, as the reader answers one
//! rebalance before the next begins; health by keeping only the last of several in a row.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::wake::Wake;
use crate::source::{RawBatch, SourceError, SourceEvent};

#[derive(Debug, Default)]
struct State {
    events: VecDeque<SourceEvent>,
    batches: usize,
    fatal: Option<String>,
}

#[derive(Debug)]
pub(super) struct Mailbox {
    // A std mutex: held for a push or a pop, never across an await.
    state: Mutex<State>,
    arrived: Notify,
    batches_max: usize,
    reader: Wake,
}

impl Mailbox {
    pub(super) fn new(batches_max: usize, reader: Wake) -> Self {
        Self { state: Mutex::default(), arrived: Notify::new(), batches_max, reader }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere cannot leave a push half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_room(&self) -> bool {
        self.state().batches < self.batches_max
    }

    pub(super) fn batch(&self, batch: RawBatch) {
        let mut state = self.state();
        state.batches += 1;
        state.events.push_back(SourceEvent::Batch(batch));
        drop(state);
        self.arrived.notify_one();
    }

    pub(super) fn post(&self, event: SourceEvent) {
        let mut state = self.state();
        if matches!((&event, state.events.back()), (SourceEvent::Health { .. }, Some(SourceEvent::Health { .. }))) {
            state.events.pop_back();
        }
        state.events.push_back(event);
        drop(state);
        self.arrived.notify_one();
    }

    /// The source is over; what was posted before is still handed out.
    pub(super) fn fatal(&self, why: String) {
        self.state().fatal.get_or_insert(why);
        self.arrived.notify_one();
    }

    /// Cancel safe: an event is taken only in the poll that returns it.
    pub(super) async fn next(&self) -> Result<SourceEvent, SourceError> {
        loop {
            if let Some(event) = self.take()? {
                return Ok(event);
            }
            self.arrived.notified().await;
        }
    }

    fn take(&self) -> Result<Option<SourceEvent>, SourceError> {
        let mut state = self.state();
        let Some(event) = state.events.pop_front() else {
            return state.fatal.clone().map_or(Ok(None), |why| Err(SourceError::Fatal(why)));
        };
        if matches!(event, SourceEvent::Batch(_)) {
            let was_full = state.batches >= self.batches_max;
            state.batches -= 1;
            drop(state);
            if was_full {
                self.reader.wake();
            }
        }
        Ok(Some(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kafka::wake::wake;

    fn health(ready: bool) -> SourceEvent {
        SourceEvent::Health { ready, detail: String::new() }
    }

    #[tokio::test]
    async fn of_several_healths_in_a_row_the_last_is_told_and_a_fatal_end_comes_after_all() {
        let (wake, _sleep) = wake();
        let mailbox = Mailbox::new(1, wake);
        mailbox.post(SourceEvent::EndOfInput);
        mailbox.post(health(false));
        mailbox.post(health(true));
        mailbox.fatal("gone".into());
        assert!(matches!(mailbox.next().await, Ok(SourceEvent::EndOfInput)));
        assert!(matches!(mailbox.next().await, Ok(SourceEvent::Health { ready: true, .. })));
        assert!(mailbox.next().await.unwrap_err().to_string().contains("gone"));
        assert!(mailbox.next().await.is_err());
    }
}
