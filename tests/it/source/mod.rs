//! What every source promises, on a real broker with both group protocols and on the embedded one.

mod member;
mod real;
mod suite;

use std::sync::atomic::{AtomicU32, Ordering};

use recordkeeper::embedded::kafka::EmbeddedKafka;
use recordkeeper::source::kafka::GroupProtocol;

use crate::services;

/// A cluster, a topic and a group of the test's own.
pub struct World {
    pub bootstrap: String,
    pub topic: String,
    pub group: String,
    pub protocol: GroupProtocol,
    _embedded: Option<EmbeddedKafka>,
}

fn fresh(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl World {
    pub async fn real(protocol: GroupProtocol, partitions: i32) -> Self {
        let (broker, topic) = (services::kafka().await, fresh("events"));
        broker.create_topic(&topic, partitions, &[]).await;
        Self { bootstrap: broker.bootstrap.clone(), topic, group: fresh("group"), protocol, _embedded: None }
    }

    pub fn embedded(partitions: i32) -> Self {
        let topic = fresh("events");
        let cluster = EmbeddedKafka::start(&[(&topic, partitions)]).unwrap();
        let bootstrap = cluster.bootstrap_servers().to_owned();
        Self { bootstrap, topic, group: fresh("group"), protocol: GroupProtocol::Consumer, _embedded: Some(cluster) }
    }
}
