//! Over how many index keys a table's items spread: counts kept in the ledger table, under `meta#` and the table's name.

use super::schema::Table;
use super::value::Item;
use crate::event::Digest;

/// A table's shard counts. Raise `read` first, then `write`; never shrink either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards {
    /// Writers spread over this many.
    pub write: u32,
    /// Readers ask this many; at least `write`.
    pub read: u32,
}

/// The most shards a table may have: a read asks each.
pub const SHARDS_MAX: u32 = 1_000;

impl Shards {
    /// Counts that make sense; an error says why others do not.
    pub fn new(write: u32, read: u32) -> Result<Self, String> {
        if write == 0 || read < write || read > SHARDS_MAX {
            return Err(format!(
                "shard counts must be 1 <= write <= read <= {SHARDS_MAX}, not write {write} and read {read}"
            ));
        }
        Ok(Self { write, read })
    }

    /// The shard of an item with this digest of its key.
    pub(crate) fn of(self, key: &Digest) -> u64 {
        key.leading_u64() % u64::from(self.write.max(1))
    }

    /// From a metadata item.
    pub(crate) fn read_item(item: &Item) -> Result<Self, String> {
        let count = |name: &str| {
            let value = item.get(name).ok_or(format!("{name} is missing"))?.integer();
            value.and_then(|value| u32::try_from(value).ok()).ok_or(format!("{name} is no count"))
        };
        Self::new(count("shards_write")?, count("shards_read")?)
    }
}

/// The shard counts of the tables that have shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardCounts {
    /// Of wallet_records, spreading one wallet's records.
    pub records: Shards,
    /// Of wallet_inventory, spreading the wallets of one chain and status.
    pub wallets: Shards,
}

/// The ledger key of a table's metadata. No chain's key has this form: those have `|` in them.
pub(crate) fn metadata_key(table: Table) -> String {
    format!("meta#{}", table.name())
}
