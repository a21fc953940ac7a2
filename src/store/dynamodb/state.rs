//! From a state write to its statements, and from the item that stands to a verdict.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;

use super::calls::Statement;
use super::schema::Table;
use super::shards::Shards;
use super::size::{self, ITEM_BYTES_MAX, PARTITION_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX};
use super::value::{Attributes, Item, Value};
use crate::event::{Digest, FORMAT, Group, StateKey, StateValue, StateWrite, Version};
use crate::store::{Changed, TooLarge};

/// The status of a wallet that no status write has come for yet.
const STATUS_AT_FIRST: &str = "pending";

/// The table that a state goes to.
pub(crate) fn table(write: &StateWrite) -> Table {
    match write.key {
        StateKey::Wallet { .. } => Table::Wallets,
        StateKey::Mapping { .. } => Table::Mappings,
    }
}

/// A write and the digest of its item's key, which says the wallet's shard and tells keys apart: computed once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed<'a> {
    pub(crate) write: &'a StateWrite,
    key: Digest,
}

impl<'a> Keyed<'a> {
    pub(crate) fn of(write: &'a StateWrite) -> Self {
        let key = match &write.key {
            StateKey::Wallet { wallet_id } => Digest::of(wallet_id.as_bytes()),
            StateKey::Mapping { user_id, wallet_id } => {
                let mut bytes = (user_id.len() as u64).to_be_bytes().to_vec();
                bytes.extend_from_slice(user_id.as_bytes());
                bytes.extend_from_slice(wallet_id.as_bytes());
                Digest::of(&bytes)
            }
        };
        Self { write, key }
    }

    /// A hash of the item's key, the same for all of its groups.
    pub(crate) fn hash(&self) -> u64 {
        self.key.leading_u64()
    }
}

/// The item's key as attributes.
pub(crate) fn key_attributes(key: &StateKey) -> Vec<(&'static str, String)> {
    match key {
        StateKey::Wallet { wallet_id } => vec![("wallet_id", wallet_id.clone())],
        StateKey::Mapping { user_id, wallet_id } => {
            vec![("user_id", user_id.clone()), ("wallet_id", wallet_id.clone())]
        }
    }
}

/// The index key of the wallets of one chain and status.
pub(crate) fn chain_status_shard(blockchain_type: &str, status: &str, shard: u64) -> String {
    format!("{blockchain_type}#{status}#{shard}")
}

fn blockchain_type(wallet_id: &str) -> &str {
    wallet_id.split(':').next().unwrap_or_default()
}

/// The group's attributes as stored, sorted by name. A status is never without one.
fn group_attributes(write: &StateWrite) -> Vec<(&'static str, Value)> {
    let mut out: Vec<_> = write.attributes.iter().map(|(name, value)| (*name, stored(value))).collect();
    if write.group == Group::Status && !out.iter().any(|(name, _)| *name == "wallet_status") {
        out.push(("wallet_status", Value::Text(STATUS_AT_FIRST.to_owned())));
    }
    out.sort_by_key(|(name, _)| *name);
    out
}

fn stored(value: &StateValue) -> Value {
    match value {
        StateValue::Text(text) => Value::Text(text.clone()),
        StateValue::List(texts) => Value::List(texts.iter().map(|text| Value::Text(text.clone())).collect()),
        StateValue::Map(texts) => {
            Value::map(texts.iter().map(|(name, text)| (name.clone(), Value::Text(text.clone()))).collect())
        }
    }
}

/// The whole item as it is created by this write; sorted by name.
pub(crate) fn created(Keyed { write, key }: Keyed<'_>, shards: Shards, now: &str) -> Attributes {
    let text = |text: &str| Value::Text(text.to_owned());
    let mut out = group_attributes(write);
    out.push(("created_at", text(now)));
    out.push(("format", Value::Number(FORMAT.to_string())));
    out.push(("updated_at", text(now)));
    match &write.key {
        StateKey::Wallet { wallet_id } => {
            for group in Group::OF_WALLET {
                let version = if group == write.group { write.version.stored() } else { String::new() };
                out.push((group.version_attribute(), Value::Text(version)));
            }
            let status = out.iter().find(|(name, _)| *name == "wallet_status").and_then(|(_, value)| value.text());
            let shard = shards.of(&key);
            let index_key = chain_status_shard(blockchain_type(wallet_id), status.unwrap_or(STATUS_AT_FIRST), shard);
            if status.is_none() {
                out.push(("wallet_status", text(STATUS_AT_FIRST)));
            }
            out.push(("blockchain_type", text(blockchain_type(wallet_id))));
            out.push(("chain_status_shard", Value::Text(index_key)));
            out.push(("wallet_id", text(wallet_id)));
        }
        StateKey::Mapping { user_id, wallet_id } => {
            out.push((Group::Mapping.version_attribute(), Value::Text(write.version.stored())));
            out.push(("user_id", text(user_id)));
            out.push(("wallet_id", text(wallet_id)));
        }
    }
    out.sort_by_key(|(name, _)| *name);
    out
}

/// Whether the item that this write would create fits.
pub(crate) fn check(write: &StateWrite, shards: Shards) -> Result<(), TooLarge> {
    match &write.key {
        StateKey::Wallet { wallet_id } => {
            size::limit(wallet_id.len(), PARTITION_KEY_BYTES_MAX, || "key wallet_id".to_owned())?;
        }
        StateKey::Mapping { user_id, wallet_id } => {
            // Each is the partition key of the table or its index, and the sort key of the other.
            size::limit(user_id.len(), SORT_KEY_BYTES_MAX, || "index key user_id".to_owned())?;
            size::limit(wallet_id.len(), SORT_KEY_BYTES_MAX, || "key wallet_id".to_owned())?;
        }
    }
    let attributes = created(Keyed::of(write), shards, "2026-01-02T03:04:05.678901Z");
    for (name, value) in &attributes {
        if *name == "chain_status_shard" {
            let bytes = value.text().map_or(0, str::len);
            size::limit(bytes, PARTITION_KEY_BYTES_MAX, || "index key chain_status_shard".to_owned())?;
        }
    }
    let bytes = size::item_bytes(attributes.iter().map(|(name, value)| (*name, value)));
    size::limit(bytes, ITEM_BYTES_MAX, || format!("item of {}", table(write).name()))
}

/// The texts of one table's statements, one for each group and each set of attributes that a write may bring.
#[derive(Debug)]
pub(crate) struct Texts {
    inserts: Vec<Vec<Arc<str>>>,
    updates: Vec<Vec<Arc<str>>>,
}

impl Texts {
    /// For tables with this prefix.
    pub(crate) fn new(prefix: &str) -> Self {
        let (mut inserts, mut updates) = (Vec::new(), Vec::new());
        for group in [Group::Identity, Group::Profile, Group::Status, Group::Mapping] {
            let masks = 0..1usize << group.attributes().len();
            inserts.push(masks.clone().map(|mask| insert_text(prefix, group, mask).into()).collect());
            updates.push(masks.map(|mask| update_text(prefix, group, mask).into()).collect());
        }
        Self { inserts, updates }
    }
}

fn place(group: Group) -> usize {
    match group {
        Group::Identity => 0,
        Group::Profile => 1,
        Group::Status => 2,
        Group::Mapping => 3,
    }
}

/// Which of the group's attributes a write brings, as bits in the group's order.
fn mask(group: Group, brings: impl Fn(&str) -> bool) -> usize {
    let names = group.attributes().iter().enumerate();
    names.filter(|(_, name)| brings(name)).fold(0, |mask, (bit, _)| mask | 1 << bit)
}

fn group_table(group: Group) -> Table {
    match group {
        Group::Identity | Group::Profile | Group::Status => Table::Wallets,
        Group::Mapping => Table::Mappings,
    }
}

/// Names in `mask`, sorted.
fn names(group: Group, mask: usize) -> Vec<&'static str> {
    let mut names: Vec<_> =
        group.attributes().iter().enumerate().filter(|(bit, _)| mask & 1 << bit != 0).map(|(_, name)| *name).collect();
    names.sort_unstable();
    names
}

fn insert_text(prefix: &str, group: Group, mask: usize) -> String {
    let table = group_table(group);
    let mut all = names(group, mask);
    all.extend(["created_at", "format", "updated_at"]);
    match table {
        Table::Mappings => all.extend([group.version_attribute(), "user_id", "wallet_id"]),
        _ => {
            all.extend(Group::OF_WALLET.map(Group::version_attribute));
            all.extend(["blockchain_type", "chain_status_shard", "wallet_id"]);
            if !all.contains(&"wallet_status") {
                all.push("wallet_status");
            }
        }
    }
    all.sort_unstable();
    super::insert::text(prefix, table, &all)
}

fn update_text(prefix: &str, group: Group, mask: usize) -> String {
    let table = group_table(group);
    let mut text = format!("UPDATE \"{prefix}{}\"", table.name());
    let set = names(group, mask);
    for name in set.iter().chain(owned(group)).chain([&group.version_attribute(), &"updated_at"]) {
        text.push_str(&format!(" SET \"{name}\" = ?"));
    }
    for name in group.attributes().iter().filter(|name| !set.contains(name)) {
        text.push_str(&format!(" REMOVE \"{name}\""));
    }
    let (partition, sort) = table.key();
    text.push_str(&format!(" WHERE \"{partition}\" = ?"));
    if let Some(sort) = sort {
        text.push_str(&format!(" AND \"{sort}\" = ?"));
    }
    text.push_str(&format!(" AND \"{}\" < ?", group.version_attribute()));
    text
}

/// What the store adds to a group's own attributes in every write.
fn owned(group: Group) -> &'static [&'static str] {
    match group {
        Group::Status => &["chain_status_shard"],
        Group::Identity | Group::Profile | Group::Mapping => &[],
    }
}

/// Creates the item; an error is a mistake of ours.
pub(crate) fn insert(texts: &Texts, keyed: Keyed<'_>, shards: Shards, now: &str) -> Result<Statement, String> {
    let write = keyed.write;
    let attributes = created(keyed, shards, now);
    table(write).check_write(&attributes)?;
    let mask = mask(write.group, |name| brings(write, name));
    let text = texts.inserts.get(place(write.group)).and_then(|of_group| of_group.get(mask));
    let bytes = size::item_bytes(attributes.iter().map(|(name, value)| (*name, value)));
    Ok(Statement {
        key_hash: keyed.hash(),
        text: text.ok_or("no statement of this shape")?.clone(),
        parameters: attributes.into_iter().map(|(_, value)| value.into_attribute()).collect(),
        bytes,
    })
}

/// Writes the whole group over a lower version; an error is a mistake of ours.
pub(crate) fn update(texts: &Texts, keyed: Keyed<'_>, shards: Shards, now: &str) -> Result<Statement, String> {
    let Keyed { write, key } = keyed;
    let group = group_attributes(write);
    for (name, value) in &group {
        if !write.group.attributes().contains(name) {
            return Err(format!("{name} does not belong to group {}", write.group.name()));
        }
        table(write).check_attribute(name, value)?;
    }
    let text = texts.updates.get(place(write.group)).and_then(|of_group| {
        let mask = mask(write.group, |name| brings(write, name));
        of_group.get(mask)
    });
    let version = write.version.stored();
    let bytes = size::item_bytes(group.iter().map(|(name, value)| (*name, value)));
    let index_key = match (&write.key, write.group) {
        (StateKey::Wallet { wallet_id }, Group::Status) => {
            let status = group.iter().find(|(name, _)| *name == "wallet_status").and_then(|(_, value)| value.text());
            let shard = shards.of(&key);
            Some(chain_status_shard(blockchain_type(wallet_id), status.unwrap_or(STATUS_AT_FIRST), shard))
        }
        _ => None,
    };
    let mut parameters: Vec<_> = group.into_iter().map(|(_, value)| value.into_attribute()).collect();
    let texts = index_key.into_iter().chain([version.clone(), now.to_owned()]);
    let key_texts = key_attributes(&write.key).into_iter().map(|(_, text)| text);
    parameters.extend(texts.chain(key_texts).chain([version]).map(AttributeValue::S));
    Ok(Statement { key_hash: keyed.hash(), text: text.ok_or("no statement of this shape")?.clone(), parameters, bytes })
}

fn brings(write: &StateWrite, name: &str) -> bool {
    let status_at_first = write.group == Group::Status && name == "wallet_status";
    status_at_first || write.attributes.iter().any(|(given, _)| *given == name)
}

/// What the item that stands says to a write: `None` where it is lower, so that the write is to be tried again.
pub(crate) fn compare(write: &StateWrite, item: &Item) -> Result<Option<Changed>, String> {
    super::schema::check_format(item)?;
    let name = write.group.version_attribute();
    let text = item.get(name).and_then(Value::text).ok_or(format!("{name} is missing or no text"))?;
    if text.is_empty() {
        return Ok(None);
    }
    let standing = Version::from_stored(text).ok_or(format!("{name} is no version"))?;
    Ok(match standing.cmp(&write.version) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Greater => Some(Changed::Stale),
        std::cmp::Ordering::Equal => {
            let written = group_attributes(write);
            let same =
                write.group.attributes().iter().all(|name| {
                    item.get(*name) == written.iter().find(|(given, _)| given == name).map(|(_, value)| value)
                });
            Some(if same { Changed::Same } else { Changed::Tie })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(group: Group, version: u64, attributes: Vec<(&'static str, StateValue)>) -> StateWrite {
        let key = StateKey::Wallet { wallet_id: "evm:1:0xab".to_owned() };
        StateWrite { key, group, version: Version::from_parts(&[version]).unwrap(), attributes }
    }

    fn item(attributes: Attributes) -> Item {
        attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    const NOW: &str = "2026-01-02T03:04:05.678901Z";
    const SHARDS: Shards = Shards { write: 4, read: 4 };

    #[test]
    fn a_wallet_is_created_pending_with_the_other_groups_unwritten() {
        let label = StateValue::Text("mine".to_owned());
        let item = item(created(Keyed::of(&write(Group::Profile, 3, vec![("label", label)])), SHARDS, NOW));
        assert_eq!(Table::Wallets.check_read(&item), Ok(()));
        assert_eq!(item["wallet_status"].text(), Some("pending"));
        assert_eq!(item["blockchain_type"].text(), Some("evm"));
        assert!(item["chain_status_shard"].text().unwrap().starts_with("evm#pending#"));
        assert_eq!((item["identity_version"].text(), item["status_version"].text()), (Some(""), Some("")));
    }

    #[test]
    fn statements_have_a_parameter_for_every_question_mark() {
        let texts = Texts::new("p-");
        let text = |text: &str| StateValue::Text(text.to_owned());
        let writes = [
            write(Group::Status, 1, vec![("wallet_status", text("frozen"))]),
            write(Group::Status, 1, vec![("reason", text("x"))]),
            write(Group::Profile, 1, vec![]),
            write(Group::Identity, 1, vec![("address", text("a")), ("owner", text("o"))]),
            StateWrite {
                key: StateKey::Mapping { user_id: "u".into(), wallet_id: "w".into() },
                attributes: vec![("role", text("owner")), ("scopes", StateValue::List(vec!["a".into()]))],
                ..write(Group::Mapping, 1, vec![])
            },
        ];
        for write in &writes {
            let write = Keyed::of(write);
            for statement in [insert(&texts, write, SHARDS, NOW).unwrap(), update(&texts, write, SHARDS, NOW).unwrap()]
            {
                assert_eq!(statement.text.matches('?').count(), statement.parameters.len(), "{}", statement.text);
                assert!(statement.text.len() < 8_192);
            }
        }
        assert_eq!(
            &*update(&texts, Keyed::of(&writes[0]), SHARDS, NOW).unwrap().text,
            "UPDATE \"p-wallet_inventory\" SET \"wallet_status\" = ? SET \"chain_status_shard\" = ? SET \"status_version\" = ? \
             SET \"updated_at\" = ? REMOVE \"reason\" WHERE \"wallet_id\" = ? AND \"status_version\" < ?"
        );
    }

    #[test]
    fn an_equal_version_is_the_same_or_a_tie_by_event_fields_alone() {
        let label = |text: &str| vec![("label", StateValue::Text(text.to_owned()))];
        let standing = item(created(Keyed::of(&write(Group::Profile, 3, label("mine"))), SHARDS, NOW));
        let verdict = |version, attributes| compare(&write(Group::Profile, version, attributes), &standing).unwrap();
        assert_eq!(verdict(3, label("mine")), Some(Changed::Same));
        assert_eq!(verdict(3, label("yours")), Some(Changed::Tie));
        assert_eq!(verdict(3, vec![]), Some(Changed::Tie));
        assert_eq!(verdict(2, label("mine")), Some(Changed::Stale));
        assert_eq!(verdict(4, label("mine")), None);
        assert_eq!(compare(&write(Group::Identity, 0, vec![]), &standing).unwrap(), None);
    }
}
