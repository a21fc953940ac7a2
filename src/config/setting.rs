//! What a setting is: its name, its kind of value, its bounds, its default and its reason, declared once.
//!
//! [`section!`] turns one declaration into the typed struct, its rustdoc, its row of the reference and its reader, so
//! that none of them can drift.

use super::yaml::{Node, Place, Value};

/// One declared setting.
#[derive(Debug)]
pub struct SettingDef {
    /// The section it stands in; empty at the top level.
    pub section: &'static str,
    /// Its name inside the section.
    pub name: &'static str,
    /// What it is and why it has its default.
    pub reason: &'static str,
    /// The kind of value, with its unit.
    pub kind: &'static str,
    /// The value when nothing is given.
    pub default: Option<&'static str>,
    /// Lowest and highest value taken.
    pub bounds: Option<(&'static str, &'static str)>,
    /// True where it may be left out though it has no default.
    pub optional: bool,
    /// True where its value is never shown, nor taken from a file or a flag.
    pub secret: bool,
    /// Variables of others (AWS SDK, Rust) that are read after our own.
    pub foreign_variables: &'static [&'static str],
}

impl SettingDef {
    /// `section.name`, or the name alone at the top level.
    pub fn full_name(&self) -> String {
        if self.section.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.section, self.name) }
    }

    /// `RECORDKEEPER_SECTION_NAME`.
    pub fn variable(&self) -> String {
        format!("RECORDKEEPER_{}", self.full_name().replace('.', "_").to_uppercase())
    }
}

/// One declared section.
#[derive(Debug)]
pub struct SectionDef {
    /// Its key in the file; empty for the top level.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Its settings, in the order of the reference.
    pub settings: &'static [SettingDef],
}

/// Why a value is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong; follows the setting's name in a message.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault that speaks for itself.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// A fault with what to do about it.
    pub fn with_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// A type that settings can have.
pub(super) trait Setting: Sized {
    /// The kind of value, with its unit, for the reference.
    const KIND: &'static str;
    /// See [`SettingDef::secret`].
    const SECRET: bool = false;
    /// See [`SettingDef::optional`].
    const OPTIONAL: bool = false;

    /// Reads the text of a variable, a flag, a default, or a single value of a file.
    fn from_text(text: &str) -> Result<Self, Fault>;

    /// Reads the text of a variable or a flag, which may hold several values. All its faults are added, as by
    /// [`Setting::from_node`].
    fn from_plain(text: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        Self::from_text(text).map_err(|fault| faults.push(fault)).ok()
    }

    /// Reads a value of a file. All its faults are added; with some of them, what could be read is given all the same
    /// where that is of use for further checks.
    fn from_node(node: &Node, faults: &mut Vec<(Place, Fault)>) -> Option<Self> {
        let fault = match &node.value {
            Value::Scalar(text) => match Self::from_text(text) {
                Ok(value) => return Some(value),
                Err(fault) => fault,
            },
            Value::Nothing => Fault::with_hint("has no value", "write one, or leave the line out"),
            Value::Refused => return None,
            Value::List(_) | Value::Map(_) => Fault::new(format!("takes {}, not {}", Self::KIND, node.shape())),
        };
        faults.push((node.place, fault));
        None
    }

    /// As shown to people; redacted where it holds a secret.
    fn show(&self) -> String;

    /// The value of a setting that is not given and has no default; `None` where it has to be given.
    fn absent() -> Option<Self> {
        None
    }

    /// Whether this value may come from the environment only; a URL does so when a password stands in it.
    fn holds_secret(&self) -> bool {
        Self::SECRET
    }

    /// Whether it lies outside the bounds, both inclusive.
    fn outside(&self, _low: &Self, _high: &Self) -> bool {
        false
    }
}

/// Declares one section: `field: Type = "default" ["low"..="high"] | "FOREIGN_VARIABLE";`. Without a default a setting
/// has to be given, unless its type is an `Option`.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $section:literal => $type:ident {
            $(
                $(#[doc = $reason:literal])+
                $field:ident : $kind:ty $(= $default:literal)? $([$low:literal ..= $high:literal])? $(| $foreign:literal)* ;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub struct $type {
            $( $(#[doc = $reason])+ pub $field: $kind, )+
        }

        impl $type {
            /// The declarations, in order.
            pub(in crate::config) const SECTION: $crate::config::setting::SectionDef = $crate::config::setting::SectionDef {
                name: $section,
                about: concat!($($about),+).trim_ascii_start(),
                settings: &[$(
                    $crate::config::setting::SettingDef {
                        section: $section,
                        name: stringify!($field),
                        reason: concat!($($reason),+).trim_ascii_start(),
                        kind: <$kind as $crate::config::setting::Setting>::KIND,
                        default: $crate::config::setting::first!($($default)?),
                        bounds: $crate::config::setting::first!($(($low, $high))?),
                        optional: <$kind as $crate::config::setting::Setting>::OPTIONAL,
                        secret: <$kind as $crate::config::setting::Setting>::SECRET,
                        foreign_variables: &[$($foreign),*],
                    }
                ),+],
            };

            /// Reads every setting. What is wrong is reported, and its default stands in, so that the rest can be checked.
            pub(in crate::config) fn read(reader: &mut $crate::config::reader::Reader<'_>) -> Option<Self> {
                let mut settings = Self::SECTION.settings.iter();
                $( let $field = settings.next().and_then(|def| reader.read::<$kind>(def)); )+
                Some(Self { $( $field: $field?, )+ })
            }
        }
    };
}

/// `Some` of what is given, else `None`.
macro_rules! first {
    () => {
        None
    };
    ($given:expr) => {
        Some($given)
    };
}

/// A closed choice of names.
macro_rules! choice {
    (
        $(#[doc = $about:literal])+
        $type:ident { $( $(#[doc = $doc:literal])+ $variant:ident = $name:literal, )+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl $type {
            /// The name in the configuration.
            pub fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )+ }
            }
        }

        impl $crate::config::setting::Setting for $type {
            const KIND: &'static str = concat!("one of" $(, " `", $name, "`")+);

            fn from_text(text: &str) -> Result<Self, $crate::config::setting::Fault> {
                match text {
                    $( $name => Ok(Self::$variant), )+
                    _ => {
                        let known = [$($name),+];
                        let hint = match $crate::config::nearest(text, known) {
                            Some(name) => format!("did you mean \"{name}\"?"),
                            None => format!("one of {}", known.join(", ")),
                        };
                        Err($crate::config::setting::Fault::with_hint(format!("does not know \"{text}\""), hint))
                    }
                }
            }

            fn show(&self) -> String {
                self.name().to_owned()
            }
        }
    };
}

pub(in crate::config) use {choice, first, section};
