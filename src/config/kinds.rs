//! The kinds of values that settings take.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::setting::{Fault, Setting};
use super::yaml::{Node, Place, Value};

impl<T: Setting> Setting for Option<T> {
    const KIND: &'static str = T::KIND;
    const SECRET: bool = T::SECRET;
    const OPTIONAL: bool = true;

    fn from_text(text: &str) -> Result<Self, Fault> {
        T::from_text(text).map(Some)
    }

    fn from_node(node: &Node) -> Result<Self, (Place, Fault)> {
        T::from_node(node).map(Some)
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
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "path of a file";

    fn from_text(text: &str) -> Result<Self, Fault> {
        Ok(Self::from(text))
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
        Ok(Self::new(text))
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
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(T::from_text).collect()
    }

    fn from_node(node: &Node) -> Result<Self, (Place, Fault)> {
        match &node.value {
            Value::List(items) => items.iter().map(T::from_node).collect(),
            Value::Scalar(text) if text.starts_with('-') => {
                let hint = "a list item is written with a space after the dash: `- item`";
                Err((node.place, Fault::with_hint("takes a list, and a dash without a space begins none", hint)))
            }
            Value::Scalar(text) => Self::from_text(text).map_err(|fault| (node.place, fault)),
            Value::Nothing => Err((node.place, Fault::with_hint("has no value", "write one, or leave the line out"))),
            Value::Map(_) => Err((node.place, Fault::new("takes a list, not a mapping"))),
        }
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
        let mut names = Self::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, value) =
                item.split_once('=').ok_or_else(|| Fault::new("takes name=value pairs separated by commas"))?;
            if names.insert(name.trim().to_owned(), T::from_text(value.trim())?).is_some() {
                return Err(Fault::new(format!("has \"{}\" twice", name.trim())));
            }
        }
        Ok(names)
    }

    fn from_node(node: &Node) -> Result<Self, (Place, Fault)> {
        let Value::Map(entries) = &node.value else {
            return Err((node.place, Fault::new(format!("takes a mapping of names to values, not {}", node.shape()))));
        };
        entries.iter().map(|entry| Ok((entry.key.clone(), T::from_node(&entry.value)?))).collect()
    }

    fn show(&self) -> String {
        if self.is_empty() {
            return "(none)".to_owned();
        }
        self.iter().map(|(name, value)| format!("{name}={}", value.show())).collect::<Vec<_>>().join(",")
    }
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
        assert!(Names::<String>::from_text("a=1,a=2").is_err());
    }
}
