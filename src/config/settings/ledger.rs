//! Heads of the ledger: what is published of it outside of the tables.

use std::path::PathBuf;
use std::time::Duration;

use super::secret_file;
use crate::config::Secret;
use crate::config::reader::Reader;
use crate::config::setting::{Fault, section};

section! {
    /// Heads: where the ledger's chains end, signed and written outside of the tables, so that `verify` finds a cut or rewritten chain.
    "ledger" => LedgerSettings {
        /// The file that heads are appended to. It belongs where nobody who may write to the tables can change it; without it no heads are published.
        heads_file: Option<PathBuf>;
        /// The private key that heads are signed with: Ed25519, PEM (PKCS #8).
        heads_key: Option<Secret>;
        /// A file that holds the private key.
        heads_key_file: Option<PathBuf>;
        /// How often the head of a chain that grew is published, at most; and when its instance ends. What happened to a chain's end since its last head is not seen.
        heads_interval: Duration = "5m" ["1s"..="24h"];
    }
}

impl LedgerSettings {
    /// Checks how it fits together, and reads the key from its file.
    pub(super) fn check(&mut self, reader: &mut Reader<'_>) {
        let key = ["ledger.heads_key", "ledger.heads_key_file"].into_iter().find(|name| reader.is_mentioned(name));
        match (reader.is_mentioned("ledger.heads_file"), key) {
            (true, None) => reader.complain("ledger.heads_file", Fault::new("needs ledger.heads_key_file")),
            (false, Some(key)) => reader.complain(key, Fault::new("needs ledger.heads_file")),
            _ => {}
        }
        if let Some(folder) = self.heads_file.as_ref().and_then(|file| file.parent()).filter(|folder| !folder.is_dir())
            && !folder.as_os_str().is_empty()
        {
            let fault = Fault::with_hint(format!("{} is no folder", folder.display()), "make it, or mount it");
            reader.complain("ledger.heads_file", fault);
        }
        let given = self.heads_key.take();
        self.heads_key = secret_file::read(reader, "ledger.heads_key", given, self.heads_key_file.as_deref());
    }
}
