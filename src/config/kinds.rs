//! The kinds of values that settings take.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::setting::{Fault, Setting};
use super::yaml::{Entry, Node, Place, Value};

impl<T: Setting> Setting for Option<T> {
    const KIND: &'static str = T::KIND;
    const SECRET: bool = T::SECRET;
    const OPTIONAL: bool = true;

    fn from_text(text: &str) -> Result<Self, Fault> {
        T::from_text(text).map(Some)
    }

    fn from_plain(text: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        T::from_plain(text, faults).map(Some)
    }

    fn from_node(node: &Node, faults: &mut Vec<(Place, Fault)>) -> Option<Self> {
        T::from_node(node, faults).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "(not set)".to_owned(), T::show)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn holds_secret(&self) -> bool {
        self.as_ref().is_some_and(T::holds_secret)
    }

    fn outside(&self, low: &Self, high: &Self) -> bool {
        match (self, low, high) {
            (Some(value), Some(low), Some(high)) => value.outside(low, high),
            _ => false,
        }
    }
}

/// Numbers: plain decimal digits.
macro_rules! number {
    ($($type:ty),+) => { $(
        impl Setting for $type {
            const KIND: &'static str = "whole number";

            fn from_text(text: &str) -> Result<Self, Fault> {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse().ok().filter(|_| digits).ok_or_else(|| Fault::new(format!("takes a whole number, not \"{text}\"")))
            }

            fn show(&self) -> String {
                self.to_string()
            }

            fn outside(&self, low: &Self, high: &Self) -> bool {
                self < low || self > high
            }
        }
    )+ };
}

number!(u32, u64, usize, NonZeroUsize);

impl Setting for String {
    const KIND: &'static str = "text";

    fn from_text(text: &str) -> Result<Self, Fault> {
        // None is meant where one stands, and a NUL would be the end of it for C libraries.
        if text.contains(char::is_control) {
            return Err(Fault::new("holds a control character (a line break, a tab, a NUL)"));
        }
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "path of a file";

    fn from_text(text: &str) -> Result<Self, Fault> {
        match text {
            "" => Err(Fault::new("names no file")),
            _ if text.contains('\0') => Err(Fault::new("holds a NUL, which no file's name does")),
            _ => Ok(Self::from(text)),
        }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Setting for SocketAddr {
    const KIND: &'static str = "address and port, such as `127.0.0.1:9464`";

    fn from_text(text: &str) -> Result<Self, Fault> {
        text.parse()
            .map_err(|_| Fault::new(format!("takes an address and a port such as 127.0.0.1:9464, not \"{text}\"")))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for Secret {
    const KIND: &'static str = "secret";
    const SECRET: bool = true;

    fn from_text(text: &str) -> Result<Self, Fault> {
        if text.contains('\0') { Err(Fault::new("holds a NUL")) } else { Ok(Self::new(text)) }
    }

    fn show(&self) -> String {
        Self::SHOWN.to_owned()
    }
}

impl Setting for Duration {
    const KIND: &'static str = "duration with its unit: `250ms`, `30s`, `5m`, `1h`";

    fn from_text(text: &str) -> Result<Self, Fault> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: u64 =
            number.parse().map_err(|_| Fault::new(format!("takes a duration such as 250ms or 30s, not \"{text}\"")))?;
        let seconds = match unit.trim_start() {
            "ms" => return Ok(Self::from_millis(number)),
            "s" => Some(number),
            "m" => number.checked_mul(60),
            "h" => number.checked_mul(3600),
            "d" => number.checked_mul(86_400),
            "" => {
                let hint = format!("write {number}s for seconds or {number}ms for milliseconds");
                return Err(Fault::with_hint(format!("takes a duration, and \"{text}\" has no unit"), hint));
            }
            other => {
                let message = format!("takes a duration, and \"{other}\" is no unit of time");
                return Err(Fault::with_hint(message, "the units are ms, s, m, h and d"));
            }
        };
        seconds.map(Self::from_secs).ok_or_else(|| Fault::new(format!("takes a duration, and \"{text}\" is too long")))
    }

    fn show(&self) -> String {
        let ms = self.as_millis();
        match (ms % 1000, ms / 1000) {
            (0, 0) => "0s".to_owned(),
            (0, seconds) if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
            (0, seconds) if seconds % 60 == 0 => format!("{}m", seconds / 60),
            (0, seconds) => format!("{seconds}s"),
            _ => format!("{ms}ms"),
        }
    }

    fn outside(&self, low: &Self, high: &Self) -> bool {
        self < low || self > high
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// In memory's own type; saturates where memory could not hold it anyway.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Setting for ByteSize {
    const KIND: &'static str = "bytes: `65536`, `64KiB`, `8MiB`, `1GiB`";

    fn from_text(text: &str) -> Result<Self, Fault> {
        let refuse = || Fault::new(format!("takes a number of bytes such as 65536, 64KiB or 8MiB, not \"{text}\""));
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim_start() {
            "" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(refuse()),
        };
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).map(Self).ok_or_else(refuse)
    }

    fn show(&self) -> String {
        match [(30, "GiB"), (20, "MiB"), (10, "KiB")]
            .into_iter()
            .find(|(bits, _)| self.0 > 0 && self.0.trailing_zeros() >= *bits)
        {
            Some((bits, unit)) => format!("{}{unit}", self.0 >> bits),
            None => self.0.to_string(),
        }
    }

    fn outside(&self, low: &Self, high: &Self) -> bool {
        self < low || self > high
    }
}

/// How many threads: a number, or `cores` for as many as the process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threads(pub usize);

impl Setting for Threads {
    const KIND: &'static str = "whole number, or `cores`";

    fn from_text(text: &str) -> Result<Self, Fault> {
        match text {
            // Where the system does not tell, one is always right.
            "cores" => Ok(Self(std::thread::available_parallelism().map_or(1, Into::into))),
            number => usize::from_text(number).map(Self),
        }
    }

    fn show(&self) -> String {
        self.0.to_string()
    }

    fn outside(&self, low: &Self, high: &Self) -> bool {
        self < low || self > high
    }
}

impl<T: Setting> Setting for Vec<T> {
    const KIND: &'static str = "list; in a variable separated by commas";

    fn from_text(text: &str) -> Result<Self, Fault> {
        let mut faults = Vec::new();
        let items = Self::from_plain(text, &mut faults).unwrap_or_default();
        faults.into_iter().next().map_or(Ok(items), Err)
    }

    fn from_plain(text: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let read: Vec<Option<T>> = items.map(|item| T::from_plain(item, faults)).collect();
        read.into_iter().collect()
    }

    fn from_node(node: &Node, faults: &mut Vec<(Place, Fault)>) -> Option<Self> {
        let fault = match &node.value {
            Value::List(items) => {
                let read: Vec<Option<T>> = items.iter().map(|item| T::from_node(item, faults)).collect();
                return read.into_iter().collect();
            }
            Value::Scalar(text) if text.starts_with('-') => {
                let hint = "a list item is written with a space after the dash: `- item`";
                Fault::with_hint("takes a list, and a dash without a space begins none", hint)
            }
            Value::Scalar(text) => {
                let mut found = Vec::new();
                let items = Self::from_plain(text, &mut found);
                faults.extend(found.into_iter().map(|fault| (node.place, fault)));
                return items;
            }
            Value::Nothing => Fault::with_hint("has no value", "write one, or leave the line out"),
            Value::Refused => return None,
            Value::Map(_) => Fault::new("takes a list, not a mapping"),
        };
        faults.push((node.place, fault));
        None
    }

    fn show(&self) -> String {
        if self.is_empty() {
            return "(none)".to_owned();
        }
        self.iter().map(T::show).collect::<Vec<_>>().join(",")
    }

    fn holds_secret(&self) -> bool {
        self.iter().any(T::holds_secret)
    }
}

/// Names and values, handed on as they are.
pub type Names<T> = BTreeMap<String, T>;

impl<T: Setting> Setting for Names<T> {
    const KIND: &'static str = "names and values; in a variable `name=value`, separated by commas";

    fn from_text(text: &str) -> Result<Self, Fault> {
        let mut faults = Vec::new();
        let names = Self::from_plain(text, &mut faults).unwrap_or_default();
        faults.into_iter().next().map_or(Ok(names), Err)
    }

    fn from_plain(text: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        let mut names = Self::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let Some((name, value)) = item.split_once('=') else {
                faults.push(Fault::new("takes name=value pairs separated by commas"));
                continue;
            };
            let name = name.trim();
            if let Some(value) = T::from_plain(value.trim(), faults)
                && names.insert(name.to_owned(), value).is_some()
            {
                faults.push(Fault::new(format!("has \"{name}\" twice")));
            }
        }
        Some(names)
    }

    fn from_node(node: &Node, faults: &mut Vec<(Place, Fault)>) -> Option<Self> {
        match &node.value {
            // Names are checked even beside a value that is none.
            Value::Map(entries) => {
                let read = |entry: &Entry| Some((entry.key.clone(), T::from_node(&entry.value, faults)?));
                Some(entries.iter().filter_map(read).collect())
            }
            Value::Refused => None,
            _ => {
                let message = format!("takes a mapping of names to values, not {}", node.shape());
                faults.push((node.place, Fault::new(message)));
                None
            }
        }
    }

    fn show(&self) -> String {
        if self.is_empty() {
            return "(none)".to_owned();
        }
        let shown = |(name, value): (&String, &T)| match tells_of_secret(name) {
            true => format!("{name}={}", Secret::SHOWN),
            false => format!("{name}={}", value.show()),
        };
        self.iter().map(shown).collect::<Vec<_>>().join(",")
    }
}

/// Whether what stands under this name may be a secret. Secrets are refused where names are free, but what looks like one
/// and is taken is not shown either.
fn tells_of_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "secret", "jaas", "key", "token", "oauthbearer.config"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(Duration::from_text("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(Duration::from_text("2 h"), Ok(Duration::from_secs(7200)));
        let fault = Duration::from_text("30").unwrap_err();
        assert_eq!(fault.hint.as_deref(), Some("write 30s for seconds or 30ms for milliseconds"));
        for bad in ["", "s", "-1s", "1.5s", "1 year", "18446744073709551615h", "99999999999999999999s"] {
            assert!(Duration::from_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_durations_are_shown_as_they_are_written() {
        for text in ["0s", "250ms", "1s", "90s", "5m", "1h", "36h"] {
            assert_eq!(Duration::from_text(text).unwrap().show(), text);
        }
        for text in ["0", "1000", "64KiB", "8MiB", "1GiB", "1025MiB"] {
            assert_eq!(ByteSize::from_text(text).unwrap().show(), text);
        }
        assert!(ByteSize::from_text("8MB").is_err());
        assert!(ByteSize::from_text("20000000000GiB").is_err());
    }

    #[test]
    fn numbers_are_plain_digits() {
        assert_eq!(u32::from_text("7"), Ok(7));
        for bad in ["", "+7", "0x7", "7.0", "4294967296", "-1"] {
            assert!(u32::from_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_variable_holds_lists_and_names() {
        assert_eq!(Vec::<u32>::from_text("1, 2"), Ok(vec![1, 2]));
        assert_eq!(
            Names::<String>::from_text("a=1,b=x=y"),
            Ok([("a".into(), "1".into()), ("b".into(), "x=y".into())].into())
        );
        assert!(Names::<String>::from_text("a").is_err());
        let shown = Names::<String>::from_text("client.rack=az1,ssl.keystore.location=k,x.TOKEN=t").unwrap().show();
        assert_eq!(shown, "client.rack=az1,ssl.keystore.location=(redacted),x.TOKEN=(redacted)");
        assert!(Names::<String>::from_text("a=1,a=2").is_err());
    }
}
