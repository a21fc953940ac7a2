//! Finds the value of each setting: flag over variable over file over default, and over all of them what an embedded run
//! brings along.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use super::setting::{Fault, Setting, SettingDef};
use super::yaml::{Node, Place};
use super::{ConfigArgs, Diagnostic};

/// Which source won.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The parts that an embedded run brings along.
    Brought,
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
            Self::Brought => f.write_str("embedded part"),
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
    args: &'a ConfigArgs,
    env: &'a dyn Fn(&str) -> Option<String>,
    path: Option<&'a Path>,
    root: Option<&'a Node>,
    /// Settings that were given under a wrong name or in a wrong place: not reported as missing once more.
    pub meant: BTreeSet<String>,
    pub found: Vec<Diagnostic>,
    pub effective: Vec<Effective>,
    /// Where each given setting stands, for complaints about how settings fit together.
    places: Vec<(String, Stand)>,
    /// Settings that something else stands in for; what does not fit it is nobody's fault.
    failed: BTreeSet<String>,
}

/// Where a value stands.
#[derive(Clone, Debug)]
enum Stand {
    Brought,
    Flag,
    Variable(String),
    File(Place),
}

impl<'a> Reader<'a> {
    pub fn new(args: &'a ConfigArgs, env: &'a dyn Fn(&str) -> Option<String>, root: Option<&'a Node>) -> Self {
        let (found, effective, places) = (Vec::new(), Vec::new(), Vec::new());
        let (meant, failed) = (BTreeSet::new(), BTreeSet::new());
        Self { args, env, path: args.file.as_deref(), root, meant, found, effective, places, failed }
    }

    /// The value of a setting. After a diagnostic its default stands in, or nothing: `None` where there is neither.
    pub fn read<T: Setting>(&mut self, def: &SettingDef) -> Option<T> {
        let name = def.full_name();
        let value = self.read_given(def, &name);
        if value.is_some() {
            return value;
        }
        self.failed.insert(name);
        T::absent().or_else(|| T::from_text(def.default.unwrap_or_default()).ok())
    }

    /// The value of a setting; `None` after a diagnostic.
    fn read_given<T: Setting>(&mut self, def: &SettingDef, name: &str) -> Option<T> {
        let mut faults = Vec::new();
        let Some((stand, value)) = self.given::<T>(def, name, &mut faults) else {
            return self.fall_back(def, name.to_owned());
        };
        self.places.push((name.to_owned(), stand.clone()));
        for (place, fault) in faults {
            // A fault in a file stands at its own item.
            let at = if let Stand::File(_) = stand { Stand::File(place) } else { stand.clone() };
            self.tell(Some(&at), name, fault);
        }
        let value = match within(def, value?) {
            Ok(value) => value,
            Err(fault) => {
                self.complain(name, fault);
                return None;
            }
        };
        if value.holds_secret() && !matches!(stand, Stand::Variable(_)) {
            let hint = format!("put it in a file of its own ({name}_file) or in {}", def.variable());
            let hint =
                if T::SECRET { hint } else { "leave the password out and give it by its own setting".to_owned() };
            self.complain(
                name,
                Fault::with_hint("holds a secret, which belongs neither here nor on a command line", hint),
            );
            return None;
        }
        let origin = match stand {
            Stand::Brought => Origin::Brought,
            Stand::Flag => Origin::Flag,
            Stand::Variable(variable) => Origin::Variable(variable),
            Stand::File((line, _)) => Origin::File { line },
        };
        self.effective.push(Effective { name: name.to_owned(), shown_value: value.show(), origin });
        Some(value)
    }

    /// What the strongest source that has something says, and what is wrong with it.
    fn given<T: Setting>(
        &self,
        def: &SettingDef,
        name: &str,
        faults: &mut Vec<(Place, Fault)>,
    ) -> Option<(Stand, Option<T>)> {
        let mut parse = |text: &str| {
            let mut found = Vec::new();
            let value = T::from_plain(text, &mut found);
            faults.extend(found.into_iter().map(|fault| (Place::default(), fault)));
            value
        };
        for (overrides, stand) in [(&self.args.brought, Stand::Brought), (&self.args.overrides, Stand::Flag)] {
            if let Some(given) = overrides.iter().find(|given| given.name == name) {
                return Some((stand, parse(&given.value)));
            }
        }
        let foreign = def.foreign_variables.iter().map(ToString::to_string);
        for variable in std::iter::once(def.variable()).chain(foreign) {
            // An empty variable is one that a compose file or a chart left out.
            if let Some(text) = (self.env)(&variable).filter(|text| !text.is_empty()) {
                return Some((Stand::Variable(variable), parse(&text)));
            }
        }
        let section = if def.section.is_empty() { self.root? } else { self.root?.get(def.section)? };
        let node = section.get(def.name)?;
        Some((Stand::File(node.place), T::from_node(node, faults)))
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

    /// Reports what is wrong with a setting, where it stands; nothing of one that was reported already.
    pub fn complain(&mut self, name: &str, fault: Fault) {
        if !self.failed.contains(name) {
            let stand = self.stand(name).cloned();
            self.tell(stand.as_ref(), name, fault);
        }
    }

    /// Reports something worth a look about a setting, where it stands.
    pub fn warn(&mut self, name: &str, fault: Fault) {
        let before = self.found.len();
        self.complain(name, fault);
        self.found[before..].iter_mut().for_each(|told| told.severity = super::Severity::Warning);
    }

    /// Whether any source gave it.
    pub fn is_given(&self, name: &str) -> bool {
        self.stand(name).is_some()
    }

    /// Whether the parts of an embedded run gave it: others that do not fit it are the operator's, for other runs.
    pub fn is_brought(&self, name: &str) -> bool {
        matches!(self.stand(name), Some(Stand::Brought))
    }

    /// Whether any source gave it, however wrong, be it under a name that is not quite its own.
    pub fn is_mentioned(&self, name: &str) -> bool {
        self.is_given(name) || self.meant.contains(name)
    }

    /// Whether all of these hold what was given or left to their defaults, so that it can be seen how they fit together.
    pub fn are_sound(&self, names: &[&str]) -> bool {
        names.iter().all(|name| !self.failed.contains(*name))
    }

    fn stand(&self, name: &str) -> Option<&Stand> {
        self.places.iter().find(|(given, _)| given == name).map(|(_, stand)| stand)
    }

    fn tell(&mut self, stand: Option<&Stand>, name: &str, fault: Fault) {
        let (at, place) = match stand {
            Some(Stand::Brought) => (Path::new("--embedded"), None),
            Some(Stand::Flag) => (Path::new("--set"), None),
            Some(Stand::Variable(variable)) => (Path::new(variable), None),
            Some(Stand::File(place)) => (self.path.unwrap_or(Path::new("")), Some(*place)),
            None => (self.path.unwrap_or(Path::new("default")), None),
        };
        let told = Diagnostic::error(at, place, format!("{name} {}", fault.message));
        self.found.push(match fault.hint {
            Some(hint) => told.with_hint(hint),
            None => told,
        });
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
