//! The manifest of `generate` against a program that shares no code with it.

use std::path::PathBuf;
use std::process::Command;

use clap::Parser;
use recordkeeper::generate::{GenerateArgs, run};
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
