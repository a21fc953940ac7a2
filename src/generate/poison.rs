//! Events spoiled on purpose, each so that exactly one reason fits.

use fastrand::Rng;

use super::event::{Event, Headers, Json};
use super::wallet::{OPAQUE, is_checksummed};
use crate::event::Reason;

/// Spoils this event; what is left of it has to become a dead letter with the reason.
pub(super) fn spoil(event: Event, bytes_min: usize, rng: &mut Rng) -> (Headers, Option<Vec<u8>>, Reason) {
    // A request names no wallet, so nothing in it can fail to map.
    let ways = if event.wallet_id.is_empty() { 4 } else { 5 };
    match rng.u32(0..ways) {
        0 => (event.encode(bytes_min).0, None, Reason::Tombstone),
        1 => (event.encode(bytes_min).0, Some(Vec::new()), Reason::Empty),
        2 => {
            let (headers, value) = event.encode(bytes_min);
            (headers, Some(garble(value, rng)), Reason::Undecodable)
        }
        3 => {
            let (headers, value) = against_schema(event, rng).encode(bytes_min);
            (headers, Some(value), Reason::Schema)
        }
        _ => {
            let (headers, value) = against_mapping(event, rng).encode(bytes_min);
            (headers, Some(value), Reason::Mapping)
        }
    }
}

/// Bytes that are not one JSON text as it is accepted. `value` is an object.
fn garble(mut value: Vec<u8>, rng: &mut Rng) -> Vec<u8> {
    let inside = |member: &[u8], value: &[u8]| [b"{", member, b",", &value[1..]].concat();
    match rng.u32(0..8) {
        0 => {
            value.truncate(value.len() / 2);
            value
        }
        1 => [b"\xef\xbb\xbf", value.as_slice()].concat(),
        2 => [value.as_slice(), b" {}"].concat(),
        3 => inside(br#""twice":1,"twice":1"#, &value),
        4 => inside(br#""half":"\ud800""#, &value),
        5 => inside(b"\"bytes\":\"\xff\xfe\"", &value),
        6 => inside(br#""number":NaN"#, &value),
        _ => {
            let deep = [b"\"deep\":".as_slice(), &[b'['; 200], &[b']'; 200]].concat();
            inside(&deep, &value)
        }
    }
}

/// Leaves out what the type requires, or says what it does not allow.
fn against_schema(mut event: Event, rng: &mut Rng) -> Event {
    let (required, choice): (&'static str, Option<&'static str>) = match event.kind {
        "wallet.requested" => ("user_id", Some("custody")),
        "wallet.created" => ("owner", None),
        "wallet.updated" => ("version", None),
        "wallet.status_changed" => ("wallet_status", Some("wallet_status")),
        "mapping.granted" => ("granted_by", Some("role")),
        "mapping.revoked" => ("revoked_by", None),
        _ => ("asset", None),
    };
    match choice {
        Some(name) if rng.bool() => event.set(name, Json::Text("no-such-choice".to_owned())),
        _ => event.data.retain(|(name, _)| *name != required),
    }
    event
}

/// Fits the schema, but an address, an amount or what data repeats does not hold.
fn against_mapping(mut event: Event, rng: &mut Rng) -> Event {
    if event.get("amount").is_some() && rng.bool() {
        let amount = *rng.choice(&["1e18", "-0"]).unwrap_or(&"1e18");
        let amount = if rng.bool() { Json::Raw(amount.to_owned()) } else { Json::Text(amount.to_owned()) };
        event.set("amount", amount);
        return event;
    }
    let (chain, address) = event.wallet_id.rsplit_once(':').unwrap_or_default();
    let address = match chain {
        // All but nothing is an opaque id.
        OPAQUE => String::new(),
        evm if evm.starts_with("evm:") => wrong_checksum(address),
        _ => format!("{address}!"),
    };
    let wallet_id = Json::Text(format!("{chain}:{address}"));
    event.set("wallet_id", wallet_id);
    event
}

/// Mixed case that is not EIP-55's: all letters lower but one, or all upper but one.
fn wrong_checksum(lower: &str) -> String {
    let letters = lower.bytes().skip(2).filter(u8::is_ascii_alphabetic).count();
    if letters < 3 {
        // Too few letters to be wrong for certain: one digit too few is wrong as well.
        return lower[..lower.len() - 1].to_owned();
    }
    // EIP-55 sets each letter's case by a hash: that all but the first agree happens once in thousands of addresses,
    // and then the other half of the choice is taken.
    let one_upper = flip(lower, false);
    if is_checksummed(&one_upper) { flip(lower, true) } else { one_upper }
}

/// All letters in one case but the first, which has the other.
fn flip(lower: &str, rest_upper: bool) -> String {
    let mut first = true;
    let turned = lower.chars().skip(2).map(|letter| {
        let upper = if letter.is_ascii_alphabetic() && std::mem::take(&mut first) { !rest_upper } else { rest_upper };
        if upper { letter.to_ascii_uppercase() } else { letter }
    });
    "0x".chars().chain(turned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::wallet::Wallet;

    #[test]
    fn a_wrong_checksum_is_mixed_and_wrong() {
        for index in 0..2_000 {
            let wallet = Wallet::new(3, index);
            if !wallet.chain.starts_with("evm") {
                continue;
            }
            let (_, lower) = wallet.wallet_id.rsplit_once(':').unwrap();
            let wrong = wrong_checksum(lower);
            assert!(
                wrong.bytes().skip(2).any(|b| b.is_ascii_uppercase()) && wrong.bytes().any(|b| b.is_ascii_lowercase())
            );
            assert!(!is_checksummed(&wrong), "{wrong}");
            assert_eq!(wrong.to_ascii_lowercase(), lower);
        }
    }

    #[test]
    fn garbled_bytes_are_not_json() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..200 {
            let bytes = garble(br#"{"a":1,"b":"x"}"#.to_vec(), &mut rng);
            // serde_json takes duplicate names; all else it refuses too.
            let read = serde_json::from_slice::<serde_json::Value>(&bytes);
            assert!(read.is_err() || bytes.starts_with(br#"{"twice":1,"twice":1"#));
        }
    }
}
