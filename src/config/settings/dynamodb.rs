//! DynamoDB: where the tables are and how hard they are driven.

use std::time::Duration;

use crate::config::reader::Reader;
use crate::config::setting::{Fault, section};
use crate::config::{Names, nearest};

section! {
    /// The tables. Credentials come from the AWS SDK's own chain (variables, profile, web identity, task or instance role).
    "dynamodb" => DynamodbSettings {
        /// The region. No default: records in a wrong region are lost to those who look for them.
        region: String | "AWS_REGION" | "AWS_DEFAULT_REGION";
        /// Another endpoint than the region's own, such as DynamoDB local or a VPC endpoint: an address only, without user, password or query.
        endpoint: Option<String> | "AWS_ENDPOINT_URL_DYNAMODB" | "AWS_ENDPOINT_URL";
        /// Reads and transactions in flight, at most; each has a connection of its own.
        connections: usize = "64" ["1"..="1024"];
        /// How long one attempt of a call may take.
        call_deadline: Duration = "5s" ["100ms"..="1m"];
        /// Batched write calls in flight, over all tables, at most.
        calls_in_flight: usize = "32" ["1"..="1024"];
        /// Write units a second that a table may be given at most, by the table's name without prefix. Without an entry only throttling slows writes down.
        write_budgets: Names<u32> = "";
        /// The customer-managed key that `tables create` encrypts new tables with; without it DynamoDB's own.
        kms_key: Option<String>;
        /// Over how many index keys a new wallet_records table spreads one wallet's records. Reads ask each; existing tables keep theirs.
        record_shards: u32 = "4" ["1"..="1000"];
        /// Over how many index keys a new wallet_inventory table spreads the wallets of one chain and status.
        inventory_shards: u32 = "16" ["1"..="1000"];
    }
}

/// The tables that the consumer writes to, without prefix.
const TABLES: [&str; 4] = ["wallet_records", "wallet_inventory", "user_wallet_mapping", "ledger"];

impl DynamodbSettings {
    pub(super) fn check(&self, reader: &mut Reader<'_>) {
        if let Some(Err(fault)) = self.endpoint.as_deref().map(is_endpoint) {
            reader.complain("dynamodb.endpoint", fault);
        }
        if let Err(fault) = is_region(&self.region) {
            reader.complain("dynamodb.region", fault);
        }
        if let Some(key) = &self.kms_key
            && key.trim().is_empty()
        {
            reader.complain("dynamodb.kms_key", Fault::new("is blank"));
        }
        for (table, units) in &self.write_budgets {
            if !TABLES.contains(&table.as_str()) {
                let hint = match nearest(table, TABLES) {
                    Some(name) => format!("did you mean \"{name}\"?"),
                    None => format!("the tables are {}", TABLES.join(", ")),
                };
                reader
                    .complain("dynamodb.write_budgets", Fault::with_hint(format!("knows no table \"{table}\""), hint));
            } else if *units == 0 {
                reader
                    .complain("dynamodb.write_budgets", Fault::new(format!("gives {table} nothing; take at least 1")));
            }
        }
    }
}

/// Whether this can be the name of a region.
pub(super) fn is_region(text: &str) -> Result<(), Fault> {
    let sound = !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if sound { Ok(()) } else { Err(Fault::with_hint("is no name of a region", "such as eu-central-1")) }
}

/// Whether this is an address and nothing else. What stands in a URL beside it may be a secret, and `check` shows endpoints,
/// so no message repeats the text.
pub(super) fn is_endpoint(text: &str) -> Result<(), Fault> {
    let refuse = |what: &str| Err(Fault::with_hint(what, "write http://host:port or https://host"));
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return refuse("takes a URL that begins with http:// or https://");
    };
    if text.contains(|c: char| !c.is_ascii_graphic()) {
        return refuse("holds white space, or letters that no URL has");
    }
    if text.contains('@') {
        return refuse("holds a user or password, or an `@`: credentials are the AWS SDK's own matter");
    }
    if text.contains(['?', '#']) {
        return refuse("holds a query or fragment, which no endpoint has");
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if port.is_some_and(|port| {
        !port.bytes().all(|byte| byte.is_ascii_digit()) || !port.parse().is_ok_and(|port: u16| port > 0)
    }) {
        return refuse("has a port that is none (1 to 65535)");
    }
    let host_is_sound = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(address) => address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)),
    };
    if host_is_sound { Ok(()) } else { refuse("names no host") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_and_nothing_else() {
        for good in
            ["http://127.0.0.1:8000", "https://vpce-1.dynamodb.eu-central-1.vpce.amazonaws.com/", "http://[::1]:1"]
        {
            assert_eq!(is_endpoint(good), Ok(()), "{good}");
        }
        for bad in [
            "hunter2",
            "http://",
            "http:///hunter2",
            "http://:8000",
            "http://hunter2:70000",
            "http://hunter2:0",
            "http://hunter2:",
            "http://a:hunter2@b",
            "http://a?key=hunter2",
            "http://a#hunter2",
            "http://hunter2 ",
            "http://hunt er2",
            "http://[hunter2]",
            "http://hunter2:+80",
            "ftp://hunter2",
        ] {
            let fault = is_endpoint(bad).unwrap_err();
            assert!(!format!("{fault:?}").contains("hunter2"), "{bad}: {fault:?}");
        }
    }
}
