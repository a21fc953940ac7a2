//! The log.

use crate::config::reader::Reader;
use crate::config::setting::{Fault, choice, section};

choice! {
    /// How lines of the log look.
    LogFormat {
        /// One JSON object a line.
        Json = "json",
        /// For people.
        Text = "text",
    }
}

section! {
    /// The log, on standard error.
    "log" => LogSettings {
        /// How lines look.
        format: LogFormat = "json";
        /// What is logged: a level, and levels by module, such as `info,recordkeeper::store=debug`.
        filter: String = "info" | "RUST_LOG";
    }
}

impl LogSettings {
    pub(super) fn check(&self, reader: &mut Reader<'_>) {
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.filter) {
            reader.complain(
                "log.filter",
                Fault::with_hint(format!("is no filter: {error}"), "error, warn, info, debug or trace"),
            );
        }
    }
}
