//! `redrive list|show|dismiss`: dead letters as a person sees them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cli::outside::again;
use crate::cli::{EXIT_USAGE, GlobalArgs, backends, check, run, show, table, wrong};
use crate::event::Origin;
use crate::ledger::Dismissal;
use crate::pipeline::{HEADER_PREFIX, Pipeline};
use crate::source::range::read_all;
use crate::source::{RawBatch, RawMessage};

use super::args::{LetterFilter, RedriveArgs, RedriveCommand};
use super::letters::{Found, Letter, head, place};
use super::redrive::{connect, redrive, resolved, search, whole_topic};

/// Letters that a table shows.
const ROWS_MAX: usize = 100;

/// Dispatches.
///
/// # Errors
///
/// What is in the way.
pub async fn command(global: &GlobalArgs, args: &RedriveArgs) -> Result<ExitCode, anyhow::Error> {
    match &args.command {
        None => redrive(global, args).await,
        Some(RedriveCommand::List { filter, json }) => list(global, filter, *json).await,
        Some(RedriveCommand::Show { origin, payload }) => show_one(global, origin, *payload).await,
        Some(RedriveCommand::Dismiss { filter, why, execute }) => dismiss(global, filter, why, *execute).await,
    }
}

/// The open letters of every pipeline.
async fn open_letters(
    global: &GlobalArgs,
    filter: &LetterFilter,
) -> anyhow::Result<Result<Vec<(Pipeline, Found)>, ExitCode>> {
    let loaded = match global.load([]) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(Err(code)),
    };
    let settings = &loaded.settings;
    let Some(pipelines) = check::pipelines(global, settings) else { return Ok(Err(ExitCode::from(EXIT_USAGE))) };
    let dynamo = backends::dynamo(settings, None, 1, None).await?;
    let mut found = Vec::with_capacity(pipelines.len());
    let mut left = filter.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    for pipeline in pipelines {
        let ranges = whole_topic(settings, &pipeline).await?;
        let resolved = resolved(&dynamo, &pipeline, &ranges, None).await?;
        let mut letters =
            search(settings, &pipeline, &ranges, filter.clone(), resolved, &CancellationToken::new()).await?;
        letters.letters.truncate(left);
        left -= letters.letters.len();
        found.push((pipeline, letters));
    }
    Ok(Ok(found))
}

async fn list(global: &GlobalArgs, filter: &LetterFilter, as_json: bool) -> anyhow::Result<ExitCode> {
    let found = match open_letters(global, filter).await? {
        Ok(found) => found,
        Err(code) => return Ok(code),
    };
    let letters: Vec<&Letter> = found.iter().flat_map(|(_, found)| &found.letters).collect();
    if as_json {
        let mut out = String::new();
        for letter in &letters {
            writeln!(out, "{}", line(letter))?;
        }
        show(out.as_bytes())?;
    } else {
        show(shown(&letters, ROWS_MAX).as_bytes())?;
    }
    // Every pipeline looks at the same topic.
    if let Some((_, found)) = found.first() {
        say_strangers(found)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Names what the topic holds beside letters, such as letters of a later format: nothing can be done with it.
pub(super) fn say_strangers(found: &Found) -> std::io::Result<()> {
    if let (count, Some(group)) = &found.elsewhere {
        let what = "letters of a pipeline of this name were written by another group and are left alone";
        writeln!(std::io::stderr().lock(), "{count} {what}: {group}")?;
    }
    let (count, Some(((partition, offset), why))) = &found.strangers else { return Ok(()) };
    writeln!(
        std::io::stderr().lock(),
        "{count} messages of the topic are no dead letters, the first at partition {partition}, offset {offset}: {why}"
    )
}

fn line(letter: &Letter) -> Value {
    let head = &letter.head;
    json!({
        "origin": head.origin.text(), "pipeline": head.pipeline, "route": head.route, "reason": head.reason.name(),
        "detail": head.detail, "attempts": head.attempts, "first_seen": head.first_seen, "key": letter.key,
        "content_digest": head.content_digest.map(|digest| digest.hex()),
    })
}

/// Letters as a table, the first of them, and how many there are.
pub(super) fn shown(letters: &[&Letter], rows_max: usize) -> String {
    let mut rows = vec![["origin", "first seen", "attempts", "route", "reason", "detail"].map(str::to_owned)];
    for Letter { head, .. } in letters.iter().take(rows_max) {
        rows.push([
            head.origin.text(),
            head.first_seen.clone(),
            head.attempts.to_string(),
            head.route.clone(),
            head.reason.name().to_owned(),
            head.detail.clone(),
        ]);
    }
    let mut out = Vec::new();
    // Writing to memory does not fail.
    let _ = if letters.is_empty() { Ok(()) } else { table::write(&mut out, &rows) };
    let mut out = String::from_utf8_lossy(&out).into_owned();
    if letters.len() > rows_max {
        out.push_str(&format!("... and {} more\n", letters.len() - rows_max));
    }
    out.push_str(&format!("{} dead letters\n", letters.len()));
    out
}

async fn show_one(global: &GlobalArgs, origin: &str, payload: bool) -> anyhow::Result<ExitCode> {
    if Origin::parse(origin).is_none() {
        return wrong(format_args!("{origin} is no origin: `redrive list` shows them"));
    }
    let loaded = match global.load([]) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let settings = &loaded.settings;
    let Some(pipelines) = check::pipelines(global, settings) else { return Ok(ExitCode::from(EXIT_USAGE)) };
    let Some(pipeline) = pipelines.first() else { anyhow::bail!("no pipeline: name a directory that holds some") };
    let ranges = whole_topic(settings, pipeline).await?;
    let mut feed = connect(settings, pipeline, ranges.clone())?;
    let wanted = origin.to_owned();
    let looked = tokio::task::spawn_blocking(move || {
        let mut letters = Vec::new();
        read_all(&mut feed, &ranges, &CancellationToken::new(), |batch, message| {
            if let Some((partition, offset)) = place(batch, message)
                && head(batch, message).is_ok_and(|head| head.origin.text() == wanted)
            {
                letters.push(whole(batch, message, partition, offset, payload));
            }
            Ok(())
        })
        .map(|()| letters)
    });
    let letters = looked.await?.map_err(anyhow::Error::msg)?;
    if letters.is_empty() {
        writeln!(std::io::stderr().lock(), "no dead letter has this origin")?;
        return Ok(ExitCode::FAILURE);
    }
    let text = serde_json::to_string_pretty(&letters)?;
    show(format!("{text}\n").as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// One letter: all that recordkeeper says of it; key, value and the event's own headers only where they are asked for.
fn whole(batch: &RawBatch, message: &RawMessage, partition: u32, offset: u64, payload: bool) -> Value {
    let mut said = serde_json::Map::new();
    let mut own = Vec::new();
    for (name, value) in &message.headers {
        let name = String::from_utf8_lossy(batch.slice(name)).into_owned();
        let value = value.as_ref().map(|value| batch.slice(value));
        match name.strip_prefix(HEADER_PREFIX) {
            Some(name) => {
                let value = String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
                said.insert(name.to_owned(), Value::String(value));
            }
            None => own.push(json!([name, value.map(bytes)])),
        }
    }
    let mut out = json!({"partition": partition, "offset": offset, "letter": said});
    if payload && let Some(out) = out.as_object_mut() {
        let part = |range: &Option<std::ops::Range<usize>>| range.as_ref().map(|range| bytes(batch.slice(range)));
        out.insert("key".to_owned(), json!(part(&message.key)));
        out.insert("value".to_owned(), json!(part(&message.value)));
        out.insert("headers".to_owned(), Value::Array(own));
    }
    out
}

/// As text where they are UTF-8, else `{"base64": ...}`.
fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

async fn dismiss(global: &GlobalArgs, filter: &LetterFilter, why: &str, execute: bool) -> anyhow::Result<ExitCode> {
    if why.trim().is_empty() || why.len() > 1024 {
        return wrong("--why: say why, in 1 to 1024 bytes; it stays in the ledger");
    }
    let found = match open_letters(global, filter).await? {
        Ok(found) => found,
        Err(code) => return Ok(code),
    };
    let letters: Vec<&Letter> = found.iter().flat_map(|(_, found)| &found.letters).collect();
    show(shown(&letters, ROWS_MAX).as_bytes())?;
    if letters.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if !execute {
        show(b"nothing was changed: --execute dismisses them\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = match global.load([]) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let dynamo = backends::dynamo(&loaded.settings, None, 1, None).await?;
    let writer = run::writer();
    for (pipeline, found) in &found {
        let dismissal = |letter: &Letter| Dismissal { origin: letter.head.origin.text(), reason: why.to_owned() };
        let dismissals: Vec<Dismissal> = found.letters.iter().map(dismissal).collect();
        again(|| dynamo.dismiss(pipeline.group(), &dismissals, &writer)).await?;
    }
    show(b"dismissed, on record in the ledger\n")?;
    Ok(ExitCode::SUCCESS)
}
