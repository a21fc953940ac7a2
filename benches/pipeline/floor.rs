//! The floor: what moving the bytes costs. A bare consumer reads everything; ready items of the same size go out 25 a call.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use tokio::task::JoinSet;

/// As many as the product's default.
const CALLS_IN_FLIGHT: usize = 32;

pub fn run(bootstrap: &str, endpoint: &str, events: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "floor")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "20")
        .set("queued.max.messages.kbytes", "8192")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    for topic in super::TOPICS {
        for partition in 0..super::PARTITIONS.parse().unwrap() {
            assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
    }
    consumer.assign(&assignment).unwrap();
    runtime.block_on(async {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
            .endpoint_url(endpoint)
            .region(aws_sdk_dynamodb::config::Region::new("eu-central-1"))
            .credentials_provider(aws_sdk_dynamodb::config::Credentials::new("bench", "bench", None, None, "bench"))
            .build();
        let client = aws_sdk_dynamodb::Client::from_conf(config);
        let mut calls = JoinSet::new();
        let mut items = Vec::with_capacity(25);
        for read in 1..=events {
            let message = consumer.poll(Duration::from_secs(30)).expect("a message").unwrap();
            items.push(item(read, message.payload().unwrap_or_default()));
            if items.len() == 25 || read == events {
                if calls.len() >= CALLS_IN_FLIGHT {
                    calls.join_next().await.unwrap().unwrap();
                }
                let (client, full) = (client.clone(), std::mem::replace(&mut items, Vec::with_capacity(25)));
                calls.spawn(async move {
                    client.batch_write_item().request_items("wallet_records", full).send().await.unwrap();
                });
            }
        }
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
    });
}

/// A ready item: a key, and the event as it came.
fn item(number: u64, payload: &[u8]) -> WriteRequest {
    let item = HashMap::from([
        ("record_id".to_owned(), AttributeValue::S(format!("/bench|{number}"))),
        ("event".to_owned(), AttributeValue::S(String::from_utf8_lossy(payload).into_owned())),
    ]);
    WriteRequest::builder().put_request(PutRequest::builder().set_item(Some(item)).build().unwrap()).build()
}
