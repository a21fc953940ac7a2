//! Generated events, as many as are asked for, and what a correct consumer makes of those that were taken.

use clap::Parser;
use recordkeeper::generate::{Events, GenerateArgs, Manifest, Plan};
use serde_json::Value;

use crate::deployment::{Deployment, Event};

/// Events that are in memory at once, at most.
const CHUNK: u64 = 20_000;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: GenerateArgs,
}

pub struct Supply {
    events: Events,
    manifest: Manifest,
    /// How many events were taken.
    pub taken: u64,
}

impl Supply {
    /// Up to this many events for source topics of eight partitions.
    pub fn new(events: u64, seed: u64) -> Self {
        let line = format!("generate --events {events} --seed {seed} --partitions 8");
        let plan = Plan::new(&Line::parse_from(line.split_whitespace()).args).unwrap();
        Self { events: Events::new(plan), manifest: Manifest::default(), taken: 0 }
    }

    /// The next events; fewer at the end.
    pub fn take(&mut self, count: u64) -> Vec<Event> {
        let mut out = Vec::new();
        for event in self.events.by_ref().take(usize::try_from(count).unwrap()) {
            self.manifest.add(event.expected);
            out.push(Event {
                topic: event.topic.to_owned(),
                partition: Some(i32::try_from(event.partition).unwrap()),
                key: Some(event.key),
                value: event.value,
                headers: event.headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            });
        }
        self.taken += out.len() as u64;
        out
    }

    /// Takes and publishes the next events.
    pub async fn publish(&mut self, deployment: &Deployment, count: u64) {
        for begin in (0..count).step_by(usize::try_from(CHUNK).unwrap()) {
            deployment.publish(&self.take(CHUNK.min(count - begin))).await;
        }
    }

    /// What a correct consumer has to show for the events that were taken.
    pub fn manifest(&self) -> Value {
        self.manifest.json()
    }
}
