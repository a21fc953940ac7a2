//! What a correct consumer has to show for a stream of generated events.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::event::{Event, Json, canonical_time};
use crate::event::{Group, Reason, StateKey, StateValue, StateWrite, Version};

/// What has to become of one generated event, read after all that precede it in its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Recorded, with what else it asks for.
    Recorded {
        /// The state that it writes, to be applied only over a lower version.
        state: Option<StateWrite>,
        /// Whether it asks for a wallet that nothing before it asked for.
        new_request: bool,
    },
    /// The same event stands already.
    Duplicate,
    /// Refused.
    DeadLettered(Reason),
}

/// The state that this event writes once it is recorded.
pub(super) fn state_of(event: &Event) -> Option<StateWrite> {
    let version = event.version()?;
    let group = match event.kind {
        "wallet.created" => Group::Identity,
        "wallet.updated" => Group::Profile,
        "wallet.status_changed" => Group::Status,
        "mapping.granted" | "mapping.revoked" => Group::Mapping,
        _ => return None,
    };
    let mut attributes: Vec<(&'static str, StateValue)> = Vec::new();
    for name in group.attributes().iter().copied() {
        if let Some(value) = event.get(name) {
            attributes.push((name, state_value(value)));
        }
    }
    let wallet_id = event.wallet_id.clone();
    let key = match group {
        Group::Mapping => {
            let at = StateValue::Text(canonical_time(event.at));
            let (status, when) =
                if event.kind == "mapping.granted" { ("active", "granted_at") } else { ("revoked", "revoked_at") };
            attributes.push(("status", StateValue::Text(status.to_owned())));
            attributes.push((when, at));
            let user_id = match event.get("user_id") {
                Some(Json::Text(user_id)) => user_id.clone(),
                _ => return None,
            };
            StateKey::Mapping { user_id, wallet_id }
        }
        Group::Identity | Group::Profile | Group::Status => StateKey::Wallet { wallet_id },
    };
    if let (Some((_, address)), StateKey::Wallet { wallet_id }) =
        (attributes.iter_mut().find(|(name, _)| *name == "address"), &key)
    {
        let canonical = wallet_id.rsplit(':').next().unwrap_or_default();
        *address = StateValue::Text(canonical.to_owned());
    }
    attributes.sort_by_key(|(name, _)| *name);
    Some(StateWrite { key, group, version, attributes })
}

fn state_value(value: &Json) -> StateValue {
    match value {
        Json::Text(text) | Json::Raw(text) => StateValue::Text(text.clone()),
        Json::List(items) => StateValue::List(items.clone()),
        Json::Map(members) => {
            let mut members = members.clone();
            members.sort();
            StateValue::Map(members)
        }
    }
}

type Attributes = Vec<(&'static str, StateValue)>;

/// The fold over a stream: counts, and the state that stands at its end.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    consumed: u64,
    recorded: u64,
    duplicate: u64,
    dead_lettered: BTreeMap<&'static str, u64>,
    requests: u64,
    wallets: BTreeMap<String, BTreeMap<&'static str, (Version, Attributes)>>,
    mappings: BTreeMap<(String, String), (Version, Attributes)>,
}

impl Manifest {
    /// Adds the next event. Events of one partition in their order; partitions may be mixed in any way.
    pub fn add(&mut self, expected: Expected) {
        self.consumed += 1;
        match expected {
            Expected::Duplicate => self.duplicate += 1,
            Expected::DeadLettered(reason) => *self.dead_lettered.entry(reason.name()).or_default() += 1,
            Expected::Recorded { state, new_request } => {
                self.recorded += 1;
                self.requests += u64::from(new_request);
                if let Some(state) = state {
                    self.apply(state);
                }
            }
        }
    }

    /// The highest version stands; of equal ones the first.
    fn apply(&mut self, write: StateWrite) {
        let StateWrite { key, group, version, attributes } = write;
        match key {
            StateKey::Wallet { wallet_id } => {
                let groups = self.wallets.entry(wallet_id).or_default();
                let stands = groups.entry(group.name()).or_insert_with(|| (version, attributes.clone()));
                if stands.0 < version {
                    *stands = (version, attributes);
                }
            }
            StateKey::Mapping { user_id, wallet_id } => {
                let stands = self.mappings.entry((user_id, wallet_id)).or_insert_with(|| (version, attributes.clone()));
                if stands.0 < version {
                    *stands = (version, attributes);
                }
            }
        }
    }

    /// The manifest as JSON. A group that nothing wrote is absent; only the status is then `pending`, its version empty.
    /// Versions are in the stored form of [`Version::stored`].
    pub fn json(&self) -> Value {
        let wallets: Map<String, Value> = self
            .wallets
            .iter()
            .map(|(wallet_id, groups)| {
                let mut out = Map::new();
                out.insert("status".to_owned(), json!({"wallet_status": "pending", "version": ""}));
                for (name, (version, attributes)) in groups {
                    out.insert((*name).to_owned(), group_json(*version, attributes));
                }
                (wallet_id.clone(), Value::Object(out))
            })
            .collect();
        let mappings: Map<String, Value> = self
            .mappings
            .iter()
            .map(|((user, wallet), (version, attributes))| {
                (format!("{user}|{wallet}"), group_json(*version, attributes))
            })
            .collect();
        json!({
            "consumed": self.consumed,
            "recorded": self.recorded,
            "duplicate": self.duplicate,
            "skipped": 0,
            "dead_lettered": self.dead_lettered,
            "records": self.recorded,
            "requests": self.requests,
            "wallets": wallets,
            "mappings": mappings,
        })
    }
}

fn group_json(version: Version, attributes: &Attributes) -> Value {
    let mut out = Map::new();
    for (name, value) in attributes {
        let value = match value {
            StateValue::Text(text) => json!(text),
            StateValue::List(items) => json!(items),
            StateValue::Map(members) => {
                Value::Object(members.iter().map(|(name, value)| (name.clone(), json!(value))).collect())
            }
        };
        out.insert((*name).to_owned(), value);
    }
    out.insert("version".to_owned(), json!(version.stored()));
    Value::Object(out)
}
