//! Times.
use super::outcome::Refusal;

/// RFC 3339 to the stored form.
pub fn canonical_time(_text: &str) -> Result<String, Refusal> {
    todo!()
}
/// Milliseconds since 1970 to the stored form.
pub fn from_millis(_millis: i64) -> Option<String> {
    todo!()
}
/// Microseconds since 1970 to the stored form.
pub fn from_unix_micros(_micros: i64) -> Option<String> {
    todo!()
}
/// Seconds since 1970, as a JSON number's digits, to the stored form.
pub fn from_epoch_seconds(_digits: &str) -> Result<String, Refusal> {
    todo!()
}
