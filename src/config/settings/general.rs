//! The settings at the top level of the file.

use crate::config::reader::Reader;
use crate::config::setting::{Fault, choice, section};

choice! {
    /// Where known event ids are looked up before the judge is asked.
    Dedupe {
        /// In Redis, shared by all instances.
        Redis = "redis",
        /// In this process only: each instance pays for the duplicates that others saw.
        Memory = "memory",
    }
}

section! {
    /// At the top level of the file.
    "" => GeneralSettings {
        /// Where known event ids are looked up before DynamoDB judges. `memory` leaves Redis out, by name, for one instance or a trial.
        dedupe: Dedupe = "redis";
        /// Put in front of every table's name, so that several environments can share an account.
        table_prefix: String = "";
        /// The topic that wallet-creation requests go to.
        requests_topic: String = "wallet-requests";
        /// The topic that dead letters go to. It has to hold the largest message of the sources and 64 KB more.
        dead_letters_topic: String = "recordkeeper-dead-letters";
    }
}

impl GeneralSettings {
    pub(super) fn check(&self, reader: &mut Reader<'_>) {
        for (name, topic) in
            [("requests_topic", &self.requests_topic), ("dead_letters_topic", &self.dead_letters_topic)]
        {
            if !is_name(topic, 1..=249) || topic == "." || topic == ".." {
                let message = format!("is no name of a topic: \"{topic}\"");
                reader.complain(name, Fault::with_hint(message, "1 to 249 of letters, digits, '.', '_' and '-'"));
            }
        }
        if reader.are_sound(&["requests_topic"]) && self.requests_topic == self.dead_letters_topic {
            reader.complain("dead_letters_topic", Fault::new("is the topic of the requests; the two must differ"));
        }
        if !is_name(&self.table_prefix, 0..=200) {
            let message = format!("cannot begin a table's name: \"{}\"", self.table_prefix);
            reader
                .complain("table_prefix", Fault::with_hint(message, "up to 200 of letters, digits, '.', '_' and '-'"));
        }
    }
}

/// Kafka and DynamoDB take the same letters.
fn is_name(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}
