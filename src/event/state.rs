//! State that changes: wallets and who may use them.

use super::version::Version;

/// Which item a state write goes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKey {
    /// A wallet in `wallet_inventory`.
    Wallet {
        /// Its canonical id.
        wallet_id: String,
    },
    /// A user's right to a wallet in `user_wallet_mapping`.
    Mapping {
        /// The user, an opaque id.
        user_id: String,
        /// The wallet's canonical id.
        wallet_id: String,
    },
}

/// One group of attributes under one source of versions. A write owns the whole group: what it leaves out is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Who and where the wallet is.
    Identity,
    /// What its owner calls it.
    Profile,
    /// Whether it may be used.
    Status,
    /// A user's right to a wallet (the only group of a mapping).
    Mapping,
}

impl Group {
    /// The groups of a wallet.
    pub const OF_WALLET: [Self; 3] = [Self::Identity, Self::Profile, Self::Status];

    /// The group's name in configuration, manifests and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Profile => "profile",
            Self::Status => "status",
            Self::Mapping => "mapping",
        }
    }

    /// The attributes that the group owns; others may not be written by it.
    pub fn attributes(self) -> &'static [&'static str] {
        match self {
            Self::Identity => &["address", "owner", "provider", "provider_wallet_id", "request_id"],
            Self::Profile => &["label", "tags"],
            Self::Status => &["wallet_status", "reason"],
            Self::Mapping => &["role", "scopes", "status", "granted_at", "granted_by", "revoked_at", "revoked_by"],
        }
    }

    /// The attribute that holds the group's version.
    pub fn version_attribute(self) -> &'static str {
        match self {
            Self::Identity => "identity_version",
            Self::Profile => "profile_version",
            Self::Status => "status_version",
            Self::Mapping => "version",
        }
    }
}

/// A value of a state's attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateValue {
    /// A text.
    Text(String),
    /// Texts in order.
    List(Vec<String>),
    /// Texts by name, sorted by name.
    Map(Vec<(String, String)>),
}

/// One versioned write to one group of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    /// The item.
    pub key: StateKey,
    /// The group.
    pub group: Group,
    /// Applied only over a lower version.
    pub version: Version,
    /// The whole group as the event says it: names from [`Group::attributes`], sorted, each once.
    pub attributes: Vec<(&'static str, StateValue)>,
}
