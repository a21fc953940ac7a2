//! A pipeline file as a tree of typed values, each with its place, and readers that name every problem they meet.

use std::path::{Path, PathBuf};

use crate::config::yaml::{self, Entry, Node};
use crate::config::{Diagnostic, nearest};

pub(super) use crate::config::yaml::Place;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What YAML can say, as far as pipeline files use it.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(String),
    Float,
    Text(String),
    List(Vec<Tree>),
    Table(Vec<(Key, Tree)>),
}

/// A key and where it stands.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) name: String,
}

impl Tree {
    /// Reads one file's text. What YAML itself refuses, and keys given twice, are told; `None` where there is no tree.
    pub(super) fn parse(file: &Path, text: &str) -> (Option<Self>, Vec<Diagnostic>) {
        let (root, found) = yaml::parse(file, text);
        (root.map(Self::from), found)
    }

    fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Integer(_) | Value::Float => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    /// The canonical JSON of the tree: tables sorted by key, no white space, comments and style gone.
    pub(super) fn canonical(&self, out: &mut String) {
        match &self.value {
            Value::Null | Value::Float => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Integer(digits) => out.push_str(digits),
            Value::Text(text) => quote(text, out),
            Value::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    item.canonical(out);
                }
                out.push(']');
            }
            Value::Table(entries) => {
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
                out.push('{');
                for (at, (key, value)) in sorted.into_iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    quote(&key.name, out);
                    out.push(':');
                    value.canonical(out);
                }
                out.push('}');
            }
        }
    }
}

fn quote(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

impl From<Node> for Tree {
    fn from(node: Node) -> Self {
        let value = match node.value {
            // What was refused has its diagnostic already.
            yaml::Value::Nothing | yaml::Value::Refused => Value::Null,
            yaml::Value::Scalar(text) if node.quoted => Value::Text(text),
            yaml::Value::Scalar(text) => plain(text),
            yaml::Value::List(items) => Value::List(items.into_iter().map(Self::from).collect()),
            yaml::Value::Map(entries) => {
                let entry = |entry: Entry| (Key { place: entry.key_place, name: entry.key }, Self::from(entry.value));
                Value::Table(entries.into_iter().map(entry).collect())
            }
        };
        Self { place: node.place, value }
    }
}

/// What a scalar without quotes is. Numbers that are no plain integers are none that a pipeline has a use for.
fn plain(text: String) -> Value {
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match text.as_str() {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ if whole && (digits == "0" || !digits.starts_with('0')) => Value::Integer(text),
        _ if digits.starts_with(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok() => Value::Float,
        _ => Value::Text(text),
    }
}

/// The problems of one file, collected so that all of them are told at once.
#[derive(Debug)]
pub(super) struct Problems {
    file: PathBuf,
    found: Vec<Diagnostic>,
}

impl Problems {
    pub(super) fn of(file: &Path) -> Self {
        Self { file: file.to_owned(), found: Vec::new() }
    }

    pub(super) fn error(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.found.push(Diagnostic::error(&self.file, Some(place), message).with_hint(hint));
    }

    pub(super) fn warning(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.found.push(Diagnostic::warning(&self.file, Some(place), message).with_hint(hint));
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    pub(super) fn into_inner(self) -> Vec<Diagnostic> {
        self.found
    }

    fn wrong_type(&mut self, tree: &Tree, what: &str, wanted: &str) {
        let hint = match &tree.value {
            Value::Integer(_) | Value::Float | Value::Bool(_) | Value::Null if wanted == "a text" => {
                "put it in quotes".to_owned()
            }
            Value::Table(entries) if entries.first().is_some_and(|(key, _)| key.name.starts_with('-')) => {
                "a list item starts with a dash and a space: `- name`".to_owned()
            }
            Value::Text(text) if wanted == "a list" && text.starts_with('-') => {
                "a list item starts with a dash and a space: `- name`".to_owned()
            }
            _ => format!("write {wanted}"),
        };
        self.error(tree.place, format!("`{what}` must be {wanted}, not {}", tree.kind()), hint);
    }
}

/// A table being read: whatever was not asked for by its end is an unknown key.
#[derive(Debug)]
pub(super) struct Table<'t> {
    pub(super) place: Place,
    what: String,
    entries: &'t [(Key, Tree)],
    known: Vec<&'static str>,
}

impl<'t> Table<'t> {
    pub(super) fn open(tree: &'t Tree, what: &str, problems: &mut Problems) -> Option<Self> {
        match &tree.value {
            Value::Table(entries) => {
                Some(Self { place: tree.place, what: what.to_owned(), entries, known: Vec::new() })
            }
            _ => {
                problems.wrong_type(tree, what, "a table");
                None
            }
        }
    }

    pub(super) fn optional(&mut self, name: &'static str) -> Option<&'t Tree> {
        self.known.push(name);
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }

    pub(super) fn required(&mut self, name: &'static str, problems: &mut Problems) -> Option<&'t Tree> {
        let found = self.optional(name);
        if found.is_none() {
            problems.error(self.place, format!("{} lacks `{name}`", self.what), format!("add `{name}:`"));
        }
        found
    }

    /// A key that has no business here, with the reason.
    pub(super) fn forbidden(&mut self, name: &'static str, why: &str, problems: &mut Problems) {
        self.known.push(name);
        if let Some((key, _)) = self.entries.iter().find(|(key, _)| key.name == name) {
            problems.error(
                key.place,
                format!("{} may not have `{name}`: {why}", self.what),
                format!("remove `{name}`"),
            );
        }
    }

    pub(super) fn close(self, problems: &mut Problems) {
        for (key, _) in self.entries {
            if self.known.contains(&key.name.as_str()) {
                continue;
            }
            let hint = match nearest(&key.name, self.known.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("{} may have: {}", self.what, self.known.join(", ")),
            };
            problems.error(key.place, format!("{} has the unknown key `{}`", self.what, key.name), hint);
        }
    }
}

/// A text.
pub(super) fn text<'t>(tree: &'t Tree, what: &str, problems: &mut Problems) -> Option<&'t str> {
    match &tree.value {
        Value::Text(text) if !text.is_empty() => Some(text),
        Value::Text(_) => {
            problems.error(tree.place, format!("`{what}` is empty"), "write what is meant");
            None
        }
        _ => {
            problems.wrong_type(tree, what, "a text");
            None
        }
    }
}

/// True or false.
pub(super) fn boolean(tree: &Tree, what: &str, problems: &mut Problems) -> Option<bool> {
    match &tree.value {
        Value::Bool(value) => Some(*value),
        _ => {
            problems.wrong_type(tree, what, "true or false");
            None
        }
    }
}

/// The items of a list that has some.
pub(super) fn list<'t>(tree: &'t Tree, what: &str, problems: &mut Problems) -> Option<&'t [Tree]> {
    match &tree.value {
        Value::List(items) if !items.is_empty() => Some(items),
        Value::List(_) => {
            problems.error(tree.place, format!("`{what}` is empty"), "list at least one");
            None
        }
        _ => {
            problems.wrong_type(tree, what, "a list");
            None
        }
    }
}

/// The entries of a table whose keys are free.
pub(super) fn entries<'t>(tree: &'t Tree, what: &str, problems: &mut Problems) -> Option<&'t [(Key, Tree)]> {
    match &tree.value {
        Value::Table(entries) => Some(entries),
        _ => {
            problems.wrong_type(tree, what, "a table");
            None
        }
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(tree: &Tree, what: &str, words: &[(&str, T)], problems: &mut Problems) -> Option<T> {
    let text = text(tree, what, problems)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let hint = match nearest(text, words.iter().map(|(word, _)| *word)) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("one of: {}", words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")),
    };
    problems.error(tree.place, format!("`{what}` cannot be `{text}`"), hint);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Tree {
        fn get(self, name: &str) -> Tree {
            let Value::Table(entries) = self.value else { unreachable!("no table") };
            entries.into_iter().find(|(key, _)| key.name == name).unwrap().1
        }
    }

    fn tree(text: &str) -> Tree {
        Tree::parse(Path::new("p.yaml"), text).0.unwrap()
    }

    #[test]
    fn keys_and_values_know_their_place() {
        let tree = tree("a: 1\nb:\n  - x: yes please\n    'y': {z: true}\n");
        let Value::Table(entries) = &tree.value else { unreachable!("{tree:?}") };
        assert_eq!(entries[0].0.place, (1, 1));
        assert_eq!(entries[0].1.place, (1, 4));
        let Value::List(items) = &entries[1].1.value else { unreachable!("{tree:?}") };
        let Value::Table(inner) = &items[0].value else { unreachable!("{tree:?}") };
        assert_eq!(inner[1].0.place, (4, 5));
        assert_eq!(inner[1].0.name, "y");
    }

    #[test]
    fn a_key_twice_is_refused_where_it_stands() {
        let (tree, found) = Tree::parse(Path::new("p.yaml"), "a: 1\nb: 2\na: 3\n");
        assert!(tree.is_some());
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].to_string(),
            "p.yaml:3:1: error: \"a\" is given twice, first on line 1\n  hint: keep one of the two"
        );
    }

    #[test]
    fn scalars_without_quotes_are_what_they_look_like() {
        let shown = |text: &str| {
            let Value::List(items) = tree(&format!("a: [{text}]\n")).get("a").value else { unreachable!("{text}") };
            items.iter().map(Tree::kind).collect::<Vec<_>>().join(",")
        };
        assert_eq!(
            shown("true, false, 'true', yes, ~, null"),
            "true or false,true or false,a text,a text,nothing,nothing"
        );
        assert_eq!(shown("0, -5, 18446744073709551616, 1.5, 1e3, 007"), ["a number"; 6].join(","));
        assert_eq!(shown("'5', 0x1F, nan, 2026-01-02T00:00:00Z, a1"), ["a text"; 5].join(","));
    }

    #[test]
    fn canonical_text_ignores_order_style_and_comments() {
        let canonical = |text: &str| {
            let mut out = String::new();
            tree(text).canonical(&mut out);
            out
        };
        assert_eq!(canonical("b: [1, 'x']\na: {c: true}  # why\n"), r#"{"a":{"c":true},"b":[1,"x"]}"#);
        assert_eq!(canonical("a:\n  c: true\nb:\n- 1\n- \"x\"\n"), r#"{"a":{"c":true},"b":[1,"x"]}"#);
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_all_told() {
        let tree = tree("nam: x\nlist: y\nflag: 3\n");
        let mut problems = Problems::of(Path::new("p.yaml"));
        let mut table = Table::open(&tree, "this", &mut problems).unwrap();
        assert!(table.optional("name").is_none());
        let list_tree = table.required("list", &mut problems).unwrap();
        assert!(list(list_tree, "list", &mut problems).is_none());
        let flag = table.required("flag", &mut problems).unwrap();
        assert!(text(flag, "flag", &mut problems).is_none());
        table.close(&mut problems);
        let told: Vec<String> = problems.into_inner().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "p.yaml:2:7: error: `list` must be a list, not a text\n  hint: write a list",
                "p.yaml:3:7: error: `flag` must be a text, not a number\n  hint: put it in quotes",
                "p.yaml:1:1: error: this has the unknown key `nam`\n  hint: did you mean `name`?",
            ]
        );
    }
}
