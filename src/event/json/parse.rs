//! The parser: one pass, no recursion, so that no nesting can exhaust the stack.

use std::borrow::Cow;
use std::collections::HashSet;

use super::{Extent, Item, Limits};

/// Stands for "no container around it".
const NONE: usize = usize::MAX;

/// Up to this many members, names are compared one by one; beyond, through a hash set.
const NAMES_COMPARED_LINEARLY_MAX: usize = 16;

/// Where a text stops being JSON, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Bytes in front of it.
    pub(super) at: usize,
    /// What is wrong, without any of the payload.
    pub(super) what: &'static str,
}

/// The items of exactly one JSON text.
pub(super) fn items<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Vec<Item<'a>>, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| Fault { at: error.valid_up_to(), what: "not UTF-8" })?;
    if text.starts_with('\u{feff}') {
        return Err(Fault { at: 0, what: "a byte order mark; send the text without it" });
    }
    // Events have an item for every 12 to 20 bytes.
    let capacity = (bytes.len() / 12 + 2).min(limits.members.saturating_mul(2));
    let mut parser =
        Parser { text, at: 0, items: Vec::with_capacity(capacity), open: NONE, depth: 0, values: 0, limits };
    parser.run()?;
    Ok(parser.items)
}

struct Parser<'a, 'l> {
    text: &'a str,
    /// The next byte to read.
    at: usize,
    items: Vec<Item<'a>>,
    /// The innermost open container.
    open: usize,
    depth: usize,
    values: usize,
    limits: &'l Limits,
}

impl<'a> Parser<'a, '_> {
    fn run(&mut self) -> Result<(), Fault> {
        loop {
            if self.value()? {
                continue;
            }
            // A value has ended: close what ends with it, up to the next value or the end of the text.
            loop {
                let byte = self.next_token();
                let inside = self.items.get(self.open);
                match (inside, byte) {
                    (None, None) => return Ok(()),
                    (None, Some(_)) => return self.fault("more behind the JSON text"),
                    (Some(Item::Object(_)), Some(b',')) => {
                        self.at += 1;
                        self.name()?;
                        break;
                    }
                    (Some(Item::Array(_)), Some(b',')) => {
                        self.at += 1;
                        break;
                    }
                    (Some(Item::Object(_)), Some(b'}')) | (Some(Item::Array(_)), Some(b']')) => self.close()?,
                    (Some(Item::Object(_)), Some(_)) => return self.fault("expected ',' or '}'"),
                    (Some(_), Some(_)) => return self.fault("expected ',' or ']'"),
                    (Some(_), None) => return self.fault("the text ends inside an array or object"),
                }
            }
        }
    }

    /// Reads one value. True where it is a container that has something in it, so that a value comes next.
    fn value(&mut self) -> Result<bool, Fault> {
        let Some(byte) = self.next_token() else {
            return self.fault("the text ends where a value is expected");
        };
        if self.values == self.limits.members {
            return self.fault("more values than the limit");
        }
        self.values += 1;
        if let Some(Item::Array(extent) | Item::Object(extent)) = self.items.get_mut(self.open) {
            extent.len += 1;
        }
        let item = match byte {
            b'{' | b'[' => return self.open(byte),
            b'"' => Item::Text(self.string()?),
            b'-' | b'0'..=b'9' => Item::Number(self.number()?),
            b't' => self.literal("true", Item::Bool(true))?,
            b'f' => self.literal("false", Item::Bool(false))?,
            b'n' => self.literal("null", Item::Null)?,
            _ => return self.fault("expected a value"),
        };
        self.items.push(item);
        Ok(false)
    }

    /// Opens a container; false where it is empty and closed again.
    fn open(&mut self, byte: u8) -> Result<bool, Fault> {
        if self.depth == self.limits.depth {
            return self.fault("nested deeper than the limit");
        }
        self.depth += 1;
        self.at += 1;
        let extent = Extent { len: 0, end: self.open };
        self.open = self.items.len();
        let empty = if byte == b'{' {
            self.items.push(Item::Object(extent));
            self.next_token() == Some(b'}')
        } else {
            self.items.push(Item::Array(extent));
            self.next_token() == Some(b']')
        };
        if empty {
            self.close()?;
        } else if byte == b'{' {
            self.name()?;
        }
        Ok(!empty)
    }

    /// Closes the innermost container at its last byte.
    fn close(&mut self) -> Result<(), Fault> {
        let closed = self.open;
        if has_duplicate_names(&self.items, closed) {
            return self.fault("two members of the object that ends here have the same name");
        }
        let end = self.items.len();
        if let Some(Item::Array(extent) | Item::Object(extent)) = self.items.get_mut(closed) {
            self.open = extent.end;
            extent.end = end;
        }
        self.depth -= 1;
        self.at += 1;
        Ok(())
    }

    /// Reads a member's name and the colon behind it.
    fn name(&mut self) -> Result<(), Fault> {
        if self.next_token() != Some(b'"') {
            return self.fault("expected a member's name in double quotes");
        }
        let name = self.string()?;
        self.items.push(Item::Text(name));
        if self.next_token() != Some(b':') {
            return self.fault("expected ':'");
        }
        self.at += 1;
        Ok(())
    }

    fn literal(&mut self, word: &str, item: Item<'a>) -> Result<Item<'a>, Fault> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.fault("expected a value");
        }
        self.at += word.len();
        Ok(item)
    }

    fn number(&mut self) -> Result<&'a str, Fault> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
            if matches!(self.byte(), Some(b'0'..=b'9')) {
                return self.fault("a number with a leading zero");
            }
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    /// Passes over one digit or more.
    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { self.fault("expected a digit") } else { Ok(()) }
    }

    /// Reads a string from its opening quote on.
    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.at += 1;
        let start = self.at;
        match self.plain_run()? {
            b'"' => {
                let text = &self.text[start..self.at];
                self.at += 1;
                Ok(Cow::Borrowed(text))
            }
            _ => self.escaped_string(start).map(Cow::Owned),
        }
    }

    /// Passes over characters that stand for themselves, up to a quote or a backslash, which it gives.
    fn plain_run(&mut self) -> Result<u8, Fault> {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len());
        self.at += length;
        match rest.get(length) {
            Some(byte @ (b'"' | b'\\')) => Ok(*byte),
            Some(_) => self.fault("a control character in a string; escape it"),
            None => self.fault("the text ends inside a string"),
        }
    }

    /// Reads on at the first backslash of a string that starts at `start`.
    fn escaped_string(&mut self, start: usize) -> Result<String, Fault> {
        let mut out = String::from(&self.text[start..self.at]);
        loop {
            self.at += 1;
            out.push(self.escape()?);
            let start = self.at;
            let stop = self.plain_run()?;
            out.push_str(&self.text[start..self.at]);
            if stop == b'"' {
                self.at += 1;
                return Ok(out);
            }
        }
    }

    /// Reads what stands behind a backslash.
    fn escape(&mut self) -> Result<char, Fault> {
        let character = match self.byte() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return self.fault("an unknown escape in a string"),
        };
        self.at += 1;
        Ok(character)
    }

    /// Reads the digits of one `\u` escape, or of the two that make a surrogate pair.
    fn unicode(&mut self) -> Result<char, Fault> {
        let start = self.at;
        let mut code = self.hex4()?;
        if (0xd800..0xdc00).contains(&code) && self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            }
        }
        char::from_u32(code).ok_or(Fault { at: start, what: "half of a surrogate pair" })
    }

    fn hex4(&mut self) -> Result<u32, Fault> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.byte().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return self.fault("expected four hex digits");
            };
            code = code << 4 | digit;
            self.at += 1;
        }
        Ok(code)
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space.
    fn next_token(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other,
            }
        }
    }

    fn fault<T>(&self, what: &'static str) -> Result<T, Fault> {
        Err(Fault { at: self.at, what })
    }
}

/// Whether the object at `open`, the last container of `items` and about to be closed, has a name twice.
fn has_duplicate_names(items: &[Item<'_>], open: usize) -> bool {
    let Some(Item::Object(Extent { len, .. })) = items.get(open) else {
        return false;
    };
    let mut names = Names { items, at: open + 1 };
    if *len <= NAMES_COMPARED_LINEARLY_MAX {
        let mut seen = [""; NAMES_COMPARED_LINEARLY_MAX];
        for (count, name) in names.enumerate() {
            if seen[..count].contains(&name) {
                return true;
            }
            seen[count] = name;
        }
        false
    } else {
        let mut seen = HashSet::with_capacity(*len);
        names.any(|name| !seen.insert(name))
    }
}

/// The names of the object whose first name is at `at`.
struct Names<'i, 'a> {
    items: &'i [Item<'a>],
    at: usize,
}

impl<'i> Iterator for Names<'i, '_> {
    type Item = &'i str;

    fn next(&mut self) -> Option<&'i str> {
        let Item::Text(name) = self.items.get(self.at)? else {
            return None;
        };
        self.at = match self.items.get(self.at + 1)? {
            Item::Array(extent) | Item::Object(extent) => extent.end,
            _ => self.at + 2,
        };
        Some(name)
    }
}
