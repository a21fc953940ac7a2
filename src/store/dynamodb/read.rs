//! What stands in the tables, for people and for `serve`.
//!
//! Questions that the table's own key answers may be asked strongly; those that only an index answers may not. Items leave
//! as stored, checked against their table's schema.

use aws_sdk_dynamodb::types::AttributeValue;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use std::collections::HashMap;
use std::sync::Arc;

use super::fetch::garbled;
use super::record::wallet_shard;
use super::schema::Table;
use super::state::chain_status_shard;
use super::value::{Item, Value, item_from_attributes};
use super::{Dynamo, StoreError};

/// How many shards are asked at once.
const SHARDS_AT_ONCE: usize = 8;
/// The most items of one page of any answer.
pub const PAGE_MAX: usize = 1_000;

/// Items and where the next page begins, if there may be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the answer's order.
    pub items: Vec<Item>,
    /// To be given back for the next page.
    pub next: Option<String>,
}

/// Which of a wallet's records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordsOf {
    /// Whose.
    pub wallet_id: String,
    /// Those that occurred at or after this time, in the stored form or a prefix of it.
    pub from: Option<String>,
    /// Those that occurred before this time.
    pub to: Option<String>,
    /// Newest first instead of oldest first.
    pub newest_first: bool,
    /// [`Page::next`] of the page before.
    pub after: Option<String>,
    /// The most items; above [`PAGE_MAX`] that.
    pub limit: usize,
}

/// Answers questions about what is stored. Cancel safe.
#[derive(Clone, Debug)]
pub struct Reader {
    dynamo: Arc<Dynamo>,
}

impl Reader {
    /// Over these tables.
    pub fn new(dynamo: Arc<Dynamo>) -> Self {
        Self { dynamo }
    }

    /// A wallet's state.
    pub async fn wallet(&self, wallet_id: &str, strong: bool) -> Result<Option<Item>, StoreError> {
        self.one(Table::Wallets, wallet_id, strong).await
    }

    /// A record.
    pub async fn record(&self, record_id: &str, strong: bool) -> Result<Option<Item>, StoreError> {
        self.one(Table::Records, record_id, strong).await
    }

    /// A creation request, as the state machine left it.
    pub async fn request(&self, request_id: &str, strong: bool) -> Result<Option<Item>, StoreError> {
        self.one(Table::Requests, request_id, strong).await
    }

    /// A wallet's records in the order of when they occurred, over all shards of the index.
    pub async fn wallet_records(&self, of: &RecordsOf, strong: bool) -> Result<Page, StoreError> {
        if strong {
            return Err(StoreError::NotStrong("a wallet's records"));
        }
        let limit = of.limit.clamp(1, PAGE_MAX);
        let (low, high) = bounds(of);
        let shards = self.dynamo.shards().await?.records.read;
        let queries = (0..shards).map(|shard| Query {
            table: Table::Records,
            index: true,
            key: wallet_shard(&of.wallet_id, u64::from(shard)),
            range: Some(Range::Between(low.clone(), high.clone())),
            newest_first: of.newest_first,
            // One more than asked for: the page before may have ended with the first of them.
            limit: limit + 1,
            strong: false,
            start: None,
        });
        let dynamo = &self.dynamo;
        let found: Vec<Vec<Item>> = stream::iter(queries.map(|query| async move { dynamo.query(query).await }))
            .buffer_unordered(SHARDS_AT_ONCE)
            .try_collect()
            .await?;
        let sort = |item: &Item| item.get("sort").and_then(Value::text).unwrap_or_default().to_owned();
        let mut items: Vec<_> = found.into_iter().flatten().map(|item| (sort(&item), item)).collect();
        items.retain(|(sort, _)| of.after.as_ref() != Some(sort));
        items.sort_by(|a, b| if of.newest_first { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) });
        let next = if items.len() > limit { items.get(limit - 1).map(|(sort, _)| sort.clone()) } else { None };
        items.truncate(limit);
        Ok(Page { items: items.into_iter().map(|(_, item)| item).collect(), next })
    }

    /// Wallets of a chain and status, shard by shard; inside a shard those that changed last come last.
    pub async fn wallets_by_chain_and_status(
        &self,
        blockchain_type: &str,
        status: &str,
        after: Option<&str>,
        limit: usize,
        strong: bool,
    ) -> Result<Page, StoreError> {
        if strong {
            return Err(StoreError::NotStrong("wallets by chain and status"));
        }
        let limit = limit.clamp(1, PAGE_MAX);
        let shards = self.dynamo.shards().await?.wallets.read;
        let (first, mut last_seen) = match after {
            None => (0, None),
            Some(text) => read_place(text).ok_or_else(|| StoreError::Setting(format!("{text:?} is no page")))?,
        };
        let mut items: Vec<Item> = Vec::new();
        for shard in first..shards {
            let key = chain_status_shard(blockchain_type, status, u64::from(shard));
            let start = last_seen.take().map(|(updated_at, wallet_id): (String, String)| {
                let text = |name: &str, text: String| (name.to_owned(), AttributeValue::S(text));
                [text("chain_status_shard", key.clone()), text("updated_at", updated_at), text("wallet_id", wallet_id)]
                    .into()
            });
            let found = self.dynamo.query(Query {
                table: Table::Wallets,
                index: true,
                key,
                range: None,
                newest_first: false,
                limit: limit - items.len(),
                strong: false,
                start,
            });
            items.extend(found.await?);
            if items.len() >= limit {
                let next = items.last().map(|item| place(shard, item));
                return Ok(Page { items, next });
            }
        }
        Ok(Page { items, next: None })
    }

    /// A user's rights, by wallet id.
    pub async fn mappings_by_user(
        &self,
        user_id: &str,
        after: Option<&str>,
        limit: usize,
        strong: bool,
    ) -> Result<Page, StoreError> {
        self.mappings(user_id, false, after, limit, strong).await
    }

    /// Who has a right to a wallet, by user id.
    pub async fn mappings_by_wallet(
        &self,
        wallet_id: &str,
        after: Option<&str>,
        limit: usize,
        strong: bool,
    ) -> Result<Page, StoreError> {
        if strong {
            return Err(StoreError::NotStrong("a wallet's users"));
        }
        self.mappings(wallet_id, true, after, limit, false).await
    }

    async fn mappings(
        &self,
        key: &str,
        by_wallet: bool,
        after: Option<&str>,
        limit: usize,
        strong: bool,
    ) -> Result<Page, StoreError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let query = Query {
            table: Table::Mappings,
            index: by_wallet,
            key: key.to_owned(),
            range: after.map(|after| Range::Above(after.to_owned())),
            newest_first: false,
            limit: limit + 1,
            strong,
            start: None,
        };
        let mut items = self.dynamo.query(query).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let name = if by_wallet { "user_id" } else { "wallet_id" };
        let last = items.last().and_then(|item| item.get(name)?.text().map(str::to_owned));
        Ok(Page { items, next: last.filter(|_| more) })
    }

    async fn one(&self, table: Table, key: &str, strong: bool) -> Result<Option<Item>, StoreError> {
        let name = self.dynamo.table_name(table);
        let call = self.dynamo.client.get_item().table_name(&name).consistent_read(strong);
        let call = call.key(table.key().0, AttributeValue::S(key.to_owned())).send();
        let output = self.dynamo.read(table, call).await?;
        output.item.map(|attributes| self.dynamo.checked(table, attributes)).transpose()
    }
}

/// The sort keys of the records asked for. No time is a prefix of `#`, so `to` itself lies outside.
fn bounds(of: &RecordsOf) -> (String, String) {
    let mut low = of.from.clone().filter(|from| !from.is_empty()).unwrap_or_else(|| "0".to_owned());
    let mut high = of.to.clone().filter(|to| !to.is_empty()).unwrap_or_else(|| "~".to_owned());
    if let Some(after) = &of.after {
        if of.newest_first {
            high = high.min(after.clone());
        } else {
            low = low.max(after.clone());
        }
    }
    (low, high)
}

fn place(shard: u32, item: &Item) -> String {
    let text = |name: &str| item.get(name).and_then(Value::text).unwrap_or_default();
    format!("{shard} {} {}", text("updated_at"), text("wallet_id"))
}

fn read_place(text: &str) -> Option<(u32, Option<(String, String)>)> {
    let mut parts = text.splitn(3, ' ');
    let shard = parts.next()?.parse().ok()?;
    Some((shard, Some((parts.next()?.to_owned(), parts.next()?.to_owned()))))
}

/// A condition on the sort key.
#[derive(Clone, Debug)]
pub(crate) enum Range {
    /// Both included.
    Between(String, String),
    Above(String),
    AtMost(String),
}

/// One query of a table or its index.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) table: Table,
    pub(crate) index: bool,
    pub(crate) key: String,
    pub(crate) range: Option<Range>,
    pub(crate) newest_first: bool,
    pub(crate) limit: usize,
    pub(crate) strong: bool,
    pub(crate) start: Option<HashMap<String, AttributeValue>>,
}

impl Dynamo {
    /// Up to `limit` items, however many calls that takes (a call ends at 1 MB).
    pub(crate) async fn query(&self, query: Query) -> Result<Vec<Item>, StoreError> {
        let table = query.table;
        let found = self.query_stored(query).await?;
        found.into_iter().map(|attributes| self.checked(table, attributes)).collect()
    }

    /// As [`Dynamo::query`], not checked against the table's schema; `None` for an item with a value of a foreign kind.
    pub(crate) async fn query_unchecked(&self, query: Query) -> Result<Vec<Option<Item>>, StoreError> {
        Ok(self.query_stored(query).await?.into_iter().map(item_from_attributes).collect())
    }

    async fn query_stored(&self, query: Query) -> Result<Vec<HashMap<String, AttributeValue>>, StoreError> {
        let name = self.table_name(query.table);
        let (partition, sort) = match query.table.index().filter(|_| query.index) {
            Some(index) => (index.partition, Some(index.sort)),
            None => query.table.key(),
        };
        if let Some(Range::Between(low, high)) = &query.range
            && low > high
        {
            return Ok(Vec::new());
        }
        let mut call = self.client.query().table_name(&name).consistent_read(query.strong);
        call = call.scan_index_forward(!query.newest_first).expression_attribute_names("#p", partition);
        call = call.expression_attribute_values(":p", AttributeValue::S(query.key));
        if let Some(index) = query.table.index().filter(|_| query.index) {
            call = call.index_name(index.name);
        }
        let mut condition = "#p = :p".to_owned();
        if let Some(range) = query.range {
            let (test, values) = match range {
                Range::Between(low, high) => (" AND #s BETWEEN :a AND :b", vec![(":a", low), (":b", high)]),
                Range::Above(low) => (" AND #s > :a", vec![(":a", low)]),
                Range::AtMost(high) => (" AND #s <= :a", vec![(":a", high)]),
            };
            condition.push_str(test);
            call = call.expression_attribute_names("#s", sort.unwrap_or_default());
            for (placeholder, value) in values {
                call = call.expression_attribute_values(placeholder, AttributeValue::S(value));
            }
        }
        call = call.key_condition_expression(condition);
        let (mut items, mut start) = (Vec::new(), query.start);
        while items.len() < query.limit {
            let left = i32::try_from(query.limit - items.len()).unwrap_or(i32::MAX);
            let page = call.clone().limit(left).set_exclusive_start_key(start.take()).send();
            let output = self.read(query.table, page).await?;
            items.extend(output.items.unwrap_or_default());
            start = output.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                break;
            }
        }
        Ok(items)
    }

    /// An item just read, in its own form and checked against its table's schema.
    fn checked(&self, table: Table, attributes: HashMap<String, AttributeValue>) -> Result<Item, StoreError> {
        let name = self.table_name(table);
        let item = item_from_attributes(attributes).ok_or_else(|| garbled(&name, "a value of a foreign kind"))?;
        table.check_read(&item).map_err(|what| {
            let (partition, sort) = table.key();
            let key: Vec<_> = std::iter::once(partition).chain(sort).map(|name| item.get(name)).collect();
            garbled(&name, &format!("{key:?}: {what}"))
        })?;
        Ok(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_on_from_the_last_item() {
        let of =
            RecordsOf { after: Some("2026-01-03#x".into()), from: Some("2026-01-01".into()), ..RecordsOf::default() };
        assert_eq!(bounds(&of), ("2026-01-03#x".into(), "~".into()));
        let of = RecordsOf { newest_first: true, to: Some("2026-02".into()), ..of };
        assert_eq!(bounds(&of), ("2026-01-01".into(), "2026-01-03#x".into()));
    }

    #[test]
    fn a_place_reads_back_whatever_the_wallet_is_called() {
        let text = |text: &str| Value::Text(text.to_owned());
        let item = [("updated_at".to_owned(), text("t")), ("wallet_id".to_owned(), text("a b c"))].into();
        assert_eq!(read_place(&place(7, &item)), Some((7, Some(("t".into(), "a b c".into())))));
        assert_eq!(read_place("x"), None);
    }
}
