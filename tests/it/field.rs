//! Further faults from the field, tried on the running product: signals, secrets, schemas, sizes, frames.

use std::path::Path;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::message::Message;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::deployment::{Deployment, Event, Item, header, plain, run_of, text};
use crate::fault_proxy::{Fault, FaultProxy};
pub use crate::running::{ENDS_WITHIN, Running, attested, page, until};
use crate::services;
use crate::slow_relay::SlowRelay;

const WALLET: &str = "evm:1:0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";

/// Nothing listens there: the port is reserved.
const CLOSED: &str = "127.0.0.1:1";

fn transaction(id: &str, wallet: &str, error: &str) -> Event {
    let value = json!({"specversion": "1.0", "id": id, "source": "/field", "type": "transaction.failed",
        "time": "2026-01-05T10:00:00Z",
        "data": {"transaction_id": "t", "wallet_id": wallet, "amount": "1", "asset": "ETH", "error": error}});
    Event::new("transaction-events", "k", value.to_string())
}

/// c-22: told to stop right after its start, with brokers and without, it ends in time and has nothing left undone.
#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_right_after_start_it_ends_in_time() {
    let deployment = Deployment::start("c22b", "wallets", 1).await;
    for (broker, log) in [(deployment.bootstrap.as_str(), "up.log"), (CLOSED, "down.log")] {
        let env = [("RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS", broker), ("RECORDKEEPER_ENGINE_DRAIN_DEADLINE", "2s")];
        let running = Running::start(&deployment, log, &["run"], &env);
        running.admin().await;
        running.terminate().await;
        assert_eq!(running.ended().await.0, Some(0), "{log}");
    }
}

/// c-22: told to stop in the middle of work, it drains: what it read is recorded, checkpointed, and not read again.
#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_in_the_middle_of_work_it_drains() {
    let deployment = Deployment::start("c22m", "wallets", 1).await;
    let events: Vec<Event> = (0..20_000).map(|n| transaction(&format!("e{n}"), WALLET, "none")).collect();
    deployment.publish(&events).await;
    let args = ["run", "--summary", "json"];
    let small = [("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "50")];
    let running = Running::start(&deployment, "log", &args, &small);
    attested(&deployment).await;
    running.terminate().await;
    let (code, stdout) = running.ended().await;
    assert_eq!(code, Some(0));
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(summary["in_flight"], 0, "{summary}");
    let first = summary["recorded"].as_u64().unwrap();
    assert_eq!(deployment.committed("transaction-events", 1)[&0], i64::try_from(first).unwrap(), "{summary}");
    let rest = deployment.run_until_idle().await;
    assert_eq!(rest.code, Some(0), "{}", rest.stderr);
    assert_eq!((first + rest.count("recorded"), rest.count("duplicate")), (20_000, 0), "{summary} {}", rest.summary);
}

/// c-22: where the store takes nothing, the drain ends at its deadline with code 1; a second signal ends it at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_cannot_complete_says_so() {
    let deployment = Deployment::start("c22s", "wallets", 1).await;
    // With a first event of each topic settled, the next write is that of a record.
    let other = Event::new("wallet-events", "k", "{");
    deployment.publish(&[transaction("before", WALLET, "none"), other]).await;
    assert_eq!(deployment.run_until_idle().await.code, Some(0));
    deployment.publish(&[transaction("e", WALLET, "none")]).await;
    for (deadline, signals, log) in [("2s", 1, "one.log"), ("4m", 2, "two.log")] {
        let proxy = FaultProxy::start(&deployment.dynamodb).await;
        for _ in 0..10_000 {
            proxy.next("BatchExecuteStatement", Fault::CallFails { code: "ThrottlingException" });
        }
        let env = [
            ("AWS_ENDPOINT_URL_DYNAMODB", proxy.endpoint.as_str()),
            ("RECORDKEEPER_ENGINE_DRAIN_DEADLINE", deadline),
            ("RECORDKEEPER_KAFKA_GROUP_INSTANCE_ID", "one"),
        ];
        let running = Running::start(&deployment, log, &["run"], &env);
        until("a refused write", async || (proxy.calls("BatchExecuteStatement") > 1).then_some(())).await;
        running.terminate().await;
        running.line_with("told to stop").await;
        if signals == 2 {
            running.terminate().await;
        }
        let file = running.log.clone();
        assert_eq!(running.ended().await.0, Some(1), "{log}");
        let said = std::fs::read_to_string(file).unwrap();
        let reason = if signals == 2 { "a second time" } else { "not drained in time" };
        assert!(said.contains(reason), "{said}");
    }
    let run = deployment.run_with(&[("RECORDKEEPER_KAFKA_GROUP_INSTANCE_ID", "one")]).await;
    assert_eq!((run.code, run.count("recorded")), (Some(0), 1), "{}", run.stderr);
}

/// c-22: a topic deleted under a running consumer does not keep it from ending.
#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_while_its_topic_is_deleted_it_ends_in_time() {
    let deployment = Deployment::start("c22a", "wallets", 1).await;
    deployment.publish(&[transaction("e", WALLET, "none")]).await;
    let running = Running::start(&deployment, "log", &["run"], &[("RECORDKEEPER_ENGINE_DRAIN_DEADLINE", "2s")]);
    until("a checkpoint", async || (deployment.committed("transaction-events", 1)[&0] == 1).then_some(())).await;
    services::kafka().await.delete_topic(&deployment.topic("transaction-events")).await;
    running.terminate().await;
    assert_eq!(running.ended().await.0, Some(0), "all that was read is checkpointed");
}

/// c-22: told to stop with all brokers gone from under its work, it ends in time, and all that it read is in the ledger.
#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_with_all_brokers_gone_it_ends_in_time() {
    let broker = services::KafkaBroker::start().await;
    let deployment = Deployment::start_on(&broker, "c22d", "wallets", 1).await;
    let events: Vec<Event> = (0..20_000).map(|n| transaction(&format!("e{n}"), WALLET, "none")).collect();
    deployment.publish(&events).await;
    let env = [("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "50"), ("RECORDKEEPER_ENGINE_DRAIN_DEADLINE", "2s")];
    let running = Running::start(&deployment, "log", &["run", "--summary", "json"], &env);
    attested(&deployment).await;
    broker.kill().await;
    running.terminate().await;
    let (code, stdout) = running.ended().await;
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    // What was read needs no broker to be recorded and attested, dead letters and requests aside.
    assert_eq!((code, &summary["in_flight"]), (Some(0), &json!(0)), "{summary}");
    assert_eq!(deployment.scan("wallet_records").await.len() as u64, summary["recorded"].as_u64().unwrap());
}

/// c-22: told to stop in the middle of a rebalance, it drains what is being taken from it and all else; the member that
/// joined reads the rest, and nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_in_the_middle_of_a_rebalance_it_drains() {
    for protocol in ["classic", "consumer"] {
        let deployment = Deployment::start(&format!("c22r-{protocol}"), "wallets", 8).await;
        let file = deployment.dir.join("pipelines/wallets.yaml");
        let pipeline = std::fs::read_to_string(&file).unwrap();
        let group = format!("group: {}", deployment.group());
        assert!(pipeline.contains(&group));
        std::fs::write(&file, pipeline.replace(&group, &format!("{group}\n    protocol: {protocol}"))).unwrap();
        let events: Vec<Event> = (0..16_000)
            .map(|n| Event { partition: Some(n % 8), ..transaction(&format!("e{n}"), WALLET, "none") })
            .collect();
        deployment.publish(&events).await;
        // Slow enough for the drain to be still under way when the order to stop comes.
        let upstream = deployment.dynamodb.strip_prefix("http://").unwrap();
        let slow = SlowRelay::start(upstream, Duration::from_millis(100)).await;
        let slow = format!("http://{}", slow.address);
        let env = [("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "50"), ("AWS_ENDPOINT_URL_DYNAMODB", slow.as_str())];
        let first = Running::start(&deployment, "first.log", &["run", "--summary", "json"], &env);
        let admin = first.admin().await;
        attested(&deployment).await;
        let second = deployment.spawn(&["run", "--until-idle", "--summary", "json"], &[]);
        until("a revocation", async || {
            let metrics = page(&admin, "/metrics").await;
            let revoked = metrics.lines().find(|line| line.contains("rebalances_total") && line.contains("revoked"))?;
            (!revoked.ends_with(" 0")).then_some(())
        })
        .await;
        first.terminate().await;
        let (code, stdout) = first.ended().await;
        assert_eq!(code, Some(0));
        let summary: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(summary["in_flight"], 0, "{summary}");
        let output = tokio::time::timeout(Duration::from_secs(120), second.wait_with_output()).await.unwrap().unwrap();
        let second = run_of(output);
        assert_eq!(second.code, Some(0), "{}", second.stderr);
        second.assert_sums();
        let recorded = summary["recorded"].as_u64().unwrap() + second.count("recorded");
        assert_eq!((recorded, second.count("repeated")), (16_000, 0), "{protocol}: {summary} {}", second.summary);
    }
}

/// What the cache remembers of other tables, here of earlier ones under the same names, makes no event a duplicate.
#[tokio::test(flavor = "multi_thread")]
async fn ids_remembered_for_other_tables_are_not_believed() {
    let deployment = Deployment::start("tables", "wallets", 1).await;
    deployment.publish(&[transaction("e", WALLET, "none")]).await;
    let run = deployment.run_until_idle().await;
    assert_eq!((run.code, run.count("recorded")), (Some(0), 1), "{}", run.stderr);
    let client = deployment.dynamodb_client().await;
    for table in client.list_tables().into_paginator().items().send().collect::<Result<Vec<_>, _>>().await.unwrap() {
        if table.starts_with(&format!("{}-", deployment.name)) {
            client.delete_table().table_name(table).send().await.unwrap();
        }
    }
    assert!(deployment.command(&["tables", "create"]).status().await.unwrap().success());
    deployment.publish(&[transaction("e", WALLET, "none")]).await;
    let run = deployment.run_until_idle().await;
    assert_eq!((run.code, run.count("recorded")), (Some(0), 1), "{} {}", run.summary, run.stderr);
    assert_eq!(deployment.scan("wallet_records").await.len(), 1);
}

/// c-37: no secret is printed, logged, served or dead-lettered, at the noisiest level, whatever fails.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_shown() {
    const KAFKA: &str = "kafka-Secret-7f3a";
    const REDIS: &str = "redis-Secret-91bc";
    const AWS: &str = "aws-Secret-d04e";
    let silent = |what: &str, text: &str| {
        for secret in [KAFKA, REDIS, AWS] {
            assert!(!text.contains(secret), "{what} shows {secret}");
            assert!(!text.contains(&STANDARD.encode(secret)), "{what} shows {secret} in base64");
        }
    };
    let deployment = Deployment::start("c37", "wallets", 1).await;
    deployment.publish(&[transaction("e", WALLET, "none"), Event::new("transaction-events", "k", "{")]).await;
    let in_url = format!("redis://user:{REDIS}@{CLOSED}/0");
    let plain_url = format!("redis://{CLOSED}");
    let always = [("RUST_LOG", "trace"), ("AWS_SECRET_ACCESS_KEY", AWS), ("RECORDKEEPER_ENGINE_DRAIN_DEADLINE", "2s")];
    let sasl = [
        ("RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS", CLOSED),
        ("RECORDKEEPER_KAFKA_SECURITY", "sasl_plaintext"),
        ("RECORDKEEPER_KAFKA_SASL_MECHANISM", "PLAIN"),
        ("RECORDKEEPER_KAFKA_USERNAME", "user"),
        ("RECORDKEEPER_KAFKA_PASSWORD", KAFKA),
    ];
    let redis_in_url = [("RECORDKEEPER_REDIS_URL", in_url.as_str())];
    let redis_apart = [("RECORDKEEPER_REDIS_URL", plain_url.as_str()), ("RECORDKEEPER_REDIS_PASSWORD", REDIS)];

    // What `check` prints, of sound settings and of wrong ones.
    let wrong_url = format!("redis//user:{REDIS}@{CLOSED}");
    let wrong_option = format!("sasl.password={KAFKA}");
    let wrong: [&[(&str, &str)]; 4] = [
        &redis_in_url,
        &redis_apart,
        &[("RECORDKEEPER_REDIS_URL", &wrong_url)],
        &[("RECORDKEEPER_KAFKA_OPTIONS", &wrong_option), ("RECORDKEEPER_REDIS_URL", &plain_url)],
    ];
    for (index, redis) in wrong.into_iter().enumerate() {
        let mut command = deployment.command(&["check"]);
        let output = command.envs(always).envs(sasl).envs(redis.iter().copied()).output().await.unwrap();
        let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(if index < 2 { 0 } else { 2 }), "{shown}");
        silent("check", &shown);
    }

    // Brokers that refuse, a store that refuses, a cache that refuses: a process that runs, and its pages.
    let no_store = [("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1")];
    let failing: [&[(&str, &str)]; 3] = [&sasl, &no_store, &[]];
    for (index, failing) in failing.into_iter().enumerate() {
        let env = [&always[..], failing, if index == 1 { &redis_apart[..] } else { &redis_in_url[..] }].concat();
        let running = Running::start(&deployment, &format!("{index}.log"), &["run"], &env);
        let admin = running.admin().await;
        if failing.is_empty() {
            until("a checkpoint", async || (deployment.committed("transaction-events", 1)[&0] == 2).then_some(()))
                .await;
        } else {
            running.line_with("not ready").await;
        }
        for path in ["/", "/metrics", "/readyz", "/livez"] {
            silent(path, &page(&admin, path).await);
        }
        let arguments = std::fs::read(format!("/proc/{}/cmdline", running.pid())).unwrap();
        silent("the command line", &String::from_utf8_lossy(&arguments));
        running.terminate().await;
        let log = running.log.clone();
        let (_, stdout) = running.ended().await;
        silent("stdout", &stdout);
        silent("the log", &std::fs::read_to_string(log).unwrap());
    }
    let letters = deployment.read_topic(&deployment.dead_letters);
    assert_eq!(letters.len(), 1);
    silent("a dead letter", &format!("{:?}", letters[0]));
}

/// c-36: a schema that is not whole is refused with its path and the pointer inside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_not_whole_is_refused() {
    let dir = services::scratch(&format!("c36-{:08x}", fastrand::u32(..)));
    let cases = [
        ("missing-file", json!({"$ref": "missing.json"}), "at /properties/a/$ref", "missing.json"),
        ("missing-definition", json!({"$ref": "#/$defs/nothing"}), "at /properties/a/$ref", "/$defs/nothing"),
        ("itself", json!({"$ref": "#/properties/a"}), "at /properties/a", "itself"),
        (
            "keyword",
            json!({"type": "string", "maxLenght": 3}),
            "at /properties/a/maxLenght",
            "did you mean `maxLength`",
        ),
        ("pattern", json!({"type": "string", "pattern": "("}), "at /properties/a/pattern", "`(` is no pattern"),
    ];
    for (name, schema, place, fault) in cases {
        let pipelines = dir.join(name);
        std::fs::create_dir_all(&pipelines).unwrap();
        let whole = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
            "properties": {"a": schema}});
        let path = pipelines.join("broken.json");
        std::fs::write(&path, whole.to_string()).unwrap();
        std::fs::write(pipelines.join("p.yaml"), pipeline("p", "t", "g", "cloudevents", "broken.json")).unwrap();
        for command in ["check", "run"] {
            let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_recordkeeper"))
                .args([command, "--pipelines", pipelines.to_str().unwrap()])
                .envs([("RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS", CLOSED), ("RECORDKEEPER_DEDUPE", "memory")])
                .env("AWS_REGION", "eu-central-1")
                .output()
                .await
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{name}: {said}");
            for part in [path.to_str().unwrap(), place, fault] {
                assert!(said.contains(part), "{name}: {part} is not in: {said}");
            }
        }
    }
}

fn pipeline(name: &str, topic: &str, group: &str, format: &str, schema: &str) -> String {
    format!(
        "pipeline: {name}\nsource:\n  kafka: {{topics: [{topic}], group: {group}, start: earliest}}\nroutes:\n  - name: all\n    \
         match: {{topic: {topic}}}\n    format: {format}\n    schema: {schema}\n    records:\n      - {{name: event, type: x}}\n"
    )
}

/// c-18: DynamoDB's limit to the byte, by a count of the test's own; keys over their limits; neighbours are recorded.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_item_is_recorded_and_one_byte_more_is_not() {
    let deployment = Deployment::start("c18", "wallets", 1).await;
    // The shipped schema keeps ids short; here the store's own limits are to be met.
    let schema = r#"{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"}"#;
    std::fs::write(deployment.dir.join("schemas/native/transaction.json"), schema).unwrap();
    // Two bytes a character, then one: the size is of bytes.
    let filled = |bytes: usize| format!("{}{}", "é".repeat(1000), "x".repeat(bytes - 2000));
    deployment.publish(&[transaction("n0", WALLET, "-"), transaction("probe", WALLET, &filled(3000))]).await;
    let run = deployment.run_until_idle().await;
    assert_eq!(run.count("recorded"), 2, "{}", run.summary);
    let size_of = async |id: &str| -> Option<usize> {
        deployment.scan("wallet_records").await.iter().find(|item| text(item, "event_id") == id).map(item_bytes)
    };
    let fits = 3000 + 409_600 - size_of("probe").await.unwrap();
    deployment
        .publish(&[
            transaction("n1", WALLET, "-"),
            transaction("exact", WALLET, &filled(fits)),
            transaction("above", WALLET, &filled(fits + 1)),
            transaction("n2", WALLET, "-"),
            transaction("key", &format!("ext:{}", "w".repeat(2044)), "-"),
            transaction("n3", WALLET, "-"),
        ])
        .await;
    let run = deployment.run_until_idle().await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.assert_sums();
    let letters = deployment.read_topic(&deployment.dead_letters);
    let said: Vec<_> = letters
        .iter()
        .map(|letter| ["recordkeeper-reason", "recordkeeper-detail"].map(|name| header(letter, name).unwrap_or("")))
        .collect();
    assert_eq!((run.count("recorded"), run.dead("too_large")), (4, 2), "{said:?}");
    assert_eq!(size_of("exact").await, Some(409_600));
    assert!(said.iter().any(|[_, detail]| detail.contains("409601") && detail.contains("409600")), "{said:?}");
}

/// An item's bytes by DynamoDB's published rule.
fn item_bytes(item: &Item) -> usize {
    fn value_bytes(value: &AttributeValue) -> usize {
        match value {
            AttributeValue::S(text) => text.len(),
            AttributeValue::N(digits) => {
                assert!(digits.bytes().all(|digit| digit.is_ascii_digit()), "{digits}");
                digits.trim_matches('0').len().div_ceil(2) + 1
            }
            AttributeValue::M(map) => {
                3 + map.iter().map(|(name, value)| 1 + name.len() + value_bytes(value)).sum::<usize>()
            }
            AttributeValue::L(list) => 3 + list.iter().map(|value| 1 + value_bytes(value)).sum::<usize>(),
            AttributeValue::Bool(_) | AttributeValue::Null(_) => 1,
            other => panic!("{other:?}"),
        }
    }
    item.iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
}

/// c-11: framed and plain JSON are recorded; every other framing is a dead letter that names it.
#[tokio::test(flavor = "multi_thread")]
async fn framed_json_is_recorded_and_other_frames_are_named() {
    let deployment = Deployment::start("c11", "wallets", 1).await;
    let topic = deployment.topic("transaction-events");
    let text = format!(
        "pipeline: wallets\nsource:\n  kafka: {{topics: [{topic}], group: {}, start: earliest}}\nroutes:\n  - name: framed\n    \
         match: {{topic: {topic}}}\n    format: confluent-json\n    allow_plain: true\n    schema: ../schemas/any.json\n    \
         source: framed\n    id: \"{{/id}}\"\n    time: /time\n    records:\n      - name: event\n        \
         wallet: \"{{/data/wallet_id}}\"\n        type: framed\n        fields: {{amount: {{amount: /data/amount}}}}\n",
        deployment.group()
    );
    std::fs::write(deployment.dir.join("pipelines/wallets.yaml"), text).unwrap();
    let schema = r#"{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"}"#;
    std::fs::write(deployment.dir.join("schemas/any.json"), schema).unwrap();
    let lines =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases/confluent_framed.jsonl"));
    let events: Vec<Event> = lines
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| Event::new("transaction-events", "k", STANDARD.decode(line["value"].as_str().unwrap()).unwrap()))
        .collect();
    deployment.publish(&events).await;
    let run = deployment.run_until_idle().await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.assert_sums();
    let mut ids: Vec<Value> =
        deployment.scan("wallet_records").await.iter().map(|record| plain(record)["event_id"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    assert_eq!(ids, ["good-1", "good-2"], "{}", run.summary);
    assert_eq!(run.dead("framing"), events.len() as u64 - 2, "{}", run.summary);
    for letter in deployment.read_topic(&deployment.dead_letters) {
        let detail = header(&letter, "recordkeeper-detail").unwrap();
        assert_eq!(header(&letter, "recordkeeper-reason"), Some("framing"));
        assert!(detail.contains("magic byte"), "{detail}");
        if letter.payload().unwrap().len() > 5 && letter.payload().unwrap()[0] == 0 {
            assert!(detail.contains("schema id 5"), "{detail}");
        }
    }
}

/// c-28: a request's partition is the one that Java's producer chooses for the same key; an empty key is a key.
#[tokio::test(flavor = "multi_thread")]
async fn requests_go_where_a_java_producer_would_send_them() {
    let deployment = Deployment::start("c28", "wallets", 1).await;
    let users: Vec<String> = (0..1000).map(|n| format!("{}-é鍵-{n}", "u".repeat(n % 7))).collect();
    let events: Vec<Event> = users
        .iter()
        .map(|user| {
            let value = json!({"specversion": "1.0", "id": user, "source": "/field", "type": "wallet.requested",
                "time": "2026-01-05T10:00:00Z",
                "data": {"user_id": user, "chain": "evm:1", "custody": "hsm", "alias": "main"}});
            Event::new("wallet-events", "k", value.to_string())
        })
        .collect();
    deployment.publish(&events).await;
    let run = deployment.run_until_idle().await;
    assert_eq!((run.code, run.count("recorded")), (Some(0), 1000), "{}", run.stderr);

    let from_java = deployment.topic("java");
    services::kafka().await.create_topic(&from_java, 12, &[]).await;
    let libs = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-services/kafka/libs/*");
    let mut java = tokio::process::Command::new("java")
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8"])
        .args(["-cp", libs.to_str().unwrap(), "org.apache.kafka.tools.ConsoleProducer"])
        .args(["--bootstrap-server", &deployment.bootstrap, "--topic", &from_java])
        .args(["--reader-property", "parse.key=true"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let lines: String = users.iter().map(String::as_str).chain([""]).map(|user| format!("{user}\tv\n")).collect();
    let mut stdin = java.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).await.unwrap();
    drop(stdin);
    let output = java.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let placed = |topic: &str| -> std::collections::BTreeMap<Vec<u8>, i32> {
        let messages = deployment.read_topic(topic);
        messages.iter().map(|message| (message.key().unwrap().to_vec(), message.partition())).collect()
    };
    let mut java = placed(&from_java);
    let empty = java.remove(b"".as_slice()).expect("Java sends an empty key");
    assert_eq!(empty, recordkeeper::topic::kafka::partition_of(b"", 12));
    assert_eq!(java.len(), 1000);
    assert_eq!(placed(&deployment.requests), java);
}

/// A route whose events are written in one transaction each: the same end, replayed and killed in between.
#[tokio::test(flavor = "multi_thread")]
async fn transactional_routes_end_the_same() {
    let mut ends = Vec::new();
    for killed in [false, true] {
        let deployment = Deployment::start("transact", "wallets", 1).await;
        let file = deployment.dir.join("pipelines/wallets.yaml");
        let pipeline = std::fs::read_to_string(&file).unwrap();
        let format = "    format: cloudevents\n";
        std::fs::write(&file, pipeline.replace(format, &format!("{format}    consistency: transactional\n"))).unwrap();
        let event = |id: &str, kind: &str, data: Value| {
            let value = json!({"specversion": "1.0", "id": id, "source": "/field", "type": kind,
                "time": "2026-01-05T10:00:00Z", "data": data});
            Event::new("wallet-events", "k", value.to_string())
        };
        let status = |id: &str, version: u64, status: &str| {
            event(
                id,
                "wallet.status_changed",
                json!({"wallet_id": WALLET, "wallet_status": status, "version": version}),
            )
        };
        let wanted = json!({"user_id": "u", "chain": "evm:1", "custody": "hsm", "alias": "main"});
        let events = [
            status("one", 1, "active"),
            status("three", 3, "closed"),
            status("two", 2, "frozen"),
            status("tie", 3, "active"),
            event("request", "wallet.requested", wanted),
        ];
        deployment.publish(&events).await;
        // Who was killed takes its partitions over at once under its own name.
        let member: &[_] = if killed { &[("RECORDKEEPER_KAFKA_GROUP_INSTANCE_ID", "one")] } else { &[] };
        if killed {
            let run = deployment.run_with(&[member, &[("RECORDKEEPER_FAILPOINT", "judged:1")]].concat()).await;
            assert_eq!(run.code, None, "{}", run.stderr);
        }
        let run = deployment.run_with(member).await;
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.assert_sums();
        assert_eq!((run.count("consumed"), run.count("recorded")), (5, 5), "{}", run.summary);
        if !killed {
            assert_eq!(["stale", "ties", "requests"].map(|name| run.count(name)), [1, 1, 1], "{}", run.summary);
        }
        let kept = async || {
            let mut tables = deployment.snapshot().await;
            tables.remove("ledger");
            tables
        };
        let end = kept().await;
        assert_eq!(["wallet_records", "wallet_inventory"].map(|table| end[table].len()), [5, 1]);
        // A named member stays in its group for a while, and nobody else may set the group's offsets.
        for _ in 0..if killed { 0 } else { 2 } {
            deployment.reset_to_start("wallet-events", 1);
            let again = deployment.run_until_idle().await;
            assert_eq!(again.code, Some(0), "{}", again.stderr);
            assert_eq!(kept().await, end);
        }
        let requests = deployment.read_topic(&deployment.requests);
        let ids: std::collections::BTreeSet<Vec<u8>> =
            requests.iter().map(|request| request.payload().unwrap().to_vec()).collect();
        assert_eq!(ids.len(), 1, "copies of one request");
        let wallet = plain(&deployment.scan("wallet_inventory").await[0]);
        ends.push([wallet["wallet_status"].clone(), wallet["wallet_id"].clone()]);
    }
    assert_eq!(ends[0], [json!("closed"), json!(WALLET)]);
    assert_eq!(ends[0], ends[1]);
}

/// What a run depends on is looked for at start: what is missing is named, with what to do about it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_at_start_is_named() {
    let deployment = Deployment::start("absent", "wallets", 1).await;
    let small = deployment.topic("small");
    services::kafka().await.create_topic(&small, 1, &[]).await;
    let nowhere = deployment.topic("nowhere");
    let cases = [
        ("RECORDKEEPER_TABLE_PREFIX", "nowhere-", "nowhere-wallet_records", "tables create"),
        ("RECORDKEEPER_REQUESTS_TOPIC", nowhere.as_str(), nowhere.as_str(), "create"),
        ("RECORDKEEPER_DEAD_LETTERS_TOPIC", nowhere.as_str(), nowhere.as_str(), "create"),
        ("RECORDKEEPER_DEAD_LETTERS_TOPIC", small.as_str(), small.as_str(), "raise its max.message.bytes"),
    ];
    for (variable, value, missing, remedy) in cases {
        let run = deployment.run_with(&[(variable, value), ("RECORDKEEPER_ENGINE_START_DEADLINE", "3s")]).await;
        assert_eq!(run.code, Some(1), "{variable}={value}: {}", run.stderr);
        assert!(run.stderr.contains(missing) && run.stderr.contains(remedy), "{variable}={value}: {}", run.stderr);
        let env = [(variable, value), ("RECORDKEEPER_ENGINE_DRAIN_DEADLINE", "2s")];
        let running = Running::start(&deployment, "log", &["run"], &env);
        let admin = running.admin().await;
        running.line_with("not ready").await;
        let answer = page(&admin, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains(missing) && answer.contains(remedy), "{answer}");
        running.terminate().await;
        assert_eq!(running.ended().await.0, Some(0));
    }
    services::kafka().await.delete_topic(&deployment.topic("wallet-events")).await;
    let run = deployment.run_with(&[("RECORDKEEPER_ENGINE_START_DEADLINE", "3s")]).await;
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains(&deployment.topic("wallet-events")), "{}", run.stderr);
}

/// The first command of the README: everything in one process, no setting, no service.
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_run_records_its_samples() {
    let dir = services::scratch("embedded");
    let run = |args: &'static [&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_recordkeeper"));
        command.args(["run", "--embedded", "--summary", "json", "--set", "admin.listen=127.0.0.1:0"]).args(args);
        command.args(["--pipelines", concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines")]).current_dir(&dir).env_clear();
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
        command
    };
    let summary = |stdout: &str| -> Value {
        serde_json::from_str(stdout.lines().rev().find(|line| line.starts_with('{')).expect(stdout)).unwrap()
    };
    let output = tokio::time::timeout(ENDS_WITHIN * 6, run(&["--until-idle"]).output()).await.unwrap().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout} {stderr}");
    let idle = summary(&stdout);
    assert!(idle["recorded"].as_u64() > Some(0) && idle["in_flight"] == 0, "{idle}");

    // Until Ctrl-C, while events still come.
    let log = dir.join("embedded.log");
    let mut child = run(&[]).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    until("progress", async || {
        let said = std::fs::read_to_string(&log).unwrap();
        let works = |line: &str| line.starts_with("consumed ") && !line.contains("recorded 0 ");
        said.lines().any(works).then_some(())
    })
    .await;
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).await.unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0), "{stdout}");
    let stopped = summary(&stdout);
    assert!(stopped["recorded"].as_u64() > Some(0) && stopped["in_flight"] == 0, "{stopped}");
}
