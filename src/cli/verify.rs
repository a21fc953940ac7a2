//! `verify`: the audit of records and ledger.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::audit::{Audit, Chains, Kind, Report};
use crate::event::Position;
use crate::ledger::{HeadKey, Kept, read_kept};
use crate::store::Retry;
use crate::store::dynamodb::{Dynamo, Item, ScanPlace, Table, Value, kept_record};

use super::outside::again;
use super::{EXIT_USAGE, GlobalArgs, VerifyArgs, backends, check, run, show, verify_source, wrong};

/// What a mark says of why, at most.
const REASON_CHARS_MAX: usize = 500;
/// No line of a file of heads is longer.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// Items of one page that are looked up by themselves.
const PAGE: usize = 500;

/// Audits the tables. Exit code 1 where anything is wrong.
pub async fn verify(global: &GlobalArgs, args: &VerifyArgs) -> Result<ExitCode, anyhow::Error> {
    let loaded = match global.load([]) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let pipelines = match args.source.then(|| check::pipelines(global, &loaded.settings)) {
        Some(None) => return Ok(ExitCode::from(EXIT_USAGE)),
        Some(pipelines) => pipelines,
        None => None,
    };
    let mut chains = Chains::default();
    // Before the ledger is read, so that what they say lies in it.
    let heads = match (&args.heads, &args.heads_key) {
        (Some(file), Some(key)) => match read_heads(file, key, &mut chains) {
            Ok(HeadsRead { count: 0, .. }) => {
                let (file, key) = (file.display(), key.display());
                return wrong(format_args!("{file}: no head in it fits {key}: nothing can be checked against it"));
            }
            Ok(heads) => Some(heads),
            Err(what) => return wrong(what),
        },
        _ => None,
    };
    let dynamo = backends::dynamo(&loaded.settings, None, 1, None).await?;
    let mut report = audit(&dynamo, args, chains).await?;
    if let Some(pipelines) = &pipelines {
        let suspects = std::mem::take(&mut report.suspects);
        verify_source::compare(&loaded.settings, pipelines, &dynamo, &suspects, &mut report.findings).await?;
    }
    show(&shown(&report, heads.as_ref(), args.json)?)?;
    if args.mark_broken {
        mark_broken(&dynamo, &report).await?;
    }
    Ok(if report.findings.has_fault() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Marks each chain that a fault names. One that is marked already keeps its mark.
async fn mark_broken(dynamo: &Dynamo, report: &Report) -> anyhow::Result<()> {
    let writer = run::writer();
    for (chain, fault) in report.findings.faults() {
        let reason: String = fault.chars().take(REASON_CHARS_MAX).collect();
        again(|| dynamo.mark_broken(chain, &reason, &writer)).await?;
        writeln!(std::io::stderr().lock(), "marked as broken: {chain}")?;
    }
    Ok(())
}

/// The ledger first: what it attests stands among the records by then.
async fn audit(dynamo: &Dynamo, args: &VerifyArgs, mut chains: Chains) -> anyhow::Result<Report> {
    scan(dynamo, args, Table::Ledger, "ledger", |item| {
        chains.add(match item {
            Ok(item) => read_kept(&item),
            Err(key) => {
                let [key, from] = <[String; 2]>::try_from(key).unwrap_or_default();
                Kept::Garbled { key, from, what: "a value of a foreign kind".to_owned() }
            }
        });
    })
    .await?;
    // What was written while the scan went on may stand where it had passed; what that says may ask for more.
    for _ in 0..2 {
        for (key, above) in chains.passed_by() {
            add_above(dynamo, &mut chains, &key, above).await?;
        }
    }
    let mut audit = chains.check();
    scan(dynamo, args, Table::Records, "records", |item| first_look(&mut audit, item)).await?;
    if audit.compare() {
        let again = |item: Result<Item, Vec<String>>| {
            // What cannot be read was said on the first look.
            if let Some(record) = item.ok().and_then(|item| kept_record(&item).ok()) {
                audit.record_again(&record);
            }
        };
        scan(dynamo, args, Table::Records, "records, to name what differs", again).await?;
    }
    Ok(audit.conclude())
}

/// Takes what stands under a key above a position.
async fn add_above(dynamo: &Dynamo, chains: &mut Chains, key: &str, mut above: Option<Position>) -> anyhow::Result<()> {
    loop {
        let page = again(|| dynamo.kept_items(key, above, PAGE)).await?;
        let whole = page.len() < PAGE;
        let last = page.iter().rev().find_map(|(from, _)| *from);
        page.into_iter().for_each(|(_, kept)| chains.add(kept));
        // Epochs have no positions; a lineage does not have more than a page of them.
        if whole || last.is_none() {
            return Ok(());
        }
        above = last;
    }
}

/// What a file of heads held.
#[derive(Default)]
struct HeadsRead {
    /// Heads whose signatures fit.
    count: u64,
    /// When the newest one was made.
    newest: String,
}

/// Reads a file of heads, a line in memory at a time. The error is the user's.
fn read_heads(file: &Path, key: &Path, chains: &mut Chains) -> Result<HeadsRead, String> {
    let wrong = |file: &Path, what: &dyn std::fmt::Display| format!("{}: {what}", file.display());
    let text = std::fs::read_to_string(key).map_err(|error| wrong(key, &error))?;
    let key = HeadKey::from_pem(&text).map_err(|what| wrong(key, &what))?;
    if !std::fs::metadata(file).map_err(|error| wrong(file, &error))?.is_file() {
        return Err(wrong(file, &"not a regular file"));
    }
    let opened = std::fs::File::open(file).map_err(|error| wrong(file, &error))?;
    let (mut lines, mut line, mut number) = (BufReader::new(opened), Vec::new(), 0);
    let mut read = HeadsRead::default();
    loop {
        line.clear();
        let bytes = lines.by_ref().take(HEAD_BYTES_MAX).read_until(b'\n', &mut line);
        if bytes.map_err(|error| wrong(file, &error))? == 0 {
            return Ok(read);
        }
        number += 1;
        match key.read(String::from_utf8_lossy(&line).trim_end()) {
            _ if line.trim_ascii().is_empty() => {}
            Ok(head) => {
                read.count += 1;
                if head.at > read.newest {
                    read.newest.clone_from(&head.at);
                }
                chains.head(head);
            }
            Err(what) => chains.unsound_head(number, &what),
        }
    }
}

fn first_look(audit: &mut Audit, item: Result<Item, Vec<String>>) {
    let item = match item {
        Ok(item) => item,
        Err(key) => return audit.unreadable_record(&key.concat(), None, "a value of a foreign kind"),
    };
    match kept_record(&item) {
        Ok(record) => audit.record(&record),
        Err(what) => {
            let text = |name: &str| item.get(name).and_then(Value::text);
            audit.unreadable_record(text("record_id").unwrap_or_default(), text("origin"), &what);
        }
    }
}

/// Reads a table from end to end, a page in memory at a time, and tells how it gets on.
async fn scan(
    dynamo: &Dynamo,
    args: &VerifyArgs,
    table: Table,
    what: &str,
    mut take: impl FnMut(Result<Item, Vec<String>>),
) -> anyhow::Result<()> {
    let mut progress = Progress::new(what);
    let mut place: Option<ScanPlace> = None;
    loop {
        let began = Instant::now();
        let page = again(|| async { dynamo.scan_page(table, place.as_ref()).await.map_err(Retry::from) }).await?;
        progress.add(page.items.len() as u64);
        page.items.into_iter().for_each(&mut take);
        place = page.next;
        if place.is_none() {
            progress.end();
            return Ok(());
        }
        if let (Some(limit), Some(units)) = (args.read_units, page.units) {
            let due = Duration::from_secs_f64(units / f64::from(limit));
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
    }
}

/// A line on standard error: rewritten on a terminal, else written every few seconds.
struct Progress<'a> {
    what: &'a str,
    items: u64,
    terminal: bool,
    said: Instant,
}

impl<'a> Progress<'a> {
    fn new(what: &'a str) -> Self {
        Self { what, items: 0, terminal: std::io::stderr().is_terminal(), said: Instant::now() }
    }

    fn add(&mut self, items: u64) {
        self.items += items;
        let every = Duration::from_secs(if self.terminal { 1 } else { 5 });
        if self.said.elapsed() >= every {
            self.said = Instant::now();
            self.say(if self.terminal { "" } else { "\n" });
        }
    }

    fn end(&self) {
        self.say("\n");
    }

    fn say(&self, end: &str) {
        let begin = if self.terminal { "\r\x1b[K" } else { "" };
        // Where standard error is gone nobody watches.
        let _ = write!(std::io::stderr().lock(), "{begin}{}: {} items read{end}", self.what, self.items);
    }
}

fn shown(report: &Report, heads: Option<&HeadsRead>, as_json: bool) -> anyhow::Result<Vec<u8>> {
    let (findings, counts) = (&report.findings, &report.counts);
    let found = Kind::ALL.into_iter().filter(|kind| findings.count(*kind) > 0);
    let mut out = Vec::new();
    if as_json {
        for finding in findings.shown() {
            writeln!(out, "{}", finding.json())?;
        }
        let found: serde_json::Map<_, _> =
            found.map(|kind| (kind.name().to_owned(), json!(findings.count(kind)))).collect();
        let summary = json!({"summary": {
            "chains": counts.chains, "entries": counts.entries, "positions": counts.positions,
            "records": counts.records, "in_flight": counts.in_flight, "in_gaps": counts.in_gaps,
            "unattested": counts.unattested, "findings": found, "not_shown": findings.left_out(),
            "heads": heads.map(|heads| json!({"read": heads.count, "newest": heads.newest})),
            "sound": !findings.has_fault(),
        }});
        writeln!(out, "{summary}")?;
        return Ok(out);
    }
    for finding in findings.shown() {
        writeln!(out, "{finding}")?;
    }
    if findings.left_out() > 0 {
        writeln!(out, "and {} findings that are not shown", findings.left_out())?;
    }
    writeln!(
        out,
        "{} chains, {} entries, {} positions, {} records",
        counts.chains, counts.entries, counts.positions, counts.records
    )?;
    match heads {
        Some(heads) => writeln!(out, "{} heads, the newest of {}", heads.count, heads.newest)?,
        None => writeln!(out, "no heads were given (--heads): a cut or rewritten chain is not seen")?,
    }
    let aside = [
        (counts.in_flight, "records are not attested yet: their origins lie above where the ledger ends"),
        (counts.in_gaps, "records lie in gaps of the ledger"),
        (counts.unattested, "records are attested by no entry, which may be by right"),
    ];
    for (count, what) in aside.iter().filter(|(count, _)| *count > 0) {
        writeln!(out, "{count} {what}")?;
    }
    let found: Vec<String> =
        found.filter(|kind| kind.is_fault()).map(|kind| format!("{} {}", findings.count(kind), kind.name())).collect();
    match found.is_empty() {
        true => writeln!(out, "sound: nothing is missing, altered or foreign")?,
        false => writeln!(out, "NOT SOUND: {}", found.join(", "))?,
    }
    Ok(out)
}
