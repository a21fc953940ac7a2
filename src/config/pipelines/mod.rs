//! Pipeline files: a directory of YAML in; checked pipelines, or every problem of every file, out.

mod effects;
mod read;
mod schema;
mod shadow;
mod spec;
mod tree;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub use schema::SchemaSpec;
pub use spec::{
    Action, AgreeSpec, Format, Identity, KafkaSpec, Keep, MappingSpec, MatchSpec, PipelineSpec, Protocol, RecordSpec,
    RequestSpec, RouteSpec, Start, Tombstone, ValueSpec, WalletSpec,
};

use super::{Diagnostic, Settings, bounded, nearest};

/// Larger pipeline files are not read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads every `*.yaml` of a directory and returns the pipelines named (all, where none is named) in the order of their
/// files. All problems of all files are told, whatever is named; nothing may start while one of them is an error.
pub fn load(dir: &Path, names: &[String]) -> (Vec<PipelineSpec>, Vec<Diagnostic>) {
    let mut found = Vec::new();
    let files = files_of(dir, &mut found);
    let mut schemas = schema::Schemas::default();
    let mut specs = Vec::new();
    for file in files {
        match bounded::text(&file, FILE_BYTES_MAX) {
            Ok(source) => {
                let (spec, problems) = read::pipeline(&file, &source, &mut schemas);
                specs.extend(spec);
                found.extend(problems);
            }
            Err(what) => found.push(Diagnostic::error(&file, None, format!("the pipeline {what}"))),
        }
    }
    between(&specs, &mut found);
    for name in names {
        if !specs.iter().any(|spec| spec.name == *name) {
            let hint = match nearest(name, specs.iter().map(|spec| spec.name.as_str())) {
                Some(known) => format!("did you mean `{known}`?"),
                None => {
                    let known: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
                    format!("there are: {}", known.join(", "))
                }
            };
            found.push(Diagnostic::error(dir, None, format!("there is no pipeline `{name}`")).with_hint(hint));
        }
    }
    specs.retain(|spec| names.is_empty() || names.contains(&spec.name));
    (specs, found)
}

fn files_of(dir: &Path, found: &mut Vec<Diagnostic>) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            let diagnostic = Diagnostic::error(dir, None, format!("cannot read the directory of pipelines: {error}"));
            found.push(diagnostic.with_hint("name it with --pipelines"));
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => files.push(entry.path()),
            Err(error) => found.push(Diagnostic::error(dir, None, format!("cannot list the directory: {error}"))),
        }
    }
    files.sort();
    let has = |path: &Path, extension: &str| path.extension().is_some_and(|found| found == extension);
    for file in files.iter().filter(|file| has(file, "yml")) {
        found.push(Diagnostic::warning(file, None, "not read").with_hint("name it .yaml to have it read"));
    }
    files.retain(|file| has(file, "yaml"));
    if files.is_empty() {
        found.push(Diagnostic::error(dir, None, "there are no pipelines").with_hint("put *.yaml files there"));
    }
    files
}

/// What only several files together can get wrong.
fn between(specs: &[PipelineSpec], found: &mut Vec<Diagnostic>) {
    let mut names: HashMap<&str, &PipelineSpec> = HashMap::new();
    let mut topics: HashMap<(&str, &str), &PipelineSpec> = HashMap::new();
    for spec in specs {
        let first = *names.entry(&spec.name).or_insert(spec);
        if !std::ptr::eq(first, spec) {
            let message = format!("the pipeline name `{}` is taken by {}", spec.name, first.file.display());
            found.push(Diagnostic::error(&spec.file, None, message).with_hint("give each pipeline a name of its own"));
        }
        for topic in &spec.source.topics {
            let group = &spec.source.group;
            let first = *topics.entry((group, topic)).or_insert(spec);
            if !std::ptr::eq(first, spec) {
                let message =
                    format!("the group `{group}` already reads the topic `{topic}` in {}", first.file.display());
                let hint = "give each pipeline a group of its own, or put the routes into one pipeline";
                found.push(Diagnostic::error(&spec.file, None, message).with_hint(hint));
            }
        }
    }
}

/// Options of librdkafka that brokers decide about in the newer group protocol.
const MEMBER_TIMERS: [&str; 3] = ["session.timeout.ms", "heartbeat.interval.ms", "group.protocol.type"];

/// Pipelines that do not go with the settings: those that would read what the product itself writes, without an end, and
/// those whose group protocol refuses an option.
pub fn against(settings: &Settings, specs: &[PipelineSpec]) -> Vec<Diagnostic> {
    let general = &settings.general;
    let written = [
        ("dead_letters_topic", &general.dead_letters_topic, "redrive dead letters to the topic they came from"),
        ("requests_topic", &general.requests_topic, "read another topic, or change the setting"),
    ];
    let mut found = Vec::new();
    for spec in specs {
        for (setting, topic, hint) in written {
            if spec.source.topics.contains(topic) {
                let message = format!("the source reads `{topic}`, which is written to as {setting}");
                found.push(Diagnostic::error(&spec.file, Some(spec.source.place), message).with_hint(hint));
            }
        }
        let timers = MEMBER_TIMERS.iter().filter(|name| settings.kafka.options.contains_key(**name));
        for name in timers.filter(|_| spec.source.protocol == Protocol::Consumer) {
            let message = format!("the protocol `consumer` does not go with {name} in kafka.options");
            let hint = "take the option out, or use the protocol `classic`";
            found.push(Diagnostic::error(&spec.file, Some(spec.source.place), message).with_hint(hint));
        }
    }
    found
}

/// Warns of what makes other events of the same messages: a changed source, or a changed id or source of a route. Events
/// recorded before would be recorded once more if they were read again.
pub fn compare(before: &[PipelineSpec], after: &[PipelineSpec]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for new in after {
        let Some(old) = before.iter().find(|old| old.name == new.name) else { continue };
        let mut warn = |place, message: String, hint: &str| {
            found.push(Diagnostic::warning(&new.file, place, message).with_hint(hint));
        };
        if old.source.group != new.source.group {
            let message = format!("the group changes from `{}` to `{}`", old.source.group, new.source.group);
            warn(None, message, "ledgers and checkpoints of the old group are not continued");
        }
        for route in &new.routes {
            let Some(earlier) = old.routes.iter().find(|earlier| earlier.name == route.name) else { continue };
            if identity_of(earlier) != identity_of(route) {
                let message = format!("route `{}` gets another source or id", route.name);
                warn(Some(route.place), message, "what was recorded before counts as other events from now on");
            }
        }
    }
    found
}

/// What decides about the identity of a route's events.
fn identity_of(route: &RouteSpec) -> Option<(String, String)> {
    match &route.action {
        Action::Skip(_) => None,
        Action::Keep(keep) => Some(match &keep.identity {
            Identity::Envelope => (String::new(), String::new()),
            Identity::Route { source, id, .. } => (source.clone(), id.to_string()),
        }),
    }
}

#[cfg(test)]
mod tests;
