//! The manifest of `generate` against a program that shares no code with it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use clap::Parser;
use recordkeeper::config::pipelines::load;
use recordkeeper::event::{Origin, Partition, Position, Reason};
use recordkeeper::generate::{Events, Expected, GenerateArgs, Plan, run};
use recordkeeper::pipeline::{Delivery, Pipeline, Prepared};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: GenerateArgs,
}

/// A folder of its own under Cargo's, which outlives the test for a look at what differed.
fn folder(seed: u64) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("generate-{seed}"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test]
async fn an_independent_program_computes_the_same_manifest() {
    for (seed, further) in
        [(1, ""), (2, "--hot-share 0.9 --wallets 3"), (3, "--ties 0.2 --stale 0.2 --out-of-order 0.1")]
    {
        let folder = folder(seed);
        let (events, manifest) = (folder.join("events.ndjson"), folder.join("manifest.json"));
        let line = format!("generate --events 3000 --seed {seed} --poison 0.05 --partitions 3 {further}");
        let mut line = Line::parse_from(line.split_whitespace());
        line.args.to = events.to_str().unwrap().parse().unwrap();
        line.args.manifest = Some(manifest.clone());
        run(&line.args, &[], CancellationToken::new()).await.unwrap();

        let oracle = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/recompute.py");
        let output =
            Command::new("python3").arg(oracle).arg(&events).output().expect("python3 is there (scripts/prepare.sh)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let recomputed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let written: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
        for (name, value) in written.as_object().unwrap() {
            assert_eq!(value, &recomputed[name], "{name} of seed {seed}, see {}", folder.display());
        }
        assert_eq!(written, recomputed);
    }
}

/// Each generated event against the shipped pipeline, without a store: reasons, states, requests, and which events are the
/// same by their content.
#[test]
fn the_shipped_pipeline_makes_of_each_event_what_the_generator_expects() {
    let (specs, found) = load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines")), &["wallets".to_owned()]);
    assert!(found.is_empty(), "{found:?}");
    let pipeline = Pipeline::compile(&specs[0]).unwrap();
    for seed in 1..=4 {
        let line = format!("generate --events 5000 --seed {seed} --poison 0.1 --partitions 3 --conflicts 0.05");
        let line = Line::parse_from(line.split_whitespace());
        let mut digests = HashMap::new();
        let mut requests = HashSet::new();
        for event in Events::new(Plan::new(&line.args).unwrap()) {
            let partition = Partition {
                cluster: "c".to_owned(),
                topic: event.topic.to_owned(),
                topic_id: String::new(),
                epoch: 0,
                name: event.partition.to_string(),
            };
            let origin = Origin { partition: Arc::new(partition), position: Position::Offset(0) };
            let headers: Vec<_> = event.headers.iter().map(|(name, value)| (*name, value.as_deref())).collect();
            let prepared = pipeline.prepare(&Delivery {
                origin: &origin,
                timestamp_ms: None,
                key: Some(&event.key),
                value: event.value.as_deref(),
                headers: &headers,
            });
            let text = String::from_utf8_lossy(event.value.as_deref().unwrap_or_default()).into_owned();
            match (&event.expected, prepared) {
                (Expected::Recorded { state, new_request }, Prepared::Event(mapped)) => {
                    assert_eq!(mapped.states, Vec::from_iter(state.clone()), "{text}");
                    assert_eq!(mapped.records.len(), 1, "{text}");
                    if let Some(request) = &mapped.request {
                        assert_eq!(requests.insert(request.request_id.clone()), *new_request, "{text}");
                    }
                    let before = digests.insert(mapped.records[0].record_id.clone(), mapped.content_digest);
                    assert_eq!(before, None, "{text}");
                }
                (Expected::Duplicate, Prepared::Event(mapped)) => {
                    assert_eq!(digests.get(&mapped.records[0].record_id), Some(&mapped.content_digest), "{text}");
                }
                (Expected::DeadLettered(Reason::Conflict), Prepared::Event(mapped)) => {
                    let stands = digests.get(&mapped.records[0].record_id).unwrap();
                    assert_ne!(*stands, mapped.content_digest, "{text}");
                }
                (Expected::DeadLettered(reason), Prepared::Refused { refusal, .. }) => {
                    assert_eq!(refusal.reason, *reason, "{}: {text}", refusal.detail);
                }
                (expected, prepared) => panic!("{expected:?}, but {prepared:?}: {text}"),
            }
        }
    }
}
