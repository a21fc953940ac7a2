//! The parser and pointers against serde_json, and hostile texts.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::event::json::schema::value_of;

fn parse(bytes: &[u8]) -> Result<Document<'_>, Refusal> {
    Document::parse(bytes, &Limits::default())
}

fn fault(bytes: &[u8]) -> String {
    let refusal = parse(bytes).unwrap_err();
    assert_eq!(refusal.reason, Reason::Undecodable);
    refusal.detail
}

#[test]
fn values_are_what_was_sent() {
    let text = r#" { "a\u0062" : [ 1.0 , -0, 1E400, "x\ny\ud83e\udd80\/", "" ] , "t":true,"f":false,"n":null, "e":{}, "l":[] } "#;
    let document = parse(text.as_bytes()).unwrap();
    let root = document.root();
    assert_eq!((root.kind(), root.len()), (Kind::Object, 6));
    let list = root.get("ab").unwrap();
    let numbers: Vec<_> = list.elements().map_while(|node| node.as_number()).collect();
    assert_eq!(numbers, ["1.0", "-0", "1E400"]);
    assert_eq!(list.index(3).unwrap().as_str(), Some("x\ny🦀/"));
    assert_eq!(list.index(4).unwrap().as_str(), Some(""));
    assert!(list.index(5).is_none());
    assert_eq!(root.get("t").unwrap().as_bool(), Some(true));
    assert!(root.get("n").unwrap().is_null());
    assert!(root.get("e").unwrap().is_empty() && root.get("l").unwrap().is_empty());
    assert!(root.get("missing").is_none() && list.get("ab").is_none() && root.index(0).is_none());
    let names: Vec<_> = root.members().map(|(name, _)| name).collect();
    assert_eq!(names, ["ab", "t", "f", "n", "e", "l"]);
}

#[test]
fn strings_are_borrowed_unless_they_are_escaped() {
    let document = parse(br#"["plain","esc\u0061ped"]"#).unwrap();
    assert!(matches!(document.items[1], Item::Text(Cow::Borrowed("plain"))));
    assert!(matches!(&document.items[2], Item::Text(Cow::Owned(text)) if text == "escaped"));
}

#[test]
fn faults_name_the_byte_and_never_the_payload() {
    for (text, expected) in [
        (&b""[..], "byte 0: the text ends where a value is expected"),
        (b"  ", "byte 2: the text ends where a value is expected"),
        (b"{\"a\":\xff}", "byte 5: not UTF-8"),
        (b"\xef\xbb\xbf{}", "byte 0: a byte order mark; send the text without it"),
        (b"{} {}", "byte 3: more behind the JSON text"),
        (b"{\"a\":NaN}", "byte 5: expected a value"),
        (b"[nul]", "byte 1: expected a value"),
        (b"[1,]", "byte 3: expected a value"),
        (b"[1 2]", "byte 3: expected ',' or ']'"),
        (b"[1}", "byte 2: expected ',' or ']'"),
        (b"{\"a\":1]", "byte 6: expected ',' or '}'"),
        (b"{\"a\":1,}", "byte 7: expected a member's name in double quotes"),
        (b"{\"a\" 1}", "byte 5: expected ':'"),
        (b"{a:1}", "byte 1: expected a member's name in double quotes"),
        (b"[1", "byte 2: the text ends inside an array or object"),
        (b"\"ab", "byte 3: the text ends inside a string"),
        (b"\"a\nb\"", "byte 2: a control character in a string; escape it"),
        (b"\"\\x\"", "byte 2: an unknown escape in a string"),
        (b"\"\\u00g0\"", "byte 5: expected four hex digits"),
        (b"\"\\ud800x\"", "byte 3: half of a surrogate pair"),
        (b"\"\\udc00\"", "byte 3: half of a surrogate pair"),
        (b"\"\\ud800\\u0041\"", "byte 3: half of a surrogate pair"),
        (b"01", "byte 1: a number with a leading zero"),
        (b"-", "byte 1: expected a digit"),
        (b"1.", "byte 2: expected a digit"),
        (b"1e+", "byte 3: expected a digit"),
        (b"+1", "byte 0: expected a value"),
    ] {
        assert_eq!(fault(text), expected, "{}", text.escape_ascii());
    }
}

#[test]
fn names_that_occur_twice_are_refused_at_any_depth_and_size() {
    let twice = "two members of the object that ends here have the same name";
    assert_eq!(fault(br#"{"a":1,"b":[{"c":1,"c":1}]}"#), format!("byte 24: {twice}"));
    assert!(fault(br#"{"a":1,"\u0061":2}"#).ends_with(twice));
    assert!(fault(br#"{"a":{"x":1},"b":{"x":1},"a":3}"#).ends_with(twice));
    for members in [2, 15, 16, 17, 500] {
        let mut text: String = (0..members).map(|at| format!("\"{at}\":{{\"{at}\":[]}},")).collect();
        text = format!("{{{}}}", text.trim_end_matches(','));
        assert_eq!(parse(text.as_bytes()).unwrap().root().len(), members);
        let doubled = text.replacen('{', &format!("{{\"{}\":0,", members - 1), 1);
        assert!(fault(doubled.as_bytes()).ends_with(twice), "{members}");
    }
}

#[test]
fn limits_hold_exactly() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(parse(nested(128).as_bytes()).is_ok());
    assert_eq!(fault(nested(129).as_bytes()), "byte 128: nested deeper than the limit");
    let objects = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    assert!(parse(objects(128).as_bytes()).is_ok());
    assert!(parse(objects(129).as_bytes()).is_err());
    let siblings = format!("[{}[]]", "[[]],".repeat(1000));
    assert!(Document::parse(siblings.as_bytes(), &Limits { depth: 3, members: 65_536 }).is_ok());

    let limits = Limits { depth: 128, members: 4 };
    assert!(Document::parse(br#"{"a":[1,2]}"#, &limits).is_ok());
    let refusal = Document::parse(br#"{"a":[1,2,3]}"#, &limits).unwrap_err();
    assert_eq!(refusal.detail, "byte 10: more values than the limit");
}

/// Every line of the case: recorded, or refused with the byte and the fault.
#[test]
fn hostile_texts_are_refused_and_the_others_read() {
    let lines = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cases/hostile_json.jsonl"));
    let expected = [
        None,
        None,
        None,
        Some("nested deeper than the limit"),
        Some("nested deeper than the limit"),
        Some("nested deeper than the limit"),
        Some("half of a surrogate pair"),
        Some("half of a surrogate pair"),
        None,
        Some("a byte order mark; send the text without it"),
        Some("expected a value"),
        None,
        Some("more behind the JSON text"),
        Some("the text ends inside a string"),
    ];
    let lines: Vec<_> = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), expected.len());
    for (line, expected) in lines.iter().zip(expected) {
        let what = parse(line).err().map(|refusal| refusal.detail.split_once(": ").unwrap().1.to_owned());
        assert_eq!(what.as_deref(), expected);
    }
    let nul = parse(lines[8]).unwrap();
    assert_eq!(nul.at(&Pointer::parse("/data/memo").unwrap()).unwrap().as_str(), Some("a\0b"));
    let huge = parse(lines[11]).unwrap();
    assert_eq!(huge.at(&Pointer::parse("/data/amount").unwrap()).unwrap().as_number(), Some("1e400"));
}

#[test]
fn pointers_follow_the_rfc() {
    let text = br#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"m~n":8,"01":9}"#;
    let document = parse(text).unwrap();
    let number = |pointer: &str| document.at(&Pointer::parse(pointer).unwrap()).and_then(|node| node.as_number());
    assert_eq!(number("/"), Some("0"));
    assert_eq!(number("/a~1b"), Some("1"));
    assert_eq!(number("/c%d"), Some("2"));
    assert_eq!(number("/m~0n"), Some("8"));
    assert_eq!(number("/01"), Some("9"));
    let text = |pointer: &str| document.at(&Pointer::parse(pointer).unwrap()).and_then(|node| node.as_str());
    assert_eq!(text("/foo/1"), Some("baz"));
    for nothing in
        ["/foo/2", "/foo/01", "/foo/-", "/foo/+1", "/foo/", "/foo/0/0", "/nope", "/foo/99999999999999999999999"]
    {
        assert_eq!(text(nothing), None, "{nothing}");
    }
    assert_eq!(document.at(&Pointer::parse("").unwrap()).unwrap().len(), 6);

    assert_eq!(Pointer::parse("foo"), Err(PointerError::NoSlash));
    for bad in ["/~", "/~2", "/a~", "/a~~0"] {
        assert_eq!(Pointer::parse(bad), Err(PointerError::BadEscape), "{bad}");
    }
    let pointer = Pointer::parse("/~01/b").unwrap();
    assert_eq!(pointer.tokens().collect::<Vec<_>>(), ["~1", "b"]);
    assert_eq!((pointer.as_str(), pointer.to_string().as_str()), ("/~01/b", "/~01/b"));
}

/// Any JSON value that serde_json can hold.
pub(in crate::event) fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\\x00-\\x7f]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::hash_map("[a-c/~0-1\"é\\\\]{0,3}", inner, 0..20)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Pointers to everything inside the value.
fn pointers(value: &Value, prefix: &str, out: &mut Vec<String>) {
    out.push(prefix.to_owned());
    match value {
        Value::Array(elements) => {
            for (at, element) in elements.iter().enumerate() {
                pointers(element, &format!("{prefix}/{at}"), out);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                pointers(member, &format!("{prefix}/{}", name.replace('~', "~0").replace('/', "~1")), out);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn what_serde_json_writes_reads_back(value in values()) {
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            let document = parse(text.as_bytes()).unwrap();
            prop_assert_eq!(value_of(document.root()), value.clone());
        }
    }

    /// One damaged byte: both readers accept and agree, or both refuse, save for what is documented.
    #[test]
    fn damaged_texts_are_judged_as_serde_json_does(value in values(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = serde_json::to_vec(&value).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        match (parse(&text), serde_json::from_slice::<Value>(&text)) {
            (Ok(document), Ok(theirs)) => prop_assert_eq!(value_of(document.root()), theirs),
            (Err(_), Err(_)) => {}
            (Err(refusal), Ok(_)) => prop_assert!(refusal.detail.contains("same name"), "{}", refusal.detail),
            (Ok(_), Err(error)) => prop_assert!(error.to_string().contains("out of range"), "{}", error),
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(parse(&bytes).is_ok(), serde_json::from_slice::<Value>(&bytes).is_ok());
    }

    #[test]
    fn pointers_find_what_serde_json_finds(value in values(), stray in "(/[a-c01~/é-]{0,2}){0,3}") {
        let text = serde_json::to_string(&value).unwrap();
        let document = parse(text.as_bytes()).unwrap();
        let mut all = Vec::new();
        pointers(&value, "", &mut all);
        all.push(stray);
        for text in all {
            if let Ok(pointer) = Pointer::parse(&text) {
                let found = document.at(&pointer).map(value_of);
                prop_assert_eq!(found.as_ref(), value.pointer(&text), "{}", text);
            }
        }
    }
}
