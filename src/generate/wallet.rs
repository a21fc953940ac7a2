//! The wallets that events are about: addresses of real form, and the versions sent so far.

use fastrand::Rng;
use sha3::{Digest as _, Keccak256};

/// How a wallet's publishers number their states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbering {
    /// 1, 2, 3.
    Plain,
    /// Block and index in it, as an array.
    Pair,
    /// Beyond signed 64 bits.
    Huge,
}

/// Which versioned state of a wallet: identity, profile, status, then one a user.
pub(super) type Slot = usize;
pub(super) const IDENTITY: Slot = 0;
pub(super) const PROFILE: Slot = 1;
pub(super) const STATUS: Slot = 2;
pub(super) const FIRST_USER: Slot = 3;
/// The chain of wallets that no chain's rules apply to.
pub(super) const OPAQUE: &str = "ext";
/// How many users hold rights to one wallet.
pub(super) const USERS: usize = 3;

/// One wallet and what was sent about it.
#[derive(Clone, Debug)]
pub(super) struct Wallet {
    /// Such as `evm:1`; `ext` for an opaque id.
    pub(super) chain: &'static str,
    /// In canonical form.
    pub(super) wallet_id: String,
    /// As publishers write it: canonical, or on EVM chains with its checksum.
    pub(super) address: String,
    /// Others on the same chain, as publishers write them.
    pub(super) peers: Vec<String>,
    pub(super) users: Vec<String>,
    pub(super) numbering: Numbering,
    /// The highest version sent, a slot each.
    pub(super) versions: [Option<[u64; 4]>; FIRST_USER + USERS],
    /// The last transaction that was submitted.
    pub(super) transaction: Option<String>,
}

impl Wallet {
    /// Wallet number `index`; the same for the same seed, whatever was sent before.
    pub(super) fn new(seed: u64, index: u64) -> Self {
        let mut rng = Rng::with_seed(seed.rotate_left(32) ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let chain = match if index == 0 { 0 } else { rng.u32(0..100) } {
            0..40 => "evm:1",
            40..50 => "evm:137",
            50..70 => "solana:mainnet",
            70..80 => "stellar:pubnet",
            80..90 => "bitcoin:mainnet",
            90..93 => "aptos:1",
            93..96 => "sui:mainnet",
            _ => OPAQUE,
        };
        let address = address(chain, &mut rng);
        let canonical = if chain.starts_with("evm") { address.to_ascii_lowercase() } else { address.clone() };
        let peers = (0..4).map(|_| self::address(chain, &mut rng)).collect();
        let users = (0..USERS).map(|_| format!("usr_{:012x}", rng.u64(..) >> 16)).collect();
        let numbering = [Numbering::Plain, Numbering::Plain, Numbering::Pair, Numbering::Huge][rng.usize(0..4)];
        Self {
            chain,
            wallet_id: format!("{chain}:{canonical}"),
            address: if rng.bool() { address } else { canonical },
            peers,
            users,
            numbering,
            versions: Default::default(),
            transaction: None,
        }
    }

    /// The wallet's id as its publishers write it.
    pub(super) fn written_id(&self) -> String {
        format!("{}:{}", self.chain, self.address)
    }

    /// A version above all sent so far for this slot.
    pub(super) fn next_version(&self, slot: Slot, rng: &mut Rng) -> [u64; 4] {
        let step = rng.u64(1..4);
        match (self.versions[slot], self.numbering) {
            (None, Numbering::Plain) => [step, 0, 0, 0],
            (None, Numbering::Pair) => [rng.u64(18_000_000..19_000_000), step, 0, 0],
            (None, Numbering::Huge) => [(1 << 63) + rng.u64(0..1 << 40), 0, 0, 0],
            (Some([block, index, ..]), Numbering::Pair) if rng.bool() => [block, index + step, 0, 0],
            (Some([block, ..]), Numbering::Pair) => [block + step, 0, 0, 0],
            (Some([number, ..]), Numbering::Plain | Numbering::Huge) => [number + step, 0, 0, 0],
        }
    }

    /// A version below the highest sent for this slot; `None` where nothing was sent.
    pub(super) fn lower_version(&self, slot: Slot, rng: &mut Rng) -> Option<[u64; 4]> {
        let [first, ..] = self.versions[slot]?;
        let below = first.checked_sub(1)?;
        let near = first.saturating_sub(5);
        Some([rng.u64(near..=below), 0, 0, 0])
    }
}

/// An address as this chain's publishers write it: EVM's with the checksum of EIP-55.
pub(super) fn address(chain: &str, rng: &mut Rng) -> String {
    let mut bytes = [0; 32];
    rng.fill(&mut bytes);
    let blockchain_type = chain.split(':').next().unwrap_or(chain);
    match blockchain_type {
        "evm" => checksummed(&bytes[..20]),
        "stellar" => format!("{}", stellar_strkey::ed25519::PublicKey(bytes)),
        "bitcoin" => {
            let legacy = || bs58::encode(&bytes[..20]).with_check_version(0).into_string();
            // A program of 20 bytes always encodes.
            if rng.bool() {
                bech32::segwit::encode_v0(bech32::hrp::BC, &bytes[..20]).unwrap_or_else(|_| legacy())
            } else {
                legacy()
            }
        }
        "aptos" | "sui" => {
            // Neither chain's special short forms: the first byte is not zero.
            bytes[0] |= 0x10;
            format!("0x{}", hex(&bytes))
        }
        OPAQUE => format!("vault/{}|50% é", hex(&bytes[..6])),
        _ => bs58::encode(bytes).into_string(),
    }
}

/// `0x` and 64 random hexadecimal digits.
pub(super) fn hash_text(rng: &mut Rng) -> String {
    let mut bytes = [0; 32];
    rng.fill(&mut bytes);
    format!("0x{}", hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)] as char);
        out.push(DIGITS[usize::from(byte & 15)] as char);
    }
    out
}

/// EIP-55: a letter is upper case where the same digit of the lower-case text's Keccak-256 is 8 or more.
fn checksummed(bytes: &[u8]) -> String {
    checksum(&hex(bytes))
}

/// Whether this is the form of EIP-55.
pub(super) fn is_checksummed(address: &str) -> bool {
    address.strip_prefix("0x").is_some_and(|digits| checksum(&digits.to_ascii_lowercase()) == address)
}

fn checksum(lower: &str) -> String {
    let hash = Keccak256::digest(lower.as_bytes());
    let mut out = String::with_capacity(42);
    out.push_str("0x");
    for (at, letter) in lower.chars().enumerate() {
        let digit = hash[at / 2] >> (4 * (1 - at % 2)) & 15;
        out.push(if digit >= 8 { letter.to_ascii_uppercase() } else { letter });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_eip_55() {
        let bytes: Vec<u8> = (0..20)
            .map(|at| u8::from_str_radix(&"5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"[at * 2..at * 2 + 2], 16).unwrap())
            .collect();
        assert_eq!(checksummed(&bytes), "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed");
    }

    #[test]
    fn a_wallet_depends_on_its_seed_and_number_alone() {
        assert_eq!(Wallet::new(1, 5).wallet_id, Wallet::new(1, 5).wallet_id);
        assert_ne!(Wallet::new(1, 5).wallet_id, Wallet::new(2, 5).wallet_id);
        assert_ne!(Wallet::new(1, 5).wallet_id, Wallet::new(1, 6).wallet_id);
    }

    #[test]
    fn versions_go_up_and_stale_ones_stay_below() {
        let mut rng = Rng::with_seed(7);
        for index in 0..50 {
            let mut wallet = Wallet::new(9, index);
            assert_eq!(wallet.lower_version(STATUS, &mut rng), None);
            for _ in 0..20 {
                let next = wallet.next_version(STATUS, &mut rng);
                assert!(wallet.versions[STATUS] < Some(next));
                wallet.versions[STATUS] = Some(next);
                assert!(wallet.lower_version(STATUS, &mut rng).unwrap() < next);
            }
        }
    }
}
