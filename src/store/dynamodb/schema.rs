//! The tables and what their items hold: checked before every write and after every read.

use super::value::{Attributes, Item, Value};
use crate::event::FORMAT;

/// The tables, without their prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Immutable records.
    Records,
    /// Wallet states.
    Wallets,
    /// Users' rights to wallets.
    Mappings,
    /// Creation requests.
    Requests,
    /// Chains of ledger entries, start items and the tables' metadata.
    Ledger,
}

/// A global secondary index, projecting every attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its name.
    pub name: &'static str,
    /// Its partition key.
    pub partition: &'static str,
    /// Its sort key.
    pub sort: &'static str,
}

/// The kind of an attribute's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    TextList,
    TextMap,
}

/// One attribute of a table's items.
struct Attribute {
    name: &'static str,
    kind: Kind,
    required: bool,
}

const fn must(name: &'static str, kind: Kind) -> Attribute {
    Attribute { name, kind, required: true }
}

const fn may(name: &'static str, kind: Kind) -> Attribute {
    Attribute { name, kind, required: false }
}

const RECORDS: &[Attribute] = &[
    must("content_digest", Kind::Text),
    may("corrects", Kind::Text),
    must("correlation_id", Kind::Text),
    must("event_id", Kind::Text),
    must("fields", Kind::TextMap),
    must("format", Kind::Number),
    must("mapping_revision", Kind::Text),
    must("occurred_at", Kind::Text),
    must("origin", Kind::Text),
    must("pipeline", Kind::Text),
    must("record_digest", Kind::Text),
    must("record_id", Kind::Text),
    must("recorded_at", Kind::Text),
    must("route", Kind::Text),
    may("sort", Kind::Text),
    must("source", Kind::Text),
    may("traceparent", Kind::Text),
    must("type", Kind::Text),
    may("wallet_id", Kind::Text),
    may("wallet_shard", Kind::Text),
];

const WALLETS: &[Attribute] = &[
    may("address", Kind::Text),
    must("blockchain_type", Kind::Text),
    must("chain_status_shard", Kind::Text),
    must("created_at", Kind::Text),
    must("format", Kind::Number),
    must("identity_version", Kind::Text),
    may("label", Kind::Text),
    may("owner", Kind::Text),
    must("profile_version", Kind::Text),
    may("provider", Kind::Text),
    may("provider_wallet_id", Kind::Text),
    may("reason", Kind::Text),
    may("request_id", Kind::Text),
    must("status_version", Kind::Text),
    may("tags", Kind::TextMap),
    must("updated_at", Kind::Text),
    must("wallet_id", Kind::Text),
    must("wallet_status", Kind::Text),
];

const MAPPINGS: &[Attribute] = &[
    must("created_at", Kind::Text),
    must("format", Kind::Number),
    may("granted_at", Kind::Text),
    may("granted_by", Kind::Text),
    may("revoked_at", Kind::Text),
    may("revoked_by", Kind::Text),
    may("role", Kind::Text),
    may("scopes", Kind::TextList),
    may("status", Kind::Text),
    must("updated_at", Kind::Text),
    must("user_id", Kind::Text),
    must("version", Kind::Text),
    must("wallet_id", Kind::Text),
];

const REQUESTS: &[Attribute] = &[must("request_id", Kind::Text)];

// Entries, start items, orders and metadata share the table: only what they all have is required here; each reads its own strictly.
const LEDGER: &[Attribute] = &[
    may("attested_at", Kind::Text),
    may("checkpoint", Kind::Text),
    may("created_at", Kind::Text),
    may("digest", Kind::Text),
    may("fills", Kind::TextMap),
    must("format", Kind::Number),
    must("from", Kind::Text),
    may("ledger_end", Kind::Text),
    must("ledger_id", Kind::Text),
    may("nonce", Kind::Text),
    may("outcomes", Kind::Text),
    may("previous", Kind::Text),
    may("reason", Kind::Text),
    may("record_count", Kind::Number),
    may("records", Kind::Text),
    may("revision", Kind::Text),
    may("sealed_for", Kind::Number),
    may("shards_read", Kind::Number),
    may("shards_write", Kind::Number),
    may("spec", Kind::Text),
    may("starts", Kind::TextMap),
    may("taken_over", Kind::Number),
    may("to", Kind::Text),
    may("writer", Kind::Text),
];

impl Table {
    /// Every table.
    pub const ALL: [Self; 5] = [Self::Records, Self::Wallets, Self::Mappings, Self::Requests, Self::Ledger];

    /// Its name without the prefix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Records => "wallet_records",
            Self::Wallets => "wallet_inventory",
            Self::Mappings => "user_wallet_mapping",
            Self::Requests => "wallet_requests",
            Self::Ledger => "ledger",
        }
    }

    /// Its partition key and sort key.
    pub fn key(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Records => ("record_id", None),
            Self::Wallets => ("wallet_id", None),
            Self::Mappings => ("user_id", Some("wallet_id")),
            Self::Requests => ("request_id", None),
            Self::Ledger => ("ledger_id", Some("from")),
        }
    }

    /// Its index, if it has one.
    pub fn index(self) -> Option<Index> {
        match self {
            Self::Records => Some(Index { name: "by_wallet", partition: "wallet_shard", sort: "sort" }),
            Self::Wallets => {
                Some(Index { name: "by_chain_and_status", partition: "chain_status_shard", sort: "updated_at" })
            }
            Self::Mappings => Some(Index { name: "by_wallet", partition: "wallet_id", sort: "user_id" }),
            Self::Requests | Self::Ledger => None,
        }
    }

    fn attributes(self) -> &'static [Attribute] {
        match self {
            Self::Records => RECORDS,
            Self::Wallets => WALLETS,
            Self::Mappings => MAPPINGS,
            Self::Requests => REQUESTS,
            Self::Ledger => LEDGER,
        }
    }

    /// Checks attributes about to be written: all that are required, none that is unknown, each of its kind, sorted.
    pub(crate) fn check_write(self, attributes: &Attributes) -> Result<(), String> {
        if !attributes.is_sorted_by(|a, b| a.0 < b.0) {
            return Err("attributes are not sorted or repeat".to_owned());
        }
        let mut given = attributes.iter().peekable();
        for declared in self.attributes() {
            match given.peek() {
                Some((name, value)) if *name == declared.name => {
                    check_kind(declared, value)?;
                    given.next();
                }
                _ if declared.required => return Err(format!("{} is missing", declared.name)),
                _ => {}
            }
        }
        match given.next() {
            None => Ok(()),
            Some((name, _)) => Err(format!("{name} is not declared")),
        }
    }

    /// Checks one attribute of a partial write.
    pub(crate) fn check_attribute(self, name: &str, value: &Value) -> Result<(), String> {
        match self.attributes().iter().find(|declared| declared.name == name) {
            Some(declared) => check_kind(declared, value),
            None => Err(format!("{name} is not declared")),
        }
    }

    /// Checks an item just read. Attributes that a later version added are let through; a later format is not.
    pub(crate) fn check_read(self, item: &Item) -> Result<(), String> {
        for declared in self.attributes() {
            match item.get(declared.name) {
                Some(value) => check_kind(declared, value)?,
                None if declared.required => return Err(format!("{} is missing", declared.name)),
                None => {}
            }
        }
        check_format(item)
    }
}

/// Refuses a format that is not this version's or the one before.
pub(crate) fn check_format(item: &Item) -> Result<(), String> {
    let Some(value) = item.get("format") else { return Ok(()) };
    let format = value.integer().ok_or("format is not a number")?;
    let (newest, oldest) = (u64::from(FORMAT), u64::from(FORMAT.saturating_sub(1).max(1)));
    if format > newest {
        return Err(format!("format {format} is newer than {newest}: upgrade this version"));
    }
    if format < oldest {
        return Err(format!("format {format} is older than {oldest}: read it with an older version"));
    }
    Ok(())
}

fn check_kind(declared: &Attribute, value: &Value) -> Result<(), String> {
    let is_text = |value: &Value| value.text().is_some();
    let fits = match declared.kind {
        Kind::Text => is_text(value),
        Kind::Number => matches!(value, Value::Number(_)),
        Kind::TextList => matches!(value, Value::List(values) if values.iter().all(is_text)),
        Kind::TextMap => matches!(value, Value::Map(values) if values.iter().all(|(_, value)| is_text(value))),
    };
    if fits { Ok(()) } else { Err(format!("{} is of another kind than declared", declared.name)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Group;

    #[test]
    fn declarations_are_sorted_and_cover_keys_indexes_and_groups() {
        for table in Table::ALL {
            let names: Vec<_> = table.attributes().iter().map(|attribute| attribute.name).collect();
            assert!(names.is_sorted_by(|a, b| a < b), "{table:?}");
            let (partition, sort) = table.key();
            assert!(names.contains(&partition));
            assert!(sort.is_none_or(|sort| names.contains(&sort)));
            if let Some(index) = table.index() {
                assert!(names.contains(&index.partition) && names.contains(&index.sort));
            }
        }
        for group in Group::OF_WALLET {
            for name in group.attributes().iter().chain([&group.version_attribute()]) {
                assert!(WALLETS.iter().any(|attribute| attribute.name == *name), "{name}");
            }
        }
        for name in Group::Mapping.attributes() {
            assert!(MAPPINGS.iter().any(|attribute| attribute.name == *name), "{name}");
        }
    }

    #[test]
    fn a_write_is_whole_known_and_of_its_kinds() {
        let text = |text: &str| Value::Text(text.to_owned());
        let good = vec![("request_id", text("r"))];
        assert_eq!(Table::Requests.check_write(&good), Ok(()));
        assert!(Table::Requests.check_write(&vec![]).is_err());
        assert!(Table::Requests.check_write(&vec![("request_id", Value::Null)]).is_err());
        assert!(Table::Requests.check_write(&vec![("a", text("")), ("request_id", text("r"))]).is_err());
    }

    #[test]
    fn a_newer_format_is_refused() {
        let item =
            |format: &str| [("format".to_owned(), Value::Number(format.to_owned()))].into_iter().collect::<Item>();
        assert_eq!(check_format(&item("1")), Ok(()));
        assert!(check_format(&item("2")).is_err_and(|error| error.contains("upgrade")));
        assert!(check_format(&item("0")).is_err());
    }
}
