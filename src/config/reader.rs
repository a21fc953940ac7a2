//! Finds the value of each setting: flag over variable over file over default.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use super::setting::{Fault, Setting, SettingDef};
use super::yaml::{Node, Place};
use super::{Diagnostic, Override};

/// Which source won.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment variable of this name.
    Variable(String),
    /// This line of the configuration file.
    File {
        /// Counted from one.
        line: u64,
    },
    /// Nothing was given.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File { line } => write!(f, "file, line {line}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One setting as it applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// `section.name`.
    pub name: String,
    /// Its value, redacted where it is a secret.
    pub shown_value: String,
    /// Which source won.
    pub origin: Origin,
}

/// All sources, and what was found on the way.
pub(super) struct Reader<'a> {
    pub overrides: &'a [Override],
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub path: Option<&'a Path>,
    pub root: Option<&'a Node>,
    /// Settings that were given under a wrong name or in a wrong place: not reported as missing once more.
    pub meant: BTreeSet<String>,
    pub found: Vec<Diagnostic>,
    pub effective: Vec<Effective>,
    /// Where each given setting stands, for complaints about how settings fit together.
    places: Vec<(String, Stand)>,
}

/// Where a value stands.
#[derive(Clone, Debug)]
enum Stand {
    Flag,
    Variable(String),
    File(Place),
}

impl<'a> Reader<'a> {
    pub fn new(
        overrides: &'a [Override],
        env: &'a dyn Fn(&str) -> Option<String>,
        path: Option<&'a Path>,
        root: Option<&'a Node>,
    ) -> Self {
        let (found, effective, places) = (Vec::new(), Vec::new(), Vec::new());
        Self { overrides, env, path, root, meant: BTreeSet::new(), found, effective, places }
    }

    /// The value of a setting; `None` after a diagnostic.
    pub fn read<T: Setting>(&mut self, def: &SettingDef) -> Option<T> {
        let name = def.full_name();
        let Some((stand, parsed)) = self.given::<T>(def, &name) else {
            return self.fall_back(def, name);
        };
        self.places.push((name.clone(), stand.clone()));
        let value = match parsed.and_then(|value: T| within(def, value)) {
            Ok(value) => value,
            Err(fault) => {
                self.complain(&name, fault);
                return None;
            }
        };
        if value.holds_secret() && !matches!(stand, Stand::Variable(_)) {
            let hint = format!("put it in a file of its own ({name}_file) or in {}", def.variable());
            let hint =
                if T::SECRET { hint } else { "leave the password out and give it by its own setting".to_owned() };
            self.complain(
                &name,
                Fault::with_hint("holds a secret, which belongs neither here nor on a command line", hint),
            );
            return None;
        }
        let origin = match stand {
            Stand::Flag => Origin::Flag,
            Stand::Variable(variable) => Origin::Variable(variable),
            Stand::File((line, _)) => Origin::File { line },
        };
        self.effective.push(Effective { name, shown_value: value.show(), origin });
        Some(value)
    }

    /// What the strongest source that has something says.
    fn given<T: Setting>(&self, def: &SettingDef, name: &str) -> Option<(Stand, Result<T, Fault>)> {
        if let Some(given) = self.overrides.iter().rev().find(|given| given.name == name) {
            return Some((Stand::Flag, T::from_text(&given.value)));
        }
        let foreign = def.foreign_variables.iter().map(ToString::to_string);
        for variable in std::iter::once(def.variable()).chain(foreign) {
            // An empty variable is one that a compose file or a chart left out.
            if let Some(text) = (self.env)(&variable).filter(|text| !text.is_empty()) {
                return Some((Stand::Variable(variable), T::from_text(&text)));
            }
        }
        let section = if def.section.is_empty() { self.root? } else { self.root?.get(def.section)? };
        let node = section.get(def.name)?;
        Some(match T::from_node(node) {
            Ok(value) => (Stand::File(node.place), Ok(value)),
            Err((place, fault)) => (Stand::File(place), Err(fault)),
        })
    }

    fn fall_back<T: Setting>(&mut self, def: &SettingDef, name: String) -> Option<T> {
        let value = match def.default {
            Some(text) => T::from_text(text).map_err(|fault| self.complain(&name, fault)).ok()?,
            None => match T::absent() {
                Some(value) => value,
                None => {
                    self.missing(def, &name, "has to be given");
                    return None;
                }
            },
        };
        self.effective.push(Effective { name, shown_value: value.show(), origin: Origin::Default });
        Some(value)
    }

    /// Reports a setting that is needed and not given, unless it was given under a name that was reported already.
    pub fn missing(&mut self, def: &SettingDef, name: &str, why: &str) {
        if self.meant.contains(name) {
            return;
        }
        let variable = def.variable();
        let (at, hint) = match self.path {
            Some(path) => (path.to_owned(), format!("add it to the file, or set {variable}")),
            None => (variable.clone().into(), format!("set {variable}, or name a file that has it with --config")),
        };
        self.found.push(Diagnostic::error(at, None, format!("{name} {why}")).with_hint(hint));
    }

    /// Reports what is wrong with a setting, where it stands.
    pub fn complain(&mut self, name: &str, fault: Fault) {
        let diagnostic = self.at(name, format!("{name} {}", fault.message));
        self.found.push(match fault.hint {
            Some(hint) => diagnostic.with_hint(hint),
            None => diagnostic,
        });
    }

    /// Reports something worth a look about a setting, where it stands.
    pub fn warn(&mut self, name: &str, fault: Fault) {
        self.complain(name, fault);
        if let Some(last) = self.found.last_mut() {
            last.severity = super::Severity::Warning;
        }
    }

    /// Whether any source gave it.
    pub fn is_given(&self, name: &str) -> bool {
        self.places.iter().any(|(given, _)| given == name)
    }

    fn at(&self, name: &str, message: String) -> Diagnostic {
        match self.places.iter().find(|(given, _)| given == name) {
            Some((_, Stand::Flag)) => Diagnostic::error("--set", None, message),
            Some((_, Stand::Variable(variable))) => Diagnostic::error(variable, None, message),
            Some((_, Stand::File(place))) => {
                Diagnostic::error(self.path.unwrap_or(Path::new("")), Some(*place), message)
            }
            None => Diagnostic::error(self.path.unwrap_or(Path::new("default")), None, message),
        }
    }
}

/// The value, unless it lies outside the bounds.
fn within<T: Setting>(def: &SettingDef, value: T) -> Result<T, Fault> {
    let Some((low, high)) = def.bounds else { return Ok(value) };
    if value.outside(&T::from_text(low)?, &T::from_text(high)?) {
        return Err(Fault::new(format!("takes {low} to {high}, not {}", value.show())));
    }
    Ok(value)
}
