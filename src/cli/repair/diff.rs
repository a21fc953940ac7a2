//! `replay --diff`: what a replay would make of its range, beside what stands. Nothing is written.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::cli::{SummaryForm, show, table};
use crate::event::{Digest, Reason, Record, StateWrite};
use crate::pipeline::protocol::{self, Effects, Verdict};
use crate::pipeline::{Mapped, Pipeline, Prepared, delivery};
use crate::source::range::RangeSource;
use crate::source::{Provenance, RawBatch, Source as _, SourceEvent};
use crate::store::Changed;
use crate::store::dynamodb::{Compared, Dynamo};

/// Events of each kind of difference that are named.
const NAMED_MAX: usize = 20;

/// What a replay would do.
#[derive(Debug, Default, Serialize)]
pub(super) struct Differences {
    events: u64,
    /// Nothing stands under their identity.
    recorded: u64,
    /// Their own record stands, and says the same.
    present: u64,
    /// Their own record stands, and today's mapping would say other things. It stays.
    remapped: u64,
    /// The same event stands under another origin.
    duplicate: u64,
    /// Another event stands under their identity.
    conflict: u64,
    skipped: u64,
    dead_lettered: BTreeMap<&'static str, u64>,
    /// Further records that are missing.
    further_records: u64,
    /// States that would be written over lower versions, or that are missing.
    states: u64,
    /// States below the version that stands.
    stale: u64,
    /// States of the version that stands, with other content.
    ties: u64,
    /// Creation requests that would go out again.
    requests: u64,
    /// Some of what differs, by kind.
    named: BTreeMap<&'static str, Vec<String>>,
}

impl Differences {
    fn name(&mut self, kind: &'static str, what: impl FnOnce() -> String) {
        let named = self.named.entry(kind).or_default();
        if named.len() < NAMED_MAX {
            named.push(what());
        }
    }

    async fn take(
        &mut self,
        dynamo: &Dynamo,
        pipeline: &Pipeline,
        effects: Effects,
        batch: &RawBatch,
    ) -> anyhow::Result<()> {
        let mut events: Vec<(String, Box<Mapped>)> = Vec::new();
        for message in &batch.messages {
            self.events += 1;
            let origin = batch.origin(message);
            if let Provenance::Damaged(why) = &message.provenance {
                *self.dead_lettered.entry(Reason::Undecodable.name()).or_default() += 1;
                self.name("dead_lettered", || format!("{}: {why}", origin.text()));
                continue;
            }
            let headers: Vec<_> = batch.headers(message).collect();
            match pipeline.prepare(&delivery(batch, message, &origin, &headers)) {
                Prepared::Skipped => self.skipped += 1,
                Prepared::Refused { refusal, .. } => {
                    *self.dead_lettered.entry(refusal.reason.name()).or_default() += 1;
                    self.name("dead_lettered", || format!("{}: {}: {}", origin.text(), refusal.reason, refusal.detail));
                }
                Prepared::Event(mapped) => events.push((origin.text(), mapped)),
            }
        }
        self.judge(dynamo, &mut events).await?;
        let further: Vec<&Record> = events.iter().flat_map(|(_, mapped)| mapped.records.iter().skip(1)).collect();
        self.further_records +=
            dynamo.compare_records(&further).await?.iter().filter(|found| found.is_none()).count() as u64;
        if effects >= Effects::State {
            let states: Vec<&StateWrite> = events.iter().flat_map(|(_, mapped)| &mapped.states).collect();
            for (write, change) in states.iter().zip(dynamo.compare_states(&states).await?) {
                match change {
                    Some(Changed::Stale) => self.stale += 1,
                    Some(Changed::Tie) => {
                        self.ties += 1;
                        self.name("ties", || format!("{:?} {}", write.key, write.group.name()));
                    }
                    Some(_) => {}
                    None => self.states += 1,
                }
            }
        }
        if effects == Effects::All {
            self.requests += events.iter().filter(|(_, mapped)| mapped.request.is_some()).count() as u64;
        }
        Ok(())
    }

    /// Counts the events by their verdict; those of which nothing else would be written are taken out.
    async fn judge(&mut self, dynamo: &Dynamo, events: &mut Vec<(String, Box<Mapped>)>) -> anyhow::Result<()> {
        let judges: Vec<&Record> = events.iter().filter_map(|(_, mapped)| mapped.records.first()).collect();
        let standing = dynamo.compare_records(&judges).await?;
        // Of several events of one identity in a batch, the first would be recorded.
        let mut first: HashMap<&str, Digest> = HashMap::new();
        let mut settled = Vec::new();
        for (index, ((origin, mapped), found)) in events.iter().zip(standing).enumerate() {
            let Some(judge) = mapped.records.first() else { continue };
            let verdict = match &found {
                Some(found) => protocol::verdict(&mapped.content_digest, &[], origin, &found.standing),
                None => match first.get(judge.record_id.as_str()) {
                    None => {
                        first.insert(&judge.record_id, mapped.content_digest);
                        self.recorded += 1;
                        self.name("recorded", || format!("{}: {origin}", judge.record_id));
                        continue;
                    }
                    Some(earlier) if *earlier == mapped.content_digest => Verdict::Duplicate,
                    Some(_) => Verdict::Conflict,
                },
            };
            match verdict {
                Verdict::Recorded { .. } if found.is_some_and(|found| is_remapped(&found)) => {
                    self.remapped += 1;
                    self.name("remapped", || format!("{}: {origin}", judge.record_id));
                }
                Verdict::Recorded { .. } => self.present += 1,
                Verdict::Duplicate => self.duplicate += 1,
                Verdict::Corrected => {
                    self.duplicate += 1;
                    settled.push(index);
                }
                Verdict::Conflict => {
                    self.conflict += 1;
                    self.name("conflict", || format!("{}: {origin}", judge.record_id));
                    settled.push(index);
                }
            }
        }
        for index in settled.into_iter().rev() {
            events.remove(index);
        }
        Ok(())
    }

    fn table(&self) -> String {
        let dead: u64 = self.dead_lettered.values().sum();
        let rows = [
            ("events", self.events),
            ("would be recorded", self.recorded),
            ("present", self.present),
            ("remapped (the record stays as it is)", self.remapped),
            ("duplicate", self.duplicate),
            ("conflict", self.conflict),
            ("skipped", self.skipped),
            ("dead-lettered", dead),
            ("further records missing", self.further_records),
            ("states to be written", self.states),
            ("stale states", self.stale),
            ("ties", self.ties),
            ("creation requests again", self.requests),
        ];
        let rows: Vec<[String; 2]> = rows.iter().map(|(what, count)| [(*what).to_owned(), count.to_string()]).collect();
        let mut out = Vec::new();
        // Writing to memory does not fail.
        let _ = table::write(&mut out, &rows);
        for (kind, named) in &self.named {
            let _ = writeln!(out, "{kind}:");
            for what in named {
                let _ = writeln!(out, "  {what}");
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Whether today's mapping would say other things than the record that stands.
fn is_remapped(found: &Compared) -> bool {
    const MAPPED: [&str; 4] = ["fields", "occurred_at", "type", "wallet_id"];
    found.differs.iter().any(|name| MAPPED.contains(&name.as_str()))
}

/// Reads the source to its end and says what a replay would do.
///
/// # Errors
///
/// What cannot be read.
pub(super) async fn diff(
    dynamo: &Dynamo,
    pipeline: &Pipeline,
    effects: Effects,
    mut source: RangeSource,
    form: SummaryForm,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let mut differences = Differences::default();
    loop {
        let event = tokio::select! {
            event = source.next() => event?,
            () = stop.cancelled() => break,
        };
        match event {
            SourceEvent::Assigned(assignments) => {
                for assignment in assignments {
                    source.start(&assignment.partition, assignment.log_start);
                }
            }
            SourceEvent::Batch(batch) => differences.take(dynamo, pipeline, effects, &batch).await?,
            SourceEvent::EndOfInput => break,
            SourceEvent::Revoked { .. } | SourceEvent::Health { .. } => {}
        }
    }
    let text = match form {
        SummaryForm::Json => format!("{}\n", serde_json::to_string(&differences)?),
        SummaryForm::Table => differences.table(),
    };
    show(text.as_bytes())?;
    anyhow::ensure!(!stop.is_cancelled(), "stopped before its end: this is what was read");
    Ok(ExitCode::SUCCESS)
}
