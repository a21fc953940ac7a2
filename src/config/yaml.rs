//! A YAML file as a tree in which every key and value knows its place.
//!
//! Text in, a tree and diagnostics out; settings and pipelines are read from it. Scalars keep their own text: what they mean is decided by the setting that takes
//! them, so `30` is never silently a number of milliseconds and `no` never a boolean.

use std::collections::HashMap;
use std::path::Path;

use serde_saphyr::granit_parser::{Event, Marker, Parser};

use super::{Diagnostic, bounded};

/// Larger files are refused before they are parsed.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Line and column, from one.
pub(super) type Place = (u64, u64);

/// One value with the place where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
    /// Whether it stands in quotes or is a block of text: it is a text then, whatever it looks like.
    pub quoted: bool,
}

#[derive(Debug)]
pub(super) enum Value {
    /// A key without a value (`key:`), or `~`.
    Nothing,
    /// What was refused already, such as an alias; nothing more is said of it.
    Refused,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_place: Place,
    pub value: Node,
}

impl Node {
    /// The value under a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub fn shape(&self) -> &'static str {
        match self.value {
            Value::Nothing | Value::Refused => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Reads and parses a file, as [`parse`].
pub(super) fn read(path: &Path) -> (Option<Node>, Vec<Diagnostic>) {
    match bounded::text(path, FILE_BYTES_MAX) {
        Ok(text) => parse(path, &text),
        Err(what) => (None, vec![Diagnostic::error(path, None, what)]),
    }
}

/// Parses one document whose root is a mapping; an empty one is an empty mapping. What is refused in it (keys given twice,
/// aliases, keys that are no names) is reported, and left out of the tree; `None` where there is no tree.
pub(super) fn parse(path: &Path, text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    let mut tree = Tree { path, open: Vec::new(), root: None, found: Vec::new() };
    for next in Parser::new_from_str(text) {
        match next {
            Ok((event, span)) => tree.take(event, place(&span.start)),
            Err(error) => {
                let hint =
                    "indent with spaces; write `key: value` and `- item` with a space after the colon and the dash";
                let fault = Diagnostic::error(path, Some(place(error.marker())), format!("not YAML: {}", error.info()));
                tree.found.push(fault.with_hint(hint));
                return (None, tree.found);
            }
        }
    }
    let root = tree.root.unwrap_or(Node { place: (1, 1), value: Value::Map(Vec::new()), quoted: false });
    if !matches!(root.value, Value::Map(_)) {
        let message = format!("expected settings as `key: value`, found {}", root.shape());
        tree.found.push(Diagnostic::error(path, Some(root.place), message));
        return (None, tree.found);
    }
    (Some(root), tree.found)
}

fn place(marker: &Marker) -> Place {
    (marker.line() as u64, marker.col() as u64 + 1)
}

/// A list or mapping whose end has not come yet.
enum Open {
    List(Place, Vec<Node>),
    Map { place: Place, entries: Vec<Entry>, seen: HashMap<String, Place>, key: Option<(Option<String>, Place)> },
}

struct Tree<'a> {
    path: &'a Path,
    open: Vec<Open>,
    root: Option<Node>,
    found: Vec<Diagnostic>,
}

impl Tree<'_> {
    fn take(&mut self, event: Event<'_>, place: Place) {
        match event {
            Event::Scalar(text, style, _, _) => {
                let plain = style == serde_saphyr::granit_parser::ScalarStyle::Plain;
                let value = match text.as_ref() {
                    "" | "~" | "null" if plain => Value::Nothing,
                    other => Value::Scalar(other.to_owned()),
                };
                self.put(Node { place, value, quoted: !plain });
            }
            Event::SequenceStart(..) => self.open.push(Open::List(place, Vec::new())),
            Event::MappingStart(..) => {
                self.open.push(Open::Map { place, entries: Vec::new(), seen: HashMap::new(), key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(place, items)) => self.put(Node { place, value: Value::List(items), quoted: false }),
                Some(Open::Map { place, entries, .. }) => {
                    self.put(Node { place, value: Value::Map(entries), quoted: false })
                }
                None => {}
            },
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.found.push(Diagnostic::error(
                    self.path,
                    Some(place),
                    "aliases (`*name`) are not supported; write it out",
                ));
                self.put(Node { place, value: Value::Refused, quoted: false });
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                self.found.push(Diagnostic::error(self.path, Some(place), "a second document; one file holds one"));
            }
            _ => {}
        }
    }

    /// A whole value: an item, a key, the value of the key before it, or the root.
    fn put(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = self.root.take().or(Some(node)),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map { entries, seen, key, .. }) => match key.take() {
                None => {
                    let name = match node.value {
                        Value::Scalar(name) => Some(name),
                        Value::Refused => None,
                        Value::Nothing | Value::List(_) | Value::Map(_) => {
                            let fault = Diagnostic::error(self.path, Some(node.place), "a key has to be a plain name");
                            self.found.push(fault.with_hint("write `name: value`"));
                            None
                        }
                    };
                    *key = Some((name, node.place));
                }
                Some((None, _)) => {}
                Some((Some(name), key_place)) => {
                    if let Some((line, _)) = seen.get(&name) {
                        let message = format!("\"{name}\" is given twice, first on line {line}");
                        let fault = Diagnostic::error(self.path, Some(key_place), message);
                        self.found.push(fault.with_hint("keep one of the two"));
                    } else {
                        seen.insert(name.clone(), key_place);
                        entries.push(Entry { key: name, key_place, value: node });
                    }
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        parse(Path::new("f.yaml"), text).1.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn values_keep_their_text_and_place() {
        let root = parse(Path::new("f.yaml"), "# comment\na:\n  b: 0755\n  c: [x, 'no']\n").0.unwrap();
        let b = root.get("a").and_then(|a| a.get("b")).unwrap();
        assert_eq!(b.place, (3, 6));
        assert!(matches!(&b.value, Value::Scalar(text) if text == "0755"));
    }

    #[test]
    fn every_key_given_twice_is_reported_where_it_stands() {
        assert_eq!(
            faults("a: 1\nb:\n  c: 1\n  c: 2\na: 2\n"),
            [
                "f.yaml:4:3: error: \"c\" is given twice, first on line 3\n  hint: keep one of the two",
                "f.yaml:5:1: error: \"a\" is given twice, first on line 1\n  hint: keep one of the two"
            ]
        );
    }

    #[test]
    fn what_is_not_yaml_has_a_place() {
        assert!(faults("a: [1\nb: 2\n")[0].starts_with("f.yaml:2:"), "{:?}", faults("a: [1\nb: 2\n"));
        assert!(faults("a:\n\tb: 1\n")[0].starts_with("f.yaml:2:"));
        assert!(faults("a: &x 1\nb: *x\n")[0].starts_with("f.yaml:2:4: error: aliases"));
    }

    #[test]
    fn what_is_refused_is_left_out_and_the_rest_is_read() {
        let (root, found) = parse(Path::new("f.yaml"), "? [a, b]\n: 1\nc: &x 2\nd: *x\ne: 3\n");
        let root = root.unwrap();
        assert!(matches!(&root.get("e").unwrap().value, Value::Scalar(text) if text == "3"));
        assert!(matches!(root.get("d").unwrap().value, Value::Refused));
        let told: Vec<_> = found.iter().map(|fault| fault.message.as_str()).collect();
        assert_eq!(told, ["a key has to be a plain name", "aliases (`*name`) are not supported; write it out"]);
    }

    #[test]
    fn an_empty_file_is_no_setting() {
        assert!(
            matches!(parse(Path::new("f"), "# nothing\n").0.unwrap().value, Value::Map(entries) if entries.is_empty())
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_tree_or_a_finding(text in "[-a:\\[\\]{},&*!|>'\"%@`#? \n\t\u{e9}]{0,60}") {
            let (root, found) = parse(Path::new("f"), &text);
            proptest::prop_assert!(root.is_some() || !found.is_empty());
        }
    }
}
