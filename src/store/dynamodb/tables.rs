//! The tables themselves: making them, describing them, checking them.

use std::time::Duration;

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType,
    PointInTimeRecoverySpecification, PointInTimeRecoveryStatus, Projection, ProjectionType, ScalarAttributeType,
    SseSpecification, SseType, StreamSpecification, StreamViewType, TableDescription, TableStatus,
};
use tokio::time::Instant;

use super::calls::{Answer, Statement};
use super::codes::{self, Trouble};
use super::schema::Table;
use super::shards::{Shards, metadata_key};
use super::value::{Attributes, Value};
use super::{Dynamo, StoreError, insert, size};
use crate::event::{Digest, FORMAT};

/// The sort key of metadata items.
pub(crate) const METADATA_FROM: &str = "0";
/// How often a table that is being made is looked at.
const POLL: Duration = Duration::from_millis(500);

/// What new tables are made with. The embedded server takes none of it but the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// Encrypt with this customer-managed KMS key; `None` = the key that DynamoDB owns.
    pub kms_key: Option<String>,
    /// Point-in-time recovery; switched on for tables that exist, too, since a call that gave up waiting for a new table has
    /// not got to it.
    pub point_in_time_recovery: bool,
    /// Refuse to delete the tables.
    pub deletion_protection: bool,
    /// A stream of new images on wallet_records.
    pub records_stream: bool,
    /// How long to wait until all are usable.
    pub deadline: Duration,
}

/// What became of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is new.
    Created,
    /// It stood there and was left as it is.
    Exists,
}

/// What became of each table, by its full name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In the order of [`Table::ALL`].
    pub tables: Vec<(String, Made)>,
}

/// A table as it stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Description {
    /// Its full name.
    pub name: String,
    /// Its status as DynamoDB says it; `None` where there is no table.
    pub status: Option<String>,
    /// Items, as DynamoDB last counted them (every six hours or so).
    pub items: Option<i64>,
    /// Partition key, then sort key.
    pub key: Vec<String>,
    /// Indexes: name, partition key, then sort key.
    pub indexes: Vec<(String, Vec<String>)>,
}

/// Makes the tables that are missing and the metadata with their shard counts. What exists is left as it is, but for
/// point-in-time recovery; calling it again is harmless. Fails when one cannot be made, or is not usable by the deadline.
pub async fn create(dynamo: &Dynamo, options: &TableOptions) -> Result<Report, StoreError> {
    let deadline = Instant::now() + options.deadline;
    let mut tables = Vec::new();
    for table in Table::ALL {
        let made = create_one(dynamo, table, options).await?;
        tables.push((dynamo.table_name(table), made));
    }
    for (table, (name, _)) in Table::ALL.into_iter().zip(&tables) {
        wait_until_active(dynamo, table, deadline).await?;
        if options.point_in_time_recovery && !recovers_point_in_time(dynamo, name).await? {
            recover_point_in_time(dynamo, name, deadline).await?;
        }
    }
    for (table, shards) in
        [(Table::Records, dynamo.config.shards.records), (Table::Wallets, dynamo.config.shards.wallets)]
    {
        insert_metadata(dynamo, table, shards).await?;
    }
    dynamo.shards().await?;
    Ok(Report { tables })
}

async fn create_one(dynamo: &Dynamo, table: Table, options: &TableOptions) -> Result<Made, StoreError> {
    let name = dynamo.table_name(table);
    if describe_one(dynamo, table).await?.is_some() {
        return Ok(Made::Exists);
    }
    let refused = |error: aws_sdk_dynamodb::error::BuildError| StoreError::Refused(format!("{name}: {error}"));
    let (partition, sort) = table.key();
    let mut attributes: Vec<_> = std::iter::once(partition).chain(sort).collect();
    let mut call = dynamo.client.create_table().table_name(&name).billing_mode(BillingMode::PayPerRequest);
    call = call.set_key_schema(Some(key_schema(partition, sort).map_err(refused)?));
    if let Some(index) = table.index() {
        attributes.extend([index.partition, index.sort]);
        let index = GlobalSecondaryIndex::builder()
            .index_name(index.name)
            .set_key_schema(Some(key_schema(index.partition, Some(index.sort)).map_err(refused)?))
            .projection(Projection::builder().projection_type(ProjectionType::All).build());
        call = call.global_secondary_indexes(index.build().map_err(refused)?);
    }
    attributes.sort_unstable();
    attributes.dedup();
    for attribute in attributes {
        let definition =
            AttributeDefinition::builder().attribute_name(attribute).attribute_type(ScalarAttributeType::S);
        call = call.attribute_definitions(definition.build().map_err(refused)?);
    }
    if let Some(key) = &options.kms_key {
        let encryption = SseSpecification::builder().enabled(true).sse_type(SseType::Kms).kms_master_key_id(key);
        call = call.sse_specification(encryption.build());
    }
    if options.deletion_protection {
        call = call.deletion_protection_enabled(true);
    }
    if options.records_stream && table == Table::Records {
        let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::NewImage);
        call = call.stream_specification(stream.build().map_err(refused)?);
    }
    match call.send().await {
        Ok(_) => Ok(Made::Created),
        // Somebody else is making it at this moment.
        Err(error) if error.code() == Some("ResourceInUseException") => Ok(Made::Exists),
        Err(error) => Err(codes::by_error(&error, &name).into()),
    }
}

fn key_schema(
    partition: &str,
    sort: Option<&str>,
) -> Result<Vec<KeySchemaElement>, aws_sdk_dynamodb::error::BuildError> {
    let element = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    let sort = sort.map(|sort| element(sort, KeyType::Range));
    std::iter::once(element(partition, KeyType::Hash)).chain(sort).collect()
}

/// What tells these tables from all others, also from earlier ones of the same names.
///
/// # Errors
///
/// They cannot be described, or are not there.
pub async fn identity(dynamo: &Dynamo) -> Result<String, StoreError> {
    let name = dynamo.table_name(Table::Records);
    let table = describe_one(dynamo, Table::Records).await?;
    let table = table.ok_or_else(|| StoreError::Refused(format!("{name} does not exist")))?;
    // A server that speaks DynamoDB's protocol may give no id.
    let made = || {
        let (arn, at) = (table.table_arn.as_ref()?, table.creation_date_time?);
        Some(format!("{arn}@{}", at.as_nanos()))
    };
    let identity = table.table_id.clone().or_else(made);
    identity.ok_or_else(|| StoreError::Refused(format!("{name} has neither an id nor a name and time of its creation")))
}

async fn wait_until_active(dynamo: &Dynamo, table: Table, deadline: Instant) -> Result<(), StoreError> {
    loop {
        let status = describe_one(dynamo, table).await?.and_then(|description| description.table_status);
        if status == Some(TableStatus::Active) {
            return Ok(());
        }
        if Instant::now() + POLL > deadline {
            let name = dynamo.table_name(table);
            return Err(StoreError::Refused(format!("{name} is not usable yet ({status:?}): run it again later")));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn recovers_point_in_time(dynamo: &Dynamo, name: &str) -> Result<bool, StoreError> {
    let found = dynamo.client.describe_continuous_backups().table_name(name).send().await;
    let found = found.map_err(|error| codes::by_error(&error, name))?.continuous_backups_description;
    let recovery = found.and_then(|backups| backups.point_in_time_recovery_description);
    let status = recovery.and_then(|recovery| recovery.point_in_time_recovery_status);
    Ok(status == Some(PointInTimeRecoveryStatus::Enabled))
}

// DynamoDB may answer ContinuousBackupsUnavailable for a while after a table became active.
async fn recover_point_in_time(dynamo: &Dynamo, name: &str, deadline: Instant) -> Result<(), StoreError> {
    loop {
        let on = PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true).build();
        let on = on.map_err(|error| StoreError::Refused(format!("{name}: {error}")))?;
        let call = dynamo.client.update_continuous_backups().table_name(name).point_in_time_recovery_specification(on);
        match call.send().await {
            Ok(_) => return Ok(()),
            Err(error)
                if error.code() == Some("ContinuousBackupsUnavailableException")
                    && Instant::now() + POLL < deadline =>
            {
                tokio::time::sleep(POLL).await;
            }
            Err(error) => return Err(codes::by_error(&error, name).into()),
        }
    }
}

async fn insert_metadata(dynamo: &Dynamo, table: Table, shards: Shards) -> Result<(), StoreError> {
    let number = |count: u32| Value::Number(count.to_string());
    let attributes: Attributes = vec![
        ("created_at", Value::Text(super::stored_now())),
        ("format", number(FORMAT)),
        ("from", Value::Text(METADATA_FROM.to_owned())),
        ("ledger_id", Value::Text(metadata_key(table))),
        ("shards_read", number(shards.read)),
        ("shards_write", number(shards.write)),
    ];
    match dynamo.insert_ledger_items(vec![attributes]).await.swap_remove(0) {
        Answer::Done | Answer::Exists => Ok(()),
        Answer::ConditionFailed(_) => Err(insert::no_condition().into()),
        Answer::Trouble(trouble) => Err(trouble.into()),
    }
}

impl Dynamo {
    /// Inserts items into the ledger table if their keys are absent; one answer an item, in order.
    pub(crate) async fn insert_ledger_items(&self, items: Vec<Attributes>) -> Vec<Answer> {
        let count = items.len();
        let mut statements = Vec::with_capacity(count);
        for attributes in items {
            if let Err(what) = Table::Ledger.check_write(&attributes) {
                return (0..count).map(|_| Answer::Trouble(Trouble::Rejected(format!("ledger: {what}")))).collect();
            }
            let names: Vec<_> = attributes.iter().map(|(name, _)| *name).collect();
            let key = |name| attributes.iter().find(|(given, _)| *given == name).and_then(|(_, value)| value.text());
            let key = format!("{}\n{}", key("ledger_id").unwrap_or_default(), key("from").unwrap_or_default());
            statements.push(Statement {
                key_hash: Digest::of(key.as_bytes()).leading_u64(),
                text: insert::text(&self.config.table_prefix, Table::Ledger, &names).into(),
                bytes: size::item_bytes(attributes.iter().map(|(name, value)| (*name, value))),
                parameters: attributes.into_iter().map(|(_, value)| value.into_attribute()).collect(),
            });
        }
        self.calls(Table::Ledger).run(statements).await
    }
}

async fn describe_one(dynamo: &Dynamo, table: Table) -> Result<Option<TableDescription>, StoreError> {
    let name = dynamo.table_name(table);
    match dynamo.client.describe_table().table_name(&name).send().await {
        Ok(output) => Ok(output.table),
        Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(None),
        Err(error) => Err(codes::by_error(&error, &name).into()),
    }
}

/// Every table as it stands.
pub async fn describe(dynamo: &Dynamo) -> Result<Vec<Description>, StoreError> {
    let mut out = Vec::new();
    for table in Table::ALL {
        let name = dynamo.table_name(table);
        out.push(match describe_one(dynamo, table).await? {
            None => Description { name, status: None, items: None, key: Vec::new(), indexes: Vec::new() },
            Some(found) => Description {
                name,
                status: found.table_status.as_ref().map(|status| status.as_str().to_owned()),
                items: found.item_count,
                key: key_names(found.key_schema()),
                indexes: found
                    .global_secondary_indexes()
                    .iter()
                    .map(|index| (index.index_name().unwrap_or_default().to_owned(), key_names(index.key_schema())))
                    .collect(),
            },
        });
    }
    Ok(out)
}

fn key_names(elements: &[KeySchemaElement]) -> Vec<String> {
    let mut elements: Vec<_> = elements.iter().collect();
    elements.sort_by_key(|element| *element.key_type() != KeyType::Hash);
    elements.into_iter().map(|element| element.attribute_name().to_owned()).collect()
}

/// What is wrong with the tables, each with what to do; empty when all is well. Also empty never by mistake: what cannot be
/// asked is a problem, too.
pub async fn check(dynamo: &Dynamo) -> Vec<String> {
    let descriptions = match describe(dynamo).await {
        Ok(descriptions) => descriptions,
        Err(error) => return vec![error.to_string()],
    };
    let mut problems = Vec::new();
    for (table, found) in Table::ALL.into_iter().zip(&descriptions) {
        let Some(status) = &found.status else {
            problems.push(format!("table {} is missing: run `recordkeeper tables create`", found.name));
            continue;
        };
        if !matches!(status.as_str(), "ACTIVE" | "UPDATING") {
            problems.push(format!("table {} is {status}", found.name));
        }
        let (partition, sort) = table.key();
        let key: Vec<_> = std::iter::once(partition).chain(sort).collect();
        if found.key != key {
            problems.push(format!("table {} has the key {:?}, not {key:?}", found.name, found.key));
        }
        if let Some(index) = table.index() {
            let key = [index.partition, index.sort];
            match found.indexes.iter().find(|(name, _)| name == index.name) {
                None => problems.push(format!("table {} has no index {} on {key:?}", found.name, index.name)),
                Some((_, found_key)) if *found_key != key => {
                    let index = index.name;
                    problems
                        .push(format!("index {index} of table {} has the key {found_key:?}, not {key:?}", found.name));
                }
                Some(_) => {}
            }
        }
    }
    if problems.is_empty()
        && let Err(trouble) = dynamo.shards().await
    {
        problems.push(StoreError::from(trouble).to_string());
    }
    problems
}
