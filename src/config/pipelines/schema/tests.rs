//! No event is validated by a schema that is not whole.

use super::*;

/// Loads `main.json` from a directory of its own; what is told is relative to it.
fn told(files: &[(&str, &str)]) -> Result<SchemaSpec, Vec<String>> {
    let dir = std::env::temp_dir().join(format!("recordkeeper-schemas-{}", uuid::Uuid::new_v4()));
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let mut found = Vec::new();
    let schema = Schemas::default().load(&dir.join("main.json"), &mut found);
    std::fs::remove_dir_all(&dir).unwrap();
    let prefix = format!("{}/", dir.display());
    schema.ok_or_else(|| found.iter().map(|diagnostic| diagnostic.to_string().replace(&prefix, "")).collect())
}

fn faults(schema: &str) -> Vec<String> {
    told(&[("main.json", schema)]).unwrap_err()
}

fn accepts(schema: &SchemaSpec, text: &str) -> bool {
    let document = Document::parse(text.as_bytes(), &Limits::default()).unwrap();
    schema.validator().unwrap().is_valid(document.root())
}

#[test]
fn references_are_followed_within_and_between_files() {
    let main = r##"{"$id": "https://example.com/main.json", "type": "object",
        "properties": {"a": {"$ref": "#/$defs/name"}, "b": {"$ref": "../parts/more.json#/$defs/b"}, "c": {"$ref": "#"}},
        "$defs": {"name": {"type": "string"}}}"##;
    let more = r##"{"$defs": {"b": {"$ref": "#/$defs/c"}, "c": {"$ref": "main2.json"}}}"##;
    let dir = [("main.json", main.replace("../parts/", "parts/")), ("parts/more.json", more.to_owned())];
    let files: Vec<(&str, &str)> = dir.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let files = [&files[..], &[("parts/main2.json", r#"{"type": "integer"}"#)]].concat();
    let schema = told(&files).unwrap();
    assert_eq!(schema.bytes().count(), 3);
    assert!(accepts(&schema, r#"{"a": "x", "b": 1, "c": {"a": "y"}}"#));
    assert!(!accepts(&schema, r#"{"a": 1}"#));
    assert!(!accepts(&schema, r#"{"b": "1"}"#));
    assert!(!accepts(&schema, r#"{"c": {"a": 1}}"#));
}

#[test]
fn missing_targets_are_named() {
    assert_eq!(
        faults(r##"{"properties": {"a": {"$ref": "#/$defs/nmae"}}, "$defs": {"name": {}}}"##),
        [
            "main.json: error: at /properties/a/$ref: main.json has no schema at /$defs/nmae\n  hint: did you mean `#/$defs/name`?"
        ]
    );
    let missing = faults(r#"{"items": {"$ref": "gone.json#/$defs/a"}}"#);
    assert!(
        missing[0].starts_with("main.json: error: at /items/$ref: `gone.json#/$defs/a` names a file"),
        "{missing:?}"
    );
    // Somewhere in the file, but no schema.
    let inside = faults(r##"{"items": {"$ref": "#/enum/0"}, "enum": [{"type": "string"}]}"##);
    assert!(
        inside[0].starts_with("main.json: error: at /items/$ref: main.json has no schema at /enum/0"),
        "{inside:?}"
    );
    let far =
        told(&[("main.json", r##"{"$ref": "b.json#/$defs/x"}"##), ("b.json", r#"{"$defs": {"y": {}}}"#)]).unwrap_err();
    assert_eq!(
        far,
        ["main.json: error: at /$ref: b.json has no schema at /$defs/x\n  hint: did you mean `#/$defs/y`?"]
    );
}

#[test]
fn nothing_is_fetched() {
    for reference in ["https://example.com/a.json", "//example.com/a.json", "/etc/passwd", "file:///etc/passwd"] {
        let told = faults(&format!(r#"{{"$ref": "{reference}"}}"#));
        assert!(told[0].contains("only files beside the schema are read"), "{told:?}");
    }
    assert!(faults(r##"{"$ref": "#anchor", "$anchor": "anchor"}"##)[0].contains("names an anchor"));
}

#[test]
fn a_schema_that_refers_only_to_itself_says_nothing() {
    let hint = "the schema refers only to itself\n  hint: a reference must lead to something that says more";
    assert_eq!(faults(r##"{"$ref": "#"}"##), [format!("main.json: error: at /: {hint}")]);
    assert_eq!(
        faults(
            r##"{"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}}"##
        ),
        [format!("main.json: error: at /$defs/a: {hint}")]
    );
    let across = told(&[("main.json", r#"{"$ref": "b.json"}"#), ("b.json", r#"{"$ref": "main.json"}"#)]).unwrap_err();
    assert_eq!(across, [format!("main.json: error: at /: {hint}")]);
}

#[test]
fn slips_in_keywords_are_refused_and_names_are_not_keywords() {
    assert_eq!(faults(r#"{"properties": {"a": {"patern": "x", "maxlength": 3}}, "require": ["a"]}"#).len(), 3);
    assert_eq!(
        faults(r#"{"properties": {"a/b": {"patern": "x"}}}"#),
        ["main.json: error: at /properties/a~1b/patern: `patern` is no keyword\n  hint: did you mean `pattern`?"]
    );
    assert!(told(&[("main.json", r#"{"properties": {"requird": {"x-note": 1}}}"#)]).is_ok());
}

#[test]
fn patterns_that_do_not_compile_are_refused_where_they_stand() {
    let told = faults(r#"{"$defs": {"unused": {"pattern": "("}}, "patternProperties": {"[": {}}}"#);
    assert!(told.iter().any(|line| line.starts_with("main.json: error: at /$defs/unused/pattern: ")), "{told:?}");
    assert!(told.iter().any(|line| line.starts_with("main.json: error: at /patternProperties")), "{told:?}");
    assert!(faults(r#"{"pattern": "(?=a)b"}"#)[0].contains("at /pattern: "));
}

#[test]
fn what_the_meta_schema_refuses_is_named() {
    assert!(
        faults(r#"{"properties": {"a": {"type": "strng"}}}"#)[0].starts_with("main.json: error: at /properties/a/type")
    );
    assert!(faults(r#"{"$schema": "http://json-schema.org/draft-07/schema#"}"#)[0].contains("another draft"));
    assert!(faults(r#"{"format": "no-such-format"}"#)[0].contains("format"));
    assert!(faults(r#"{"type": "object", "type": "array"}"#)[0].contains("no JSON"));
    assert!(faults("{")[0].contains("no JSON"));
}

#[test]
fn reach_follows_what_the_schema_says() {
    let schema = r##"{"type": "object", "additionalProperties": false, "allOf": [{"$ref": "#/$defs/base"}],
        "properties": {"id": {"type": "string"}, "list": {"type": "array", "items": {"type": "object", "properties": {"x": {}}}},
            "open": {"type": "object", "properties": {"known": {}}}, "any": {"anyOf": [{"type": "null"}, {"properties": {"y": {}}}]},
            "never": false, "tags": {"type": "object", "additionalProperties": {"type": "string"}}},
        "$defs": {"base": {"properties": {"id": {}}}}}"##;
    let schema = told(&[("main.json", schema)]).unwrap();
    let near = |name: &str| Some(name.to_owned());
    for (tokens, expected) in [
        (&["id"][..], Reach::Described),
        (&["idd"], Reach::RuledOut(near("id"))),
        (&["id", "x"], Reach::RuledOut(None)),
        (&["list", "0", "x"], Reach::Described),
        (&["list", "x"], Reach::RuledOut(None)),
        (&["open", "knwn"], Reach::Unmentioned(near("known"))),
        (&["open", "else"], Reach::Unmentioned(None)),
        (&["any", "y"], Reach::Described),
        (&["never"], Reach::RuledOut(None)),
        (&["tags", "t"], Reach::Described),
        (&["tags", "t", "u"], Reach::RuledOut(None)),
    ] {
        assert_eq!(schema.reach(tokens), expected, "{tokens:?}");
    }
}

#[test]
fn a_schema_is_not_spread_without_end() {
    let files: Vec<(String, String)> =
        (0..70).map(|at| (format!("f{at}.json"), format!(r#"{{"items": {{"$ref": "f{}.json"}}}}"#, at + 1))).collect();
    let mut all: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    all.push(("main.json", r#"{"$ref": "f0.json"}"#));
    let told = told(&all).unwrap_err();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("one file too many"), "{told:?}");
}
