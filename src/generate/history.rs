//! Events to come back to: the neighbours just sent, and some from all of the past. Bounded.

use std::collections::VecDeque;

use fastrand::Rng;

use super::event::Event;

/// Sent and recorded events.
#[derive(Debug, Default)]
pub(super) struct History {
    near: VecDeque<Event>,
    far: Vec<Event>,
}

impl History {
    const NEAR_MAX: usize = 8;
    const FAR_MAX: usize = 2048;

    /// Remembers an event that is recorded.
    pub(super) fn push(&mut self, event: &Event, rng: &mut Rng) {
        if self.near.len() == Self::NEAR_MAX
            && let Some(oldest) = self.near.pop_front()
        {
            if self.far.len() < Self::FAR_MAX {
                self.far.push(oldest);
            } else if rng.u32(0..8) == 0 {
                let place = rng.usize(0..self.far.len());
                self.far[place] = oldest;
            }
        }
        self.near.push_back(event.clone());
    }

    /// One of them: as often a neighbour as one from far back.
    pub(super) fn pick(&self, rng: &mut Rng) -> Option<&Event> {
        if self.far.is_empty() || rng.bool() {
            let last = self.near.len().checked_sub(1)?;
            self.near.get(rng.usize(0..=last))
        } else {
            self.far.get(rng.usize(0..self.far.len()))
        }
    }
}
