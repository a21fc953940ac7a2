//! What a route does with an event, read and checked.

use std::sync::Arc;

use super::read::{name, template};
use super::schema::{Reach, SchemaSpec};
use super::spec::{AgreeSpec, MappingSpec, RecordSpec, RequestSpec, ValueSpec, WalletSpec};
use super::tree::{Place, Problems, Table, Tree, Value, entries, list, text, word};
use crate::config::nearest;
use crate::event::{Group, Pointer, check_chain};
use crate::pipeline::{Part, Template};

/// The longest name of a record's field.
const FIELD_BYTES_MAX: usize = 255;

/// What pointers are over, and what the schema describes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The whole event; the schema describes `data`.
    Event,
    /// The document; the schema describes it.
    Document,
}

/// Reads effects and remembers every pointer, to be held against the schema.
pub(super) struct EffectReader<'p> {
    scope: Scope,
    pointers: Vec<(Place, Pointer)>,
    pub(super) problems: &'p mut Problems,
}

impl<'p> EffectReader<'p> {
    pub(super) fn new(scope: Scope, pointers: Vec<(Place, Pointer)>, problems: &'p mut Problems) -> Self {
        Self { scope, pointers, problems }
    }

    /// A pointer that names something inside the event.
    pub(super) fn pointer(&mut self, tree: &Tree, what: &str) -> Option<Pointer> {
        let source = text(tree, what, self.problems)?;
        match Pointer::parse(source) {
            Ok(pointer) => {
                self.pointers.push((tree.place, pointer.clone()));
                Some(pointer)
            }
            Err(error) => {
                let hint = format!("did you mean `/{}`?", source.trim_matches(['{', '}']).trim_start_matches('/'));
                self.problems.error(tree.place, format!("`{what}` is no pointer: {error}"), hint);
                None
            }
        }
    }

    fn remember(&mut self, place: Place, template: &Template) {
        self.pointers.extend(template.pointers().map(|pointer| (place, pointer.clone())));
    }

    /// A template with at least one hole: without one, all events would share the value.
    pub(super) fn filled(&mut self, tree: &Tree, what: &str) -> Option<Template> {
        let template = template(tree, what, self.problems)?;
        if template.pointers().next().is_none() {
            let message = format!("`{what}` would be the same for every event");
            let hint = if template.to_string().starts_with('/') {
                format!("did you mean \"{{{template}}}\"?")
            } else {
                "take something from the event: \"{/pointer}\"".to_owned()
            };
            self.problems.error(tree.place, message, hint);
            return None;
        }
        self.remember(tree.place, &template);
        Some(template)
    }

    /// A wallet's id. What its text says of the chain has to be one, or no event would ever name a wallet.
    fn wallet_id(&mut self, tree: &Tree, what: &str) -> Option<Template> {
        let template = self.filled(tree, what)?;
        let Some(Part::Text(start)) = template.parts().first() else { return Some(template) };
        let known = match start.splitn(3, ':').collect::<Vec<_>>()[..] {
            ["ext", ..] => true,
            [family, network, _] => check_chain(&format!("{family}:{network}")).is_ok(),
            // Which network is for the event to say: any will do to know the family.
            [family, _] => {
                ["1", "mainnet", "testnet"].iter().any(|any| check_chain(&format!("{family}:{any}")).is_ok())
            }
            _ => true,
        };
        if !known {
            let message = format!("`{what}` begins with `{start}`, which is no chain");
            let hint = "a wallet id is chain:network:address, such as \"evm:1:{/address}\", or \"ext:{/id}\"";
            self.problems.error(tree.place, message, hint);
            return None;
        }
        Some(template)
    }

    /// A value: `/pointer`, `"text{/pointer}"`, or a table of one of `literal`, `amount`, `address`, `event`.
    fn value(&mut self, tree: &Tree, what: &str, wallet: bool) -> Option<ValueSpec> {
        match &tree.value {
            Value::Text(text) if text.starts_with('/') => self.pointer(tree, what).map(ValueSpec::At),
            Value::Text(text) if text.contains(['{', '}']) => self.filled(tree, what).map(ValueSpec::Template),
            Value::Table(entries) if entries.len() == 1 => {
                let (key, inner) = &entries[0];
                match key.name.as_str() {
                    "literal" => text(inner, what, self.problems).map(|text| ValueSpec::Literal(text.to_owned())),
                    "amount" => self.pointer(inner, what).map(ValueSpec::Amount),
                    "address" if wallet => self.pointer(inner, what).map(ValueSpec::Address),
                    "address" => {
                        let message = format!("`{what}` is an address, but there is no `wallet` to tell its chain");
                        self.problems.error(
                            key.place,
                            message,
                            "give the effect a `wallet`, or take the plain pointer",
                        );
                        None
                    }
                    "event" => word(inner, "event", &[("time", ValueSpecWord::Time)], self.problems)
                        .map(|ValueSpecWord::Time| ValueSpec::EventTime),
                    other => {
                        let known = ["literal", "amount", "address", "event"];
                        let hint = match nearest(other, known) {
                            Some(known) => format!("did you mean `{known}`?"),
                            None => format!("one of: {}", known.join(", ")),
                        };
                        self.problems.error(key.place, format!("`{what}` has the unknown key `{other}`"), hint);
                        None
                    }
                }
            }
            _ => {
                let message = format!("`{what}` does not say where its value comes from");
                let hint = "a /pointer, a \"text{/pointer}\", {literal: text}, {amount: /pointer}, {address: /pointer} \
                            or {event: time}";
                self.problems.error(tree.place, message, hint);
                None
            }
        }
    }

    fn when(&mut self, table: &mut Table<'_>) -> Option<Pointer> {
        table.optional("when").and_then(|tree| self.pointer(tree, "when"))
    }

    pub(super) fn agree(&mut self, tree: &Tree) -> Option<AgreeSpec> {
        let mut table = Table::open(tree, "agree", self.problems)?;
        let wallet = table.required("wallet", self.problems).and_then(|tree| self.wallet_id(tree, "wallet"));
        let mut part = |name| table.optional(name).and_then(|tree| self.pointer(tree, name));
        let (blockchain_type, address, chain) = (part("blockchain_type"), part("address"), part("chain"));
        table.close(self.problems);
        Some(AgreeSpec { wallet: wallet?, blockchain_type, address, chain })
    }

    pub(super) fn records(&mut self, tree: &Tree) -> Option<Vec<RecordSpec>> {
        let mut records: Vec<RecordSpec> = Vec::new();
        for (at, item) in list(tree, "records", self.problems)?.iter().enumerate() {
            let Some(record) = self.record(item, at == 0) else { continue };
            if records.iter().any(|earlier| earlier.name == record.name) {
                let message = format!("the record name `{}` is taken", record.name);
                self.problems.error(item.place, message, "give each record of a route a name of its own");
            }
            records.push(record);
        }
        (!records.is_empty()).then_some(records)
    }

    fn record(&mut self, tree: &Tree, judge: bool) -> Option<RecordSpec> {
        let mut table = Table::open(tree, "the record", self.problems)?;
        let record_name = table.required("name", self.problems).and_then(|tree| name(tree, "name", self.problems));
        let wallet_tree = table.optional("wallet");
        let wallet = wallet_tree.and_then(|tree| self.wallet_id(tree, "wallet"));
        let kind = table.required("type", self.problems).and_then(|tree| text(tree, "type", self.problems));
        let mut fields: Vec<(Arc<str>, ValueSpec)> = Vec::new();
        if let Some(tree) = table.optional("fields") {
            for (key, value) in entries(tree, "fields", self.problems).unwrap_or_default() {
                if key.name.is_empty() || key.name.len() > FIELD_BYTES_MAX || key.name.contains(char::is_control) {
                    let message = format!("`fields` has a name that no record can hold: {:?}", key.name);
                    let hint = format!("1 to {FIELD_BYTES_MAX} bytes, no control characters");
                    self.problems.error(key.place, message, hint);
                } else if let Some(value) = self.value(value, &key.name, wallet_tree.is_some()) {
                    fields.push((Arc::from(key.name.as_str()), value));
                }
            }
        }
        let when_tree = table.optional("when");
        if let (true, Some(tree)) = (judge, when_tree) {
            let message = "the first record judges the event and cannot be conditional";
            self.problems.error(tree.place, message, "put an unconditional record first");
        }
        let when = when_tree.and_then(|tree| self.pointer(tree, "when"));
        table.close(self.problems);
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        Some(RecordSpec { name: record_name?, wallet, kind: kind?.to_owned(), fields, when })
    }

    fn attributes(&mut self, table: &mut Table<'_>, group: Option<Group>) -> Vec<(&'static str, ValueSpec)> {
        let mut attributes = Vec::new();
        let Some(tree) = table.required("attributes", self.problems) else { return attributes };
        for (key, value) in entries(tree, "attributes", self.problems).unwrap_or_default() {
            let value = self.value(value, &key.name, true);
            let Some(group) = group else { continue };
            let Some(known) = group.attributes().iter().find(|known| **known == key.name) else {
                let message = format!("the group `{}` does not own `{}`", group.name(), key.name);
                let hint = match nearest(&key.name, group.attributes().iter().copied()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("it owns: {}", group.attributes().join(", ")),
                };
                self.problems.error(key.place, message, hint);
                continue;
            };
            attributes.extend(value.map(|value| (*known, value)));
        }
        attributes.sort_by_key(|(name, _)| *name);
        attributes
    }

    pub(super) fn wallet(&mut self, tree: &Tree) -> Option<WalletSpec> {
        let mut table = Table::open(tree, "wallet", self.problems)?;
        let groups = Group::OF_WALLET.map(|group| (group.name(), group));
        let group = table.required("group", self.problems).and_then(|tree| word(tree, "group", &groups, self.problems));
        let id = table.required("id", self.problems).and_then(|tree| self.wallet_id(tree, "id"));
        let version = table.required("version", self.problems).and_then(|tree| self.pointer(tree, "version"));
        let attributes = self.attributes(&mut table, group);
        if group == Some(Group::Status) && !attributes.iter().any(|(name, _)| *name == "wallet_status") {
            let message = "the group `status` is written without `wallet_status`";
            self.problems.error(table.place, message, "give it under `attributes`: wallets are found by it");
        }
        let when = self.when(&mut table);
        table.close(self.problems);
        Some(WalletSpec { group: group?, id: id?, version: version?, attributes, when })
    }

    pub(super) fn mapping(&mut self, tree: &Tree) -> Option<MappingSpec> {
        let mut table = Table::open(tree, "mapping", self.problems)?;
        let user = table.required("user", self.problems).and_then(|tree| self.filled(tree, "user"));
        let wallet = table.required("wallet", self.problems).and_then(|tree| self.wallet_id(tree, "wallet"));
        let version = table.required("version", self.problems).and_then(|tree| self.pointer(tree, "version"));
        let attributes = self.attributes(&mut table, Some(Group::Mapping));
        let when = self.when(&mut table);
        table.close(self.problems);
        Some(MappingSpec { user: user?, wallet: wallet?, version: version?, attributes, when })
    }

    pub(super) fn request(&mut self, tree: &Tree) -> Option<RequestSpec> {
        let mut table = Table::open(tree, "request", self.problems)?;
        let user = table.required("user", self.problems).and_then(|tree| self.filled(tree, "user"));
        let [chain, custody, alias] = ["chain", "custody", "alias"].map(|key| {
            let tree = table.required(key, self.problems)?;
            let value = self.value(tree, key, false)?;
            self.check_literal(tree, key, &value);
            Some(value)
        });
        let [generation, request_id, tenant, priority] = ["generation", "request_id", "tenant", "priority"]
            .map(|key| table.optional(key).and_then(|tree| self.value(tree, key, false)));
        let when = self.when(&mut table);
        table.close(self.problems);
        Some(RequestSpec {
            user: user?,
            chain: chain?,
            custody: custody?,
            alias: alias?,
            generation,
            request_id,
            tenant,
            priority,
            when,
        })
    }

    /// A text that is the same for all requests and that all of them would be refused for.
    fn check_literal(&mut self, tree: &Tree, key: &str, value: &ValueSpec) {
        let ValueSpec::Literal(text) = value else { return };
        let (sound, hint) = match key {
            "chain" => {
                let sound = check_chain(text).is_ok() && !text.starts_with("bitcoin");
                (sound, "such as evm:1, solana:mainnet, stellar:pubnet, aptos:1 or sui:mainnet")
            }
            "custody" => (["hsm", "kms", "vendor"].contains(&text.as_str()), "hsm, kms or vendor"),
            _ => (true, ""),
        };
        if !sound {
            self.problems.error(tree.place, format!("no wallet can be requested with the {key} `{text}`"), hint);
        }
    }

    /// Holds every pointer that was read against the schema.
    pub(super) fn check_pointers(&mut self, schema: &SchemaSpec) {
        for (place, pointer) in std::mem::take(&mut self.pointers) {
            let tokens: Vec<&str> = pointer.tokens().collect();
            let (reach, parent) = match (self.scope, tokens.split_first()) {
                (Scope::Document, _) => (schema.reach(&tokens), ""),
                (Scope::Event, Some((&"data", rest))) => (schema.reach(rest), "/data"),
                // Attributes of the envelope are scalars, and extensions may have any name.
                (Scope::Event, Some((_, []))) => continue,
                (Scope::Event, _) => (Reach::RuledOut(None), ""),
            };
            let inside = tokens.len() - usize::from(!parent.is_empty());
            let near = |near: Option<String>| match near {
                Some(name) if inside == 1 => format!("did you mean `{parent}/{name}`?"),
                Some(name) => format!("did you mean `{name}`?"),
                None if self.scope == Scope::Event && parent.is_empty() => {
                    format!("the event's own data is under /data: `/data{pointer}`")
                }
                None => format!("see {}", schema.path().display()),
            };
            match reach {
                Reach::Described | Reach::Unmentioned(None) => {}
                Reach::Unmentioned(name) => {
                    let message = format!("the schema does not mention `{pointer}`");
                    self.problems.warning(place, message, near(name));
                }
                Reach::RuledOut(name) => {
                    self.problems.error(place, format!("the schema rules out `{pointer}`"), near(name));
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum ValueSpecWord {
    Time,
}
