//! Where messages go: wallet-creation requests and dead letters.

mod guarded;
pub mod kafka;

use std::time::Duration;

use futures::future::BoxFuture;

pub use guarded::GuardedTopic;

/// What decides a message's partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Java's default rule over the key (murmur2); a null or empty key goes to partition 0's hash of no bytes.
    ByKey,
    /// The same rule over these bytes instead of the key.
    ByBytes(Vec<u8>),
}

/// One message. Null and empty are different things, for key, value and header values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// What decides the partition.
    pub placement: Placement,
}

impl Message {
    /// An upper bound of the message's size as the broker counts it: bytes and 80 for the frame, 10 a header.
    pub fn bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len) + 10).sum();
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers + 80
    }
}

/// Verdict on one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// Acknowledged by all in-sync replicas.
    Durable,
    /// Not acknowledged: it may or may not be there; publishing it again is right.
    Retry {
        /// Not before this long.
        after: Option<Duration>,
        /// For a person.
        detail: String,
    },
    /// The topic will never take it.
    Rejected(String),
}

/// A topic to publish to. Not cancel safe: what was handed over may still be published.
pub trait Topic: Send + Sync {
    /// Publishes all; one verdict a message, in order. Returns within the configured delivery deadline and a few seconds.
    fn publish<'a>(&'a self, messages: &'a [&'a Message]) -> BoxFuture<'a, Vec<Published>>;

    /// The largest message, by [`Message::bytes`], that is sent at all.
    fn bytes_max(&self) -> usize;
}
