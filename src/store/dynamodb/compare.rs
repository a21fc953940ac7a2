//! What stands beside what would be written: reads alone, for those who ask before they write.

use std::collections::BTreeSet;

use super::fetch::{Key, garbled};
use super::schema::Table;
use super::shards::Shards;
use super::value::{Item, RECORD_DIGEST, Value};
use super::{Dynamo, StoreError, record, state};
use crate::event::{Record, StateWrite};
use crate::store::{Changed, Standing};

/// The shard depends on the table's counts, which may have been raised since; the digest depends on the shard.
const ASIDE: [&str; 2] = [RECORD_DIGEST, "wallet_shard"];

/// A record that stands where another would be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// What stands.
    pub standing: Standing,
    /// Whether the same mapping made it.
    pub same_mapping: bool,
    /// The attributes in which it differs from what would be written at the same time.
    pub differs: Vec<String>,
}

impl Dynamo {
    /// What stands under each record's id, in order; none where nothing does.
    ///
    /// # Errors
    ///
    /// Where the table cannot be read, or holds what cannot be understood.
    pub async fn compare_records(&self, records: &[&Record]) -> Result<Vec<Option<Compared>>, StoreError> {
        let keys: BTreeSet<Key> = records.iter().map(|record| vec![record.record_id.clone()]).collect();
        let keys: Vec<Key> = keys.into_iter().collect();
        let fetched = self.fetch(Table::Records, &keys, &[]).await;
        let compared = |record: &&Record| {
            let Some(item) = fetched.get(&vec![record.record_id.clone()])? else { return Ok(None) };
            let standing = record::standing(item).map_err(|what| self.unreadable(Table::Records, &what))?;
            let text = |name: &str| item.get(name).and_then(Value::text).unwrap_or_default();
            let (attributes, ..) = record::attributes(record, Shards { write: 1, read: 1 }, text("recorded_at"));
            let would: Item = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let names = would.keys().chain(item.keys().filter(|name| !would.contains_key(*name)));
            let differs = names.filter(|name| !ASIDE.contains(&name.as_str()) && item.get(*name) != would.get(*name));
            let same_mapping = text("mapping_revision") == record.names.mapping_revision;
            Ok(Some(Compared { standing, same_mapping, differs: differs.cloned().collect() }))
        };
        records.iter().map(compared).collect()
    }

    /// What each write would change, in order; none where it would be applied.
    ///
    /// # Errors
    ///
    /// Where a table cannot be read, or holds what cannot be understood.
    pub async fn compare_states(&self, writes: &[&StateWrite]) -> Result<Vec<Option<Changed>>, StoreError> {
        let key = |write: &StateWrite| -> Key {
            state::key_attributes(&write.key).into_iter().map(|(_, text)| text).collect()
        };
        let of = |table| {
            let keys = writes.iter().filter(|write| state::table(write) == table).map(|write| key(write));
            keys.collect::<BTreeSet<Key>>().into_iter().collect::<Vec<Key>>()
        };
        let (wallets, mappings) = (of(Table::Wallets), of(Table::Mappings));
        let wallets = self.fetch(Table::Wallets, &wallets, &[]).await;
        let mappings = self.fetch(Table::Mappings, &mappings, &[]).await;
        let compared = |write: &&StateWrite| {
            let table = state::table(write);
            let fetched = if table == Table::Wallets { &wallets } else { &mappings };
            match fetched.get(&key(write))? {
                None => Ok(None),
                Some(item) => state::compare(write, item).map_err(|what| self.unreadable(table, &what)),
            }
        };
        writes.iter().map(compared).collect()
    }

    fn unreadable(&self, table: Table, what: &str) -> StoreError {
        garbled(&self.table_name(table), what).into()
    }
}
