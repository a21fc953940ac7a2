//! Amounts: kept by the source's own digits, never rounded and never written another way.

use super::outcome::{Reason, Refusal};

/// The most characters that an amount may have; a 256-bit integer has 78.
const AMOUNT_BYTES_MAX: usize = 256;

/// The amount as it was sent: an integer or a decimal such as `10.10`, with a leading `-` where it is below zero.
///
/// Refused with reason `mapping`: exponents (`1e18`), signs on zero (`-0`, `-0.0`), leading zeros, `+1`, `.5`, `5.`, the
/// empty text, anything else, and more than 256 characters. One amount has several spellings (`1.0`, `1.00`); each is kept.
pub fn canonical_amount(text: &str) -> Result<&str, Refusal> {
    match plain_decimal(text) {
        Ok(_) => Ok(text),
        Err(what) => Err(Refusal::new(Reason::Mapping, format!("an amount is {what}"))),
    }
}

/// A number written out: whether it is below zero, its integer's digits, its fraction's digits.
pub(super) struct PlainDecimal<'a> {
    pub(super) negative: bool,
    pub(super) integer: &'a str,
    pub(super) fraction: &'a str,
}

/// Takes apart a decimal in the one form that amounts are taken in; else says what it is instead.
pub(super) fn plain_decimal(text: &str) -> Result<PlainDecimal<'_>, &'static str> {
    if text.is_empty() {
        return Err("empty");
    }
    if text.len() > AMOUNT_BYTES_MAX {
        return Err("longer than 256 characters");
    }
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (integer, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if digits.contains(['e', 'E']) {
        return Err("written with an exponent; write the digits out");
    }
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(integer) || !all_digits(fraction) {
        return Err("not a decimal number");
    }
    if integer.len() > 1 && integer.starts_with('0') {
        return Err("written with a leading zero");
    }
    if negative && integer == "0" && fraction.bytes().all(|digit| digit == b'0') {
        return Err("a negative zero");
    }
    Ok(PlainDecimal { negative, integer, fraction })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::json::{Document, Limits, Pointer};

    #[test]
    fn amounts_keep_their_digits() {
        let longest = "1".repeat(AMOUNT_BYTES_MAX);
        for amount in ["0", "-1", "10.10", "0.0", "-0.1", "0.000000000000000001", "9007199254740993", &longest] {
            assert_eq!(canonical_amount(amount), Ok(amount));
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let too_long = "1".repeat(AMOUNT_BYTES_MAX + 1);
        for bad in [
            "", "-", "+1", "1e18", "1E2", "-0", "-0.0", "01", "-01", "00", "00.5", ".5", "5.", "1.2.3", "1,000", " 1",
            "0x10", "NaN", "١", &too_long,
        ] {
            assert_eq!(canonical_amount(bad).map_err(|refusal| refusal.reason), Err(Reason::Mapping), "{bad}");
        }
    }

    /// Numbers and strings alike; refused are exactly the exponent and the negative zero.
    #[test]
    fn the_exact_amounts_survive_to_the_digit() {
        let lines = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cases/exact_amounts.jsonl"));
        let pointer = Pointer::parse("/data/amount").unwrap();
        for line in lines.lines() {
            let document = Document::parse(line.as_bytes(), &Limits::default()).unwrap();
            let node = document.at(&pointer).unwrap();
            let digits = node.as_number().or(node.as_str()).unwrap();
            let (_, sent) = line.split_once("\"amount\":").unwrap();
            assert_eq!(digits, sent.trim_end_matches("}}").trim_matches('"'));
            assert_eq!(canonical_amount(digits).is_ok(), !matches!(digits, "1e18" | "-0"), "{digits}");
        }
        assert_eq!(lines.lines().count(), 26);
    }
}
