//! Keys, flags and variables that name no setting: each with the name that was probably meant.

use std::collections::BTreeSet;
use std::path::Path;

use super::settings::SECTIONS;
use super::yaml::{Entry, Node, Value};
use super::{ConfigArgs, Diagnostic, Override, nearest};

/// Variables of the command line itself, and of debug builds.
const OWN_VARIABLES: &[&str] = &[
    "RECORDKEEPER_CONFIG",
    "RECORDKEEPER_PIPELINES",
    #[cfg(debug_assertions)]
    "RECORDKEEPER_FAILPOINT",
];

/// Checks every key of a file. Adds the full names of the settings that were probably meant to `meant`.
pub(super) fn in_file(path: &Path, root: &Node, meant: &mut BTreeSet<String>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for entry in entries(root) {
        match SECTIONS.iter().find(|section| !section.name.is_empty() && section.name == entry.key) {
            Some(section) => match &entry.value.value {
                Value::Map(inner) => {
                    let wrong = inner.iter().filter(|inner| !is_setting(section.name, &inner.key));
                    found.extend(wrong.map(|inner| unknown(path, section.name, inner, meant)));
                }
                Value::Refused => {}
                _ => {
                    let message = format!(
                        "section {} takes a mapping of its settings, not {}",
                        section.name,
                        entry.value.shape()
                    );
                    found.push(
                        Diagnostic::error(path, Some(entry.value.place), message)
                            .with_hint("indent its settings under it, one `name: value` a line"),
                    );
                }
            },
            None if is_setting("", &entry.key) => {}
            None => found.push(unknown(path, "", entry, meant)),
        }
    }
    found
}

/// Checks the names of settings given by flags: each is one, given once, and not one that embedded parts bring along.
pub(super) fn in_flags(args: &ConfigArgs) -> Vec<Diagnostic> {
    let known: Vec<String> = SECTIONS.iter().flat_map(|section| section.settings).map(|def| def.full_name()).collect();
    let check = |(at, given): (usize, &Override)| {
        let name = &given.name;
        let fault = |message: String| Diagnostic::error("--set", None, message);
        if !known.contains(name) {
            let fault = fault(format!("unknown setting \"{name}\""));
            Some(match nearest(name, known.iter().map(String::as_str)) {
                Some(name) => fault.with_hint(format!("did you mean \"{name}\"?")),
                None => fault.with_hint("settings are named section.name; `recordkeeper reference` lists them"),
            })
        } else if args.overrides[..at].iter().any(|earlier| earlier.name == *name) {
            Some(fault(format!("{name} is given twice")).with_hint("keep one of the two"))
        } else if args.brought.iter().any(|brought| brought.name == *name) {
            let hint = "leave it out, or run without --embedded";
            Some(fault(format!("{name} has no effect: the parts that --embedded brings along give it")).with_hint(hint))
        } else {
            None
        }
    };
    args.overrides.iter().enumerate().filter_map(check).collect()
}

/// Variables of our prefix that nothing reads, by name and value.
pub(super) fn unknown_variables(variables: impl IntoIterator<Item = (String, String)>) -> Vec<Diagnostic> {
    let settings = SECTIONS.iter().flat_map(|section| section.settings).map(|def| def.variable());
    let known: Vec<String> = settings.chain(OWN_VARIABLES.iter().map(ToString::to_string)).collect();
    let ours = variables.into_iter().filter(|(name, value)| {
        name.starts_with("RECORDKEEPER_") && !known.contains(name) && !is_of_kubernetes(name, value)
    });
    ours.map(|(name, _)| {
        let hint = match nearest(&name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => "unset it; `recordkeeper reference` lists all variables".to_owned(),
        };
        Diagnostic::error(name, None, "variable has no effect: no setting is named so").with_hint(hint)
    })
    .collect()
}

/// Whether Kubernetes made it for a service whose name begins as ours does (`recordkeeper`, `recordkeeper-redis`).
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let numbered = |(_, rest): (&str, &str)| rest.starts_with(|c: char| c.is_ascii_digit());
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.split_once("_PORT_").is_some_and(numbered)
        || (name.ends_with("_PORT") && value.contains("://"))
}

fn entries(node: &Node) -> &[Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        _ => &[],
    }
}

fn names(section: &str) -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().filter(move |known| known.name == section).flat_map(|known| known.settings).map(|def| def.name)
}

fn is_setting(section: &str, key: &str) -> bool {
    names(section).any(|name| name == key)
}

fn full_name(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// One key that is no setting where it stands: the hint says where it belongs, else what it resembles.
fn unknown(path: &Path, section: &str, entry: &Entry, meant: &mut BTreeSet<String>) -> Diagnostic {
    let key = entry.key.as_str();
    let message = match section {
        "" => format!("unknown setting \"{key}\""),
        _ => format!("unknown setting \"{key}\" in section {section}"),
    };
    let fault = Diagnostic::error(path, Some(entry.key_place), message);

    let bare = key.trim_start_matches('-');
    if bare != key && (is_setting(section, bare) || nearest(bare, names(section)).is_some()) {
        let name = if is_setting(section, bare) { bare } else { nearest(bare, names(section)).unwrap_or(bare) };
        meant.insert(full_name(section, name));
        return fault.with_hint(format!("a dash without a space belongs to the name; did you mean \"{name}\"?"));
    }
    if !section.is_empty() && SECTIONS.iter().any(|known| known.name == key) {
        return fault.with_hint(format!("{key} is a section of its own: move it out of {section}, to the left margin"));
    }
    let homes: Vec<&str> = SECTIONS.iter().map(|known| known.name).filter(|home| is_setting(home, key)).collect();
    if !homes.is_empty() {
        meant.extend(homes.iter().map(|home| full_name(home, key)));
        let places: Vec<String> = homes
            .iter()
            .map(|home| if home.is_empty() { "at the top level".to_owned() } else { format!("in section {home}") })
            .collect();
        return fault.with_hint(format!("\"{key}\" belongs {}", places.join(" or ")));
    }
    let sections = SECTIONS.iter().map(|known| known.name).filter(|name| section.is_empty() && !name.is_empty());
    if let Some(name) = nearest(key, names(section).chain(sections)) {
        // A whole section under a wrong name would else be reported again, setting by setting.
        let settings =
            SECTIONS.iter().filter(|known| known.name == name && !name.is_empty()).flat_map(|known| known.settings);
        meant.extend(settings.map(|def| def.full_name()));
        meant.insert(full_name(section, name));
        return fault.with_hint(format!("did you mean \"{name}\"?"));
    }
    let elsewhere = SECTIONS.iter().flat_map(|known| known.settings);
    if let Some(def) = elsewhere.into_iter().find(|def| nearest(key, [def.name]).is_some()) {
        meant.insert(def.full_name());
        return fault.with_hint(format!("did you mean \"{}\" in section {}?", def.name, def.section));
    }
    let all: Vec<&str> = names(section)
        .chain(SECTIONS.iter().map(|known| known.name).filter(|name| section.is_empty() && !name.is_empty()))
        .collect();
    fault.with_hint(format!("known here: {}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Severity;

    #[test]
    fn a_variable_that_nothing_reads_is_told_and_those_of_kubernetes_are_not() {
        let variables = [
            ("RECORDKEEPER_REDIS_URI", "redis://a"),
            ("RECORDKEEPER_REDIS_URL", "redis://a"),
            ("RECORDKEEPER_PORT", "tcp://10.0.0.1:9464"),
            ("RECORDKEEPER_PORT_9464_TCP_ADDR", "10.0.0.1"),
            ("RECORDKEEPER_REDIS_PORT", "tcp://10.0.0.1:6379"),
            ("RECORDKEEPER_REDIS_SERVICE_HOST", "10.0.0.1"),
            ("RECORDKEEPER_REDIS_SERVICE_PORT_TLS", "6380"),
            ("RECORDKEEPER_ADMIN_PORT", "9464"),
            ("HOME", "/"),
        ];
        let found = unknown_variables(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let told: Vec<_> = found.iter().filter_map(|finding| finding.file.to_str()).collect();
        assert_eq!(told, ["RECORDKEEPER_REDIS_URI", "RECORDKEEPER_ADMIN_PORT"]);
        assert_eq!(found[0].hint.as_deref(), Some("did you mean RECORDKEEPER_REDIS_URL?"));
        assert!(found.iter().all(|finding| finding.severity == Severity::Error));
    }
}
