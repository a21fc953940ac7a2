//! Creation requests as messages: CloudEvents in structured mode, keyed by the user.

use serde_json::{Map, Value};

use crate::event::{CreationRequest, FORMAT};
use crate::topic::{Message, Placement};

/// The type of a creation request.
pub const KIND: &str = "wallet.creation_requested";

/// The message of a request. Any redelivery of the event that asked makes the same bytes.
pub(super) fn message(request: &CreationRequest, occurred_at: &str) -> Message {
    let text = |value: &str| Value::String(value.to_owned());
    let mut data = Map::new();
    data.insert("format".into(), Value::from(FORMAT));
    for (name, value) in [
        ("request_id", &request.request_id),
        ("request_digest", &request.request_digest.hex()),
        ("tenant", &request.tenant),
        ("user_id", &request.user_id),
        ("chain", &request.chain),
        ("custody", &request.custody),
        ("alias", &request.alias),
    ] {
        data.insert(name.into(), text(value));
    }
    // Digits as checked when the event was mapped; a JSON number of any length.
    let generation = serde_json::from_str(&request.generation).unwrap_or_else(|_| text(&request.generation));
    data.insert("generation".into(), generation);
    data.insert("requested_by".into(), text(&request.requested_by));
    data.insert("correlation_id".into(), text(&request.correlation_id));
    let mut event = Map::new();
    for (name, value) in [
        ("specversion", "1.0"),
        ("id", request.request_id.as_str()),
        ("source", "recordkeeper"),
        ("type", KIND),
        ("time", occurred_at),
        ("datacontenttype", "application/json"),
        ("correlationid", request.correlation_id.as_str()),
    ] {
        event.insert(name.into(), text(value));
    }
    if let Some(traceparent) = &request.traceparent {
        event.insert("traceparent".into(), text(traceparent));
    }
    event.insert("data".into(), Value::Object(data));
    let mut headers = vec![("content-type".to_owned(), Some(b"application/cloudevents+json".to_vec()))];
    let mut carry = |name: &str, value: &str| headers.push((name.to_owned(), Some(value.as_bytes().to_vec())));
    if let Some(priority) = &request.priority {
        carry("priority", priority);
    }
    if !request.tenant.is_empty() {
        carry("tenant", &request.tenant);
    }
    if let Some(traceparent) = &request.traceparent {
        carry("traceparent", traceparent);
    }
    carry("correlationid", &request.correlation_id);
    Message {
        key: Some(request.user_id.clone().into_bytes()),
        value: Some(Value::Object(event).to_string().into_bytes()),
        headers,
        placement: Placement::ByKey,
    }
}
