//! Keys, flags and variables that name no setting: each with the name that was probably meant.

use std::collections::BTreeSet;
use std::path::Path;

use super::settings::SECTIONS;
use super::yaml::{Entry, Node, Value};
use super::{Diagnostic, Override, nearest};

/// Variables of the command line itself.
const OWN_VARIABLES: [&str; 2] = ["RECORDKEEPER_CONFIG", "RECORDKEEPER_PIPELINES"];

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

/// Checks the names of settings given by flags.
pub(super) fn in_flags(overrides: &[Override]) -> Vec<Diagnostic> {
    let known: Vec<String> = SECTIONS.iter().flat_map(|section| section.settings).map(|def| def.full_name()).collect();
    let wrong = overrides.iter().filter(|given| !known.contains(&given.name));
    wrong
        .map(|given| {
            let fault = Diagnostic::error("--set", None, format!("unknown setting \"{}\"", given.name));
            match nearest(&given.name, known.iter().map(String::as_str)) {
                Some(name) => fault.with_hint(format!("did you mean \"{name}\"?")),
                None => fault.with_hint("settings are named section.name; `recordkeeper reference` lists them"),
            }
        })
        .collect()
}

/// What Kubernetes calls the variables that it makes for a service of our name.
const KUBERNETES_VARIABLES: [&str; 2] = ["RECORDKEEPER_PORT", "RECORDKEEPER_SERVICE_"];

/// Variables of our prefix that nothing reads. Only warnings: while versions change, one may know what another does not.
pub fn unknown_variables(names: impl IntoIterator<Item = String>) -> Vec<Diagnostic> {
    let settings = SECTIONS.iter().flat_map(|section| section.settings).map(|def| def.variable());
    let known: Vec<String> = settings.chain(OWN_VARIABLES.map(str::to_owned)).collect();
    let ours = names.into_iter().filter(|name| {
        name.starts_with("RECORDKEEPER_")
            && !known.contains(name)
            && !KUBERNETES_VARIABLES.iter().any(|prefix| name.starts_with(prefix))
    });
    ours.map(|name| {
        let near = nearest(&name, known.iter().map(String::as_str)).map(|near| format!("did you mean {near}?"));
        let finding = Diagnostic::warning(name, None, "variable has no effect: no setting is named so");
        match near {
            Some(hint) => finding.with_hint(hint),
            None => finding,
        }
    })
    .collect()
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

    #[test]
    fn a_variable_that_nothing_reads_is_told_and_those_of_kubernetes_are_not() {
        let names = ["RECORDKEEPER_REDIS_URI", "RECORDKEEPER_REDIS_URL", "RECORDKEEPER_PORT_9464_TCP", "HOME"];
        let found = unknown_variables(names.map(str::to_owned));
        let told: Vec<_> = found.iter().map(|finding| (finding.file.to_str(), finding.hint.as_deref())).collect();
        assert_eq!(told, [(Some("RECORDKEEPER_REDIS_URI"), Some("did you mean RECORDKEEPER_REDIS_URL?"))]);
    }
}
