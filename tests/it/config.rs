//! The configuration as an operator meets it: through the built binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A configuration without faults, to be spoiled.
const GOOD: &str = "\
kafka:
  bootstrap_servers: [localhost:9092]
dynamodb:
  region: eu-central-1
dedupe: memory
";

/// A pipeline without faults.
const PIPELINE: &str = "\
pipeline: trial
source:
  kafka: {topics: [left-out], group: trial, start: earliest}
routes:
  - name: nothing
    match: {topic: left-out}
    skip: not wanted here
";

/// A directory of its own with a pipeline in it, gone at the end.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("recordkeeper-config-{}-{test}", std::process::id()));
        std::fs::create_dir_all(path.join("pipelines")).unwrap();
        let place = Self(path);
        place.file("pipelines/trial.yaml", PIPELINE);
        place
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs the binary in this directory with these variables and no others.
    fn run(&self, args: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recordkeeper"));
        command.args(args).current_dir(&self.0).env_clear().envs(variables.iter().copied());
        command.output().unwrap()
    }

    /// `check` and `run` with this configuration; both have to refuse in the same words.
    fn refused(&self, text: &str) -> String {
        self.file("recordkeeper.yaml", text);
        let [check, run] = ["check", "run"].map(|verb| self.run(&[verb, "--config", "recordkeeper.yaml"], &[]));
        assert_eq!(check.status.code(), Some(2), "{}", err(&check));
        assert_eq!(run.status.code(), Some(2), "{}", err(&run));
        assert_eq!(out(&check), "");
        assert!(err(&check).starts_with(&err(&run)), "{} {}", err(&check), err(&run));
        err(&check)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The row of one setting in what `check` prints: where it is from, and its value.
fn row(output: &Output, name: &str) -> String {
    let text = out(output);
    let row = text.lines().find(|line| line.split_whitespace().next() == Some(name));
    row.unwrap_or_else(|| panic!("no {name} in {text}")).split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_misspelled_name_is_refused_with_the_nearest() {
    let place = Place::new("misspelled");
    assert_eq!(
        place.refused(&format!("{GOOD}engine:\n  lingr: 5ms\n")),
        "recordkeeper.yaml:7:3: error: unknown setting \"lingr\" in section engine\n  hint: did you mean \"linger\"?\n"
    );
}

#[test]
fn a_dash_without_its_space_is_refused() {
    let place = Place::new("dash");
    assert_eq!(
        place.refused(&GOOD.replace("  bootstrap_servers", "  -bootstrap_servers")),
        "recordkeeper.yaml:2:3: error: unknown setting \"-bootstrap_servers\" in section kafka\n  \
         hint: a dash without a space belongs to the name; did you mean \"bootstrap_servers\"?\n"
    );
    assert_eq!(
        place.refused(&GOOD.replace(" [localhost:9092]", "\n    -localhost:9092")),
        "recordkeeper.yaml:3:5: error: kafka.bootstrap_servers takes a list, and a dash without a space begins none\n  \
         hint: a list item is written with a space after the dash: `- item`\n"
    );
}

#[test]
fn a_setting_in_a_wrong_place_is_told_where_it_belongs() {
    let place = Place::new("level");
    assert_eq!(
        place.refused("bootstrap_servers: [localhost:9092]\ndynamodb:\n  region: x\n  linger: 5ms\ndedupe: memory\n"),
        "recordkeeper.yaml:1:1: error: unknown setting \"bootstrap_servers\"\n  \
         hint: \"bootstrap_servers\" belongs in section kafka\n\
         recordkeeper.yaml:4:3: error: unknown setting \"linger\" in section dynamodb\n  \
         hint: \"linger\" belongs in section engine\n"
    );
}

#[test]
fn a_name_given_twice_is_refused() {
    let place = Place::new("twice");
    assert_eq!(
        place.refused(&format!("{GOOD}dedupe: redis\n")),
        "recordkeeper.yaml:6:1: error: \"dedupe\" is given twice, first on line 5\n  hint: keep one of the two\n"
    );
}

#[test]
fn a_duration_without_its_unit_is_refused() {
    let place = Place::new("unit");
    assert_eq!(
        place.refused(&format!("{GOOD}engine:\n  drain_deadline: 30\n")),
        "recordkeeper.yaml:7:19: error: engine.drain_deadline takes a duration, and \"30\" has no unit\n  \
         hint: write 30s for seconds or 30ms for milliseconds\n"
    );
}

#[test]
fn all_faults_are_told_at_once_and_a_wrong_name_is_not_missing_as_well() {
    let place = Place::new("all");
    let told = place.refused("kafka:\n  bootstrap_server: [a:1]\n  security: tsl\nredis: 5\nlog:\n  format: yaml\n");
    let faults: Vec<_> = told.lines().filter(|line| line.contains(": error: ")).collect();
    assert_eq!(
        faults,
        [
            "recordkeeper.yaml:2:3: error: unknown setting \"bootstrap_server\" in section kafka",
            "recordkeeper.yaml:3:13: error: kafka.security does not know \"tsl\"",
            "recordkeeper.yaml:4:8: error: section redis takes a mapping of its settings, not a single value",
            "recordkeeper.yaml:6:11: error: log.format does not know \"yaml\"",
            "recordkeeper.yaml: error: dynamodb.region has to be given",
            "recordkeeper.yaml: error: redis.url has to be given, since dedupe is redis",
        ]
    );
}

#[test]
fn a_missing_backend_is_named_with_its_variable() {
    let place = Place::new("backend");
    let refused = place.run(&["run"], &[("RECORDKEEPER_DEDUPE", "memory"), ("AWS_REGION", "eu-central-1")]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(
        err(&refused),
        "RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS: error: kafka.bootstrap_servers has to be given\n  \
         hint: set RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS, or name a file that has it with --config\n"
    );
}

#[test]
fn flag_wins_over_variable_over_file_over_default() {
    let place = Place::new("precedence");
    place.file("recordkeeper.yaml", &format!("{GOOD}engine:\n  linger: 1ms\n"));
    let file = ("RECORDKEEPER_CONFIG", "recordkeeper.yaml");
    let variable = ("RECORDKEEPER_ENGINE_LINGER", "2ms");

    let checked = place.run(&["check"], &[file]);
    assert_eq!(checked.status.code(), Some(0), "{}", err(&checked));
    assert_eq!(row(&checked, "engine.linger"), "file, line 7 1ms");
    assert_eq!(row(&checked, "engine.attest_interval"), "default 250ms");
    let checked = place.run(&["check"], &[file, variable]);
    assert_eq!(row(&checked, "engine.linger"), "variable RECORDKEEPER_ENGINE_LINGER 2ms");
    let checked = place.run(&["check", "--set", "engine.linger=3ms"], &[file, variable]);
    assert_eq!(row(&checked, "engine.linger"), "flag 3ms");
    let checked = place.run(&["check"], &[file, ("RECORDKEEPER_ENGINE_LINGER", "")]);
    assert_eq!(row(&checked, "engine.linger"), "file, line 7 1ms");
}

#[test]
fn flags_and_variables_that_name_nothing_are_told() {
    let place = Place::new("names");
    place.file("recordkeeper.yaml", GOOD);
    let refused = place.run(&["check", "--config", "recordkeeper.yaml", "--set", "engine.lingr=3ms"], &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(
        err(&refused),
        "--set: error: unknown setting \"engine.lingr\"\n  hint: did you mean \"engine.linger\"?\n"
    );

    let checked = place.run(&["check", "--config", "recordkeeper.yaml"], &[("RECORDKEEPER_ENGINE_LINGR", "3ms")]);
    assert_eq!(checked.status.code(), Some(0));
    assert_eq!(
        err(&checked),
        "RECORDKEEPER_ENGINE_LINGR: warning: variable has no effect: no setting is named so\n  \
         hint: did you mean RECORDKEEPER_ENGINE_LINGER?\n"
    );
}

#[test]
fn no_secret_is_shown_and_none_is_taken_from_file_or_flag() {
    let place = Place::new("secrets");
    let password = place.file("redis-password", "hunter2-redis\n");
    let sasl = "  security: sasl_tls\n  sasl_mechanism: SCRAM-SHA-512\n  username: app\n";
    let redis = "redis:\n  url: redis://localhost\n  password_file: redis-password\n";
    let good = GOOD.replace("dynamodb:", &format!("{sasl}dynamodb:")).replace("memory", "redis") + redis;
    place.file("recordkeeper.yaml", &good);
    let kafka = ("RECORDKEEPER_KAFKA_PASSWORD", "hunter2-kafka");
    let all = |output: &Output| out(output) + &err(output);

    let checked = place.run(&["check", "--config", "recordkeeper.yaml"], &[kafka]);
    assert_eq!(checked.status.code(), Some(0), "{}", err(&checked));
    assert_eq!(row(&checked, "kafka.password"), "variable RECORDKEEPER_KAFKA_PASSWORD (redacted)");
    assert!(!all(&checked).contains("hunter2"), "{}", all(&checked));

    let url = ("RECORDKEEPER_REDIS_URL", "rediss://app:hunter2-url@localhost:6380/1");
    std::fs::remove_file(&password).unwrap();
    let refused = place.run(&["check", "--config", "recordkeeper.yaml"], &[kafka, url]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("redis.password_file redis-password cannot be read"), "{}", err(&refused));
    place.file("recordkeeper.yaml", &good.replace("  password_file: redis-password\n", ""));
    let checked = place.run(&["check", "--config", "recordkeeper.yaml"], &[kafka, url]);
    assert_eq!(row(&checked, "redis.url"), "variable RECORDKEEPER_REDIS_URL rediss://localhost:6380/1");
    assert!(!all(&checked).contains("hunter2"), "{}", all(&checked));

    let spoiled = [
        good.replace("username: app", "username: app\n  password: hunter2"),
        good.replace("username: app", "username: app\n  pasword: hunter2"),
        good.replace("username: app", "username: app\n  options: {sasl.password: hunter2}"),
        good.replace("redis://localhost", "redis://:hunter2@localhost"),
        good.replace("redis://localhost", "\"redis://:hunter2@local host\""),
    ];
    for text in spoiled {
        let told = place.refused(&text);
        assert!(!told.contains("hunter2"), "{told}");
    }
    let refused = place.run(&["check", "--config", "recordkeeper.yaml", "--set", "kafka.password=hunter2"], &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!all(&refused).contains("hunter2"), "{}", all(&refused));
}

#[test]
fn faults_of_pipelines_are_told_with_those_of_settings() {
    let place = Place::new("pipelines");
    place.file("recordkeeper.yaml", &format!("{GOOD}engine:\n  lingr: 5ms\n"));
    place.file("pipelines/trial.yaml", &PIPELINE.replace("- name:", "-name:"));
    place.file("pipelines/other.yaml", &PIPELINE.replace("skip:", "skp:").replace("trial", "other"));
    let refused = place.run(&["check", "--config", "recordkeeper.yaml"], &[]);
    assert_eq!((refused.status.code(), out(&refused).as_str()), (Some(2), ""));
    let told = err(&refused);
    for place in ["recordkeeper.yaml:7:3: error: ", "pipelines/trial.yaml:", "pipelines/other.yaml:7:5: error: "] {
        assert!(told.lines().any(|line| line.starts_with(place)), "{place}: {told}");
    }
    assert!(told.contains("did you mean `skip`?"), "{told}");
}

#[test]
fn an_event_is_tried_without_settings_or_backends() {
    let place = Place::new("event");
    place.file("event.json", "{\"id\": \"1\"}");
    let tried = |topic| place.run(&["check", "--event", "event.json", "--topic", topic, "--header", "a=b"], &[]);
    let skipped = tried("left-out");
    assert_eq!(skipped.status.code(), Some(0), "{}", err(&skipped));
    assert_eq!(out(&skipped), "pipeline         trial\noutcome          skipped by a rule\n");
    let unread = tried("another");
    assert_eq!(unread.status.code(), Some(1));
    assert_eq!(err(&unread), "error: no pipeline reads the topic another\n");

    let other = PIPELINE.replace("topics: [left-out]", "topics: [left-out, another]");
    place.file("pipelines/trial.yaml", &other.replace("topic: left-out", "topic: another, key: \"no-*\""));
    let refused = tried("another");
    assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));
    assert!(out(&refused).contains("outcome          dead letter, unclassified: "), "{}", out(&refused));
}

#[test]
fn an_event_is_shown_as_the_shipped_pipelines_take_it() {
    let place = Place::new("shipped");
    let event = r#"{"specversion":"1.0","id":"e1","source":"urn:x","type":"wallet.requested","time":"2026-01-02T03:04:05Z",
        "data":{"user_id":"u1","chain":"evm:1","custody":"hsm","alias":"main"}}"#;
    let tried = |event: &str| {
        place.file("event.json", event);
        let args = ["check", "--event", "event.json", "--topic", "wallet-events", "--pipelines"];
        place.run(&[&args[..], &[concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines")]].concat(), &[])
    };
    let taken = tried(event);
    assert_eq!(taken.status.code(), Some(0), "{}", err(&taken));
    for line in ["route            wallet-requested", "record           urn:x|e1", "  custody        hsm"] {
        assert!(out(&taken).lines().any(|shown| shown == line), "{line}\n{}", out(&taken));
    }
    let refused = tried(&event.replace("hsm", "pocket"));
    assert_eq!(refused.status.code(), Some(1));
    assert!(out(&refused).contains("outcome          dead letter, schema: "), "{}", out(&refused));
    assert!(!out(&refused).contains("pocket"), "{}", out(&refused));
}

#[test]
fn the_example_is_a_configuration_without_findings() {
    let place = Place::new("example");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordkeeper.example.yaml");
    let pipelines = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines");
    let checked = place.run(&["check", "--config", example.to_str().unwrap(), "--pipelines", pipelines], &[]);
    assert_eq!((checked.status.code(), err(&checked).as_str()), (Some(0), ""));
    assert!(row(&checked, "kafka.sasl_mechanism").ends_with("AWS_MSK_IAM"));
}

#[test]
fn wrong_usage_exits_with_2_and_an_unreachable_instance_with_1() {
    let place = Place::new("usage");
    assert_eq!(place.run(&["chek"], &[]).status.code(), Some(2));
    assert_eq!(place.run(&["check", "--config", "absent.yaml"], &[]).status.code(), Some(2));
    assert_eq!(place.run(&["health", "--url", "localhost"], &[]).status.code(), Some(2));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(place.run(&["health"], &[("RECORDKEEPER_ADMIN_LISTEN", &free.to_string())]).status.code(), Some(1));
}
