//! A share of many.

use super::setting::{Fault, Setting};

/// A whole percentage, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(pub Option<u32>);

impl Setting for Share {
    const KIND: &'static str = "percentage such as `50%`, or `off`";

    fn from_text(text: &str) -> Result<Self, Fault> {
        let refuse = || Fault::new(format!("takes a whole percentage such as 50%, or off, not \"{text}\""));
        if text == "off" {
            return Ok(Self(None));
        }
        let number = text.strip_suffix('%').map(str::trim_end).ok_or_else(refuse)?;
        u32::from_text(number).map(|percent| Self(Some(percent))).map_err(|_| refuse())
    }

    fn show(&self) -> String {
        self.0.map_or_else(|| "off".to_owned(), |percent| format!("{percent}%"))
    }

    fn outside(&self, low: &Self, high: &Self) -> bool {
        self.0.is_some() && (self.0 < low.0 || self.0 > high.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_with_its_sign_or_off() {
        for text in ["1%", "50%", "off"] {
            assert_eq!(Share::from_text(text).unwrap().show(), text);
        }
        for text in ["50", "0.5", "%", "-1%", "half", ""] {
            assert!(Share::from_text(text).is_err(), "{text}");
        }
        let (low, high) = (Share(Some(1)), Share(Some(99)));
        assert!(!Share(None).outside(&low, &high));
        assert!(Share(Some(0)).outside(&low, &high) && Share(Some(100)).outside(&low, &high));
    }
}
