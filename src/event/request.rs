//! Wallet-creation requests: what the request topic carries.

use sha2::{Digest as _, Sha256};

use super::ids::Digest;

/// One request for a new wallet, under an id that any redelivery computes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreationRequest {
    /// The publisher's own id, else the request digest in hex.
    pub request_id: String,
    /// Over what makes the request that request: see [`request_digest`].
    pub request_digest: Digest,
    /// The tenant; empty where there is none.
    pub tenant: String,
    /// For whom; the topic's key.
    pub user_id: String,
    /// The chain, such as `evm:1`.
    pub chain: String,
    /// Who keeps the key: `hsm`, `kms` or `vendor`.
    pub custody: String,
    /// The user's name for it.
    pub alias: String,
    /// From 1; a further wallet of the same name is the next generation.
    pub generation: String,
    /// Identity (`source|id`) of the event that asked.
    pub requested_by: String,
    /// Carried through.
    pub correlation_id: String,
    /// Carried through as a header.
    pub priority: Option<String>,
    /// Carried through as a header.
    pub traceparent: Option<String>,
}

/// SHA-256 over tenant, user id, chain, custody, alias and generation, each as a 4-byte big-endian length and its bytes.
pub fn request_digest(
    tenant: &str,
    user_id: &str,
    chain: &str,
    custody: &str,
    alias: &str,
    generation: &str,
) -> Digest {
    let mut hash = Sha256::new();
    for part in [tenant, user_id, chain, custody, alias, generation] {
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        hash.update(length.to_be_bytes());
        hash.update(part.as_bytes());
    }
    Digest(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cannot_run_into_each_other() {
        assert_ne!(request_digest("", "ab", "c", "", "", "1"), request_digest("", "a", "bc", "", "", "1"));
    }
}
