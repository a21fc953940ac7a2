//! Wakes the reader thread: one token, however often it is asked for.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Wakes; cheap to clone and to call from librdkafka's threads.
#[derive(Clone, Debug)]
pub(super) struct Wake(SyncSender<()>);

/// Sleeps until woken.
#[derive(Debug)]
pub(super) struct Sleep(Receiver<()>);

pub(super) fn wake() -> (Wake, Sleep) {
    let (sender, receiver) = sync_channel(1);
    (Wake(sender), Sleep(receiver))
}

impl Wake {
    pub(super) fn wake(&self) {
        match self.0.try_send(()) {
            // A token that is there already, or nobody left to wake: both are fine.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

impl Sleep {
    /// Returns when woken, also if that was before the call, or after `at_most`.
    pub(super) fn sleep(&self, at_most: Duration) {
        match self.0.recv_timeout(at_most) {
            // Answered alike: the reader looks at everything.
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}
