//! `check`: says everything that is wrong with configuration and pipelines, or what applies.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use super::{CheckArgs, EXIT_USAGE, GlobalArgs, backends, check_event, report, show, table, wrong};
use crate::config::{self, Diagnostic, Effective, Fault, Settings, Severity};
use crate::event::{Origin, Partition, Position};
use crate::pipeline::{Delivery, Pipeline};
use crate::source::kafka::{KafkaConnection, setting_fault};

/// No broker is set up for larger messages.
const EVENT_BYTES_MAX: u64 = 64 << 20;

/// Reports all findings at once; without errors shows the effective configuration and which source won, or what the
/// pipelines make of one event (which needs no settings).
pub fn check(global: &GlobalArgs, args: &CheckArgs) -> Result<ExitCode, anyhow::Error> {
    let loaded = config::load_from_process(&global.config_args(), by_adapters);
    let (pipelines, mut found) = compile(global, loaded.as_ref().ok().map(|loaded| &loaded.settings));
    if let (Some(event), Some(topic)) = (&args.event, &args.topic) {
        report(&found);
        if found.iter().any(|finding| finding.severity == Severity::Error) {
            return Ok(ExitCode::from(EXIT_USAGE));
        }
        return check_one(&pipelines, event, topic, args);
    }
    let effective = match loaded {
        Ok(loaded) => {
            found.splice(0..0, loaded.warnings);
            loaded.effective
        }
        Err(wrong) => {
            found.splice(0..0, wrong);
            Vec::new()
        }
    };
    report(&found);
    if found.iter().any(|finding| finding.severity == Severity::Error) {
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let mut out = Vec::new();
    table::write(&mut out, &settings(&effective))?;
    writeln!(out)?;
    table::write(&mut out, &overview(&pipelines))?;
    show(&out)?;
    Ok(ExitCode::SUCCESS)
}

fn settings(effective: &[Effective]) -> Vec<[String; 3]> {
    let head = ["setting", "from", "value"].map(str::to_owned);
    let shown = effective.iter().map(|setting| {
        let value = if setting.shown_value.is_empty() { "\"\"".to_owned() } else { setting.shown_value.clone() };
        [setting.name.clone(), setting.origin.to_string(), value]
    });
    std::iter::once(head).chain(shown).collect()
}

fn overview(pipelines: &[Pipeline]) -> Vec<[String; 4]> {
    let head = ["pipeline", "group", "revision", "topics"].map(str::to_owned);
    let shown = pipelines.iter().map(|pipeline| {
        let [name, group, revision] = [pipeline.name(), pipeline.group(), pipeline.revision()].map(str::to_owned);
        [name, group, revision, pipeline.topics().join(", ")]
    });
    std::iter::once(head).chain(shown).collect()
}

/// What librdkafka refuses of `kafka.options`, and a key that signs no heads, found without a connection.
pub(super) fn by_adapters(settings: &Settings) -> Vec<(&'static str, Fault)> {
    let mut found = Vec::new();
    for (name, value) in &settings.kafka.options {
        // Each alone: librdkafka stops at the first that it refuses.
        let mut client = KafkaConnection::plaintext("localhost:9092").client_config();
        if let Err(error) = client.set(name, value).create_native_config() {
            let message = format!("holds \"{name}\": {}", setting_fault(&error));
            found.push(("kafka.options", Fault::with_hint(message, "see librdkafka's CONFIGURATION.md")));
        }
    }
    if let Err(what) = backends::heads(settings) {
        found.push((
            if settings.ledger.heads_key_file.is_some() { "ledger.heads_key_file" } else { "ledger.heads_key" },
            Fault::new(what),
        ));
    }
    found
}

/// The pipelines, compiled and held against the settings, and what is worth a look reported; `None` where something is
/// wrong, reported too.
pub(super) fn pipelines(global: &GlobalArgs, settings: &Settings) -> Option<Vec<Pipeline>> {
    let (pipelines, found) = compile(global, Some(settings));
    report(&found);
    found.iter().all(|finding| finding.severity == Severity::Warning).then_some(pipelines)
}

fn compile(global: &GlobalArgs, settings: Option<&Settings>) -> (Vec<Pipeline>, Vec<Diagnostic>) {
    let (specs, mut found) = config::pipelines::load(&global.pipelines, &global.pipeline);
    if let Some(settings) = settings {
        found.extend(config::pipelines::against(settings, &specs));
    }
    let mut pipelines = Vec::with_capacity(specs.len());
    for spec in &specs {
        match Pipeline::compile(spec) {
            Ok(pipeline) => pipelines.push(pipeline),
            Err(refused) => found.extend(refused),
        }
    }
    (pipelines, found)
}

/// Shows what every pipeline that reads the topic makes of the event: 1 where one refuses it, or none reads it; 2 where the file cannot
/// be read.
fn check_one(pipelines: &[Pipeline], event: &Path, topic: &str, args: &CheckArgs) -> Result<ExitCode, anyhow::Error> {
    let value = match read(event) {
        Ok(value) => value,
        Err(error) => return wrong(format_args!("{}: {error}", event.display())),
    };
    let partition =
        Partition { cluster: "check".into(), topic: topic.into(), topic_id: String::new(), epoch: 0, name: "0".into() };
    let origin = Origin { partition: Arc::new(partition), position: Position::Offset(0) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    let headers: Vec<(&str, Option<&[u8]>)> =
        args.header.iter().map(|(name, value)| (name.as_str(), Some(value.as_bytes()))).collect();
    let delivery = Delivery {
        origin: &origin,
        timestamp_ms: i64::try_from(now.as_millis()).ok(),
        key: args.key.as_deref().map(str::as_bytes),
        value: Some(&value),
        headers: &headers,
    };
    let readers: Vec<&Pipeline> =
        pipelines.iter().filter(|pipeline| pipeline.topics().iter().any(|read| read == topic)).collect();
    anyhow::ensure!(!readers.is_empty(), "no pipeline reads the topic {topic}");
    let mut out = Vec::new();
    let mut taken = true;
    for pipeline in readers {
        taken &= check_event::write(&mut out, pipeline.name(), &pipeline.prepare(&delivery))?;
    }
    show(&out)?;
    Ok(if taken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(event: &Path) -> Result<Vec<u8>, std::io::Error> {
    let mut value = Vec::new();
    std::fs::File::open(event)?.take(EVENT_BYTES_MAX + 1).read_to_end(&mut value)?;
    if value.len() as u64 > EVENT_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is larger than {EVENT_BYTES_MAX} bytes")));
    }
    Ok(value)
}
