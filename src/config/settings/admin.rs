//! The admin port.

use std::net::SocketAddr;

use crate::config::setting::section;

section! {
    /// The port for probes, metrics and the status page. It has no authentication: keep it inside.
    "admin" => AdminSettings {
        /// Where it listens. Behind probes of an orchestrator `0.0.0.0:9464`.
        listen: SocketAddr = "127.0.0.1:9464";
    }
}
