//! S3: where archives may be.

use std::time::Duration;

use super::dynamodb::{is_endpoint, is_region};
use crate::config::reader::Reader;
use crate::config::setting::section;

section! {
    /// Archives in S3, for `archive` and `replay`. Credentials come from the AWS SDK's own chain, as those of the tables do.
    "s3" => S3Settings {
        /// The region of the buckets; without it that of the tables.
        region: Option<String>;
        /// Another endpoint than the region's own, such as a VPC endpoint or a server that speaks its protocol: an address only. Buckets then stand in the path.
        endpoint: Option<String> | "AWS_ENDPOINT_URL_S3" | "AWS_ENDPOINT_URL";
        /// How long one attempt of a call may take, and a second more for each MiB of its body. What fails is tried again for two minutes.
        call_deadline: Duration = "10s" ["100ms"..="1m"];
    }
}

impl S3Settings {
    pub(super) fn check(&self, reader: &mut Reader<'_>) {
        if let Some(Err(fault)) = self.endpoint.as_deref().map(is_endpoint) {
            reader.complain("s3.endpoint", fault);
        }
        if let Some(Err(fault)) = self.region.as_deref().map(is_region) {
            reader.complain("s3.region", fault);
        }
    }
}
