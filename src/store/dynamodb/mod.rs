//! Records and states in DynamoDB.
//!
//! Records and state writes enter; statements of PartiQL leave, many to a call (`calls`), under a write budget for each table
//! (`budget`). What can fail is a call as a whole or any statement of it; `codes` sorts both into what may pass and what never
//! does. Nothing is tried again here but what a verdict needs: INSERT or UPDATE, and keys that a read left over.

mod budget;
mod calls;
mod codes;
mod counted;
mod fetch;
mod insert;
pub mod read;
mod record;
mod scan;
mod schema;
mod shards;
mod size;
mod state;
pub mod tables;
mod transact;
mod update;
mod value;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use futures::future::BoxFuture;
use quick_cache::sync::Cache;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::{Changed, Inserted, RecordStore, Retry, RetryCause, TooLarge, Transacted, Transaction};
use crate::event::{Record, StateWrite};
use budget::Budget;
use calls::Calls;
use codes::Trouble;

pub(crate) use calls::Answer;
pub(crate) use codes::Trouble as StoreTrouble;
pub use counted::CallMetrics;
pub use scan::{Compared, KeptRecord, ScanPage, ScanPlace, kept_record};
pub use schema::{Index, Table};
pub use shards::{SHARDS_MAX, ShardCounts, Shards};
pub(crate) use value::Attributes;
pub use value::{Item, Value, record_digest};

/// How many keys are remembered as existing, so that their states are updated without trying to create them first.
const KNOWN_KEYS_MAX: usize = 100_000;
/// The longest that a connection may take to open.
const CONNECT_DEADLINE_MAX: Duration = Duration::from_secs(3);

/// Where DynamoDB is and how hard it may be worked.
#[derive(Clone, Debug)]
pub struct DynamoConfig {
    /// Put in front of every table's name; letters, digits, `_`, `-` and `.`.
    pub table_prefix: String,
    /// The region; `None` = as the AWS SDK finds it (AWS_REGION, profile, instance).
    pub region: Option<String>,
    /// Another address than the region's own; `None` = as the AWS SDK finds it (AWS_ENDPOINT_URL_DYNAMODB).
    pub endpoint: Option<String>,
    /// Fixed credentials, for the embedded server; `None` = as the AWS SDK finds them.
    pub credentials: Option<StaticCredentials>,
    /// The most reads and transactions in flight; each call has a connection of its own.
    pub connections_max: usize,
    /// The most batched write calls in flight, over all tables.
    pub calls_in_flight_max: usize,
    /// The longest that a call may take, connecting included; also the longest wait for the write budget.
    pub call_deadline: Duration,
    /// The most write units a second for each table; `None` = as many as it takes.
    pub write_units_per_second: WriteUnits,
    /// Shard counts that new tables are created with. Tables that exist keep theirs.
    pub shards: ShardCounts,
}

/// Write units a second, by table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteUnits {
    /// wallet_records.
    pub records: Option<u32>,
    /// wallet_inventory.
    pub wallets: Option<u32>,
    /// user_wallet_mapping.
    pub mappings: Option<u32>,
    /// ledger.
    pub ledger: Option<u32>,
}

/// An access key that is written down. Debug shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct StaticCredentials {
    /// The key's id.
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: String,
}

impl fmt::Debug for StaticCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticCredentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// Why something asked of the store outside a batch did not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A setting is wrong: nothing starts.
    #[error("{0}")]
    Setting(String),
    /// May pass.
    #[error("{}", .0.detail)]
    Away(Retry),
    /// The store refuses it for good, or an item cannot be read.
    #[error("{0}")]
    Refused(String),
    /// Only an index answers this, and an index is never consistent.
    #[error("a strongly consistent read of {0} is not possible: only an index answers it; ask without it")]
    NotStrong(&'static str),
}

impl From<StoreError> for Retry {
    /// For tools that make every call a few times.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Away(retry) => retry,
            error @ (StoreError::Setting(_) | StoreError::Refused(_) | StoreError::NotStrong(_)) => {
                Self { cause: RetryCause::Refused, after: None, detail: error.to_string() }
            }
        }
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Retry(retry) => Self::Away(retry),
            Trouble::Rejected(detail) => Self::Refused(detail),
        }
    }
}

/// DynamoDB: the records' and states' store, and the ledger's. One for each worker: calls fill up across its callers.
#[derive(Debug)]
pub struct Dynamo {
    client: Client,
    config: DynamoConfig,
    records: Arc<Calls>,
    wallets: Arc<Calls>,
    mappings: Arc<Calls>,
    ledger: Arc<Calls>,
    connections: Semaphore,
    shards: OnceCell<ShardCounts>,
    record_texts: insert::Texts,
    state_texts: state::Texts,
    /// Hashes of state keys that exist. A wrong entry costs a call, never a verdict.
    known: Cache<u64, ()>,
}

impl Dynamo {
    /// Ready to be asked; the tables' shard counts are read if the tables are there already.
    ///
    /// Calls are counted where there are metrics to count them. Fails for wrong settings only: tables that are missing or a store that is away show in the verdicts.
    pub async fn connect(config: DynamoConfig, metrics: Option<CallMetrics>) -> Result<Self, StoreError> {
        check(&config)?;
        let connect_deadline = config.call_deadline.min(CONNECT_DEADLINE_MAX);
        let timeouts =
            TimeoutConfig::builder().operation_timeout(config.call_deadline).connect_timeout(connect_deadline).build();
        // Retries are the caller's: it knows what else waits, and the SDK does not look into a batch's answers.
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(region) = &config.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &config.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(StaticCredentials { access_key_id, secret_access_key }) = &config.credentials {
            let credentials = Credentials::new(access_key_id, secret_access_key, None, None, "recordkeeper");
            loader = loader.credentials_provider(credentials);
        }
        let shared = loader.load().await;
        if shared.region().is_none() {
            return Err(StoreError::Setting("no AWS region: set AWS_REGION".to_owned()));
        }
        let mut client = aws_sdk_dynamodb::config::Builder::from(&shared);
        if let Some(metrics) = metrics.clone() {
            client = client.interceptor(metrics);
        }
        let client = Client::from_conf(client.build());
        let slots = Arc::new(Semaphore::new(config.calls_in_flight_max));
        let units = config.write_units_per_second;
        let calls = |table: Table, units| {
            let name = format!("{}{}", config.table_prefix, table.name());
            Calls::new(
                client.clone(),
                (table, name),
                metrics.clone(),
                (slots.clone(), config.calls_in_flight_max),
                Budget::new(units, Instant::now()),
                config.call_deadline,
            )
        };
        let dynamo = Self {
            records: calls(Table::Records, units.records),
            wallets: calls(Table::Wallets, units.wallets),
            mappings: calls(Table::Mappings, units.mappings),
            ledger: calls(Table::Ledger, units.ledger),
            connections: Semaphore::new(config.connections_max),
            shards: OnceCell::new(),
            record_texts: insert::Texts::new(&config.table_prefix),
            state_texts: state::Texts::new(&config.table_prefix),
            known: Cache::new(KNOWN_KEYS_MAX),
            client,
            config,
        };
        if let Err(trouble) = dynamo.shards().await {
            tracing::debug!(?trouble, "shard counts could not be read yet");
        }
        Ok(dynamo)
    }

    /// The settings it was made with.
    pub fn config(&self) -> &DynamoConfig {
        &self.config
    }

    /// A table's full name.
    pub fn table_name(&self, table: Table) -> String {
        format!("{}{}", self.config.table_prefix, table.name())
    }

    pub(crate) fn calls(&self, table: Table) -> &Arc<Calls> {
        match table {
            Table::Records => &self.records,
            Table::Wallets => &self.wallets,
            Table::Mappings => &self.mappings,
            // Nothing here writes requests in batches; the state machine does, one at a time.
            Table::Ledger | Table::Requests => &self.ledger,
        }
    }

    /// Waits for a free connection for a read or a transaction.
    async fn connection(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.connections.acquire().await.ok()
    }

    /// The tables' shard counts, read once.
    pub(crate) async fn shards(&self) -> Result<ShardCounts, Trouble> {
        self.shards.get_or_try_init(|| self.read_shards()).await.copied()
    }

    async fn read_shards(&self) -> Result<ShardCounts, Trouble> {
        let key = |table| vec![shards::metadata_key(table), tables::METADATA_FROM.to_owned()];
        let keys = [key(Table::Records), key(Table::Wallets)];
        let fetched = self.fetch(Table::Ledger, &keys, &[]).await;
        let counts = |key: &Vec<String>| {
            let name = self.table_name(Table::Ledger);
            let item = fetched.get(key)?.ok_or_else(|| {
                let detail = format!("{name}: no shard counts under {}: run `recordkeeper tables create`", key[0]);
                Trouble::Retry(Retry { cause: RetryCause::Refused, after: None, detail })
            })?;
            Shards::read_item(item).map_err(|what| fetch::garbled(&name, &format!("{}: {what}", key[0])))
        };
        Ok(ShardCounts { records: counts(&keys[0])?, wallets: counts(&keys[1])? })
    }

    /// For sizes, where waiting is not possible: the counts read, else those configured.
    fn shards_for_sizes(&self) -> ShardCounts {
        self.shards.get().copied().unwrap_or(self.config.shards)
    }
}

impl RecordStore for Dynamo {
    fn check_record(&self, record: &Record) -> Result<(), TooLarge> {
        record::check(record, self.shards_for_sizes().records)
    }

    fn check_state(&self, write: &StateWrite) -> Result<(), TooLarge> {
        state::check(write, self.shards_for_sizes().wallets)
    }

    fn insert<'a>(&'a self, records: &'a [&'a Record]) -> BoxFuture<'a, Vec<Inserted>> {
        Box::pin(self.insert_records(records))
    }

    fn change<'a>(&'a self, writes: &'a [&'a StateWrite]) -> BoxFuture<'a, Vec<Changed>> {
        Box::pin(self.change_states(writes))
    }

    fn transact<'a>(&'a self, transaction: Transaction<'a>) -> BoxFuture<'a, Transacted> {
        Box::pin(self.transact_all(transaction))
    }
}

/// Now, in the form that times are stored in: UTC, microseconds, 27 characters.
pub(crate) fn stored_now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

fn check(config: &DynamoConfig) -> Result<(), StoreError> {
    let named_well = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let setting = |what: String| Err(StoreError::Setting(what));
    // The prefix becomes part of statements' texts.
    if config.table_prefix.len() > 200 || !config.table_prefix.chars().all(named_well) {
        return setting("table prefix: at most 200 of a-z A-Z 0-9 _ - . are allowed".to_owned());
    }
    if config.connections_max == 0 || config.calls_in_flight_max == 0 || config.call_deadline.is_zero() {
        return setting("DynamoDB connections, calls in flight and call deadline must be above zero".to_owned());
    }
    for shards in [config.shards.records, config.shards.wallets] {
        Shards::new(shards.write, shards.read).map_err(StoreError::Setting)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_has_the_stored_form() {
        let now = stored_now();
        assert_eq!((now.len(), &now[10..11], &now[26..]), (27, "T", "Z"), "{now}");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let credentials = StaticCredentials { access_key_id: "id".into(), secret_access_key: "hush".into() };
        assert!(!format!("{credentials:?}").contains("hush"));
    }
}
