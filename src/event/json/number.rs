//! The value behind a number's digits, where JSON Schema compares mathematically: `1`, `1.0` and `10e-1` are one value.

/// A JSON number taken apart, exact at any size; nothing is allocated.
///
/// An exponent beyond 64 bits counts as the nearest one of 64 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decimal<'a> {
    negative: bool,
    /// Digits from the first to the last that is not zero, with at most one point among them; empty for zero.
    digits: &'a str,
    /// The power of ten that the digits, read as an integer, are multiplied by.
    exponent: i64,
}

impl<'a> Decimal<'a> {
    /// Takes a number in JSON's grammar apart.
    pub(super) fn of(number: &'a str) -> Self {
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let negative = mantissa.starts_with('-');
        let digits = mantissa.trim_start_matches(['-', '0', '.']);
        if digits.is_empty() {
            return Self { negative: false, digits, exponent: 0 };
        }
        let saturated = if exponent.starts_with('-') { i64::MIN } else { i64::MAX };
        let mut exponent = exponent.parse::<i64>().unwrap_or(saturated);
        if let Some((_, fraction)) = mantissa.split_once('.') {
            exponent = exponent.saturating_sub_unsigned(fraction.len() as u64);
        }
        let trimmed = digits.trim_end_matches(['0', '.']);
        let zeros = digits[trimmed.len()..].bytes().filter(|byte| *byte == b'0').count();
        Self { negative, digits: trimmed, exponent: exponent.saturating_add_unsigned(zeros as u64) }
    }

    /// Whether it has no fraction, however it is written.
    pub(super) fn is_integer(&self) -> bool {
        self.exponent >= 0
    }

    /// Appends the one form that all spellings of this value share.
    pub(super) fn write(&self, mut put: impl FnMut(&str)) {
        if self.digits.is_empty() {
            return put("0");
        }
        if self.negative {
            put("-");
        }
        self.digits.split('.').for_each(&mut put);
        put("e");
        put(&self.exponent.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(number: &str) -> String {
        let mut out = String::new();
        Decimal::of(number).write(|piece| out.push_str(piece));
        out
    }

    #[test]
    fn spellings_of_one_value_share_a_form() {
        for (spellings, expected) in [
            (&["0", "-0", "0.00", "0e7", "-0.0E-3"][..], "0"),
            (&["1", "1.0", "1e0", "10e-1", "0.1E+1", "0.001e3"], "1e0"),
            (&["1200", "12e2", "1.2e3", "1200.000"], "12e2"),
            (&["-10.10", "-1010e-2", "-10.1"], "-101e-1"),
            (&["18446744073709551617"], "18446744073709551617e0"),
            (&["0.000000000000000001", "1e-18"], "1e-18"),
        ] {
            for spelling in spellings {
                assert_eq!(form(spelling), expected, "{spelling}");
            }
        }
    }

    #[test]
    fn integers_are_those_without_a_fraction() {
        for number in ["0", "-0.0", "7", "1.0", "1e400", "1.5e1", "100e-2"] {
            assert!(Decimal::of(number).is_integer(), "{number}");
        }
        for number in ["0.1", "1e-1", "1.55e1", "1e-99999999999999999999"] {
            assert!(!Decimal::of(number).is_integer(), "{number}");
        }
    }
}
