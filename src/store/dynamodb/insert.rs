//! Records, each inserted if its key is absent.

use std::sync::Arc;

use super::calls::{Answer, Statement};
use super::codes::{Trouble, unavailable};
use super::fetch::garbled;
use super::schema::Table;
use super::{Dynamo, record, size};
use crate::event::{Digest, Record};
use crate::store::{Inserted, Retry, RetryCause, Standing};

/// `INSERT INTO "table" VALUE {'a': ?, ...}`: insert if absent, and nothing else.
pub(crate) fn text(prefix: &str, table: Table, names: &[&str]) -> String {
    let places: Vec<_> = names.iter().map(|name| format!("'{name}': ?")).collect();
    format!("INSERT INTO \"{prefix}{}\" VALUE {{{}}}", table.name(), places.join(", "))
}

/// The texts of a record's statements, by what it has: a wallet, a trace, an event that it corrects.
#[derive(Debug)]
pub(crate) struct Texts([Arc<str>; 8]);

impl Texts {
    /// For tables with this prefix.
    pub(crate) fn new(prefix: &str) -> Self {
        Self(std::array::from_fn(|shape| {
            let mut names = vec![
                "content_digest",
                "correlation_id",
                "event_id",
                "fields",
                "format",
                "mapping_revision",
                "occurred_at",
                "origin",
                "pipeline",
                "record_digest",
                "record_id",
                "recorded_at",
                "route",
                "source",
                "type",
            ];
            if shape & 1 != 0 {
                names.extend(["sort", "wallet_id", "wallet_shard"]);
            }
            if shape & 2 != 0 {
                names.push("traceparent");
            }
            if shape & 4 != 0 {
                names.push("corrects");
            }
            names.sort_unstable();
            text(prefix, Table::Records, &names).into()
        }))
    }

    fn of(&self, record: &Record) -> Arc<str> {
        let has = [record.wallet_id.is_some(), record.traceparent.is_some(), record.corrects.is_some()];
        let shape = has.iter().enumerate().fold(0, |shape, (bit, has)| shape | usize::from(*has) << bit);
        self.0[shape].clone()
    }
}

impl Dynamo {
    /// A record's statement and its digest as stored; an error is a mistake of ours.
    pub(crate) fn record_statement(
        &self,
        record: &Record,
        shards: super::Shards,
        now: &str,
    ) -> Result<(Statement, Digest), String> {
        let (attributes, key, digest) = record::attributes(record, shards, now);
        Table::Records.check_write(&attributes)?;
        let bytes = size::item_bytes(attributes.iter().map(|(name, value)| (*name, value)));
        let parameters = attributes.into_iter().map(|(_, value)| value.into_attribute()).collect();
        let text = self.record_texts.of(record);
        Ok((Statement { key_hash: key.leading_u64(), text, parameters, bytes }, digest))
    }

    pub(super) async fn insert_records(&self, records: &[&Record]) -> Vec<Inserted> {
        let shards = match self.shards().await {
            Ok(counts) => counts.records,
            Err(trouble) => return records.iter().map(|_| trouble.clone().into()).collect(),
        };
        let now = super::stored_now();
        let (mut statements, mut places, mut digests) = (Vec::new(), Vec::new(), Vec::new());
        let mut verdicts: Vec<Option<Inserted>> = vec![None; records.len()];
        for (at, record) in records.iter().enumerate() {
            match self.record_statement(record, shards, &now) {
                Ok((statement, digest)) => {
                    statements.push(statement);
                    places.push(at);
                    digests.push(digest);
                }
                Err(what) => verdicts[at] = Some(Inserted::Rejected(format!("record: {what}"))),
            }
        }
        let answers = self.calls(Table::Records).run(statements).await;
        let mut standing = Vec::new();
        for ((answer, at), record_digest) in answers.into_iter().zip(places).zip(digests) {
            verdicts[at] = match answer {
                Answer::Done => Some(Inserted::Stored { record_digest }),
                Answer::Exists => {
                    standing.push(at);
                    None
                }
                Answer::ConditionFailed(_) => Some(no_condition().into()),
                Answer::Trouble(trouble) => Some(trouble.into()),
            };
        }
        let ids: Vec<&str> = standing.iter().map(|at| records[*at].record_id.as_str()).collect();
        for (at, found) in standing.iter().zip(self.standing(&ids).await) {
            verdicts[*at] = Some(match found {
                Ok(Some(standing)) => Inserted::Present(standing),
                Ok(None) => vanished(Table::Records).into(),
                Err(trouble) => trouble.into(),
            });
        }
        verdicts
            .into_iter()
            .map(|verdict| verdict.unwrap_or_else(|| unavailable("no verdict".to_owned()).into()))
            .collect()
    }

    /// What stands under these record ids, in order.
    pub(super) async fn standing(&self, ids: &[&str]) -> Vec<Result<Option<Standing>, Trouble>> {
        let keys: Vec<_> = ids.iter().map(|id| vec![(*id).to_owned()]).collect();
        let fetched = self.fetch(Table::Records, &keys, &record::STANDING).await;
        let standing = |key| match fetched.get(key)?.map(record::standing).transpose() {
            Ok(standing) => Ok(standing),
            Err(what) => Err(garbled(&self.table_name(Table::Records), &format!("{key:?}: {what}"))),
        };
        keys.iter().map(standing).collect()
    }
}

/// An item stood there a moment ago and does not any more. Nothing here deletes: somebody else does.
pub(crate) fn vanished(table: Table) -> Trouble {
    let detail = format!("{}: an item came and went", table.name());
    Trouble::Retry(Retry { cause: RetryCause::Contended, after: None, detail })
}

/// An INSERT has no condition that could fail.
pub(crate) fn no_condition() -> Trouble {
    unavailable("an INSERT was answered as if it had a condition".to_owned())
}

impl From<Trouble> for Inserted {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Retry(retry) => Self::Retry(retry),
            Trouble::Rejected(detail) => Self::Rejected(detail),
        }
    }
}
