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
    assert_eq!(checked.status.code(), Some(2));
    assert_eq!(
        err(&checked),
        "RECORDKEEPER_ENGINE_LINGR: error: variable has no effect: no setting is named so\n  \
         hint: did you mean RECORDKEEPER_ENGINE_LINGER?\n"
    );

    let twice = ["--set", "engine.linger=3ms", "--set", "engine.linger=4ms"];
    let refused = place.run(&[&["check", "--config", "recordkeeper.yaml"], &twice[..]].concat(), &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(err(&refused), "--set: error: engine.linger is given twice\n  hint: keep one of the two\n");
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

#[test]
fn one_wrong_setting_hides_no_other() {
    let place = Place::new("hides");
    let faults = |text: &str| -> Vec<String> {
        let told = place.refused(text);
        told.lines().filter_map(|line| line.split_once(": error: ").map(|(_, fault)| fault.to_owned())).collect()
    };
    assert_eq!(
        faults(&GOOD.replace(
            "region: eu-central-1",
            "endpoint: not a url\n  connections: 0\n  write_budgets: {nosuch: 5, wallet_records: -5, ledger: 0}"
        )),
        [
            "dynamodb.endpoint takes a URL that begins with http:// or https://",
            "dynamodb.connections takes 1 to 1024, not 0",
            "dynamodb.write_budgets gives ledger nothing; take at least 1",
            "dynamodb.write_budgets knows no table \"nosuch\"",
            "dynamodb.write_budgets takes a whole number, not \"-5\"",
            "dynamodb.region has to be given",
        ]
    );
    assert_eq!(
        faults(&GOOD.replace(
            "  bootstrap_servers: [localhost:9092]\n",
            "  security: sasl_tls\n  password_file: absent\n  options: {group.id: x, nosuch.name: y, fetch.min.bytes: many}\n"
        )),
        [
            "kafka.security needs kafka.sasl_mechanism",
            "kafka.password_file absent cannot be read: No such file or directory (os error 2)",
            "kafka.options may not hold \"group.id\", which the product sets itself",
            "kafka.options holds \"fetch.min.bytes\": librdkafka refuses the setting fetch.min.bytes: correct its name or value",
            "kafka.options holds \"nosuch.name\": librdkafka refuses the setting nosuch.name: correct its name or value",
            "kafka.bootstrap_servers has to be given",
        ]
    );
    let variables = [
        ("RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS", "a,b:1,c:0"),
        ("RECORDKEEPER_DYNAMODB_WRITE_BUDGETS", "nosuch=5,wallet_records=-5,ledger"),
    ];
    let refused = place.run(&["check", "--config", "recordkeeper.yaml"], &variables);
    let told = err(&refused);
    assert_eq!(
        (refused.status.code(), told.matches("RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS: error").count()),
        (Some(2), 2)
    );
    assert_eq!(told.matches("RECORDKEEPER_DYNAMODB_WRITE_BUDGETS: error").count(), 3, "{told}");
    // What is only seen against a setting that is wrong itself is not told.
    assert_eq!(
        faults(&format!("{GOOD}engine:\n  lane_bytes_max: 1MB\n  batch_bytes_max: 32MiB\n? [a, b]\n: c\n")),
        [
            "engine.lane_bytes_max takes a number of bytes such as 65536, 64KiB or 8MiB, not \"1MB\"",
            "a key has to be a plain name",
        ]
    );
}

#[test]
fn a_long_value_is_shown_cut() {
    let place = Place::new("long");
    place.file(
        "recordkeeper.yaml",
        &GOOD.replace("dynamodb:", &format!("  client_id: {}\ndynamodb:", "c".repeat(70_000))),
    );
    let checked = place.run(&["check", "--config", "recordkeeper.yaml"], &[]);
    assert_eq!((checked.status.code(), err(&checked).as_str()), (Some(0), ""));
    assert!(row(&checked, "kafka.client_id").ends_with("cc... (70000 characters)"));
}

/// Runs the binary with little memory, so that a file without an end ends the test and not the machine.
#[test]
fn files_without_an_end_are_refused() {
    let place = Place::new("endless");
    place.file("recordkeeper.yaml", &GOOD.replace("dynamodb:", "  security: tls\ndynamodb:"));
    std::os::unix::fs::symlink("/dev/zero", place.0.join("pipelines/zero.yaml")).unwrap();
    let limited = |args: &str| {
        let line = format!("ulimit -v 2000000; exec {} {args}", env!("CARGO_BIN_EXE_recordkeeper"));
        Command::new("sh").args(["-c", &line]).current_dir(&place.0).env_clear().output().unwrap()
    };
    let refused = limited("check --config /dev/zero");
    assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
    assert!(err(&refused).starts_with("/dev/zero: error: is larger than 1048576 bytes\n"), "{}", err(&refused));
    assert!(err(&refused).contains("zero.yaml: error: the pipeline is larger than"), "{}", err(&refused));
    for setting in ["kafka.password_file", "kafka.ca_file", "kafka.token_file"] {
        let sasl = "--set kafka.security=sasl_tls --set kafka.sasl_mechanism=OAUTHBEARER";
        let refused = limited(&format!("check --config recordkeeper.yaml {sasl} --set {setting}=/dev/zero"));
        assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
        assert!(
            err(&refused).contains(&format!("--set: error: {setting} /dev/zero is larger than")),
            "{}",
            err(&refused)
        );
    }
}

#[test]
fn no_address_shows_a_secret() {
    let place = Place::new("addresses");
    place.file("recordkeeper.yaml", GOOD);
    for variable in ["AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL", "RECORDKEEPER_DYNAMODB_ENDPOINT"] {
        for url in ["http://user:hunter2@localhost:8000", "http://localhost:8000/?key=hunter2", "http://hunter2:70000"]
        {
            let refused = place.run(&["check", "--config", "recordkeeper.yaml"], &[(variable, url)]);
            assert_eq!(refused.status.code(), Some(2), "{url}");
            assert!(err(&refused).starts_with(&format!("{variable}: error: dynamodb.endpoint ")), "{}", err(&refused));
            assert!(!(out(&refused) + &err(&refused)).contains("hunter2"), "{}", err(&refused));
        }
    }
    let refused = place.run(&["health", "--url", "http://user:hunter2@127.0.0.1:1"], &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!err(&refused).contains("hunter2"), "{}", err(&refused));
}

#[test]
fn what_would_only_fail_at_the_broker_is_refused_at_once() {
    let place = Place::new("broker");
    place.file("ca.pem", "no certificate\n");
    let kafka = |text: &str| place.refused(&GOOD.replace("dynamodb:", &format!("  {text}\ndynamodb:")));
    assert!(
        kafka("options: {partitioner: random}")
            .starts_with("recordkeeper.yaml:3:12: error: kafka.options may not hold")
    );
    assert!(kafka("client_id: \"a\\0b\"").contains("kafka.client_id holds a control character"));
    assert!(kafka("group_instance_id: \"a\\0b\"").contains("kafka.group_instance_id holds a control character"));
    assert!(kafka("security: tls\n  ca_file: ca.pem").contains("kafka.ca_file ca.pem holds no PEM certificate"));
    assert!(kafka("ca_file: ca.pem").contains("kafka.ca_file has no effect: kafka.security is plaintext"));
    assert!(kafka("username: app").contains("kafka.username has no effect: kafka.security is plaintext"));
    assert!(place.refused(&GOOD.replace("eu-central-1", "\"\"")).contains("dynamodb.region is no name of a region"));
    assert!(place.refused(&GOOD.replace("eu-central-1", "EU_1")).contains("dynamodb.region is no name of a region"));
}

#[test]
fn a_pipeline_that_reads_what_is_written_is_refused() {
    let place = Place::new("circle");
    for (topic, setting) in [("recordkeeper-dead-letters", "dead_letters_topic"), ("wallet-requests", "requests_topic")]
    {
        place.file("pipelines/trial.yaml", &PIPELINE.replace("left-out", topic));
        let told = place.refused(GOOD);
        let fault =
            format!("pipelines/trial.yaml:3:19: error: the source reads `{topic}`, which is written to as {setting}\n");
        assert!(told.starts_with(&fault), "{told}");
    }
}

#[test]
fn an_option_that_a_group_protocol_refuses_is_told_with_its_pipeline() {
    let place = Place::new("timers");
    place.file("pipelines/trial.yaml", &PIPELINE.replace("start: earliest", "start: earliest, protocol: consumer"));
    let told = place.refused(&GOOD.replace("dynamodb:", "  options: {session.timeout.ms: 10000}\ndynamodb:"));
    assert!(
        told.starts_with(
            "pipelines/trial.yaml:3:19: error: the protocol `consumer` does not go with session.timeout.ms"
        ),
        "{told}"
    );
}

#[test]
fn an_embedded_run_says_what_it_cannot_do() {
    let place = Place::new("embedded");
    let pipelines = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines");
    let run = |further: &[&str]| {
        place.run(&[&["run", "--embedded", "--until-idle", "--pipelines", pipelines], further].concat(), &[])
    };
    let refused = run(&["--pipeline", "ethereum"]);
    assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
    assert!(
        err(&refused).starts_with("--pipeline: error: the pipeline `ethereum` reads none of the embedded topics: "),
        "{}",
        err(&refused)
    );
    for setting in ["kafka.bootstrap_servers=localhost:9092", "dynamodb.region=eu-central-1"] {
        let refused = run(&["--set", setting]);
        assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
        assert!(
            err(&refused).contains("has no effect: the parts that --embedded brings along give it"),
            "{}",
            err(&refused)
        );
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let place = Place::new("pipe");
    place.file("recordkeeper.yaml", GOOD);
    // The pipe's other end is closed before anything is written.
    for args in [
        &["check", "--config", "recordkeeper.yaml"][..],
        &["reference"],
        &["generate", "--to", "-", "--events", "1000"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_recordkeeper"));
        command.args(args).current_dir(&place.0).env_clear().stdout(writer);
        let output = command.output().unwrap();
        assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn an_id_that_cannot_be_is_refused_before_any_table_is_asked() {
    let place = Place::new("ids");
    let long = "x".repeat(3000);
    for args in [["get", "record", ""], ["get", "record", &long], ["get", "user", ""], ["get", "wallet", "nochain:1"]] {
        let refused = place.run(&args, &[]);
        assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
        assert!(err(&refused).len() < 300, "{}", err(&refused));
    }
    assert!(err(&place.run(&["get", "record", &long], &[])).contains("1 to 1274 bytes, and this one has 3000"));
    assert!(out(&place.run(&["get", "--help"], &[])).contains("%7C"));
}

#[test]
fn events_and_their_manifest_need_two_files() {
    let place = Place::new("manifest");
    for manifest in ["a.ndjson", "./a.ndjson"] {
        let refused = place.run(&["generate", "--to", "a.ndjson", "--manifest", manifest, "--events", "10"], &[]);
        assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
        assert_eq!(err(&refused), "error: --to and --manifest name the same file: give each its own\n");
    }
    assert!(!place.0.join("a.ndjson").exists());
}
