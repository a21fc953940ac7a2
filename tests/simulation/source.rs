//! One member's view of the log and of its group.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use recordkeeper::event::{PartitionRef, Position};
use recordkeeper::source::{
    Answer, Checkpoint, Provenance, RawBatch, RawMessage, Source, SourceError, SourceEvent, Survey,
};
use tokio::sync::mpsc;

use crate::wire::{Dependency, call, happens};
use crate::world::{Shared, World, lock};

/// How far a partition has been read.
struct Reading {
    next: u64,
    paused: bool,
}

pub struct SimSource {
    pub member: usize,
    pub world: Shared,
    pub events: mpsc::UnboundedReceiver<SourceEvent>,
    reading: BTreeMap<PartitionRef, Reading>,
    /// Checkpoints that the group has not taken yet.
    done: BTreeMap<PartitionRef, Checkpoint>,
}

impl SimSource {
    pub fn new(member: usize, world: Shared, events: mpsc::UnboundedReceiver<SourceEvent>) -> Self {
        Self { member, world, events, reading: BTreeMap::new(), done: BTreeMap::new() }
    }

    fn heard(&mut self, event: SourceEvent) -> SourceEvent {
        if let SourceEvent::Revoked { partitions, .. } = &event {
            self.reading.retain(|partition, _| !partitions.contains(partition));
        }
        event
    }

    /// Sends checkpoints; what does not arrive is sent again.
    fn commit(&mut self) {
        let mut world = lock(&self.world);
        let unsent = world.trouble.unsent;
        self.done.retain(|_, checkpoint| {
            let lost = happens(&mut world.chance, unsent);
            if !lost {
                world.checkpointed(self.member, checkpoint);
            }
            lost
        });
    }

    /// The next messages of some partition, a few at a time.
    fn read(&mut self) -> Option<RawBatch> {
        let mut world = lock(&self.world);
        let ready: Vec<&PartitionRef> = self
            .reading
            .iter()
            .filter(|(partition, reading)| {
                !reading.paused && world.logs[*partition].events.range(reading.next..).next().is_some()
            })
            .map(|(partition, _)| partition)
            .collect();
        let index = world.chance.usize(..ready.len().max(1));
        let partition = (*ready.get(index)?).clone();
        let most = world.chance.usize(1..12);
        let reading = self.reading.get_mut(&partition)?;
        let mut batch = RawBatch { partition: partition.clone(), bytes: Vec::new(), messages: Vec::new() };
        for (offset, event) in world.logs[&partition].events.range(reading.next..).take(most) {
            let mut put = |bytes: &[u8]| {
                let from = batch.bytes.len();
                batch.bytes.extend_from_slice(bytes);
                from..batch.bytes.len()
            };
            let headers = event.headers.iter();
            batch.messages.push(RawMessage {
                position: Position::Offset(*offset),
                timestamp_ms: Some(1_767_225_600_000),
                key: Some(put(&event.key)),
                value: event.value.as_deref().map(&mut put),
                headers: headers.map(|(name, value)| (put(name.as_bytes()), value.as_deref().map(&mut put))).collect(),
                provenance: Provenance::Here,
            });
            reading.next = offset + 1;
        }
        let (member, first, last) = (self.member, batch.messages[0].position, batch.last());
        world.note(|| format!("{member} reads {partition} {first} to {last}"));
        Some(batch)
    }
}

impl Source for SimSource {
    fn next(&mut self) -> BoxFuture<'_, Result<SourceEvent, SourceError>> {
        Box::pin(async {
            loop {
                self.commit();
                if let Ok(event) = self.events.try_recv() {
                    return Ok(self.heard(event));
                }
                if let Some(batch) = self.read() {
                    return Ok(SourceEvent::Batch(batch));
                }
                tokio::select! {
                    biased;
                    event = self.events.recv() => match event {
                        Some(event) => return Ok(self.heard(event)),
                        None => std::future::pending().await,
                    },
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
        })
    }

    fn survey(&mut self, topic: &str) -> Answer<Vec<Survey>> {
        let (world, topic) = (self.world.clone(), topic.to_owned());
        let survey = move |world: &mut World| {
            let partitions = world.logs.keys().filter(|partition| partition.topic == topic);
            let start = |partition: &PartitionRef| world.committed.get(partition).copied().unwrap_or(Position::Begin);
            partitions.map(|partition| Survey { partition: partition.clone(), start: start(partition) }).collect()
        };
        Box::pin(async move { call(&world, Dependency::Source, survey).await.ok_or_else(|| "no answer".to_owned()) })
    }

    fn log_end(&mut self, partition: &PartitionRef) -> Answer<Position> {
        let (world, partition) = (self.world.clone(), partition.clone());
        let end = move |world: &mut World| Position::before_offset(world.logs[&partition].end);
        Box::pin(async move { call(&world, Dependency::Source, end).await.ok_or_else(|| "no answer".to_owned()) })
    }

    fn start(&mut self, partition: &PartitionRef, after: Position) {
        self.reading.insert(partition.clone(), Reading { next: after.next_offset(), paused: false });
    }

    fn pause(&mut self, partition: &PartitionRef) {
        if let Some(reading) = self.reading.get_mut(partition) {
            reading.paused = true;
        }
    }

    fn resume(&mut self, partition: &PartitionRef) {
        if let Some(reading) = self.reading.get_mut(partition) {
            reading.paused = false;
        }
    }

    fn checkpoint(&mut self, done: &[Checkpoint]) {
        for checkpoint in done {
            let earlier = self.done.get(&checkpoint.partition);
            if earlier.is_none_or(|earlier| earlier.assignment <= checkpoint.assignment) {
                self.done.insert(checkpoint.partition.clone(), checkpoint.clone());
            }
        }
        self.commit();
    }

    fn lags(&self) -> Vec<(PartitionRef, u64)> {
        Vec::new()
    }

    fn close(self: Box<Self>, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}
