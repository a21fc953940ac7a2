//! A Kafka cluster in the process: librdkafka's mock, for `run --embedded` and tests.
//!
//! It keeps the last 5 MiB of a partition and drops what is older, even unread; who feeds it waits for who reads. It
//! knows KIP-848 groups (use [`GroupProtocol::Consumer`]) but not several members of a classic one, and shows aborted
//! transactions. All is gone at its end.
//!
//! [`GroupProtocol::Consumer`]: crate::source::kafka::GroupProtocol::Consumer

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;

/// Why the cluster could not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedKafkaError {
    /// librdkafka refused.
    #[error("the embedded kafka cluster cannot start: {0}")]
    Cluster(#[from] KafkaError),
    /// No thread for it.
    #[error("the embedded kafka cluster cannot start: {0}")]
    Thread(#[from] std::io::Error),
}

/// A running cluster of one broker on a free port of 127.0.0.1; it ends when this is dropped.
#[derive(Debug)]
pub struct EmbeddedKafka {
    bootstrap_servers: String,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedKafka {
    /// Starts it with these topics, by name and number of partitions.
    ///
    /// # Errors
    /// [`EmbeddedKafkaError`].
    pub fn start(topics: &[(&str, i32)]) -> Result<Self, EmbeddedKafkaError> {
        let topics: Vec<(String, i32)> = topics.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let (started, starting) = channel();
        let (stop, stopped) = channel();
        // The cluster may not move between threads: it lives and ends on this one.
        let thread = std::thread::Builder::new().name("embedded-kafka".to_owned()).spawn(move || {
            let made = make(&topics);
            let told = started.send(made.as_ref().map(MockCluster::bootstrap_servers).map_err(Clone::clone));
            if let (Ok(cluster), Ok(())) = (made, told) {
                // An error is the other side's end, which is as good an order to stop.
                stopped.recv().unwrap_or_default();
                drop(cluster);
            }
        })?;
        let bootstrap_servers = starting.recv().unwrap_or(Err(KafkaError::Canceled))?;
        Ok(Self { bootstrap_servers, stop: Some(stop), thread: Some(thread) })
    }

    /// Its address.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }
}

fn make(
    topics: &[(String, i32)],
) -> Result<MockCluster<'static, rdkafka::producer::DefaultProducerContext>, KafkaError> {
    let cluster = MockCluster::new(1)?;
    for (name, partitions) in topics {
        cluster.create_topic(name, *partitions, 1)?;
    }
    Ok(cluster)
}

impl Drop for EmbeddedKafka {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the embedded kafka cluster's thread panicked");
        }
    }
}
