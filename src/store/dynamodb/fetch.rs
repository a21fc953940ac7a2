//! Items by their keys: BatchGetItem, consistent, whatever of it the store leaves over asked for again.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};

use super::Dynamo;
use super::codes::Trouble;
use super::schema::Table;
use super::value::{Item, item_from_attributes};
use crate::store::{Retry, RetryCause};

/// The most keys of one call.
const KEYS_MAX: usize = 100;
/// How often leftovers are asked for again without a single item coming back.
const IDLE_ROUNDS_MAX: u32 = 4;

/// A key: partition and sort, as the table declares them.
pub(crate) type Key = Vec<String>;

/// What a read brought.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    items: HashMap<Key, Item>,
    /// Keys of which it is not known whether there is an item, and what it is.
    troubles: HashMap<Key, Trouble>,
}

impl Fetched {
    /// What stands under a key that was asked for; `None` where nothing does.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<&Item>, Trouble> {
        match (self.items.get(key), self.troubles.get(key)) {
            (Some(item), _) => Ok(Some(item)),
            (None, Some(trouble)) => Err(trouble.clone()),
            (None, None) => Ok(None),
        }
    }
}

impl Dynamo {
    /// What stands under these keys, which must be unique. Only `attributes` (and the key) are read, everything where there
    /// are none named. Calls are made side by side, as connections are free; trouble with one is that of its own keys.
    pub(crate) async fn fetch(&self, table: Table, keys: &[Key], attributes: &[&str]) -> Fetched {
        let chunks = keys.chunks(KEYS_MAX).map(|chunk| async move {
            let mut fetched = Fetched::default();
            if let Err(trouble) = self.fetch_chunk(table, chunk, attributes, &mut fetched).await {
                for key in chunk.iter().filter(|key| !fetched.items.contains_key(*key)) {
                    fetched.troubles.entry(key.clone()).or_insert_with(|| trouble.clone());
                }
            }
            fetched
        });
        let chunks = futures::future::join_all(chunks).await.into_iter();
        chunks
            .reduce(|mut all, chunk| {
                all.items.extend(chunk.items);
                all.troubles.extend(chunk.troubles);
                all
            })
            .unwrap_or_default()
    }

    async fn fetch_chunk(
        &self,
        table: Table,
        keys: &[Key],
        attributes: &[&str],
        fetched: &mut Fetched,
    ) -> Result<(), Trouble> {
        let name = self.table_name(table);
        let (partition, sort) = table.key();
        let key_names: Vec<_> = std::iter::once(partition).chain(sort).collect();
        let mut wanted = KeysAndAttributes::builder().consistent_read(true);
        for key in keys {
            let key =
                key_names.iter().zip(key).map(|(name, text)| ((*name).to_owned(), AttributeValue::S(text.clone())));
            wanted = wanted.keys(key.collect::<HashMap<_, _>>());
        }
        // Names such as `origin` may be reserved words: each goes by a placeholder.
        if !attributes.is_empty() {
            let placeholders: Vec<_> = (0..attributes.len()).map(|at| format!("#a{at}")).collect();
            for (placeholder, attribute) in placeholders.iter().zip(attributes) {
                wanted = wanted.expression_attribute_names(placeholder.clone(), *attribute);
            }
            wanted = wanted.projection_expression(placeholders.join(", "));
        }
        let mut left = Some(wanted.build().map_err(|error| Trouble::Rejected(format!("{name}: {error}")))?);
        let mut idle_rounds = 0;
        while let Some(wanted) = left.take() {
            let call = self.client.batch_get_item().request_items(name.clone(), wanted).send();
            let output = self.read(table, call).await?;
            let items = output.responses.and_then(|mut tables| tables.remove(&name)).unwrap_or_default();
            idle_rounds = if items.is_empty() { idle_rounds + 1 } else { 0 };
            for attributes in items {
                let text = |name: &&str| attributes.get(*name)?.as_s().ok().cloned();
                let key = key_names.iter().map(text).collect::<Option<Key>>();
                let key = key.ok_or_else(|| garbled(&name, "an item without its key"))?;
                match item_from_attributes(attributes) {
                    Some(item) => drop(fetched.items.insert(key, item)),
                    None => drop(fetched.troubles.insert(key, garbled(&name, "a value of a foreign kind"))),
                }
            }
            left = output
                .unprocessed_keys
                .and_then(|mut tables| tables.remove(&name))
                .filter(|left| !left.keys.is_empty());
            if left.is_some() {
                if idle_rounds >= IDLE_ROUNDS_MAX {
                    let detail = format!("{name}: keys stay unprocessed");
                    return Err(Trouble::Retry(Retry { cause: RetryCause::Throttled, after: None, detail }));
                }
                let pause_ms = fastrand::u64(5..=20) << idle_rounds;
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
        }
        Ok(())
    }
}

/// An item that cannot be read: nothing is lost, somebody has to look.
pub(crate) fn garbled(table: &str, what: &str) -> Trouble {
    let detail = format!("{table}: {what}: mend the item or run a version that reads it");
    Trouble::Retry(Retry { cause: RetryCause::Refused, after: None, detail })
}
