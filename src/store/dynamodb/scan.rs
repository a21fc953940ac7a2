//! Whole tables, page by page, for an audit: consistent, in the tables' own order.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};

use super::value::{Item, RECORD_DIGEST, Value, item_from_attributes, record_digest};
use super::{Dynamo, StoreError, Table, codes};
use crate::event::Digest;

/// Items of a page, at most: about as many as 1 MB has room for. A server for development may read all that is left of the
/// table for each page that has no limit.
const ITEMS_MAX: i32 = 1_000;

/// Where a scan goes on.
#[derive(Clone, Debug)]
pub struct ScanPlace(HashMap<String, AttributeValue>);

/// A page of a scan: up to 1 MB, or [`ITEMS_MAX`].
#[derive(Debug)]
pub struct ScanPage {
    /// As stored, not checked against the table's schema: an audit wants to see what does not fit. An item with a value of a
    /// foreign kind leaves its key behind.
    pub items: Vec<Result<Item, Vec<String>>>,
    /// The page after this one, if there may be one.
    pub next: Option<ScanPlace>,
    /// Read units that it took, where the store says so.
    pub units: Option<f64>,
}

impl Dynamo {
    /// One page from `place` on, from the table's beginning where there is none. Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`StoreError`] tells; nothing is tried again.
    pub async fn scan_page(&self, table: Table, place: Option<&ScanPlace>) -> Result<ScanPage, StoreError> {
        let name = self.table_name(table);
        let _connection = self.connection().await;
        let call = self.client.scan().table_name(&name).consistent_read(true);
        let call = call.limit(ITEMS_MAX).return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = call.set_exclusive_start_key(place.map(|place| place.0.clone())).send().await;
        let output = output.map_err(|error| codes::by_error(&error, &name))?;
        let (partition, sort) = table.key();
        let read = |attributes: HashMap<String, AttributeValue>| {
            let text = |name: &str| attributes.get(name).and_then(|value| value.as_s().ok()).cloned();
            let key = std::iter::once(partition).chain(sort).map(|name| text(name).unwrap_or_default()).collect();
            item_from_attributes(attributes).ok_or(key)
        };
        Ok(ScanPage {
            items: output.items.unwrap_or_default().into_iter().map(read).collect(),
            next: output.last_evaluated_key.filter(|key| !key.is_empty()).map(ScanPlace),
            units: output.consumed_capacity.and_then(|consumed| consumed.capacity_units),
        })
    }
}

/// A record as an audit sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRecord {
    /// Its key.
    pub record_id: String,
    /// Its origin, in the stored form.
    pub origin: String,
    /// The pipeline that made it.
    pub pipeline: String,
    /// When it was stored.
    pub recorded_at: String,
    /// The digest that it carries.
    pub stored: Digest,
    /// The digest over every other attribute as they are.
    pub computed: Digest,
}

/// Reads a record for an audit.
///
/// # Errors
///
/// What is missing or of another kind than declared.
pub fn kept_record(item: &Item) -> Result<KeptRecord, String> {
    Table::Records.check_read(item)?;
    let text = |name: &str| item.get(name).and_then(Value::text).unwrap_or_default();
    Ok(KeptRecord {
        record_id: text("record_id").to_owned(),
        origin: text("origin").to_owned(),
        pipeline: text("pipeline").to_owned(),
        recorded_at: text("recorded_at").to_owned(),
        stored: Digest::from_hex(text(RECORD_DIGEST)).ok_or("record_digest is no digest")?,
        computed: record_digest(item.iter().map(|(name, value)| (name.as_str(), value))),
    })
}
