//! Times: RFC 3339 and epochs to the one stored form, `2026-01-02T03:04:05.678901Z`: 27 characters, UTC, microseconds.

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use super::amount::{PlainDecimal, plain_decimal};
use super::outcome::{Reason, Refusal};

/// RFC 3339 to the stored form.
///
/// Digits beyond microseconds are cut off, not rounded, so that no time moves into the next second. `t` and `z` may be lower
/// case, as the RFC has it; a space instead of `T` may not. Refused with reason `mapping`: anything else, years outside 0001
/// to 9999 (in UTC), days that do not exist, and leap seconds (`:60`), which the stored form cannot hold.
pub fn canonical_time(text: &str) -> Result<String, Refusal> {
    storable(text).map(stored)
}

/// Whether [`canonical_time`] takes the text, without making the stored form.
pub(super) fn check_time(text: &str) -> Result<(), Refusal> {
    storable(text).map(|_| ())
}

fn storable(text: &str) -> Result<DateTime, Refusal> {
    rfc3339(text).filter(has_stored_form).ok_or_else(|| {
        Refusal::new(Reason::Mapping, "a time is not RFC 3339 (such as 2026-01-02T03:04:05Z), or cannot be stored")
    })
}

/// Milliseconds since 1970 to the stored form; `None` outside years 0001 to 9999.
pub fn from_millis(millis: i64) -> Option<String> {
    from_unix_micros(millis.checked_mul(1000)?)
}

/// Microseconds since 1970 to the stored form; `None` outside years 0001 to 9999.
pub fn from_unix_micros(micros: i64) -> Option<String> {
    let time = Offset::UTC.to_datetime(Timestamp::from_microsecond(micros).ok()?);
    has_stored_form(&time).then(|| stored(time))
}

/// Seconds since 1970, by the digits that were sent (`1683029999`, `1683029999.25`), to the stored form.
///
/// Digits beyond microseconds are cut off. Refused with reason `mapping`: exponents and whatever else is no plain decimal,
/// and years outside 0001 to 9999, which is where milliseconds taken for seconds end up.
pub fn from_epoch_seconds(digits: &str) -> Result<String, Refusal> {
    let decimal = plain_decimal(digits)
        .map_err(|what| Refusal::new(Reason::Mapping, format!("a time in seconds since 1970 is {what}")))?;
    epoch_micros(&decimal).and_then(from_unix_micros).ok_or_else(|| {
        Refusal::new(
            Reason::Mapping,
            "a time in seconds since 1970 is outside years 0001 to 9999; is it in milliseconds?",
        )
    })
}

fn epoch_micros(decimal: &PlainDecimal<'_>) -> Option<i64> {
    let micros = decimal
        .integer
        .parse::<i64>()
        .ok()?
        .checked_mul(1_000_000)?
        .checked_add(fraction(decimal.fraction.as_bytes(), 6)?.into())?;
    Some(if decimal.negative { -micros } else { micros })
}

/// The UTC date and time that the text names.
fn rfc3339(text: &str) -> Option<DateTime> {
    let bytes = text.as_bytes();
    let shape = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if bytes.len() < 20 || shape.iter().any(|(at, byte)| bytes[*at] != *byte) || !matches!(bytes[10], b'T' | b't') {
        return None;
    }
    let two = |at: usize| number(&bytes[at..at + 2]).and_then(|value| i8::try_from(value).ok());
    let year = i16::try_from(number(&bytes[..4])?).ok()?;
    let (nanos, zone) = match bytes[19..].split_first()? {
        (b'.', rest) => {
            let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
            (fraction(&rest[..digits], 9)?, &rest[digits..])
        }
        _ => (0, &bytes[19..]),
    };
    let nanos = i32::try_from(nanos).ok()?;
    let local = DateTime::new(year, two(5)?, two(8)?, two(11)?, two(14)?, two(17)?, nanos).ok()?;
    match offset_minutes(zone)? {
        0 => Some(local),
        minutes => local.checked_sub(SignedDuration::from_mins(minutes)).ok(),
    }
}

/// `Z`, or a signed offset of hours and minutes from UTC.
fn offset_minutes(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), hours @ .., b':', a, b] if hours.len() == 2 => {
            let (hours, minutes) = (number(hours)?, number(&[*a, *b])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = i64::from(hours * 60 + minutes);
            Some(if *sign == b'-' { -offset } else { offset })
        }
        _ => None,
    }
}

/// A few digits as a number.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value: u32, byte| {
        byte.is_ascii_digit().then(|| value.wrapping_mul(10).wrapping_add(u32::from(byte - b'0')))
    })
}

/// The first `places` digits of a fraction of at least one, at most nine, as that many decimal places.
fn fraction(digits: &[u8], places: usize) -> Option<u32> {
    let used = digits.get(..digits.len().min(places)).filter(|used| !used.is_empty())?;
    let missing = u32::try_from(places - used.len()).ok()?;
    Some(number(used)? * 10_u32.pow(missing))
}

/// Whether the year has four digits and is not zero.
fn has_stored_form(time: &DateTime) -> bool {
    (1..=9999).contains(&time.year())
}

fn stored(time: DateTime) -> String {
    let (year, month, day) = (time.year(), time.month(), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    let micros = time.subsec_nanosecond() / 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_take_one_form() {
        for (sent, kept) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z"),
            ("2026-01-02t03:04:05.5z", "2026-01-02T03:04:05.500000Z"),
            ("2026-01-02T03:04:05.678901999999999999Z", "2026-01-02T03:04:05.678901Z"),
            ("2026-01-01T00:30:00.25+02:00", "2025-12-31T22:30:00.250000Z"),
            ("2024-02-28T23:59:59-00:01", "2024-02-29T00:00:59.000000Z"),
            ("2026-01-02T03:04:05-00:00", "2026-01-02T03:04:05.000000Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(canonical_time(sent).as_deref(), Ok(kept), "{sent}");
        }
    }

    #[test]
    fn what_is_no_rfc_3339_or_has_no_stored_form_is_refused() {
        for bad in [
            "",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-01-02 03:04:05Z",
            "2026-01-02T03:04Z",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05.5",
            "2026-01-02T03:04:60Z",
            "2016-12-31T23:59:60Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-02T24:00:00Z",
            "2026-01-02T03:04:05+0200",
            "2026-01-02T03:04:05+24:00",
            "2026-01-02T03:04:05+02:60",
            "2026-01-02T03:04:05Z ",
            "2026-01-02T03:04:05ZZ",
            "+026-01-02T03:04:05Z",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "12026-01-02T03:04:05Z",
            "2026-01-02T03:04:05\u{ff3a}",
        ] {
            let refused = canonical_time(bad).map_err(|refusal| refusal.reason);
            assert_eq!(refused, Err(Reason::Mapping), "{bad}");
        }
    }

    #[test]
    fn epochs_take_the_same_form() {
        assert_eq!(from_millis(1_683_029_999_001).as_deref(), Some("2023-05-02T12:19:59.001000Z"));
        assert_eq!(from_unix_micros(-1).as_deref(), Some("1969-12-31T23:59:59.999999Z"));
        assert_eq!(from_unix_micros(i64::MAX), None);
        assert_eq!(from_millis(i64::MIN), None);
        for (sent, kept) in [
            ("0", "1970-01-01T00:00:00.000000Z"),
            ("1683029999", "2023-05-02T12:19:59.000000Z"),
            ("1683029999.0000019", "2023-05-02T12:19:59.000001Z"),
            ("-0.5", "1969-12-31T23:59:59.500000Z"),
        ] {
            assert_eq!(from_epoch_seconds(sent).as_deref(), Ok(kept), "{sent}");
        }
        for bad in ["", "1683029999000", "1e9", "-0", "99999999999999999999999999", "2023-05-02T12:19:59Z"] {
            assert!(from_epoch_seconds(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_stored_form_is_stable_and_sorts_like_time(
            a in -62_135_596_800_000_000_i64..=253_402_207_200_999_999,
            b in -62_135_596_800_000_000_i64..=253_402_207_200_999_999,
        ) {
            let (first, second) = (from_unix_micros(a).unwrap(), from_unix_micros(b).unwrap());
            prop_assert_eq!(first.len(), 27);
            prop_assert_eq!(canonical_time(&first), Ok(first.clone()));
            prop_assert_eq!(a.cmp(&b), first.cmp(&second));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = canonical_time(&text);
            let _ = from_epoch_seconds(&text);
        }
    }
}
