//! More faults from the field on the running product: shutdown, secrets, schemas, sizes, frames, transactions, readiness.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::deployment::{Deployment, Event, header, plain, text};

const WALLET: &str = "evm:1:0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";
/// Longer than any drain deadline and grace used here; a run that takes longer hangs.
const HANGS: Duration = Duration::from_secs(60);

fn signal(child: &tokio::process::Child, name: &str) {
    let pid = child.id().expect("runs").to_string();
    assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
}

fn status(id: &str, version: u64, status: &str) -> Event {
    let event = json!({"specversion": "1.0", "id": id, "source": "/field", "type": "wallet.status_changed", "time": "2026-01-05T10:00:00Z",
        "data": {"wallet_id": WALLET, "wallet_status": status, "version": version}});
    Event::new("wallet-events", WALLET, event.to_string())
}

/// The admin port's address, from the log line that names it; the rest of the log goes on being read.
async fn admin_address(child: &mut tokio::process::Child) -> (String, tokio::task::JoinHandle<String>) {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut log = String::new();
    let address = loop {
        let line = lines.next_line().await.unwrap().unwrap_or_else(|| panic!("no admin port: {log}"));
        log.push_str(&line);
        log.push('\n');
        if let Some(at) = line.find("\"address\":\"") {
            break line[at + 11..].split('"').next().unwrap().to_owned();
        }
    };
    let rest = tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            log.push_str(&line);
            log.push('\n');
        }
        log
    });
    (address, rest)
}

async fn page(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (code, answer)
}

/// c-22: told to stop with all brokers away, right after start, and at work: it ends in time, and says by its exit code
/// whether all was drained.
#[tokio::test(flavor = "multi_thread")]
async fn a_told_process_ends_within_its_deadline() {
    let deployment = Deployment::start("c22", "wallets", 4).await;
    let events: Vec<Event> = (1..=200).map(|n| status(&format!("e{n}"), n, "active")).collect();
    deployment.publish(&events).await;
    let brief = ("RECORDKEEPER_ENGINE_DRAIN_DEADLINE", "3s");
    // With no broker there: nothing was read, so all of it is drained.
    let away = [brief, ("RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")];
    let mut child = deployment.spawn(&["run"], &away);
    let (address, _log) = admin_address(&mut child).await;
    let (code, body) = page(&address, "/readyz").await;
    assert_eq!(code, 503, "{body}");
    assert_eq!(page(&address, "/livez").await.0, 200);
    signal(&child, "-TERM");
    assert_eq!(tokio::time::timeout(HANGS, child.wait()).await.expect("ends").unwrap().code(), Some(0));
    // Right after start, and at work.
    for wait_until_read in [false, true] {
        let mut child = deployment.spawn(&["run", "--summary", "json"], &[brief]);
        let (address, log) = admin_address(&mut child).await;
        let read = async {
            while !page(&address, "/metrics")
                .await
                .1
                .contains("recordkeeper_attested_total{pipeline=\"wallets\"} 200\n")
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if wait_until_read {
            tokio::time::timeout(HANGS, read).await.expect("reads");
            assert_eq!(page(&address, "/readyz").await.0, 200);
        }
        signal(&child, "-TERM");
        let ended = tokio::time::timeout(HANGS, child.wait()).await.expect("ends").unwrap();
        assert_eq!(ended.code(), Some(0), "{}", log.await.unwrap());
    }
    assert_eq!(deployment.committed("wallet-events", 4).into_values().max(), Some(200));
}

/// A second order to stop ends the process at once, drained or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let deployment = Deployment::start("twice", "wallets", 1).await;
    deployment.publish(&[status("a", 1, "active")]).await;
    // A table is gone once it runs, so that nothing can be drained.
    let mut child = deployment.spawn(&["run"], &[]);
    let (address, _log) = admin_address(&mut child).await;
    let ready = async {
        while page(&address, "/readyz").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(HANGS, ready).await.expect("ready");
    let client = deployment.dynamodb_client().await;
    client.delete_table().table_name(format!("{}-wallet_records", deployment.name)).send().await.unwrap();
    deployment.publish(&[status("b", 2, "closed")]).await;
    let mut seen = String::new();
    let stuck = async {
        while !seen.contains("recordkeeper_alerts_total{alert=\"stalled_partition\"} 1\n") {
            tokio::time::sleep(Duration::from_millis(50)).await;
            seen = page(&address, "/metrics").await.1;
        }
    };
    assert!(tokio::time::timeout(HANGS, stuck).await.is_ok(), "it waits for its table: {seen}");
    signal(&child, "-TERM");
    signal(&child, "-INT");
    assert_eq!(tokio::time::timeout(HANGS, child.wait()).await.expect("ends").unwrap().code(), Some(1));
}

/// What a run depends on and is not there, or too small, is named, with what to do.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_at_start_is_named() {
    let deployment = Deployment::start("missing", "wallets", 1).await;
    let brief = [("RECORDKEEPER_ENGINE_START_DEADLINE", "4s")];
    let tables = [brief[0], ("RECORDKEEPER_TABLE_PREFIX", "no-such-prefix-")];
    let run = deployment.run_with(&tables).await;
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("no-such-prefix-wallet_records") && run.stderr.contains("tables create"),
        "{}",
        run.stderr
    );
    let topic = [brief[0], ("RECORDKEEPER_DEAD_LETTERS_TOPIC", "no-such-topic")];
    let run = deployment.run_with(&topic).await;
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("no-such-topic"), "{}", run.stderr);
    let broker = crate::services::kafka().await;
    let small = format!("{}-small", deployment.name);
    broker.create_topic(&small, 1, &[("max.message.bytes", "1000000")]).await;
    let run = deployment.run_with(&[brief[0], ("RECORDKEEPER_DEAD_LETTERS_TOPIC", &small)]).await;
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("max.message.bytes"), "{}", run.stderr);
}

/// c-37: no secret in the output, the pages or the command line, whatever fails.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_shown_nowhere() {
    let mut deployment = Deployment::start("c37", "wallets", 1).await;
    deployment.redis = Some("redis://rk:sec-redis-1b7@127.0.0.1:9".into());
    let secrets = ["sec-kafka-9f3", "sec-redis-1b7", "sec-aws-4c2"];
    let env = [
        ("RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9"),
        ("RECORDKEEPER_KAFKA_SECURITY", "sasl_plaintext"),
        ("RECORDKEEPER_KAFKA_SASL_MECHANISM", "PLAIN"),
        ("RECORDKEEPER_KAFKA_USERNAME", "rk"),
        ("RECORDKEEPER_KAFKA_PASSWORD", secrets[0]),
        ("AWS_SECRET_ACCESS_KEY", secrets[2]),
        ("RECORDKEEPER_ENGINE_DRAIN_DEADLINE", "2s"),
        ("RUST_LOG", "trace"),
    ];
    let mut seen = String::new();
    let check = deployment.command(&["check"]).envs(env).output().await.unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    seen.push_str(&String::from_utf8_lossy(&check.stdout));
    assert!(seen.contains("redacted"), "{seen}");
    seen.push_str(&String::from_utf8_lossy(&check.stderr));
    let mut child = deployment.spawn(&["run"], &env);
    let pid = child.id().unwrap();
    let (address, log) = admin_address(&mut child).await;
    for path in ["/", "/metrics", "/readyz", "/livez"] {
        seen.push_str(&page(&address, path).await.1);
    }
    seen.push_str(&std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap());
    signal(&child, "-TERM");
    tokio::time::timeout(HANGS, child.wait()).await.expect("ends").unwrap();
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).await.unwrap();
    seen.push_str(&stdout);
    seen.push_str(&log.await.unwrap());
    for secret in secrets {
        assert!(!seen.contains(secret), "{secret} is shown");
    }
}

/// c-36: a schema that is not whole is refused with its path and the pointer inside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_not_whole_is_refused() {
    let folder = crate::services::scratch("c36");
    let cases = [
        (
            r##"{"$schema":"https://json-schema.org/draft/2020-12/schema","properties":{"a":{"$ref":"missing.json"}}}"##,
            "/properties/a",
        ),
        (
            r##"{"$schema":"https://json-schema.org/draft/2020-12/schema","properties":{"a":{"$ref":"#/$defs/none"}}}"##,
            "/properties/a",
        ),
        (r##"{"$schema":"https://json-schema.org/draft/2020-12/schema","$ref":"#"}"##, "only to itself"),
        (
            r##"{"$schema":"https://json-schema.org/draft/2020-12/schema","properties":{"a":{"minLenght":1}}}"##,
            "minLength",
        ),
        (
            r##"{"$schema":"https://json-schema.org/draft/2020-12/schema","properties":{"a":{"pattern":"(["}}}"##,
            "/properties/a/pattern",
        ),
    ];
    for (number, (schema, named)) in cases.iter().enumerate() {
        let pipelines = folder.join(format!("{number}"));
        std::fs::create_dir_all(&pipelines).unwrap();
        std::fs::write(pipelines.join("bad.json"), schema).unwrap();
        std::fs::write(
            pipelines.join("p.yaml"),
            "pipeline: p\nsource:\n  kafka: {topics: [t], group: g, start: earliest}\nroutes:\n  - name: r\n    match: {topic: t}\n    format: cloudevents\n    schema: bad.json\n    records:\n      - {name: event, type: x}\n",
        )
        .unwrap();
        let output = checked(&pipelines).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{schema}: {said}");
        assert!(said.contains("bad.json") && said.contains(named), "{schema}: {said}");
    }
}

async fn checked(pipelines: &Path) -> std::process::Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_recordkeeper"))
        .arg("check")
        .env("RECORDKEEPER_PIPELINES", pipelines)
        .env("RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
        .env("RECORDKEEPER_DEDUPE", "memory")
        .env("AWS_REGION", "eu-central-1")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap()
}

/// c-18: what is too large for the table by one byte is a dead letter with size and limit; what just fits is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn an_item_one_byte_too_large_is_a_dead_letter() {
    let deployment = Deployment::start("c18", "wallets", 1).await;
    let updated = |id: &str, label: usize| {
        let event = json!({"specversion": "1.0", "id": id, "source": "/field", "type": "wallet.updated", "time": "2026-01-05T10:00:00Z",
            "data": {"wallet_id": "ext:w", "version": 1, "label": "l".repeat(label)}});
        Event::new("wallet-events", "k", event.to_string())
    };
    // A probe tells what everything but the label takes; ids of one length make items of one size.
    deployment.publish(&[updated("probe-00", 300_000)]).await;
    assert_eq!(deployment.run_until_idle().await.count("recorded"), 1);
    let probe = deployment.scan("wallet_records").await;
    let overhead = item_bytes(&plain(&probe[0])) - 300_000;
    let fits = 409_600 - overhead;
    deployment.publish(&[updated("fits-000", fits), updated("over-000", fits + 1), updated("small-00", 1)]).await;
    let run = deployment.run_until_idle().await;
    run.assert_sums();
    assert_eq!((run.count("recorded"), run.dead("too_large")), (2, 1), "{}", run.summary);
    let letters = deployment.read_topic(&deployment.dead_letters);
    let detail = header(&letters[0], "recordkeeper-detail").unwrap();
    assert!(detail.contains("409601") && detail.contains("409600"), "{detail}");
    let records = deployment.scan("wallet_records").await;
    let fitted = records.iter().find(|record| text(record, "record_id") == "/field|fits-000").unwrap();
    assert_eq!(item_bytes(&plain(fitted)), 409_600);
}

/// An item's size by DynamoDB's rule: names and values in UTF-8; a number of few digits 2; a map 3, and 1 an entry.
fn item_bytes(item: &Value) -> usize {
    item.as_object().unwrap().iter().map(|(name, value)| name.len() + value_bytes(name, value)).sum()
}

fn value_bytes(name: &str, value: &Value) -> usize {
    match value {
        Value::Object(map) => {
            3 + map.iter().map(|(name, value)| 1 + name.len() + value_bytes(name, value)).sum::<usize>()
        }
        Value::String(text) if name == "format" => 1 + text.len().div_ceil(2),
        Value::String(text) => text.len(),
        other => panic!("{name}: {other}"),
    }
}

/// c-11: framed JSON is recorded like plain JSON where the route allows both; anything else names its frame.
#[tokio::test(flavor = "multi_thread")]
async fn frames_are_taken_off_or_named() {
    let deployment = Deployment::start("c11", "wallets", 1).await;
    let topic = deployment.topic("wallet-events");
    let pipeline = format!(
        "pipeline: framed\nsource:\n  kafka: {{topics: [{topic}], group: {}-framed, start: earliest}}\nroutes:\n  - name: framed\n    match: {{topic: {topic}}}\n    format: confluent-json\n    allow_plain: true\n    source: framed\n    id: \"{{/id}}\"\n    time: /time\n    schema: any.json\n    records:\n      - {{name: event, type: framed, wallet: \"{{/data/wallet_id}}\", fields: {{amount: /data/amount}}}}\n",
        deployment.name
    );
    std::fs::remove_file(deployment.dir.join("pipelines/wallets.yaml")).unwrap();
    std::fs::write(deployment.dir.join("pipelines/framed.yaml"), pipeline).unwrap();
    let schema = r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object"}"#;
    std::fs::write(deployment.dir.join("pipelines/any.json"), schema).unwrap();
    let lines = include_str!("../data/cases/confluent_framed.jsonl");
    let events: Vec<Event> = lines
        .lines()
        .map(|line| {
            use base64::Engine as _;
            let line: Value = serde_json::from_str(line).unwrap();
            let value = base64::engine::general_purpose::STANDARD.decode(line["value"].as_str().unwrap()).unwrap();
            Event::new("wallet-events", "k", value)
        })
        .collect();
    deployment.publish(&events).await;
    let run = deployment.run_until_idle().await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.assert_sums();
    assert_eq!((run.count("recorded"), run.dead("framing")), (2, 6), "{}", run.summary);
    for letter in deployment.read_topic(&deployment.dead_letters) {
        let detail = header(&letter, "recordkeeper-detail").unwrap();
        assert!(detail.contains("magic") || detail.contains("schema id"), "{detail}");
    }
}

/// A transactional route: records, states and counts as the batched one makes them, also when it is read twice and killed
/// in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_transactional_route_ends_as_a_batched_one() {
    let deployment = Deployment::start("tx", "wallets", 1).await;
    let file = deployment.dir.join("pipelines/wallets.yaml");
    let before = std::fs::read_to_string(&file).unwrap();
    let changed =
        before.replace("    format: cloudevents\n", "    format: cloudevents\n    consistency: transactional\n");
    assert_ne!(before, changed);
    std::fs::write(&file, changed).unwrap();
    let events = [
        status("one", 1, "active"),
        status("three", 3, "closed"),
        status("two", 2, "frozen"),
        status("three", 3, "closed"),
        status("three", 3, "active"),
        status("tie", 3, "active"),
    ];
    deployment.publish(&events).await;
    let same = ("RECORDKEEPER_KAFKA_GROUP_INSTANCE_ID", "one");
    let killed = deployment.run_with(&[("RECORDKEEPER_FAILPOINT", "judged:1"), same]).await;
    assert_eq!(killed.code, None, "{}", killed.stderr);
    let run = deployment.run_with(&[same]).await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.assert_sums();
    let counts = ["recorded", "repeated", "duplicate"].map(|name| run.count(name));
    assert_eq!((counts, run.dead("conflict")), ([4, 4, 1], 1), "{}", run.summary);
    let wallets = deployment.scan("wallet_inventory").await;
    assert_eq!((wallets.len(), text(&wallets[0], "wallet_status")), (1, "closed"));
    assert_eq!(deployment.scan("wallet_records").await.len(), 4);
}
