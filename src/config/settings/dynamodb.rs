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
        /// Another endpoint than the region's own, such as DynamoDB local or a VPC endpoint.
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
        if let Some(endpoint) = &self.endpoint
            && !(endpoint.starts_with("http://") || endpoint.starts_with("https://"))
        {
            reader.complain("dynamodb.endpoint", Fault::new("takes a URL that begins with http:// or https://"));
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
