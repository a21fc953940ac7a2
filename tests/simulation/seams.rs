//! Tables, ledger, cache and topics, simulated.

use futures::future::BoxFuture;
use recordkeeper::dedupe::{DedupeError, DedupeStore, IdentityHash, Known};
use recordkeeper::event::{Digest, Position, Record, StateWrite};
use recordkeeper::ledger::{Appended, Chain, ChainEnd, Entry, Ledger, StartItem};
use recordkeeper::store::{Changed, Inserted, RecordStore, Retry, Standing, TooLarge, Transacted, Transaction};
use recordkeeper::topic::{Message, Published, Topic};

use crate::wire::{Dependency, call, happens, throttled, unavailable};
use crate::world::{Shared, Stored, World};

/// All of them.
#[derive(Clone)]
pub struct Seams(pub Shared);

impl World {
    fn insert(&mut self, record: &Record) -> Inserted {
        let partial = self.trouble.partial;
        if happens(&mut self.chance, partial) {
            return Inserted::Retry(throttled(&mut self.chance));
        }
        match self.standing(record) {
            Some(standing) => Inserted::Present(standing),
            None if self.refuses(record) => Inserted::Rejected("not this one".into()),
            None => Inserted::Stored { record_digest: self.store(record) },
        }
    }

    /// Whether the record is never taken, under whatever origin.
    fn refuses(&mut self, record: &Record) -> bool {
        // Who asks for a wallet first depends on what was taken.
        let asks = record.kind == "wallet.requested";
        let refuses = self.picky && !asks && Digest::of(record.record_id.as_bytes()).0[0] < 20;
        if refuses {
            let origin = record.origin.text();
            self.note(|| format!("{} is refused, from {origin}", record.record_id));
            self.refused.insert(origin);
        }
        refuses
    }

    fn standing(&self, record: &Record) -> Option<Standing> {
        self.records.get(&record.record_id).map(|stored| Standing {
            content_digest: stored.content_digest,
            origin: stored.origin.clone(),
            record_digest: stored.record_digest,
            // Nobody corrects events here.
            corrects: None,
        })
    }

    fn store(&mut self, record: &Record) -> Digest {
        let origin = record.origin.text();
        let record_digest = Digest::of(format!("{record:?}").as_bytes());
        self.note(|| format!("{} is stored from {origin}", record.record_id));
        self.by_origin.entry(origin.clone()).or_default().push((record.record_id.clone(), record_digest));
        let stored = Stored { content_digest: record.content_digest, origin, record_digest };
        self.records.insert(record.record_id.clone(), stored);
        record_digest
    }

    fn change(&mut self, write: &StateWrite) -> Changed {
        let partial = self.trouble.partial;
        if happens(&mut self.chance, partial) {
            return Changed::Retry(throttled(&mut self.chance));
        }
        let verdict = self.weigh(write);
        if verdict == Changed::Applied {
            self.apply(write);
        }
        verdict
    }

    /// What would become of a write.
    fn weigh(&self, write: &StateWrite) -> Changed {
        let place = (write.key.clone(), write.group);
        match self.states.get(&place) {
            Some((version, _)) if *version > write.version => Changed::Stale,
            Some((version, attributes)) if *version == write.version => {
                if *attributes == write.attributes {
                    Changed::Same
                } else {
                    Changed::Tie
                }
            }
            _ => Changed::Applied,
        }
    }

    fn apply(&mut self, write: &StateWrite) {
        self.note(|| format!("{:?} {} is at version {}", write.key, write.group.name(), write.version));
        self.states.insert((write.key.clone(), write.group), (write.version, write.attributes.clone()));
    }

    /// All or nothing.
    fn transact(&mut self, records: &[Record], states: &[StateWrite]) -> Transacted {
        let partial = self.trouble.partial;
        if happens(&mut self.chance, partial) {
            return Transacted::Retry(throttled(&mut self.chance));
        }
        if let Some(standing) = self.standing(&records[0]) {
            return Transacted::Present(standing);
        }
        if self.refuses(&records[0]) {
            return Transacted::Rejected("not this one".into());
        }
        let weighed = states.iter().map(|write| self.weigh(write)).enumerate();
        let unchanged: Vec<_> = weighed.filter(|(_, verdict)| *verdict != Changed::Applied).collect();
        if !unchanged.is_empty() {
            return Transacted::Unchanged(unchanged);
        }
        states.iter().for_each(|write| self.apply(write));
        Transacted::Done { record_digests: records.iter().map(|record| self.store(record)).collect() }
    }

    fn append(&mut self, chain: &Chain, entry: &Entry) -> Appended {
        let partial = self.trouble.partial;
        if happens(&mut self.chance, partial) {
            return Appended::Retry(throttled(&mut self.chance));
        }
        let stands = self.chains.get(&chain.partition).is_some_and(|all| all.iter().any(|one| one.from == entry.from));
        if stands {
            return Appended::Refused;
        }
        self.attested(&chain.partition, &chain.key(), entry);
        Appended::Done
    }
}

impl RecordStore for Seams {
    fn check_record(&self, _: &Record) -> Result<(), TooLarge> {
        Ok(())
    }

    fn check_state(&self, _: &StateWrite) -> Result<(), TooLarge> {
        Ok(())
    }

    fn insert<'a>(&'a self, records: &'a [&'a Record]) -> BoxFuture<'a, Vec<Inserted>> {
        Box::pin(async {
            let mine: Vec<Record> = records.iter().copied().cloned().collect();
            let done =
                call(&self.0, Dependency::Store, move |world| mine.iter().map(|one| world.insert(one)).collect());
            done.await.unwrap_or_else(|| records.iter().map(|_| Inserted::Retry(unavailable())).collect())
        })
    }

    fn change<'a>(&'a self, writes: &'a [&'a StateWrite]) -> BoxFuture<'a, Vec<Changed>> {
        Box::pin(async {
            let mine: Vec<StateWrite> = writes.iter().copied().cloned().collect();
            let done =
                call(&self.0, Dependency::Store, move |world| mine.iter().map(|one| world.change(one)).collect());
            done.await.unwrap_or_else(|| writes.iter().map(|_| Changed::Retry(unavailable())).collect())
        })
    }

    fn transact<'a>(&'a self, transaction: Transaction<'a>) -> BoxFuture<'a, Transacted> {
        Box::pin(async move {
            let (records, states) = (transaction.records.to_vec(), transaction.states.to_vec());
            let done = call(&self.0, Dependency::Store, move |world| world.transact(&records, &states));
            done.await.unwrap_or_else(|| Transacted::Retry(unavailable()))
        })
    }
}

impl Ledger for Seams {
    fn end<'a>(&'a self, chain: &'a Chain) -> BoxFuture<'a, Result<Option<ChainEnd>, Retry>> {
        Box::pin(async {
            let mine = chain.clone();
            let end = move |world: &mut World| {
                let last = world.chains.get(&mine.partition)?.last()?;
                let digest = last.digest(&mine.key());
                Some(ChainEnd { position: last.to, digest, nonce: last.nonce.clone(), sealed_by: None })
            };
            call(&self.0, Dependency::Ledger, end).await.ok_or_else(unavailable)
        })
    }

    fn entries<'a>(
        &'a self,
        chain: &'a Chain,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Entry>, Retry>> {
        Box::pin(async move {
            let partition = chain.partition.clone();
            let entries = move |world: &mut World| {
                let chain = world.chains.get(&partition).into_iter().flatten();
                chain.filter(|entry| entry.to > after).take(limit).cloned().collect()
            };
            call(&self.0, Dependency::Ledger, entries).await.ok_or_else(unavailable)
        })
    }

    fn append<'a>(&'a self, entries: &'a [(&'a Chain, &'a Entry)]) -> BoxFuture<'a, Vec<Appended>> {
        Box::pin(async {
            let mine: Vec<(Chain, Entry)> =
                entries.iter().map(|(chain, entry)| ((*chain).clone(), (*entry).clone())).collect();
            let append =
                move |world: &mut World| mine.iter().map(|(chain, entry)| world.append(chain, entry)).collect();
            let done = call(&self.0, Dependency::Ledger, append).await;
            done.unwrap_or_else(|| entries.iter().map(|_| Appended::Retry(unavailable())).collect())
        })
    }

    fn start_item<'a>(&'a self, chain: &'a Chain, proposed: &'a StartItem) -> BoxFuture<'a, Result<StartItem, Retry>> {
        Box::pin(async {
            let (topic, mine) = (chain.partition.topic.clone(), proposed.clone());
            let insert = move |world: &mut World| world.starts.entry(topic).or_insert(mine).clone();
            call(&self.0, Dependency::Ledger, insert).await.ok_or_else(unavailable)
        })
    }

    fn find_start_item<'a>(&'a self, chain: &'a Chain) -> BoxFuture<'a, Result<Option<StartItem>, Retry>> {
        Box::pin(async {
            let topic = chain.partition.topic.clone();
            let find = move |world: &mut World| world.starts.get(&topic).cloned();
            call(&self.0, Dependency::Ledger, find).await.ok_or_else(unavailable)
        })
    }
}

impl DedupeStore for Seams {
    fn look_up<'a>(&'a self, ids: &'a [IdentityHash]) -> BoxFuture<'a, Result<Vec<Option<Known>>, DedupeError>> {
        Box::pin(async {
            let mine = ids.to_vec();
            let look = move |world: &mut World| mine.iter().map(|id| world.cache.get(&id.0).cloned()).collect();
            call(&self.0, Dependency::Cache, look).await.ok_or_else(|| DedupeError::Away("no answer".into()))
        })
    }

    fn remember<'a>(&'a self, done: &'a [(IdentityHash, Known)]) -> BoxFuture<'a, Result<(), DedupeError>> {
        Box::pin(async {
            let mine = done.to_vec();
            let remember = move |world: &mut World| {
                for (id, known) in mine {
                    world.remembered(&known);
                    world.cache.insert(id.0, known);
                }
            };
            call(&self.0, Dependency::Cache, remember).await.ok_or_else(|| DedupeError::Away("no answer".into()))
        })
    }
}

/// One of the two topics.
pub struct SimTopic {
    pub world: Shared,
    /// Takes a message that arrived.
    pub take: fn(&mut World, &Message),
}

impl Topic for SimTopic {
    fn publish<'a>(&'a self, messages: &'a [&'a Message]) -> BoxFuture<'a, Vec<Published>> {
        Box::pin(async {
            let (mine, take): (Vec<Message>, _) = (messages.iter().copied().cloned().collect(), self.take);
            let publish = move |world: &mut World| {
                let mut verdicts = Vec::new();
                for message in &mine {
                    let partial = world.trouble.partial;
                    let taken = !happens(&mut world.chance, partial);
                    if taken {
                        take(world, message);
                    }
                    verdicts.push(if taken { Published::Durable } else { retry("not now") });
                }
                verdicts
            };
            let done = call(&self.world, Dependency::Topics, publish).await;
            done.unwrap_or_else(|| messages.iter().map(|_| retry("no answer")).collect())
        })
    }

    fn bytes_max(&self) -> usize {
        1 << 20
    }
}

/// A creation request arrives.
pub fn take_request(world: &mut World, message: &Message) {
    let event: serde_json::Value = serde_json::from_slice(message.value.as_deref().unwrap()).unwrap();
    let id = event["id"].as_str().unwrap().to_owned();
    world.note(|| format!("request {id} is out"));
    world.asked.insert(event["data"]["requested_by"].as_str().unwrap().to_owned());
    world.requests.insert(id);
}

/// A dead letter arrives.
pub fn take_letter(world: &mut World, message: &Message) {
    let header = |name: &str| {
        let (_, value) = message.headers.iter().find(|(header, _)| header == name).unwrap();
        String::from_utf8(value.clone().unwrap()).unwrap()
    };
    let place =
        ["recordkeeper-origin-topic", "recordkeeper-origin-partition", "recordkeeper-origin-offset"].map(header);
    let reason = header("recordkeeper-reason");
    world.note(|| format!("dead letter of {} is out: {reason}", place.join("/")));
    world.letters.entry(place.into()).or_default().insert(reason);
}

fn retry(detail: &str) -> Published {
    Published::Retry { after: None, detail: detail.to_owned() }
}
