//! Wallet ids, chains and addresses.
use super::outcome::Refusal;

/// A wallet's canonical id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WalletId {
    text: String,
    address_at: usize,
}

impl WalletId {
    /// Reads `chain[:network]:address` and makes it canonical.
    pub fn parse(_text: &str) -> Result<Self, Refusal> {
        todo!()
    }
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// The canonical text.
    pub fn into_string(self) -> String {
        self.text
    }
    /// Without its address: `evm:1`; `ext` for opaque ids.
    pub fn chain(&self) -> &str {
        todo!()
    }
    /// The chain's first part: `evm`; `ext` for opaque ids.
    pub fn blockchain_type(&self) -> &str {
        todo!()
    }
    /// The canonical address.
    pub fn address(&self) -> &str {
        &self.text[self.address_at..]
    }
}

/// An address of that chain in its canonical form.
pub fn canonical_address(_chain: &str, _address: &str) -> Result<String, Refusal> {
    todo!()
}

/// Whether the chain is one that wallets are kept for.
pub fn check_chain(_chain: &str) -> Result<(), Refusal> {
    todo!()
}
/// Whether an opaque user id is 1 to 1,024 bytes.
pub fn check_user_id(_user_id: &str) -> Result<(), Refusal> {
    todo!()
}
