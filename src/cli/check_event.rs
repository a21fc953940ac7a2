//! `check --event`: what the pipelines would make of one event. Nothing is read from or written to any backend.

use std::io::{self, Write};

use crate::event::{CreationRequest, Record, StateKey, StateValue, StateWrite};
use crate::pipeline::Prepared;

/// Writes the route, records and effects of an event, or why it is refused. False where it is refused.
pub(super) fn write(out: &mut impl Write, pipeline: &str, prepared: &Prepared) -> io::Result<bool> {
    line(out, 0, "pipeline", pipeline)?;
    match prepared {
        Prepared::Skipped => line(out, 0, "outcome", "skipped by a rule")?,
        Prepared::Refused { refusal, route, content_digest } => {
            line(out, 0, "route", route.as_ref().map_or("none", |names| &names.route))?;
            line(out, 0, "outcome", &format!("dead letter, {}: {}", refusal.reason, refusal.detail))?;
            if let Some(digest) = content_digest {
                line(out, 0, "content digest", &digest.hex())?;
            }
            return Ok(false);
        }
        Prepared::Event(event) => {
            if let Some(judge) = event.records.first() {
                line(out, 0, "route", &judge.names.route)?;
                line(out, 0, "mapping", &judge.names.mapping_revision)?;
            }
            line(out, 0, "outcome", "recorded, unless it is a duplicate or a conflict")?;
            line(out, 0, "content digest", &event.content_digest.hex())?;
            if event.transactional {
                line(out, 0, "consistency", "transactional")?;
            }
            for record in &event.records {
                write_record(out, record)?;
            }
            for state in &event.states {
                write_state(out, state)?;
            }
            if let Some(request) = &event.request {
                write_request(out, request)?;
            }
        }
    }
    Ok(true)
}

fn write_record(out: &mut impl Write, record: &Record) -> io::Result<()> {
    line(out, 0, "record", &record.record_id)?;
    line(out, 1, "type", &record.kind)?;
    line(out, 1, "occurred_at", &record.occurred_at)?;
    line(out, 1, "correlation_id", &record.correlation_id)?;
    if let Some(wallet_id) = &record.wallet_id {
        line(out, 1, "wallet_id", wallet_id)?;
    }
    for (name, value) in &record.fields {
        line(out, 1, &format!("fields.{name}"), value)?;
    }
    Ok(())
}

fn write_state(out: &mut impl Write, state: &StateWrite) -> io::Result<()> {
    let key = match &state.key {
        StateKey::Wallet { wallet_id } => format!("wallet {wallet_id}"),
        StateKey::Mapping { user_id, wallet_id } => format!("user {user_id}, wallet {wallet_id}"),
    };
    line(out, 0, "state", &key)?;
    line(out, 1, "group", state.group.name())?;
    line(out, 1, "version", &state.version.to_string())?;
    for (name, value) in &state.attributes {
        let text = match value {
            StateValue::Text(text) => text.clone(),
            StateValue::List(items) => items.join(", "),
            StateValue::Map(pairs) => {
                pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
            }
        };
        line(out, 1, name, &text)?;
    }
    Ok(())
}

fn write_request(out: &mut impl Write, request: &CreationRequest) -> io::Result<()> {
    line(out, 0, "request", &request.request_id)?;
    let parts = [
        ("request_digest", request.request_digest.hex()),
        ("tenant", request.tenant.clone()),
        ("user_id", request.user_id.clone()),
        ("chain", request.chain.clone()),
        ("custody", request.custody.clone()),
        ("alias", request.alias.clone()),
        ("generation", request.generation.clone()),
    ];
    for (name, value) in parts.iter().filter(|(_, value)| !value.is_empty()) {
        line(out, 1, name, value)?;
    }
    Ok(())
}

/// One name and its value. Values come from events: control characters are shown, never sent to a terminal.
fn line(out: &mut impl Write, depth: usize, name: &str, value: &str) -> io::Result<()> {
    let mut shown = String::with_capacity(value.len());
    for c in value.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    let width = 16 - 2 * depth;
    writeln!(out, "{:indent$}{name:width$} {shown}", "", indent = 2 * depth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::event::{Digest, Group, Origin, Partition, Position, Reason, Refusal, RouteNames, Version};
    use crate::pipeline::Mapped;

    fn shown(prepared: &Prepared) -> (bool, String) {
        let mut out = Vec::new();
        let taken = write(&mut out, "wallets", prepared).unwrap();
        (taken, String::from_utf8(out).unwrap())
    }

    #[test]
    fn an_event_is_shown_with_its_record_and_effects_and_no_control_characters() {
        let partition =
            Partition { cluster: "c".into(), topic: "t".into(), topic_id: String::new(), epoch: 0, name: "0".into() };
        let record = Record {
            record_id: "s|1".into(),
            kind: "wallet.updated".into(),
            occurred_at: "2026-01-02T03:04:05.678901Z".into(),
            source: "s".into(),
            event_id: "1".into(),
            fields: vec![("label".into(), "a\u{1b}[31mb".into())],
            content_digest: Digest::of(b"x"),
            origin: Origin { partition: Arc::new(partition), position: Position::Offset(0) },
            names: Arc::new(RouteNames {
                pipeline: "wallets".into(),
                route: "updated".into(),
                mapping_revision: "r".into(),
            }),
            correlation_id: "c".into(),
            traceparent: None,
            corrects: None,
            wallet_id: Some("ext:1".into()),
        };
        let state = StateWrite {
            key: StateKey::Wallet { wallet_id: "ext:1".into() },
            group: Group::Profile,
            version: Version::from_parts(&[3]).unwrap(),
            attributes: vec![("tags", StateValue::Map(vec![("k".into(), "v".into())]))],
        };
        let mapped = Mapped {
            content_digest: Digest::of(b"x"),
            records: vec![record],
            states: vec![state],
            request: None,
            transactional: false,
        };
        let (taken, text) = shown(&Prepared::Event(Box::new(mapped)));
        assert!(taken);
        for line in [
            "route            updated",
            "record           s|1",
            "  wallet_id      ext:1",
            "  fields.label   a\\u{1b}[31mb",
            "state            wallet ext:1",
            "  version        3",
            "  tags           k=v",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_refusal_gives_its_reason_and_is_a_failure() {
        let refusal = Refusal::new(Reason::Schema, "/amount: too short");
        let (taken, text) = shown(&Prepared::Refused { refusal, route: None, content_digest: None });
        assert!(!taken);
        assert!(text.contains("outcome          dead letter, schema: /amount: too short\n"), "{text}");
        assert!(shown(&Prepared::Skipped).0);
    }
}
