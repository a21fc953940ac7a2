//! From flags, variables and a file to settings, or to everything that is wrong with them.

use std::path::PathBuf;

use super::reader::Reader;
use super::{AdminSettings, Diagnostic, Effective, Settings, Severity, unknown, yaml};

/// What the command line says about the configuration.
#[derive(Clone, Debug, Default)]
pub struct ConfigArgs {
    /// The file, where one is named.
    pub file: Option<PathBuf>,
    /// Settings given by flags, or by the parts that `run --embedded` brings along; the last of one name wins.
    pub overrides: Vec<Override>,
}

/// One setting given by a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// `section.name`.
    pub name: String,
    /// Its value, written as in a variable.
    pub value: String,
}

impl Override {
    /// A setting and its value.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Every setting as it applies, and which source won.
    pub effective: Vec<Effective>,
    /// What is worth a look.
    pub warnings: Vec<Diagnostic>,
}

/// Reads the configuration; `env` looks up a variable. Fails with everything that is wrong, warnings included, in the
/// order of the file.
pub fn load(args: &ConfigArgs, env: impl Fn(&str) -> Option<String>) -> Result<Loaded, Vec<Diagnostic>> {
    let mut found = unknown::in_flags(&args.overrides);
    let path = args.file.as_deref();
    let root = match path.map(yaml::read).transpose() {
        Ok(root) => root,
        Err(faults) => {
            // Without its file nearly every setting would be reported as missing.
            found.extend(faults);
            return Err(found);
        }
    };
    let mut reader = Reader::new(&args.overrides, &env, path, root.as_ref());
    if let (Some(path), Some(root)) = (path, &root) {
        found.extend(unknown::in_file(path, root, &mut reader.meant));
    }
    let settings = Settings::read(&mut reader);
    found.append(&mut reader.found);
    found.sort_by(|a, b| a.place.is_none().cmp(&b.place.is_none()).then(a.place.cmp(&b.place)));
    match settings {
        Some(settings) if found.iter().all(|finding| finding.severity == Severity::Warning) => {
            Ok(Loaded { settings, effective: reader.effective, warnings: found })
        }
        _ => Err(found),
    }
}

/// [`load`] with the variables of this process, those that nothing reads reported as well.
pub fn load_from_process(args: &ConfigArgs) -> Result<Loaded, Vec<Diagnostic>> {
    let mut strange = Vec::new();
    let mut names = Vec::new();
    for (name, value) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("RECORDKEEPER_") && value.to_str().is_none() {
            strange.push(Diagnostic::error(&name, None, "variable is not UTF-8"));
        }
        names.push(name);
    }
    names.sort();
    let unknown = unknown::unknown_variables(names);
    let loaded = load(args, |name| std::env::var(name).ok());
    match loaded {
        Ok(mut loaded) if strange.is_empty() => {
            loaded.warnings.extend(unknown);
            Ok(loaded)
        }
        Ok(loaded) => Err(loaded.warnings.into_iter().chain(strange).chain(unknown).collect()),
        Err(found) => Err(found.into_iter().chain(strange).chain(unknown).collect()),
    }
}

/// The admin section alone: what asks a running instance needs none of the others, nor their secrets.
pub fn admin_from_process(args: &ConfigArgs) -> Result<AdminSettings, Vec<Diagnostic>> {
    let path = args.file.as_deref();
    let root = path.map(yaml::read).transpose()?;
    let env = |name: &str| std::env::var(name).ok();
    let mut reader = Reader::new(&args.overrides, &env, path, root.as_ref());
    AdminSettings::read(&mut reader).ok_or(reader.found)
}
