//! Configuration: files, variables and flags in; checked types or diagnostics out.
//!
//! Each setting is declared once, in [`settings`]; its reader, its variable, its checks and its row of the reference come
//! from the declaration. What can fail is reported all at once, as [`Diagnostic`]s with file and line.

mod bounded;
mod diagnostics;
mod kinds;
mod load;
pub(crate) mod pem;
pub mod pipelines;
mod reader;
mod reference;
mod secret;
mod setting;
mod settings;
mod share;
mod unknown;
mod yaml;

pub use diagnostics::{Diagnostic, Severity, nearest};
pub use kinds::{ByteSize, Names, Threads};
pub use load::{ByAdapters, ConfigArgs, Loaded, Override, admin_from_process, load, load_from_process};
pub use reader::{Effective, Origin};
pub use reference::reference;
pub use secret::Secret;
pub use setting::{Fault, SectionDef, SettingDef};
pub use settings::{
    AdminSettings, Dedupe, DynamodbSettings, EngineSettings, GeneralSettings, HostPort, KafkaSettings, LedgerSettings,
    LogFormat, LogSettings, RedisMode, RedisSettings, RedisUrl, S3Settings, SECTIONS, SaslMechanism, Security,
    Settings,
};
pub use share::Share;
