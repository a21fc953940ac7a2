//! The last pure stage: from a valid event to everything that it asks for.

use super::decode::Event;
use super::route::{Delivery, Mapped};
use super::validate::Valid;
use super::value::{Values, fill, refuse};
use crate::config::pipelines::{AgreeSpec, Identity, MappingSpec, RecordSpec, RequestSpec, ValueSpec, WalletSpec};
use crate::event::{
    CreationRequest, Digest, Group, Pointer, Reason, Record, Refusal, StateKey, StateValue, StateWrite, WalletId,
    canonical_address, canonical_time, check_chain, check_user_id, content_digest, envelope, ids::record_id,
    parse_version, request_digest, time,
};

/// Who an event is.
#[derive(Debug)]
pub(super) struct Identified {
    pub(super) source: String,
    pub(super) id: String,
    pub(super) content_digest: Digest,
}

/// Source, id and content digest of an event.
///
/// # Errors
/// The route's id cannot be made from it, or is too long for its key.
pub(super) fn identify(identity: &Identity, event: &Event<'_>) -> Result<Identified, Refusal> {
    let (source, id, kind) = match (identity, event.envelope()) {
        (Identity::Envelope, Some(envelope)) => (envelope.source.to_owned(), envelope.id.to_owned(), envelope.kind),
        (Identity::Envelope, None) => return Err(Refusal::new(Reason::Schema, "the event has no envelope")),
        (Identity::Route { source, id, .. }, _) => (source.clone(), fill(event, id)?, ""),
    };
    envelope::check_identity(&source, &id)?;
    let content_digest = content_digest(&source, &id, kind, event.data());
    Ok(Identified { source, id, content_digest })
}

/// Maps a valid event.
///
/// # Errors
/// A pointer, id, address, amount, version or time that the route needs is missing or malformed.
pub(super) fn map(valid: &Valid<'_, '_>, identified: Identified) -> Result<Mapped, Refusal> {
    let Valid(classified) = valid;
    let (keep, delivery) = (&classified.keeping.keep, classified.delivery);
    let occurred_at = occurred_at(&keep.identity, &classified.event, delivery)?;
    let values = Values { event: classified.event, time: &occurred_at };
    if let Some(agree) = &keep.agree {
        check_agreement(&values, agree)?;
    }
    let judge_id = record_id(&identified.source, &identified.id, None);
    let envelope = classified.event.envelope();
    let correlation_id = envelope
        .and_then(|envelope| envelope.correlation_id)
        .or_else(|| header(delivery, "correlationid"))
        .unwrap_or(&judge_id);
    let traceparent = envelope.and_then(|envelope| envelope.traceparent).or_else(|| header(delivery, "traceparent"));
    let mut records = Vec::with_capacity(keep.records.len());
    for (at, spec) in keep.records.iter().enumerate() {
        if at > 0 && !values.holds(spec.when.as_ref()) {
            continue;
        }
        let (wallet_id, fields) = record(&values, spec)?;
        records.push(Record {
            record_id: match at {
                0 => judge_id.clone(),
                _ => record_id(&identified.source, &identified.id, Some(&spec.name)),
            },
            kind: spec.kind.clone(),
            occurred_at: occurred_at.clone(),
            source: identified.source.clone(),
            event_id: identified.id.clone(),
            fields,
            content_digest: identified.content_digest,
            origin: delivery.origin.clone(),
            names: classified.route.names.clone(),
            correlation_id: correlation_id.to_owned(),
            traceparent: traceparent.map(str::to_owned),
            corrects: None,
            wallet_id,
        });
    }
    let mut states = Vec::new();
    if let Some(spec) = keep.wallet.as_ref().filter(|spec| values.holds(spec.when.as_ref())) {
        states.push(wallet(&values, spec)?);
    }
    if let Some(spec) = keep.mapping.as_ref().filter(|spec| values.holds(spec.when.as_ref())) {
        states.push(mapping(&values, spec)?);
    }
    let request = match keep.request.as_ref().filter(|spec| values.holds(spec.when.as_ref())) {
        Some(spec) => Some(CreationRequest {
            requested_by: judge_id.clone(),
            correlation_id: correlation_id.to_owned(),
            traceparent: traceparent.map(str::to_owned),
            ..request(&values, spec)?
        }),
        None => None,
    };
    let transactional = keep.transactional;
    Ok(Mapped { content_digest: identified.content_digest, records, states, request, transactional })
}

/// The event's own time, else the broker's.
fn occurred_at(identity: &Identity, event: &Event<'_>, delivery: &Delivery<'_>) -> Result<String, Refusal> {
    let own = match (identity, event.envelope()) {
        (Identity::Envelope, Some(envelope)) => envelope.time.map(canonical_time),
        (Identity::Envelope, None) | (Identity::Route { time: None, .. }, _) => None,
        (Identity::Route { time: Some(pointer), .. }, _) => own_time(event, pointer)?,
    };
    if let Some(own) = own {
        return own;
    }
    delivery
        .timestamp_ms
        .and_then(time::from_millis)
        .ok_or_else(|| Refusal::new(Reason::Mapping, "neither the event nor the broker gives a time"))
}

/// A text is RFC 3339, a number is seconds since 1970.
fn own_time(event: &Event<'_>, pointer: &Pointer) -> Result<Option<Result<String, Refusal>>, Refusal> {
    let values = Values { event: *event, time: "" };
    if values.present(pointer).is_none() {
        return Ok(None);
    }
    let node = values.node(pointer)?;
    match (node.as_str(), node.as_number()) {
        (Some(text), _) => Ok(Some(canonical_time(text))),
        (None, Some(digits)) => Ok(Some(time::from_epoch_seconds(digits))),
        (None, None) => Err(refuse(pointer, "a time is a text or a number of seconds")),
    }
}

fn header<'d>(delivery: &Delivery<'d>, name: &str) -> Option<&'d str> {
    let (_, value) = delivery.headers.iter().find(|(header, _)| *header == name)?;
    std::str::from_utf8((*value)?).ok().filter(|text| !text.is_empty())
}

/// What repeats parts of the wallet's id must say the same in canonical form.
fn check_agreement(values: &Values<'_, '_>, spec: &AgreeSpec) -> Result<(), Refusal> {
    let wallet = values.wallet(&spec.wallet)?;
    for (pointer, part) in [(&spec.blockchain_type, wallet.blockchain_type()), (&spec.chain, wallet.chain())] {
        let Some(pointer) = pointer else { continue };
        if values.scalar(pointer)?.is_some_and(|text| text != part) {
            return Err(refuse(pointer, "does not agree with the wallet's id"));
        }
    }
    if let Some(pointer) = &spec.address
        && let Some(text) = values.scalar(pointer)?
    {
        let address = canonical_address(wallet.chain(), text).map_err(|error| refuse(pointer, error.detail))?;
        if address != wallet.address() {
            return Err(refuse(pointer, "does not agree with the wallet's id"));
        }
    }
    Ok(())
}

type Fields = Vec<(std::sync::Arc<str>, String)>;

fn record(values: &Values<'_, '_>, spec: &RecordSpec) -> Result<(Option<String>, Fields), Refusal> {
    let wallet = spec.wallet.as_ref().map(|template| values.wallet(template)).transpose()?;
    let chain = wallet.as_ref().map(WalletId::chain);
    let mut fields = Vec::with_capacity(spec.fields.len());
    for (name, value) in &spec.fields {
        if let Some(text) = values.text(value, chain)? {
            fields.push((name.clone(), text));
        }
    }
    Ok((wallet.map(WalletId::into_string), fields))
}

fn attributes(
    values: &Values<'_, '_>,
    specs: &[(&'static str, ValueSpec)],
    chain: &str,
) -> Result<Vec<(&'static str, StateValue)>, Refusal> {
    let mut attributes = Vec::with_capacity(specs.len());
    for (name, value) in specs {
        if let Some(value) = values.state(value, chain)? {
            attributes.push((*name, value));
        }
    }
    Ok(attributes)
}

fn wallet(values: &Values<'_, '_>, spec: &WalletSpec) -> Result<StateWrite, Refusal> {
    let wallet = values.wallet(&spec.id)?;
    let version = version(values, &spec.version)?;
    let attributes = attributes(values, &spec.attributes, wallet.chain())?;
    // The index by chain and status is keyed by it.
    if spec.group == Group::Status && !attributes.iter().any(|(name, _)| *name == "wallet_status") {
        return Err(refuse("wallet_status", "a status cannot be written without it"));
    }
    let key = StateKey::Wallet { wallet_id: wallet.into_string() };
    Ok(StateWrite { key, group: spec.group, version, attributes })
}

fn mapping(values: &Values<'_, '_>, spec: &MappingSpec) -> Result<StateWrite, Refusal> {
    let wallet = values.wallet(&spec.wallet)?;
    let user_id = values.fill(&spec.user)?;
    check_user_id(&user_id)?;
    let version = version(values, &spec.version)?;
    let attributes = attributes(values, &spec.attributes, wallet.chain())?;
    let key = StateKey::Mapping { user_id, wallet_id: wallet.into_string() };
    Ok(StateWrite { key, group: Group::Mapping, version, attributes })
}

fn version(values: &Values<'_, '_>, pointer: &Pointer) -> Result<crate::event::Version, Refusal> {
    parse_version(values.node(pointer)?).map_err(|refusal| refuse(pointer, refusal.detail))
}

/// The request, but for who asked.
fn request(values: &Values<'_, '_>, spec: &RequestSpec) -> Result<CreationRequest, Refusal> {
    let required = |name: &str, value: &ValueSpec| {
        let text = values.text(value, None)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| refuse(name, "a request needs it"))
    };
    let optional = |value: &Option<ValueSpec>| match value {
        Some(value) => values.text(value, None),
        None => Ok(None),
    };
    let user_id = values.fill(&spec.user)?;
    check_user_id(&user_id)?;
    let chain = required("chain", &spec.chain)?;
    check_chain(&chain)?;
    if chain.starts_with("bitcoin") || chain == "ext" {
        return Err(refuse("chain", "no wallets are created there"));
    }
    let custody = required("custody", &spec.custody)?;
    if !["hsm", "kms", "vendor"].contains(&custody.as_str()) {
        return Err(refuse("custody", "must be hsm, kms or vendor"));
    }
    let alias = required("alias", &spec.alias)?;
    let generation = optional(&spec.generation)?.unwrap_or_else(|| "1".to_owned());
    // Only the decimal form: `01` and `1` would be two digests of one request.
    if generation.starts_with(['0', '+']) || generation.parse::<u64>().is_err() {
        return Err(refuse("generation", "must be an integer from 1"));
    }
    let tenant = optional(&spec.tenant)?.unwrap_or_default();
    let request_digest = request_digest(&tenant, &user_id, &chain, &custody, &alias, &generation);
    let request_id = match optional(&spec.request_id)? {
        None => request_digest.hex(),
        Some(own) if is_request_id(&own) => own,
        Some(_) => return Err(refuse("request_id", "must be 1 to 64 of 0-9, a-z and -")),
    };
    Ok(CreationRequest {
        request_id,
        request_digest,
        tenant,
        user_id,
        chain,
        custody,
        alias,
        generation,
        requested_by: String::new(),
        correlation_id: String::new(),
        priority: optional(&spec.priority)?,
        traceparent: None,
    })
}

fn is_request_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase() || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}
