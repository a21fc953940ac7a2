//! Whether a schema is whole.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use jsonschema::PatternOptions;
use serde_json::{Value, json};

use super::keywords::{KEYWORDS, escape, subschemas};
use super::{SchemaFile, read, shown, uri_of};
use crate::config::{Diagnostic, nearest};

/// A schema's place: the file and the pointer inside it.
type Spot = (usize, String);

fn fault(file: &SchemaFile, pointer: &str, message: impl AsRef<str>, hint: impl Into<String>) -> Diagnostic {
    Diagnostic::error(&file.path, None, format!("at {}: {}", shown(pointer), message.as_ref())).with_hint(hint)
}

/// Every schema of a file with its pointer, the root first.
fn schemas_of(file: &SchemaFile) -> Vec<(String, &Value)> {
    let mut out = vec![(String::new(), &file.value)];
    let mut at = 0;
    while at < out.len() {
        let (pointer, value) = out[at].clone();
        out.extend(subschemas(value, &pointer).into_iter().map(|(pointer, sub)| (pointer, sub.value)));
        at += 1;
    }
    out
}

/// Rewrites the references of one file to `schema:///N#/pointer`, reading the files that they name.
pub(super) fn resolve_references(files: &mut Vec<SchemaFile>, at: usize, found: &mut Vec<Diagnostic>) {
    // A root `$id` names the schema for others; here files are addressed by their path, so it may not move the base.
    if let Some(root) = files[at].value.as_object_mut() {
        root.remove("$id");
    }
    let mut rewritten = Vec::new();
    let spots: Vec<(String, Value)> = schemas_of(&files[at])
        .into_iter()
        .filter_map(|(pointer, value)| Some((pointer, value.get("$ref")?.clone())))
        .collect();
    for (pointer, reference) in spots {
        let here = format!("{pointer}/$ref");
        let Some(reference) = reference.as_str() else {
            found.push(fault(&files[at], &here, "`$ref` must be a text", "write \"#/$defs/name\""));
            continue;
        };
        match target_of(files, at, reference) {
            Ok((file, fragment)) => rewritten.push((pointer, format!("{}#{fragment}", uri_of(file)))),
            Err(why) => found.push(fault(&files[at], &here, why, "refer to \"#/$defs/name\" or \"file.json#/$defs/name\"")),
        }
    }
    for (pointer, reference) in rewritten {
        if let Some(schema) = files[at].value.pointer_mut(&pointer) {
            schema["$ref"] = Value::String(reference);
        }
    }
}

fn target_of(files: &mut Vec<SchemaFile>, at: usize, reference: &str) -> Result<(usize, String), String> {
    let (file, fragment) = reference.split_once('#').unwrap_or((reference, ""));
    if reference.contains('%') {
        return Err(format!("`{reference}` has a `%`; write names plainly"));
    }
    if !fragment.is_empty() && !fragment.starts_with('/') {
        return Err(format!("`{reference}` names an anchor; only pointers are followed"));
    }
    if file.is_empty() {
        return Ok((at, fragment.to_owned()));
    }
    if file.contains(':') || file.starts_with('/') {
        return Err(format!("`{reference}` is remote or absolute; only files beside the schema are read"));
    }
    let path = normal(&files[at].path.parent().unwrap_or(Path::new("")).join(file));
    if let Some(known) = files.iter().position(|file| normal(&file.path) == path) {
        return Ok((known, fragment.to_owned()));
    }
    let file = read(&path).map_err(|error| format!("`{reference}` names a file that is not whole: {}", error.message))?;
    files.push(file);
    Ok((files.len() - 1, fragment.to_owned()))
}

/// Without `.` and, where it can be seen, `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// Keywords that look like slips, keywords that are not supported, patterns that do not compile, and whatever the
/// meta-schema refuses.
pub(super) fn keywords_and_patterns(files: &[SchemaFile], found: &mut Vec<Diagnostic>) {
    for file in files {
        for error in jsonschema::draft202012::meta::validator().iter_errors(&file.value) {
            let pointer = error.instance_path().to_string();
            found.push(fault(file, &pointer, error.to_string(), "see JSON Schema 2020-12"));
        }
        for (pointer, schema) in schemas_of(file) {
            let Some(members) = schema.as_object() else { continue };
            for (name, value) in members {
                let here = format!("{pointer}/{}", escape(name));
                match name.as_str() {
                    "$schema" if value != "https://json-schema.org/draft/2020-12/schema" => found.push(fault(
                        file,
                        &here,
                        "another draft",
                        "only https://json-schema.org/draft/2020-12/schema is supported",
                    )),
                    "$id" | "$anchor" | "$dynamicRef" | "$dynamicAnchor" | "$recursiveRef" | "$vocabulary" => {
                        found.push(fault(file, &here, format!("`{name}` is not supported"), "refer by pointers: \"#/$defs/name\""));
                    }
                    "pattern" => check_pattern(file, &here, value.as_str(), found),
                    "patternProperties" => {
                        for pattern in value.as_object().into_iter().flat_map(|patterns| patterns.keys()) {
                            check_pattern(file, &format!("{here}/{}", escape(pattern)), Some(pattern), found);
                        }
                    }
                    _ if KEYWORDS.iter().any(|(known, ..)| known == name) => {}
                    _ => {
                        if let Some(known) = nearest(name, KEYWORDS.iter().map(|(known, ..)| *known)) {
                            let message = format!("`{name}` is no keyword");
                            found.push(fault(file, &here, message, format!("did you mean `{known}`?")));
                        }
                    }
                }
            }
        }
    }
}

fn check_pattern(file: &SchemaFile, pointer: &str, pattern: Option<&str>, found: &mut Vec<Diagnostic>) {
    // A pattern that is no text is the meta-schema's business.
    let Some(pattern) = pattern else { return };
    let alone = json!({ "pattern": pattern });
    let compiled = jsonschema::options().with_pattern_options(PatternOptions::regex()).build(&alone);
    if compiled.is_err() {
        let hint = "patterns run in linear time: no look-around, no back-references";
        found.push(fault(file, pointer, format!("`{pattern}` is no pattern"), hint));
    }
}

/// References whose target is no schema, and schemas that refer only to themselves.
pub(super) fn references(files: &[SchemaFile], found: &mut Vec<Diagnostic>) {
    let all: Vec<Vec<(String, &Value)>> = files.iter().map(schemas_of).collect();
    let known: HashSet<Spot> = all
        .iter()
        .enumerate()
        .flat_map(|(file, schemas)| schemas.iter().map(move |(pointer, _)| (file, pointer.clone())))
        .collect();
    let mut edges: HashMap<Spot, Vec<Spot>> = HashMap::new();
    for (file, schemas) in all.iter().enumerate() {
        for (pointer, schema) in schemas {
            let mut targets: Vec<Spot> = subschemas(schema, pointer)
                .into_iter()
                .filter(|(_, sub)| sub.in_place)
                .map(|(pointer, _)| (file, pointer))
                .collect();
            if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(spot_of) {
                if known.contains(&target) {
                    targets.push(target);
                } else {
                    let names = known.iter().filter(|(at, _)| *at == target.0).map(|(_, pointer)| pointer.as_str());
                    let hint = match nearest(&target.1, names) {
                        Some(name) => format!("did you mean `#{name}`?"),
                        None => "define it under `$defs`".to_owned(),
                    };
                    let message = format!("{} has no schema at {}", files[target.0].path.display(), shown(&target.1));
                    found.push(fault(&files[file], &format!("{pointer}/$ref"), message, hint));
                }
            }
            edges.insert((file, pointer.clone()), targets);
        }
    }
    let mut done = HashSet::new();
    for (file, schemas) in all.iter().enumerate() {
        for (pointer, _) in schemas {
            if comes_back(&(file, pointer.clone()), &edges, &mut done) {
                let hint = "a reference must lead to something that says more";
                found.push(fault(&files[file], pointer, "the schema refers only to itself", hint));
            }
        }
    }
}

/// Whether a walk from here over schemas of the same value comes back to here. What was found in a circle is told once.
fn comes_back(start: &Spot, edges: &HashMap<Spot, Vec<Spot>>, done: &mut HashSet<Spot>) -> bool {
    if done.contains(start) {
        return false;
    }
    let mut seen = HashSet::new();
    let mut open: Vec<&Spot> = edges.get(start).into_iter().flatten().collect();
    while let Some(spot) = open.pop() {
        if spot == start {
            done.extend(seen.into_iter().cloned());
            return true;
        }
        if seen.insert(spot) {
            open.extend(edges.get(spot).into_iter().flatten());
        }
    }
    false
}

/// The inverse of the rewriting.
pub(super) fn spot_of(reference: &str) -> Option<Spot> {
    let (file, pointer) = reference.strip_prefix("schema:///")?.split_once('#')?;
    Some((file.parse().ok()?, pointer.to_owned()))
}
