//! A pipeline as checked: what the rest of the program works with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::schema::SchemaSpec;
use crate::event::{Group, Pointer};
use crate::pipeline::{Glob, Template};

/// One pipeline file, read and checked.
#[derive(Clone, Debug)]
pub struct PipelineSpec {
    /// The pipeline's name.
    pub name: String,
    /// The file it stands in.
    pub file: PathBuf,
    /// Where its events come from.
    pub source: KafkaSpec,
    /// In order; the first that matches is taken.
    pub routes: Vec<RouteSpec>,
}

/// A Kafka source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSpec {
    /// The topics to read, each once.
    pub topics: Vec<String>,
    /// Line and column of their list.
    pub place: (u64, u64),
    /// The consumer group; its ledgers carry this name too.
    pub group: String,
    /// Where the group's first lane on a topic starts.
    pub start: Start,
    /// How the group's members share partitions.
    pub protocol: Protocol,
    /// Of topics whose log was replaced where no topic id says so: which one it is, from 1 on.
    pub topic_epochs: BTreeMap<String, u32>,
}

/// Where a group that never read a topic starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record that the log holds.
    Earliest,
    /// At the log's end.
    Latest,
    /// At the first record with a broker's time at or after this many milliseconds since 1970.
    At {
        /// Milliseconds since 1970.
        timestamp_ms: i64,
    },
}

/// Kafka's group protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The protocol that every broker has.
    Classic,
    /// KIP-848, from broker 4.0.
    Consumer,
}

/// One route.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// The route's name, unique in its pipeline.
    pub name: String,
    /// Line and column of the route in its file.
    pub place: (u64, u64),
    /// Which events it takes.
    pub matches: MatchSpec,
    /// How the value is read. `None` where it is never looked at (a `skip` without `content`).
    pub format: Option<Format>,
    /// What is done with them.
    pub action: Action,
    /// What is done with null values.
    pub tombstone: Tombstone,
    /// The route as configured, in a form that order, style and comments do not change.
    pub canonical: String,
}

/// Which events a route takes: all that is given must fit.
#[derive(Clone, Debug)]
pub struct MatchSpec {
    /// The topic.
    pub topic: String,
    /// Over the key's bytes; a null key fits nothing.
    pub key: Option<Glob>,
    /// Over the value of the first header of that name; an absent or null header fits nothing.
    pub headers: Vec<(String, Glob)>,
    /// Over scalars of the event; null and what is absent fit nothing.
    pub content: Vec<(Pointer, Glob)>,
}

/// How a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// CloudEvents 1.0, structured or binary.
    CloudEvents,
    /// A JSON text.
    Json,
    /// A JSON text behind a Confluent frame (magic byte 0, four bytes of schema id).
    ConfluentJson {
        /// Whether a JSON text without a frame is taken too.
        allow_plain: bool,
    },
}

/// What a route does with null values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tombstone {
    /// They are left out.
    Skip,
    /// They are dead letters.
    DeadLetter,
}

/// What a route does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Leaves the event out, for this reason.
    Skip(String),
    /// Records it and has effects.
    Keep(Box<Keep>),
}

/// Everything a recording route does.
#[derive(Clone, Debug)]
pub struct Keep {
    /// What the data must look like.
    pub schema: SchemaSpec,
    /// Where the event's identity and time are.
    pub identity: Identity,
    /// What must agree with the wallet's id.
    pub agree: Option<AgreeSpec>,
    /// The judge, then further records.
    pub records: Vec<RecordSpec>,
    /// A write to one group of a wallet's state.
    pub wallet: Option<WalletSpec>,
    /// A write to a user's right to a wallet.
    pub mapping: Option<MappingSpec>,
    /// A wallet to be created.
    pub request: Option<RequestSpec>,
    /// Whether all of it goes into one transaction.
    pub transactional: bool,
}

/// Where an event's identity and time are.
#[derive(Clone, Debug)]
pub enum Identity {
    /// In the CloudEvents envelope.
    Envelope,
    /// Where the route says.
    Route {
        /// The source of every event of the route.
        source: String,
        /// The id.
        id: Template,
        /// RFC 3339 text or seconds since 1970; null or absent = the broker's time.
        time: Option<Pointer>,
    },
}

/// Values that repeat a wallet's id in parts, and must say the same in canonical form where they are present.
#[derive(Clone, Debug)]
pub struct AgreeSpec {
    /// The wallet's id.
    pub wallet: Template,
    /// `blockchain_type`: the chain's first part.
    pub blockchain_type: Option<Pointer>,
    /// The address.
    pub address: Option<Pointer>,
    /// The chain with its network.
    pub chain: Option<Pointer>,
}

/// One record.
#[derive(Clone, Debug)]
pub struct RecordSpec {
    /// Its name, unique in its route; part of the record id of all but the first.
    pub name: String,
    /// The wallet that it belongs to.
    pub wallet: Option<Template>,
    /// The record's type.
    pub kind: String,
    /// Standard fields; null and absent values are left out.
    pub fields: Vec<(Arc<str>, ValueSpec)>,
    /// Written only where this is present and not null.
    pub when: Option<Pointer>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSpec {
    /// What stands there: text as it is, numbers by their digits.
    At(Pointer),
    /// This text.
    Literal(String),
    /// This text with its holes filled.
    Template(Template),
    /// An exact amount.
    Amount(Pointer),
    /// An address, made canonical for the chain of the effect's wallet.
    Address(Pointer),
    /// The event's time.
    EventTime,
}

/// A write to one group of a wallet's state.
#[derive(Clone, Debug)]
pub struct WalletSpec {
    /// Identity, profile or status.
    pub group: Group,
    /// The wallet's id.
    pub id: Template,
    /// The version.
    pub version: Pointer,
    /// Attributes of the group.
    pub attributes: Vec<(&'static str, ValueSpec)>,
    /// Written only where this is present and not null.
    pub when: Option<Pointer>,
}

/// A write to a user's right to a wallet.
#[derive(Clone, Debug)]
pub struct MappingSpec {
    /// The user's id.
    pub user: Template,
    /// The wallet's id.
    pub wallet: Template,
    /// The version.
    pub version: Pointer,
    /// Attributes of [`Group::Mapping`].
    pub attributes: Vec<(&'static str, ValueSpec)>,
    /// Written only where this is present and not null.
    pub when: Option<Pointer>,
}

/// A wallet to be created.
#[derive(Clone, Debug)]
pub struct RequestSpec {
    /// For whom.
    pub user: Template,
    /// The chain with its network.
    pub chain: ValueSpec,
    /// `hsm`, `kms` or `vendor`.
    pub custody: ValueSpec,
    /// The user's name for it.
    pub alias: ValueSpec,
    /// From 1; absent = 1.
    pub generation: Option<ValueSpec>,
    /// Absent = the request's digest.
    pub request_id: Option<ValueSpec>,
    /// Absent = empty.
    pub tenant: Option<ValueSpec>,
    /// Carried through.
    pub priority: Option<ValueSpec>,
    /// Asked only where this is present and not null.
    pub when: Option<Pointer>,
}
