//! Every diagnostic of pipeline files, as a user would read it.

use super::*;

const GOOD: &str = r#"pipeline: p
source: {kafka: {topics: [t], group: g, start: earliest}}
routes:
  - name: one
    match: {topic: t, content: {/kind: a}}
    format: json
    schema: s.json
    source: s
    id: "{/id}"
    records:
      - {name: first, wallet: "{/wallet}", type: x, fields: {amount: {amount: /n}}}
      - {name: second, type: y, when: /n}
    wallet: {group: profile, id: "{/wallet}", version: /v, attributes: {label: /label}}
"#;

const EVENTS: &str = r#"pipeline: p
source: {kafka: {topics: [t], group: g, start: earliest}}
routes:
  - name: one
    match: {topic: t}
    format: cloudevents
    schema: s.json
    records:
      - {name: first, type: x, fields: {n: /data/n}}
"#;

const SCHEMA: &str = r#"{"type": "object", "additionalProperties": false, "properties": {
    "id": {}, "kind": {}, "wallet": {}, "n": {}, "v": {}, "label": {}, "inner": {"type": ["string", "null"]}}}"#;

/// Loads files from a directory of their own; what is told is relative to it.
fn told(files: &[(&str, &str)], names: &[&str]) -> (Vec<PipelineSpec>, Vec<String>) {
    let dir = std::env::temp_dir().join(format!("recordkeeper-pipelines-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&dir).unwrap();
    for (name, text) in files {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let (specs, found) = load(&dir, &names);
    std::fs::remove_dir_all(&dir).unwrap();
    let prefix = format!("{}/", dir.display());
    let shown = |diagnostic: &Diagnostic| diagnostic.to_string().replace(&prefix, "");
    (specs, found.iter().map(shown).collect())
}

/// What is told about one pipeline file beside [`SCHEMA`].
fn about(yaml: &str) -> Vec<String> {
    told(&[("p.yaml", yaml), ("s.json", SCHEMA)], &[]).1
}

/// What is told about [`GOOD`] after a change, which must be one.
fn changed(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    about(&GOOD.replacen(from, to, 1))
}

#[test]
fn sound_files_say_nothing() {
    assert_eq!(about(GOOD), [] as [String; 0]);
    assert_eq!(about(EVENTS), [] as [String; 0]);
}

#[test]
fn every_fault_has_its_place_and_a_hint() {
    let mut wrong = Vec::new();
    for (from, to, expected) in [
        (
            "    schema:",
            "    shcema:",
            &[
                "p.yaml:4:5: error: the route lacks `schema`\n  hint: add `schema:`",
                "p.yaml:7:5: error: the route has the unknown key `shcema`\n  hint: did you mean `schema`?",
            ][..],
        ),
        (
            "group: g,",
            "group: g, grop: h,",
            &["p.yaml:2:41: error: source.kafka has the unknown key `grop`\n  hint: did you mean `group`?"],
        ),
        (
            "start: earliest",
            "start: erliest",
            &["p.yaml:2:48: error: `start` cannot be `erliest`\n  hint: did you mean `earliest`?"],
        ),
        (
            "start: earliest",
            "start: earliest, topic_epochs: {t: 0, u: 1}",
            &[
                "p.yaml:2:76: error: the topic epoch of `t` is no number from 1 on\n  hint: 1, and one more each time that the log is replaced",
                "p.yaml:2:79: error: the source does not read the topic `u`\n  hint: name a topic of `source.kafka.topics`, or leave it out",
            ],
        ),
        (", start: earliest", "", &["p.yaml:2:17: error: source.kafka lacks `start`\n  hint: add `start:`"]),
        (
            "start: earliest",
            "start: earliest, protocol: consumr",
            &["p.yaml:2:68: error: `protocol` cannot be `consumr`\n  hint: did you mean `consumer`?"],
        ),
        (
            "topics: [t]",
            "topics: t",
            &["p.yaml:2:26: error: `topics` must be a list, not a text\n  hint: write a list"],
        ),
        ("topics: [t]", "topics: [t, t]", &["p.yaml:2:30: error: the topic `t` is listed twice\n  hint: list it once"]),
        (
            "topic: t,",
            "topic: quux,",
            &[
                "p.yaml:5:20: error: the source does not read the topic `quux`\n  hint: add it to `source.kafka.topics`",
                "p.yaml:1:1: warning: no route reads the topic `t`: all of its events will be dead letters\n  hint: add a \
             route, or leave the topic out",
            ],
        ),
        (
            "name: one",
            "name: 5",
            &["p.yaml:4:11: error: `name` must be a text, not a number\n  hint: put it in quotes"],
        ),
        (
            "name: one",
            "name: a b",
            &["p.yaml:4:11: error: `a b` cannot be the name in `name`\n  hint: use letters, digits, `.`, `_` and `-`"],
        ),
        (
            "format: json",
            "format: jsn",
            &["p.yaml:6:13: error: `format` cannot be `jsn`\n  hint: did you mean `json`?"],
        ),
        (
            "format: json",
            "format: json\n    allow_plain: true",
            &[
                "p.yaml:7:5: error: the route may not have `allow_plain`: only confluent-json has frames\n  hint: remove \
             `allow_plain`",
            ],
        ),
        ("    source: s\n", "", &["p.yaml:4:5: error: the route lacks `source`\n  hint: add `source:`"]),
        (
            "\"{/id}\"",
            "/id",
            &["p.yaml:9:9: error: `id` would be the same for every event\n  hint: did you mean \"{/id}\"?"],
        ),
        (
            "\"{/id}\"",
            "\"{/id\"",
            &["p.yaml:9:9: error: `id` is no template: `{` is not closed\n  hint: write \"text{/pointer}text\""],
        ),
        (
            "when: /n",
            "when: n",
            &[
                "p.yaml:12:39: error: `when` is no pointer: a pointer is empty or starts with '/'\n  hint: did you mean `/n`?",
            ],
        ),
        (
            "type: x,",
            "type: x, when: /n,",
            &["p.yaml:11:59: error: the first record judges the event and cannot be conditional\n  hint: put an \
             unconditional record first"],
        ),
        (
            "name: second",
            "name: first",
            &[
                "p.yaml:12:9: error: the record name `first` is taken\n  hint: give each record of a route a name of its own",
            ],
        ),
        (
            "{label: /label}",
            "{labl: /label}",
            &["p.yaml:13:73: error: the group `profile` does not own `labl`\n  hint: did you mean `label`?"],
        ),
        (
            "{label: /label}",
            "{wallet_status: /label}",
            &["p.yaml:13:73: error: the group `profile` does not own `wallet_status`\n  hint: it owns: label, tags"],
        ),
        (
            "group: profile",
            "group: profil",
            &["p.yaml:13:21: error: `group` cannot be `profil`\n  hint: did you mean `profile`?"],
        ),
        (
            "{amount: /n}",
            "{amont: /n}",
            &["p.yaml:11:71: error: `amount` has the unknown key `amont`\n  hint: did you mean `amount`?"],
        ),
        (
            "{amount: /n}",
            "amount",
            &["p.yaml:11:70: error: `amount` does not say where its value comes from\n  hint: a /pointer, a \
             \"text{/pointer}\", {literal: text}, {amount: /pointer}, {address: /pointer} or {event: time}"],
        ),
        (
            "type: y,",
            "type: y, fields: {to: {address: /n}},",
            &["p.yaml:12:47: error: `to` is an address, but there is no `wallet` to tell its chain\n  hint: give the \
             effect a `wallet`, or take the plain pointer"],
        ),
        ("/label}", "/labl}", &["p.yaml:13:80: error: the schema rules out `/labl`\n  hint: did you mean `/label`?"]),
        ("/label}", "/inner/deep}", &["p.yaml:13:80: error: the schema rules out `/inner/deep`\n  hint: see s.json"]),
        (
            "schema: s.json",
            "schema: other.json",
            &["p.yaml:7:13: error: the schema other.json is not there\n  hint: the path is relative to this file"],
        ),
        (
            "pipeline: p",
            "pipeline: p\npipeline: q",
            &["p.yaml:2:1: error: \"pipeline\" is given twice, first on line 1\n  hint: keep one of the two"],
        ),
    ] {
        let told = changed(from, to);
        if told != expected {
            wrong.push(format!("{from} -> {to}\n  {}", told.join("\n  ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn slips_of_yaml_are_named() {
    let dash = about("pipeline: p\nsource: {kafka: {topics: [t], group: g, start: latest}}\nroutes:\n  -name: one\n");
    assert_eq!(
        dash,
        [
            "p.yaml:4:3: error: `routes` must be a list, not a table\n  hint: a list item starts with a dash and a space: \
          `- name`"
        ]
    );
    let high = about(&GOOD.replace("    source: s\n", "").replace("pipeline: p", "pipeline: p\nformat: json"));
    assert!(high[0].starts_with("p.yaml:5:5: error: the route lacks `source`"), "{high:?}");
    assert!(high[1].starts_with("p.yaml:2:1: error: the pipeline has the unknown key `format`"), "{high:?}");
    let broken = about("pipeline: [p\n");
    assert_eq!(broken.len(), 1);
    assert!(broken[0].starts_with("p.yaml:"), "{broken:?}");
}

#[test]
fn an_envelope_gives_what_a_route_may_not() {
    let with = EVENTS.replace("    schema:", "    id: \"{/data/n}\"\n    time: /data/n\n    schema:");
    assert_eq!(
        about(&with),
        [
            "p.yaml:7:5: error: the route may not have `id`: the CloudEvents envelope gives it\n  hint: remove `id`",
            "p.yaml:8:5: error: the route may not have `time`: the CloudEvents envelope gives it\n  hint: remove `time`",
        ]
    );
    let pointer = about(&EVENTS.replace("/data/n", "/wallet/id"));
    assert_eq!(
        pointer,
        ["p.yaml:9:44: error: the schema rules out `/wallet/id`\n  hint: the event's own data is under /data: \
          `/data/wallet/id`"]
    );
    let inside = about(&EVENTS.replace("/data/n", "/data/walet"));
    assert_eq!(
        inside,
        ["p.yaml:9:44: error: the schema rules out `/data/walet`\n  hint: did you mean `/data/wallet`?"]
    );
}

#[test]
fn what_an_open_schema_does_not_mention_is_a_warning() {
    let schema = r#"{"type": "object", "properties": {"wallet_id": {}}}"#;
    let yaml = EVENTS.replace("/data/n", "/data/walet_id");
    let (specs, found) = told(&[("p.yaml", &yaml), ("s.json", schema)], &[]);
    assert_eq!(specs.len(), 1);
    assert_eq!(
        found,
        ["p.yaml:9:44: warning: the schema does not mention `/data/walet_id`\n  hint: did you mean `/data/wallet_id`?"]
    );
}

/// Two routes over topic `t` whose matches are these.
fn two_routes(first: &str, second: &str) -> Vec<String> {
    let tail = "schema: s.json, source: s, id: \"{/id}\", records: [{name: r, type: x}]";
    let yaml = format!(
        "pipeline: p\nsource: {{kafka: {{topics: [t], group: g, start: latest}}}}\nroutes:\n  - {{name: a, {first}, \
         {tail}}}\n  - {{name: b, {second}, {tail}}}\n"
    );
    about(&yaml)
}

#[test]
fn a_route_that_nothing_reaches_is_an_error() {
    let shadowed = [
        ("match: {topic: t}, format: json", "match: {topic: t, content: {/kind: a}}, format: json"),
        ("match: {topic: t, key: \"e*\"}, format: json", "match: {topic: t, key: \"evm*\"}, format: json"),
        (
            "match: {topic: t, header: {h: \"*\"}}, format: json",
            "match: {topic: t, header: {h: x, i: y}}, format: json",
        ),
        (
            "match: {topic: t, content: {/kind: \"a*\"}}, format: json",
            "match: {topic: t, content: {/kind: ab}}, format: json",
        ),
    ];
    for (first, second) in shadowed {
        assert_eq!(
            two_routes(first, second),
            [
                "p.yaml:5:5: error: no event reaches route `b`: `a` takes all of them\n  hint: move it above `a` (line 4), \
              or narrow that one's match"
            ],
            "{first} / {second}"
        );
    }
    let reached = [
        ("match: {topic: t, content: {/kind: a}}, format: json", "match: {topic: t}, format: json"),
        ("match: {topic: t, key: \"*\"}, format: json", "match: {topic: t}, format: json"),
        ("match: {topic: t, key: \"evm*\"}, format: json", "match: {topic: t, key: \"e*\"}, format: json"),
        ("match: {topic: t}, format: confluent-json", "match: {topic: t}, format: json"),
    ];
    for (first, second) in reached {
        assert_eq!(two_routes(first, second), [] as [String; 0], "{first} / {second}");
    }
}

#[test]
fn route_names_are_unique() {
    let again = "  - {name: one, match: {topic: t, key: k}, skip: why}\n";
    assert_eq!(
        about(&format!("{GOOD}{again}")),
        ["p.yaml:14:5: error: the route name `one` is taken by line 4\n  hint: give each route a name of its own"]
    );
}

#[test]
fn a_route_that_skips_has_no_effects() {
    let skip = "  - {name: two, match: {topic: t, key: k}, skip: why, format: json, records: []}\n";
    assert_eq!(
        about(&format!("{GOOD}{skip}")),
        [
            "p.yaml:14:55: error: the route may not have `format`: it skips without a look at the value\n  hint: remove \
             `format`",
            "p.yaml:14:69: error: the route may not have `records`: it skips\n  hint: remove `records`",
        ]
    );
    let looks = "  - {name: two, match: {topic: t, content: {/kind: b}}, skip: why}\n";
    assert_eq!(
        about(&format!("{GOOD}{looks}")),
        ["p.yaml:14:5: error: the route lacks `format`\n  hint: add `format:`"]
    );
}

#[test]
fn all_files_are_told_at_once_and_held_against_each_other() {
    let other = GOOD.replace("pipeline: p", "pipeline: q");
    let broken = GOOD
        .replace("format: json", "format: jsn")
        .replace("pipeline: p", "pipeline: r")
        .replace("group: g", "group: r");
    let files = [("a.yaml", GOOD), ("b.yaml", &other), ("c.yaml", &broken), ("d.yml", GOOD), ("s.json", SCHEMA)];
    let (_, found) = told(&files, &["pp"]);
    let shared = "error: the group `g` already reads the topic `t` in a.yaml\n  hint: give each pipeline a group of its own, \
                  or put the routes into one pipeline";
    assert_eq!(
        found[..3],
        [
            "d.yml: warning: not read\n  hint: name it .yaml to have it read".to_owned(),
            "c.yaml:6:13: error: `format` cannot be `jsn`\n  hint: did you mean `json`?".to_owned(),
            format!("b.yaml: {shared}"),
        ]
    );
    assert!(found[3].ends_with("error: there is no pipeline `pp`\n  hint: did you mean `p`?"), "{found:?}");
    assert_eq!(found.len(), 4, "{found:?}");
    let (_, found) =
        told(&[("a.yaml", GOOD), ("b.yaml", &GOOD.replace("group: g", "group: h")), ("s.json", SCHEMA)], &[]);
    assert_eq!(
        found,
        ["b.yaml: error: the pipeline name `p` is taken by a.yaml\n  hint: give each pipeline a name of its own"]
    );
}

#[test]
fn only_the_named_pipelines_are_returned() {
    let other = GOOD.replace("pipeline: p", "pipeline: q").replace("group: g", "group: h");
    let (specs, found) = told(&[("a.yaml", GOOD), ("b.yaml", &other), ("s.json", SCHEMA)], &["q"]);
    assert_eq!(found, [] as [String; 0]);
    assert_eq!(specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>(), ["q"]);
    assert_eq!(specs[0].source.start, Start::Earliest);
}

#[test]
fn no_pipelines_is_an_error() {
    let (_, found) = told(&[], &[]);
    assert!(found[0].ends_with("error: there are no pipelines\n  hint: put *.yaml files there"), "{found:?}");
    let (_, found) = load(Path::new("/nowhere/at/all"), &[]);
    assert!(found[0].to_string().contains("cannot read the directory of pipelines"), "{found:?}");
}

#[test]
fn a_start_may_be_a_time() {
    let yaml = GOOD.replace("start: earliest", "start: \"2026-01-02T00:00:00Z\"");
    let (specs, found) = told(&[("p.yaml", &yaml), ("s.json", SCHEMA)], &[]);
    assert_eq!(found, [] as [String; 0]);
    assert_eq!(specs[0].source.start, Start::At { timestamp_ms: 1_767_312_000_000 });
}

#[test]
fn another_identity_makes_other_events_and_is_warned_of() {
    let load_one = |yaml: &str| told(&[("p.yaml", yaml), ("s.json", SCHEMA)], &[]).0;
    let before = load_one(GOOD);
    assert_eq!(compare(&before, &load_one(&GOOD.replace("type: x", "type: z"))), []);
    for (from, to) in [("\"{/id}\"", "\"{/id}@{/kind}\""), ("source: s\n", "source: other\n")] {
        let found = compare(&before, &load_one(&GOOD.replace(from, to)));
        assert_eq!(found.len(), 1, "{from} -> {to}");
        assert_eq!(found[0].place, Some((4, 5)));
        assert_eq!(found[0].message, "route `one` gets another source or id");
    }
}

#[test]
fn a_status_needs_its_status() {
    let yaml = GOOD.replace("group: profile", "group: status").replace("{label: /label}", "{reason: /label}");
    assert_eq!(
        about(&yaml),
        ["p.yaml:13:13: error: the group `status` is written without `wallet_status`\n  hint: give it under \
          `attributes`: wallets are found by it"]
    );
}

#[test]
fn content_asks_about_scalars() {
    let found = changed("{/kind: a}", "{'': a}");
    assert_eq!(found, ["p.yaml:5:33: error: `content` asks about the whole event\n  hint: name a scalar: /pointer"]);
    let found = changed("{/kind: a}", "{kind: a}");
    assert_eq!(
        found,
        [
            "p.yaml:5:33: error: `kind` is no pointer: a pointer is empty or starts with '/'\n  hint: did you mean `/kind`?"
        ]
    );
}

#[test]
fn what_could_only_ever_be_refused_is_told() {
    assert_eq!(
        changed("fields: {amount:", "fields: {\"\":"),
        [
            "p.yaml:11:62: error: `fields` has a name that no record can hold: \"\"\n  hint: 1 to 255 bytes, no control characters"
        ]
    );
    for chain in ["nochain:", "evm:0:", "solana:pubnet:", "EVM:1:"] {
        let found = changed("wallet: \"{/wallet}\", type", &format!("wallet: \"{chain}{{/wallet}}\", type"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with(&format!("p.yaml:11:31: error: `wallet` begins with `{chain}`, which is no chain"))
        );
    }
    for chain in ["evm:1:", "evm:", "evm:1", "ext:", "ext:a:b:", "stellar:", "sol"] {
        let found = changed("wallet: \"{/wallet}\", type", &format!("wallet: \"{chain}{{/wallet}}\", type"));
        assert_eq!(found, Vec::<String>::new(), "{chain}");
    }
    let request =
        "request: {user: \"{/id}\", chain: {literal: bitcoin:mainnet}, custody: {literal: pocket}, alias: /label}\n";
    let found = about(&format!("{GOOD}    {request}"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("the chain `bitcoin:mainnet`") && found[1].contains("the custody `pocket`"), "{found:?}");
}

#[test]
fn a_large_file_is_not_read_whole() {
    let large = format!("{GOOD}# {}\n", "x".repeat(1 << 20));
    assert_eq!(about(&large)[0], "p.yaml: error: the pipeline is larger than 1048576 bytes");
    let schema = format!("{{{}}}", " ".repeat(4 << 20));
    let found = told(&[("p.yaml", GOOD), ("s.json", &schema)], &[]).1;
    assert!(found[0].starts_with("s.json: error: the schema is larger than 4194304 bytes"), "{found:?}");
}
