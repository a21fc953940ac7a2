//! Wallet ids, chains and addresses: one wallet is one key, whatever notation it was sent in.
//!
//! A wallet id is `chain:address`, where the chain is a family and a network. Canonical forms, by family:
//!
//! | family | networks | address |
//! | --- | --- | --- |
//! | `evm` | chain id in decimal | `0x` and 40 hex digits, lower case; mixed case must be right by EIP-55 |
//! | `solana` | mainnet, devnet, testnet | base58 of 32 bytes, case kept |
//! | `stellar` | pubnet, testnet | `G…` account key, its checksum right |
//! | `bitcoin` | mainnet, testnet | base58check (P2PKH, P2SH), or bech32/bech32m of witness version 0 or 1, lower case |
//! | `aptos` | chain id in decimal | `0x` and 64 hex digits, lower case; shorter ones are padded with zeros |
//! | `sui` | mainnet, testnet, devnet | as aptos |
//!
//! `ext:…` is opaque and taken as it is. Hex without `0x`, or with `0X`, is refused. A refusal has reason `mapping`, or
//! `too_large` where only the length is wrong.

use sha3::{Digest as _, Keccak256};

use super::outcome::{Reason, Refusal};

/// The most bytes of a wallet id or a user id: what keys and indexes of the tables take.
const ID_BYTES_MAX: usize = 1024;

/// The longest base58 text of 32 bytes. Decoding takes time by the square of the length, so longer texts are not tried.
const BASE58_BYTES_MAX: usize = 44;

/// The family of wallets that this system knows nothing about.
const OPAQUE: &str = "ext";

/// A wallet's canonical id, 1 to 1,024 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WalletId {
    text: String,
    address_at: usize,
}

impl WalletId {
    /// Reads a wallet id and makes it canonical.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        check_length("wallet id", text)?;
        let malformed = || refusal("a wallet id is chain:network:address, such as evm:1:0x…, or ext:…");
        let (family, rest) = text.split_once(':').ok_or_else(malformed)?;
        let address_at = if family == OPAQUE {
            family.len() + 1
        } else {
            let (network, _) = rest.split_once(':').ok_or_else(malformed)?;
            family.len() + network.len() + 2
        };
        let mut canonical = String::with_capacity(text.len());
        canonical.push_str(&text[..address_at]);
        push_address(&mut canonical, &text[..address_at - 1], &text[address_at..])?;
        Ok(Self { text: canonical, address_at })
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The canonical text.
    pub fn into_string(self) -> String {
        self.text
    }

    /// Family and network, such as `evm:1`; `ext` for an opaque id.
    pub fn chain(&self) -> &str {
        &self.text[..self.address_at - 1]
    }

    /// The family, such as `evm`; `ext` for an opaque id.
    pub fn blockchain_type(&self) -> &str {
        self.chain().split(':').next().unwrap_or_default()
    }

    /// The canonical address; what stands behind `ext:` for an opaque id.
    pub fn address(&self) -> &str {
        &self.text[self.address_at..]
    }
}

/// An address of that chain (`evm:1`, …, or `ext`) in its canonical form.
pub fn canonical_address(chain: &str, address: &str) -> Result<String, Refusal> {
    let mut out = String::with_capacity(address.len());
    push_address(&mut out, chain, address)?;
    Ok(out)
}

/// Refuses what is not a known family with one of its networks; `ext`, which has no network, too.
pub fn check_chain(chain: &str) -> Result<(), Refusal> {
    Family::of_chain(chain).map(|_| ())
}

/// Refuses an empty user id (reason `mapping`) and one of more than 1,024 bytes (`too_large`); all others are opaque.
pub fn check_user_id(user_id: &str) -> Result<(), Refusal> {
    check_length("user id", user_id)
}

fn check_length(what: &str, text: &str) -> Result<(), Refusal> {
    match text.len() {
        0 => Err(Refusal::new(Reason::Mapping, format!("a {what} is empty"))),
        1..=ID_BYTES_MAX => Ok(()),
        length => Err(Refusal::new(
            Reason::TooLarge,
            format!("a {what} has {length} bytes, the limit is {ID_BYTES_MAX} bytes"),
        )),
    }
}

fn refusal(detail: &str) -> Refusal {
    Refusal::new(Reason::Mapping, detail)
}

/// How a chain writes its addresses.
#[derive(Clone, Copy)]
enum Family {
    Evm,
    Solana,
    Stellar,
    Bitcoin(BitcoinNetwork),
    /// Aptos and Sui.
    Move,
}

#[derive(Clone, Copy)]
struct BitcoinNetwork {
    /// Version bytes of P2PKH and P2SH.
    versions: [u8; 2],
    /// What segwit addresses start with.
    prefix: &'static str,
}

const BITCOIN_MAINNET: BitcoinNetwork = BitcoinNetwork { versions: [0x00, 0x05], prefix: "bc" };
const BITCOIN_TESTNET: BitcoinNetwork = BitcoinNetwork { versions: [0x6f, 0xc4], prefix: "tb" };

impl Family {
    fn of_chain(chain: &str) -> Result<Self, Refusal> {
        match chain.split_once(':') {
            Some(("evm", id)) if is_chain_id(id) => Ok(Self::Evm),
            Some(("solana", "mainnet" | "devnet" | "testnet")) => Ok(Self::Solana),
            Some(("stellar", "pubnet" | "testnet")) => Ok(Self::Stellar),
            Some(("bitcoin", "mainnet")) => Ok(Self::Bitcoin(BITCOIN_MAINNET)),
            Some(("bitcoin", "testnet")) => Ok(Self::Bitcoin(BITCOIN_TESTNET)),
            Some(("aptos", id)) if is_chain_id(id) => Ok(Self::Move),
            Some(("sui", "mainnet" | "testnet" | "devnet")) => Ok(Self::Move),
            _ => Err(refusal("an unknown chain; it is a family and a network, such as evm:1 or solana:mainnet")),
        }
    }
}

/// A 64-bit integer from 1 in decimal, without leading zeros, so that one chain has one name.
fn is_chain_id(text: &str) -> bool {
    text.starts_with(|first: char| matches!(first, '1'..='9')) && text.parse::<u64>().is_ok()
}

/// Appends the canonical form of an address.
fn push_address(out: &mut String, chain: &str, address: &str) -> Result<(), Refusal> {
    if chain == OPAQUE {
        if address.is_empty() {
            return Err(refusal("nothing behind ext:"));
        }
        out.push_str(address);
        return Ok(());
    }
    match Family::of_chain(chain)? {
        Family::Evm => push_evm(out, address),
        Family::Solana => push_solana(out, address),
        Family::Stellar => push_stellar(out, address),
        Family::Bitcoin(network) => push_bitcoin(out, network, address),
        Family::Move => push_move(out, address),
    }
}

fn push_evm(out: &mut String, address: &str) -> Result<(), Refusal> {
    let digits = address
        .strip_prefix("0x")
        .filter(|digits| digits.len() == 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .ok_or_else(|| refusal("an evm address is 0x and 40 hex digits"))?;
    let start = out.len() + 2;
    out.push_str(address);
    if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
        out[start..].make_ascii_lowercase();
        // An address all in upper case carries no checksum, like one all in lower case.
        if digits.bytes().any(|byte| byte.is_ascii_lowercase()) && !is_checksummed(digits, &out[start..]) {
            return Err(refusal("an evm address in mixed case has a wrong checksum (EIP-55)"));
        }
    }
    Ok(())
}

/// EIP-55: a letter is in upper case where the hash of the digits in lower case has a nibble of 8 or more.
fn is_checksummed(digits: &str, lower: &str) -> bool {
    let hash = Keccak256::digest(lower.as_bytes());
    digits.bytes().enumerate().all(|(at, byte)| {
        let nibble = if at % 2 == 0 { hash[at / 2] >> 4 } else { hash[at / 2] & 15 };
        byte.is_ascii_digit() || byte.is_ascii_uppercase() == (nibble >= 8)
    })
}

fn push_solana(out: &mut String, address: &str) -> Result<(), Refusal> {
    // Base58 writes the same bytes in one way only, so a text that decodes is canonical.
    let mut key = [0; BASE58_BYTES_MAX];
    let fits = address.len() <= BASE58_BYTES_MAX && bs58::decode(address).onto(&mut key) == Ok(32);
    if !fits {
        return Err(refusal("a solana address is base58 of 32 bytes"));
    }
    out.push_str(address);
    Ok(())
}

fn push_stellar(out: &mut String, address: &str) -> Result<(), Refusal> {
    stellar_strkey::ed25519::PublicKey::from_string(address)
        .map_err(|_| refusal("a stellar address is an account key G… with the right checksum"))?;
    out.push_str(address);
    Ok(())
}

fn push_bitcoin(out: &mut String, network: BitcoinNetwork, address: &str) -> Result<(), Refusal> {
    if is_segwit(network, address) {
        let start = out.len();
        out.push_str(address);
        out[start..].make_ascii_lowercase();
        return Ok(());
    }
    let mut payload = [0; BASE58_BYTES_MAX];
    let is_base58 = address.len() <= BASE58_BYTES_MAX
        && bs58::decode(address).with_check(None).onto(&mut payload) == Ok(21)
        && network.versions.contains(&payload[0]);
    if !is_base58 {
        return Err(refusal(
            "a bitcoin address is base58check, or bech32 of witness version 0 or 1, of its own network",
        ));
    }
    out.push_str(address);
    Ok(())
}

fn is_segwit(network: BitcoinNetwork, address: &str) -> bool {
    bech32::segwit::decode(address).is_ok_and(|(prefix, version, _)| {
        prefix.lowercase_char_iter().eq(network.prefix.chars()) && version.to_u8() <= 1
    })
}

fn push_move(out: &mut String, address: &str) -> Result<(), Refusal> {
    const DIGITS: usize = 64;
    let digits = address
        .strip_prefix("0x")
        .filter(|digits| (1..=DIGITS).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .ok_or_else(|| refusal("an aptos or sui address is 0x and 1 to 64 hex digits"))?;
    out.push_str("0x");
    out.extend(std::iter::repeat_n('0', DIGITS - digits.len()));
    out.extend(digits.chars().map(|digit| digit.to_ascii_lowercase()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason_of(text: &str) -> Option<Reason> {
        WalletId::parse(text).err().map(|refusal| refusal.reason)
    }

    /// One EVM wallet under every notation, a wrong checksum refused, Solana by its exact letters.
    #[test]
    fn notations_of_one_address_are_one_wallet() {
        let lines = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cases/addresses.jsonl"));
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let id = |line: &serde_json::Value| {
            let chain = if line["chain"] == "evm" { "evm:1" } else { "solana:mainnet" };
            WalletId::parse(&format!("{chain}:{}", line["address"].as_str().unwrap())).map(WalletId::into_string)
        };
        let ids: Vec<_> = lines.iter().map(id).collect();
        let evm = "evm:1:0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";
        for (line, id) in lines.iter().zip(&ids).filter(|(line, _)| line["chain"] == "evm") {
            match line["expect"].as_str().unwrap() {
                "wallet A" => assert_eq!(id.as_deref(), Ok(evm), "{}", line["note"]),
                _ => assert_eq!(id.as_ref().unwrap_err().reason, Reason::Mapping, "{}", line["note"]),
            }
        }
        let solana: Vec<_> = lines.iter().zip(&ids).filter(|(line, _)| line["chain"] == "solana").collect();
        assert_eq!(solana.len(), 3);
        let kept: std::collections::HashSet<_> = solana.iter().filter_map(|(_, id)| id.as_deref().ok()).collect();
        assert!(solana[..2].iter().all(|(_, id)| id.is_ok()));
        assert_eq!(kept.len(), solana.iter().filter(|(_, id)| id.is_ok()).count());
        for (line, id) in solana {
            if let Ok(id) = id {
                assert!(id.ends_with(line["address"].as_str().unwrap()));
            }
        }
    }

    /// The examples of EIP-55 itself.
    #[test]
    fn checksums_are_those_of_eip_55() {
        for address in [
            "0x52908400098527886E0F7030069857D2E4169EE7",
            "0xde709f2102306220921060314715629080e2fb77",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
            "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
        ] {
            assert_eq!(canonical_address("evm:1", address), Ok(address.to_ascii_lowercase()));
            let swapped = address.replacen('b', "B", 1);
            if swapped != address && address.contains(|letter: char| letter.is_ascii_uppercase()) {
                assert!(canonical_address("evm:1", &swapped).is_err(), "{swapped}");
            }
        }
    }

    #[test]
    fn each_family_has_its_canonical_form() {
        let padded = format!("0x{}1", "0".repeat(63));
        for (chain, sent, kept) in [
            ("stellar:pubnet", "GAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAWHF", None),
            ("bitcoin:mainnet", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", None),
            ("bitcoin:mainnet", "3P14159f73E4gFr7JterCCQh9QjiTjiZrG", None),
            (
                "bitcoin:mainnet",
                "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
                Some("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
            ),
            ("bitcoin:mainnet", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0", None),
            ("bitcoin:testnet", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", None),
            ("bitcoin:testnet", "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", None),
            ("aptos:1", "0x1", Some(padded.as_str())),
            ("sui:mainnet", "0x01", Some(padded.as_str())),
            ("sui:mainnet", &padded.replace('1', "F"), Some(&padded.replace('1', "f"))),
            ("ext", "any: thing\n", None),
        ] {
            assert_eq!(canonical_address(chain, sent).as_deref(), Ok(kept.unwrap_or(sent)), "{chain} {sent}");
            let id = WalletId::parse(&format!("{chain}:{sent}")).unwrap();
            assert_eq!((id.chain(), id.address()), (chain, kept.unwrap_or(sent)));
            assert_eq!(Some(id.blockchain_type()), chain.split(':').next());
            assert_eq!(WalletId::parse(id.as_str()), Ok(id.clone()));
        }
    }

    #[test]
    fn wrong_addresses_are_refused() {
        let long_hex = format!("0x{}", "0".repeat(65));
        for (chain, address) in [
            ("stellar:pubnet", "GAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAWHA"),
            ("stellar:pubnet", "CAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABSC4"),
            ("stellar:pubnet", "gaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaawhf"),
            ("bitcoin:mainnet", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb"),
            ("bitcoin:mainnet", "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn"),
            ("bitcoin:mainnet", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"),
            ("bitcoin:mainnet", "bc1Qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
            ("bitcoin:mainnet", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5"),
            ("bitcoin:mainnet", "BC1SW50QGDZ25J"),
            ("solana:mainnet", "1111"),
            ("solana:mainnet", "0OIl4c2eA6njjgzvWSrCpLdYg3hWSygoVsi4RkUrzjV"),
            ("aptos:1", "0x"),
            ("aptos:1", "0X1"),
            ("aptos:1", "1"),
            ("aptos:1", "0xg"),
            ("sui:mainnet", &long_hex),
            ("evm:1", "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed00"),
            ("evm:1", ""),
        ] {
            let refused = canonical_address(chain, address).map_err(|refusal| refusal.reason);
            assert_eq!(refused, Err(Reason::Mapping), "{chain} {address}");
        }
    }

    #[test]
    fn a_chain_has_one_name() {
        for chain in
            ["evm:1", "evm:137", "solana:devnet", "stellar:testnet", "bitcoin:testnet", "aptos:2", "sui:testnet"]
        {
            assert_eq!(check_chain(chain), Ok(()), "{chain}");
        }
        for chain in [
            "",
            "evm",
            "evm:",
            "evm:0",
            "evm:01",
            "evm:+1",
            "evm:1:",
            "EVM:1",
            "evm:99999999999999999999",
            "solana:pubnet",
            "ext",
            "doge:1",
        ] {
            assert!(check_chain(chain).is_err(), "{chain}");
        }
    }

    #[test]
    fn wallet_ids_have_limits() {
        for malformed in
            ["", "evm", "evm:1", "evm:0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed", "ext:", "ext", ":", "::"]
        {
            assert_eq!(reason_of(malformed), Some(Reason::Mapping), "{malformed}");
        }
        assert_eq!(reason_of(&format!("ext:{}", "x".repeat(1020))), None);
        assert_eq!(reason_of(&format!("ext:{}", "x".repeat(1021))), Some(Reason::TooLarge));
        assert_eq!(check_user_id(&"u".repeat(1024)), Ok(()));
        assert_eq!(check_user_id(&"u".repeat(1025)).unwrap_err().reason, Reason::TooLarge);
        assert_eq!(check_user_id("").unwrap_err().reason, Reason::Mapping);
    }
}
