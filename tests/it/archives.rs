//! Archives that are not one local file: in S3, whatever fails on the way, and in folders.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Output, Stdio};

use axum::http::Method;
use rdkafka::Message as _;
use serde_json::{Value, json};

use crate::deployment::{Deployment, Event, RUN_MAX};
use crate::s3_server::{Fate, S3Server};

fn status(id: u64) -> Event {
    let data = json!({"wallet_id": format!("evm:1:0x{id:040x}"), "wallet_status": "active", "version": id});
    let value = json!({"specversion": "1.0", "id": id.to_string(), "source": "/archives",
        "type": "wallet.status_changed", "data": data});
    Event::new("wallet-events", &format!("k{id}"), value.to_string())
}

async fn deployment(name: &str, partitions: i32) -> Deployment {
    Deployment::start(name, "wallets", partitions).await
}

async fn recordkeeper(deployment: &Deployment, s3: &str, args: &[&str]) -> Output {
    let mut command = deployment.command(args);
    command.env("AWS_ENDPOINT_URL_S3", s3).env("RECORDKEEPER_S3_CALL_DEADLINE", "2s");
    tokio::time::timeout(RUN_MAX, command.output()).await.expect("ends in time").unwrap()
}

async fn archive(deployment: &Deployment, s3: &str, out: &str, how: &str) -> Output {
    let topic = deployment.topic("wallet-events");
    recordkeeper(deployment, s3, &["archive", "--topic", &topic, "--out", out, "--compress", how]).await
}

/// The summary of a replay that came to its end.
async fn replayed(deployment: &Deployment, s3: &str, archives: &[&str]) -> Value {
    let mut args = vec!["replay", "--summary", "json", "--rate", "unlimited"];
    archives.iter().for_each(|archive| args.extend(["--archive", archive]));
    let output = recordkeeper(deployment, s3, &args).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn is_object(target: &str, suffix: &str) -> bool {
    target.split('?').next().is_some_and(|path| path.ends_with(suffix))
}

/// Every third call is refused, the first answer to each write is lost, parts come late or half: what is in S3 is the same as what is on
/// disk, and a replay of it brings back what was read, letters of half a megabyte included.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_in_s3_is_whole_whatever_fails_on_the_way() {
    const LARGE: u8 = 36;
    let deployment = deployment("s3", 1).await;
    let mut events: Vec<Event> = (1..=300).map(status).collect();
    // Written in two parts, read in eighteen.
    let large = |at: u8| Event::new("wallet-events", "k", String::from_utf8(vec![b'A' + at; 500_000]).unwrap());
    events.extend((0..LARGE).map(large));
    deployment.publish(&events).await;

    let (mut calls, mut parts, mut lost) = (0, 0, BTreeSet::new());
    let server = S3Server::start("whatever", &["archives"], move |method, target| {
        calls += 1;
        if (*method == Method::PUT || *method == Method::POST) && lost.insert(target.to_owned()) {
            return Fate::Lost;
        }
        parts += u32::from(*method == Method::GET && target.contains(".ndjson"));
        match (calls % 3, *method == Method::GET, parts) {
            (0, ..) => Fate::Refused,
            (_, true, 4) => Fate::Silent,
            (_, true, 7) => Fate::Cut,
            _ => Fate::Answered,
        }
    });
    let topic = deployment.topic("wallet-events");
    let last = 299 + u32::from(LARGE);
    for (how, suffix) in [("none", "ndjson"), ("gzip", "ndjson.gz"), ("zstd", "ndjson.zst")] {
        let local = deployment.dir.join(how);
        assert!(archive(&deployment, &server.endpoint, local.to_str().unwrap(), how).await.status.success());
        let output = archive(&deployment, &server.endpoint, "s3://archives/2026", how).await;
        let name = format!("{topic}-0-0-{last}.{suffix}");
        let file = format!("s3://archives/2026/{name}");
        assert_eq!(text(&output.stdout), format!("{file} {} events\n", last + 1), "{}", text(&output.stderr));
        let kept = std::fs::read(server.file("archives", &format!("2026/{name}"))).unwrap();
        assert!(kept == std::fs::read(local.join(&name)).unwrap(), "{how}");
        let again = archive(&deployment, &server.endpoint, "s3://archives/2026", how).await;
        let said = text(&again.stderr);
        assert!(again.status.code() == Some(2) && said.contains("exists already: choose another --out"), "{said}");
    }
    // An upload whose first answer was lost was begun twice.
    assert_eq!(server.unfinished().len(), 1);

    let file = format!("s3://archives/2026/{topic}-0-0-{last}.ndjson");
    let summary = replayed(&deployment, &server.endpoint, &[&file]).await;
    let counts = (&summary["recorded"], &summary["dead_lettered"]["undecodable"]);
    assert_eq!(counts, (&json!(300), &json!(LARGE)), "{summary}");
    let letters = deployment.read_topic(&deployment.dead_letters);
    let payloads: BTreeSet<_> = letters.iter().map(|letter| letter.payload().unwrap().to_vec()).collect();
    assert!(payloads == (0..LARGE).map(|at| vec![b'A' + at; 500_000]).collect());
}

/// Told to stop, it gives its upload up.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_told_to_stop_leaves_nothing() {
    let deployment = deployment("s3-stop", 1).await;
    let large = |_| Event::new("wallet-events", "k", "x".repeat(500_000));
    deployment.publish(&(0..36).map(large).collect::<Vec<_>>()).await;
    let (asked, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let server = S3Server::start("stop", &["archives"], move |method, target| {
        if *method == Method::PUT && target.contains("partNumber=1") {
            asked.send(()).unwrap_or_default();
            return Fate::Silent;
        }
        Fate::Answered
    });
    let topic = deployment.topic("wallet-events");
    let args = ["archive", "--topic", &topic, "--out", "s3://archives", "--compress", "none"];
    let mut command = deployment.command(&args);
    command.env("AWS_ENDPOINT_URL_S3", &server.endpoint).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    waiting.recv().await.expect("a part");
    assert_eq!(server.unfinished().len(), 1);
    let pid = child.id().expect("it runs").to_string();
    assert!(tokio::process::Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let output = tokio::time::timeout(RUN_MAX, child.wait_with_output()).await.expect("ends in time").unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("told to stop"), "{said}");
    assert_eq!(server.unfinished(), Vec::<String>::new());
    assert!(!server.file("archives", &format!("{topic}-0-0-35.ndjson")).exists());
}

/// A folder stands for the archives right in it, on disk and in S3; a run that was killed needs its name alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_stands_for_the_archives_in_it() {
    let deployment = deployment("folders", 3).await;
    let spread = |id| Event { partition: Some((id % 3) as i32), ..status(id) };
    deployment.publish(&(1..=60).map(spread).collect::<Vec<_>>()).await;
    let server = S3Server::start("folders", &["archives"], |_, _| Fate::Answered);
    let endpoint = server.endpoint.as_str();
    let local = deployment.dir.join("archives");
    let local = local.to_str().unwrap();
    for out in [local, "s3://archives/all"] {
        let output = archive(&deployment, endpoint, out, "zstd").await;
        assert_eq!(text(&output.stdout).lines().count(), 3, "{}", text(&output.stderr));
    }
    let below = Path::new(local).join("below");
    std::fs::create_dir(&below).unwrap();
    let further = server.file("archives", "all/below");
    std::fs::create_dir(&further).unwrap();
    for folder in [Path::new(local), &below, &server.file("archives", "all"), &further] {
        std::fs::write(folder.join("notes.txt"), "no archive").unwrap();
    }
    std::fs::write(below.join("other.ndjson"), "not right in it").unwrap();
    std::fs::write(further.join("other.ndjson"), "not right in it").unwrap();

    let mut args = vec!["replay", "--archive", "s3://archives/all/", "--run", "killed", "--rate", "20"];
    args.extend(["--summary", "json"]);
    let mut command = deployment.command(&args);
    command.env("AWS_ENDPOINT_URL_S3", endpoint).env("RECORDKEEPER_FAILPOINT", "attested:2");
    let killed = tokio::time::timeout(RUN_MAX, command.output()).await.expect("ends in time").unwrap();
    assert_eq!(killed.status.code(), None, "{}", text(&killed.stderr));
    let args = ["replay", "--run", "killed", "--rate", "unlimited", "--summary", "json"];
    let output = recordkeeper(&deployment, endpoint, &args).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(deployment.scan("wallet_records").await.len(), 60);

    let summary = replayed(&deployment, endpoint, &[local]).await;
    assert_eq!((&summary["consumed"], &summary["repeated"]), (&json!(60), &json!(60)), "{summary}");
}

/// As many files as there are lines: not all of them are open at once. A folder of too many is refused.
#[tokio::test(flavor = "multi_thread")]
async fn many_files_take_turns_and_too_many_are_refused() {
    let deployment = deployment("many", 1).await;
    deployment.publish(&(1..=60).map(status).collect::<Vec<_>>()).await;
    let server = S3Server::start("many", &["archives"], |_, _| Fate::Answered);
    let local = deployment.dir.join("out");
    assert!(archive(&deployment, &server.endpoint, local.to_str().unwrap(), "none").await.status.success());
    let whole = std::fs::read(local.join(format!("{}-0-0-59.ndjson", deployment.topic("wallet-events")))).unwrap();
    let folder = server.file("archives", "lines");
    std::fs::create_dir(&folder).unwrap();
    for (at, line) in whole.split_inclusive(|byte| *byte == b'\n').enumerate() {
        std::fs::write(folder.join(format!("{at:02}.ndjson")), line).unwrap();
    }
    let summary = replayed(&deployment, &server.endpoint, &["s3://archives/lines/"]).await;
    assert_eq!((&summary["consumed"], &summary["recorded"]), (&json!(60), &json!(60)), "{summary}");

    let folder = server.file("archives", "many");
    std::fs::create_dir(&folder).unwrap();
    for at in 0..1_001 {
        std::fs::write(folder.join(format!("{at}.ndjson")), "{}").unwrap();
    }
    let args = ["replay", "--archive", "s3://archives/many/"];
    let output = recordkeeper(&deployment, &server.endpoint, &args).await;
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("more than 1000 archives"), "{said}");
}

/// Another one wrote the object first: nothing of it is touched, and nothing of ours is left.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_over_an_object_that_came_meanwhile() {
    let deployment = deployment("s3-race", 1).await;
    let large = |_| Event::new("wallet-events", "k", "x".repeat(500_000));
    deployment.publish(&(0..36).map(large).collect::<Vec<_>>()).await;
    let mut asked = BTreeSet::new();
    let server = S3Server::start("race", &["archives"], move |method, target| {
        let first = *method == Method::HEAD && target.contains(".ndjson") && asked.insert(target.to_owned());
        if first { Fate::Absent } else { Fate::Answered }
    });
    for (how, suffix) in [("none", "ndjson"), ("zstd", "ndjson.zst")] {
        let key = format!("{}-0-0-35.{suffix}", deployment.topic("wallet-events"));
        std::fs::write(server.file("archives", &key), "theirs").unwrap();
        let output = archive(&deployment, &server.endpoint, "s3://archives", how).await;
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(&format!("{key}: it exists already")), "{said}");
        assert_eq!(std::fs::read_to_string(server.file("archives", &key)).unwrap(), "theirs");
    }
    assert_eq!(server.unfinished(), Vec::<String>::new());
}

/// An object that changes while it is read is no archive of anything.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_while_it_is_read_is_refused() {
    let deployment = deployment("s3-change", 1).await;
    let large = |_| Event::new("wallet-events", "k", "x".repeat(500_000));
    deployment.publish(&(0..8).map(large).collect::<Vec<_>>()).await;
    let root = std::sync::Arc::new(std::sync::OnceLock::<std::path::PathBuf>::new());
    let (file, mut parts) = (root.clone(), 0);
    let server = S3Server::start("change", &["archives"], move |method, target| {
        parts += u32::from(*method == Method::GET && is_object(target, "changing.ndjson"));
        if parts == 3
            && let Some(file) = file.get()
        {
            let other = std::fs::read_to_string(file).unwrap().replace("xxx", "yyy");
            std::fs::write(file, other).unwrap();
        }
        Fate::Answered
    });
    let local = deployment.dir.join("out");
    assert!(archive(&deployment, &server.endpoint, local.to_str().unwrap(), "none").await.status.success());
    let changing = server.file("archives", "changing.ndjson");
    std::fs::copy(local.join(format!("{}-0-0-7.ndjson", deployment.topic("wallet-events"))), &changing).unwrap();
    root.set(changing).unwrap();
    let place = "s3://archives/changing.ndjson";
    let output = recordkeeper(&deployment, &server.endpoint, &["replay", "--archive", place]).await;
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("it was changed while it was read"), "{said}");
    assert_eq!(deployment.read_topic(&deployment.dead_letters).len(), 0);
}

/// What is wrong with a place is said before anything is read.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_place_is_refused_before_anything_is_read() {
    let deployment = deployment("s3-wrong", 1).await;
    deployment.publish(&[status(1)]).await;
    let server = S3Server::start("wrong", &["archives"], |_, _| Fate::Answered);
    let empty = deployment.dir.join("empty");
    std::fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    let topic = deployment.topic("wallet-events");
    let out = |place| vec!["archive", "--topic", &topic, "--out", place];
    for (args, hint) in [
        (
            vec!["replay", "--archive", "s3://archives/none.ndjson"],
            "none.ndjson: there is no such object; for all archives right below it end it with /",
        ),
        (vec!["replay", "--archive", "s3://archives/"], "holds no archive"),
        (vec!["replay", "--archive", empty], "holds no archive"),
        (vec!["replay", "--archive", "s3://nowhere/a/"], "NoSuchBucket"),
        (vec!["replay", "--archive", "gs://archives/a"], "gs:// is not known"),
        (out("s3://nowhere/a"), "there is no such bucket"),
        (out("s3://"), "names no bucket"),
    ] {
        let output = recordkeeper(&deployment, &server.endpoint, &args).await;
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(hint), "{args:?}: {said}");
    }
    let mut command = deployment.command(&["replay", "--archive", "s3://archives/a.ndjson"]);
    command.env("AWS_ENDPOINT_URL_S3", &server.endpoint).env("AWS_SECRET_ACCESS_KEY", "another");
    let output = command.output().await.unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("s3:ListBucket on its bucket"), "{said}");
}
