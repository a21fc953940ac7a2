//! What an event costs: the consumer against a DynamoDB stub that is never the bottleneck, a real broker and real Redis,
//! beside a floor measured in the same run (a bare consumer, and BatchWriteItem of ready items through the SDK).
//!
//! `BENCH_EVENTS` says how many events, `BENCH_DELAY_MS` how late the stub answers a write; the figures go to standard
//! output and to target/bench/result.json. Stub, floor and consumer are processes of their own: this program calls itself
//! with a word.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod floor;
mod measure;
#[allow(dead_code, unused_imports)]
#[path = "../../tests/it/services/mod.rs"]
mod services;
mod stub;

use std::path::Path;
use std::process::{Command, Stdio};

use measure::{Cost, run_measured};
use serde_json::{Value, json};
use stub::Stats;

// As the product has it, so that the floor stays comparable.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PARTITIONS: &str = "8";
const TOPICS: [&str; 2] = ["wallet-events", "transaction-events"];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.first().map(String::as_str) {
        Some("stub") => stub::run(words[1].parse().unwrap()),
        Some("floor") => floor::run(&words[1], &words[2], words[3].parse().unwrap()),
        Some(other) => panic!("unknown word {other}"),
        None => tokio::runtime::Runtime::new().unwrap().block_on(bench()),
    }
}

/// A process that the kernel ends with this one, however it ends.
fn mortal(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// What all of the consumer's commands are told.
fn product(bootstrap: &str, redis: &str, endpoint: &str) -> Command {
    let mut command = mortal(Path::new(env!("CARGO_BIN_EXE_recordkeeper")));
    command
        .env("RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS", bootstrap)
        .env("RECORDKEEPER_KAFKA_NEW_TOPIC_REPLICATION", "1")
        .env("RECORDKEEPER_KAFKA_NEW_TOPIC_PARTITIONS", PARTITIONS)
        .env("RECORDKEEPER_REDIS_URL", redis)
        .env("RECORDKEEPER_ADMIN_LISTEN", "127.0.0.1:0")
        .env("RECORDKEEPER_PIPELINES", concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines"))
        .env("RECORDKEEPER_LOG_FILTER", "error")
        .env("AWS_ENDPOINT_URL_DYNAMODB", endpoint)
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ACCESS_KEY_ID", "bench")
        .env("AWS_SECRET_ACCESS_KEY", "bench")
        .stdin(Stdio::null());
    command
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn bench() {
    let events = std::env::var("BENCH_EVENTS").unwrap_or_else(|_| "500000".to_owned());
    let delay_ms = std::env::var("BENCH_DELAY_MS").unwrap_or_else(|_| "0".to_owned());
    let bootstrap = services::kafka().await.bootstrap.clone();
    let redis = services::redis().await.url.clone();
    let stub = stub::Stub::start(&delay_ms);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("bench");
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = folder.join("manifest.json");
    done(product(&bootstrap, &redis, &stub.endpoint).args(["--pipeline", "wallets", "tables", "create", "--topics"]));
    done(product(&bootstrap, &redis, &stub.endpoint).args([
        "generate",
        "--to",
        "kafka",
        "--events",
        &events,
        "--event-bytes",
        "1024",
        "--partitions",
        PARTITIONS,
        "--duplicates",
        "0.02",
        "--resent",
        "0",
        "--conflicts",
        "0",
        "--poison",
        "0",
        "--unknown",
        "0",
        "--stale",
        "0",
        "--ties",
        "0",
        "--out-of-order",
        "0",
        "--manifest",
        manifest.to_str().unwrap(),
    ]));
    let stated: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    let events: u64 = events.parse().unwrap();

    let mut floor = mortal(&std::env::current_exe().unwrap());
    floor.args(["floor", &bootstrap, &stub.endpoint, &events.to_string()]).stdin(Stdio::null());
    stub.take_stats();
    let (floor, _) = run_measured(&mut floor);
    let floor_stats = stub.take_stats();
    assert_eq!(floor_stats.writes, events);

    let mut full = product(&bootstrap, &redis, &stub.endpoint);
    full.args(["--pipeline", "wallets", "run", "--until-idle", "--summary", "json"]);
    let (full, stdout) = run_measured(&mut full);
    let full_stats = stub.take_stats();
    let summary: Value = serde_json::from_str(stdout.lines().last().unwrap_or_default()).expect("a summary");
    assert_eq!(summary["consumed"], stated["consumed"], "{summary}");

    let per_event = |count: u64| count as f64 / events as f64;
    println!(
        "{events} events of about 1 KB, lz4, {} topics of {PARTITIONS} partitions, one record an event",
        TOPICS.len()
    );
    println!(
        "shares: {:.1} % duplicates, {:.1} % requests, {:.1} % wallets of all events",
        100.0 * per_event(stated["duplicate"].as_u64().unwrap()),
        100.0 * per_event(stated["requests"].as_u64().unwrap()),
        100.0 * per_event(stated["wallets"].as_object().unwrap().len() as u64),
    );
    println!("{:<34}{:>12}{:>12}{:>12}{:>14}", "", "CPU s/M", "events/s", "peak MB", "calls/event");
    let row = |name: &str, cost: &Cost, stats: &Stats| {
        println!(
            "{name:<34}{:>12.1}{:>12.0}{:>12.0}{:>14.3}",
            cost.cpu_seconds_per_million(events),
            events as f64 / stats.seconds,
            cost.peak_bytes as f64 / 1e6,
            per_event(stats.calls)
        );
    };
    row("floor (consume + BatchWriteItem)", &floor, &floor_stats);
    row("recordkeeper (whole path)", &full, &full_stats);
    let ratio = full.cpu_seconds_per_million(events) / floor.cpu_seconds_per_million(events);
    println!(
        "ratio of CPU: {ratio:.2}; CPU is of the whole run, events/s from the first write to the last; stub delay {delay_ms} ms"
    );
    let result = json!({
        "events": events,
        "floor_cpu_s_per_million": floor.cpu_seconds_per_million(events),
        "full_cpu_s_per_million": full.cpu_seconds_per_million(events),
        "floor_events_per_s": events as f64 / floor_stats.seconds,
        "full_events_per_s": events as f64 / full_stats.seconds,
        "full_rss_bytes": full.peak_bytes,
        "calls_per_event": per_event(full_stats.calls),
        "writes_per_event": per_event(full_stats.writes),
    });
    std::fs::write(folder.join("result.json"), format!("{result:#}\n")).unwrap();
}
