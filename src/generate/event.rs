//! One event as it is sent: a CloudEvent in structured or binary mode.

use std::fmt::Write as _;

use crate::event::Version;

/// Headers of one message: names and values in order.
pub type Headers = Vec<(&'static str, Option<Vec<u8>>)>;

/// The topic of wallet and mapping events.
pub const WALLET_TOPIC: &str = "wallet-events";
/// The topic of transaction events.
pub const TRANSACTION_TOPIC: &str = "transaction-events";

/// A value in an event's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// A string.
    Text(String),
    /// JSON as it stands: numbers by their digits, arrays of them.
    Raw(String),
    /// An array of strings.
    List(Vec<String>),
    /// An object of strings.
    Map(Vec<(String, String)>),
}

impl Json {
    fn write(&self, out: &mut String) {
        match self {
            Self::Text(text) => quote(out, text),
            Self::Raw(json) => out.push_str(json),
            Self::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    quote(out, item);
                }
                out.push(']');
            }
            Self::Map(members) => {
                out.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    quote(out, name);
                    out.push(':');
                    quote(out, value);
                }
                out.push('}');
            }
        }
    }
}

/// Forms in which publishers write one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeForm {
    Seconds,
    Millis,
    Micros,
    Offset,
}

impl TimeForm {
    /// The moment nearest below that this form can say.
    pub(super) fn fit(self, micros: i64) -> i64 {
        match self {
            Self::Seconds => micros - micros.rem_euclid(1_000_000),
            Self::Millis => micros - micros.rem_euclid(1_000),
            Self::Micros | Self::Offset => micros,
        }
    }
}

/// How an event is written down; nothing of it counts for what the event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// CloudEvents' binary mode: attributes in headers, data as the value.
    pub(super) binary: bool,
    /// The member that comes first.
    pub(super) rotate: usize,
    /// White space between members.
    pub(super) spaced: bool,
}

/// One event before it is encoded.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) topic: &'static str,
    pub(super) key: String,
    /// In canonical form; empty where the event names no wallet.
    pub(super) wallet_id: String,
    pub(super) id: String,
    pub(super) source: &'static str,
    pub(super) kind: &'static str,
    /// Microseconds since 1970.
    pub(super) at: i64,
    pub(super) time_form: TimeForm,
    pub(super) version: Option<[u64; 4]>,
    pub(super) data: Vec<(&'static str, Json)>,
    pub(super) correlation_id: Option<String>,
    pub(super) traceparent: Option<String>,
    pub(super) style: Style,
}

impl Event {
    /// The member of this name, if the data has it.
    pub(super) fn get(&self, name: &str) -> Option<&Json> {
        self.data.iter().find(|(member, _)| *member == name).map(|(_, value)| value)
    }

    /// Sets a member, in its place if it is there.
    pub(super) fn set(&mut self, name: &'static str, value: Json) {
        match self.data.iter_mut().find(|(member, _)| *member == name) {
            Some((_, place)) => *place = value,
            None => self.data.push((name, value)),
        }
    }

    /// The version as the domain has it.
    pub(super) fn version(&self) -> Option<Version> {
        self.version.and_then(|parts| Version::from_parts(&parts))
    }

    /// Headers and value. `bytes_min` fills a structured event's value up to that size with an extension attribute.
    pub(super) fn encode(&self, bytes_min: usize) -> (Headers, Vec<u8>) {
        if self.style.binary { self.encode_binary() } else { self.encode_structured(bytes_min) }
    }

    fn encode_structured(&self, bytes_min: usize) -> (Headers, Vec<u8>) {
        let mut members = Vec::with_capacity(10);
        let mut member = |name: &'static str, value: &str| {
            let mut text = String::with_capacity(value.len() + 2);
            quote(&mut text, value);
            members.push((name, text));
        };
        member("specversion", "1.0");
        member("id", &self.id);
        member("source", self.source);
        member("type", self.kind);
        member("time", &written(self.at, self.time_form));
        member("datacontenttype", "application/json");
        if let Some(id) = &self.correlation_id {
            member("correlationid", id);
        }
        if let Some(traceparent) = &self.traceparent {
            member("traceparent", traceparent);
        }
        members.push(("data", self.data_text()));
        let mut value = object(&members, self.style);
        let filled = value.len() + r#""padding":"","#.len();
        if filled < bytes_min {
            let mut text = String::with_capacity(bytes_min - filled + 2);
            quote(&mut text, &"x".repeat(bytes_min - filled));
            members.push(("padding", text));
            value = object(&members, self.style);
        }
        (vec![("content-type", Some(b"application/cloudevents+json; charset=UTF-8".to_vec()))], value.into_bytes())
    }

    fn encode_binary(&self) -> (Headers, Vec<u8>) {
        let header = |value: &str| Some(value.as_bytes().to_vec());
        let mut headers: Headers = vec![
            ("content-type", header("application/json")),
            ("ce_specversion", header("1.0")),
            ("ce_id", header(&self.id)),
            ("ce_source", header(self.source)),
            ("ce_type", header(self.kind)),
            ("ce_time", header(&written(self.at, self.time_form))),
        ];
        if let Some(id) = &self.correlation_id {
            headers.push(("ce_correlationid", header(id)));
        }
        if let Some(traceparent) = &self.traceparent {
            headers.push(("ce_traceparent", header(traceparent)));
        }
        (headers, self.data_text().into_bytes())
    }

    fn data_text(&self) -> String {
        let members: Vec<_> = self
            .data
            .iter()
            .map(|(name, value)| {
                let mut text = String::new();
                value.write(&mut text);
                (*name, text)
            })
            .collect();
        object(&members, self.style)
    }
}

/// A moment in the one form that records have: `2026-01-02T03:04:05.678901Z`.
pub(super) fn canonical_time(micros: i64) -> String {
    format!("{}Z", civil(micros, 6))
}

fn written(micros: i64, form: TimeForm) -> String {
    match form {
        TimeForm::Seconds => format!("{}Z", civil(micros, 0)),
        TimeForm::Millis => format!("{}Z", civil(micros, 3)),
        TimeForm::Micros => format!("{}Z", civil(micros, 6)),
        TimeForm::Offset => format!("{}+02:00", civil(micros + 2 * 3_600_000_000, 6)),
    }
}

/// Date and time without a zone, with this many digits of the second's fraction.
fn civil(micros: i64, digits: usize) -> String {
    let time = jiff::Timestamp::from_microsecond(micros).unwrap_or_default().to_zoned_datetime(jiff::tz::TimeZone::UTC);
    let mut out = String::with_capacity(32);
    let (year, month, day) = (time.year(), time.month(), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    // Writing to a String cannot fail.
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if digits > 0 {
        let fraction = format!("{:06}", micros.rem_euclid(1_000_000));
        out.push('.');
        out.push_str(&fraction[..digits]);
    }
    out
}

/// An object of these members, beginning with the one that the style puts first.
fn object(members: &[(&'static str, String)], style: Style) -> String {
    let size: usize = members.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    let mut out = String::with_capacity(size + 2);
    let (comma, colon) = if style.spaced { (",\n  ", ": ") } else { (",", ":") };
    out.push('{');
    let first = style.rotate % members.len().max(1);
    for (at, (name, value)) in members[first..].iter().chain(&members[..first]).enumerate() {
        if at > 0 {
            out.push_str(comma);
        }
        quote(&mut out, name);
        out.push_str(colon);
        out.push_str(value);
    }
    out.push('}');
    out
}

/// Appends a JSON string.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            topic: WALLET_TOPIC,
            key: "k".into(),
            wallet_id: String::new(),
            id: "a|b \"ü\"".into(),
            source: "/s",
            kind: "wallet.requested",
            at: 1_767_322_800_000_001,
            time_form: TimeForm::Offset,
            version: None,
            data: vec![("user_id", Json::Text("u\n1".into())), ("version", Json::Raw("18446744073709551615".into()))],
            correlation_id: Some("c".into()),
            traceparent: None,
            style: Style { binary: false, rotate: 3, spaced: true },
        }
    }

    #[test]
    fn structured_mode_is_json_of_the_size_asked_for() {
        for bytes_min in [0, 700, 1024] {
            let (_, value) = event().encode(bytes_min);
            assert!(bytes_min == 0 || value.len().abs_diff(bytes_min) <= 4, "{}", value.len());
            let read: serde_json::Value = serde_json::from_slice(&value).unwrap();
            assert_eq!(read["id"], "a|b \"ü\"");
            assert_eq!(read["time"], "2026-01-02T05:00:00.000001+02:00");
            assert_eq!(read["data"]["user_id"], "u\n1");
            assert_eq!(read["data"]["version"], u64::MAX);
        }
    }

    #[test]
    fn binary_mode_has_its_attributes_in_headers() {
        let mut event = event();
        event.style.binary = true;
        let (headers, value) = event.encode(0);
        let read: serde_json::Value = serde_json::from_slice(&value).unwrap();
        assert_eq!(read["user_id"], "u\n1");
        assert!(headers.contains(&("ce_id", Some("a|b \"ü\"".as_bytes().to_vec()))));
    }

    #[test]
    fn times_have_one_canonical_form() {
        assert_eq!(canonical_time(1_767_322_800_000_001), "2026-01-02T03:00:00.000001Z");
        assert_eq!(written(TimeForm::Seconds.fit(1_767_322_800_999_999), TimeForm::Seconds), "2026-01-02T03:00:00Z");
        assert_eq!(written(TimeForm::Millis.fit(1_767_322_800_999_999), TimeForm::Millis), "2026-01-02T03:00:00.999Z");
    }
}
