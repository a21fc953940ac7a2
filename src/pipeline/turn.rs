//! A turnstile: batches of a lane pass a step one after the other, in the order of their tickets.

use tokio::sync::watch;

/// Lets one ticket through at a time, lowest first.
#[derive(Debug)]
pub struct Turn {
    next: watch::Sender<u64>,
}

impl Turn {
    /// Ticket zero goes first.
    pub fn new() -> Self {
        Self { next: watch::Sender::new(0) }
    }

    /// Waits for this ticket's turn. Cancel safe.
    pub async fn wait(&self, ticket: u64) {
        // The sender lives as long as `self`, so the only error, a closed channel, cannot come.
        let _ = self.next.subscribe().wait_for(|next| *next == ticket).await;
    }

    /// The holder of this ticket is done; the next one may go.
    pub fn pass(&self, ticket: u64) {
        self.next.send_if_modified(|next| {
            let mine = *next == ticket;
            if mine {
                *next += 1;
            }
            mine
        });
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self::new()
    }
}
