//! `replay`: what was read is read again, under a ledger of its own, while the group goes on.

use std::collections::BTreeMap;

use rdkafka::Message as _;
use serde_json::{Value, json};

use crate::deployment::{Deployment, Event, RUN_MAX, Run, header, plain, run_of};
use crate::ledger;
use crate::running::{Running, attested, until};

const WALLET: &str = "evm:1:0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";

fn event(id: &str, kind: &str, data: Value) -> Event {
    let value = json!({"specversion": "1.0", "id": id, "source": "/replay", "type": kind, "data": data});
    Event::new("wallet-events", "k", value.to_string())
}

fn status(id: u64, status: &str) -> Event {
    let data = json!({"wallet_id": WALLET, "wallet_status": status, "version": id});
    event(&id.to_string(), "wallet.status_changed", data)
}

/// A grant, its revocation, a request, and a wallet that was frozen and closed.
fn history() -> Vec<Event> {
    let granted = json!({"user_id": "u", "wallet_id": WALLET, "role": "owner", "scopes": ["sign"],
        "granted_by": "admin", "version": 1});
    let revoked = json!({"user_id": "u", "wallet_id": WALLET, "revoked_by": "admin", "version": 2});
    vec![
        event("grant", "mapping.granted", granted),
        event("revoke", "mapping.revoked", revoked),
        event(
            "request",
            "wallet.requested",
            json!({"user_id": "u", "chain": "evm:1", "custody": "hsm", "alias": "main"}),
        ),
        status(3, "frozen"),
        Event::new("wallet-events", "k", "no event"),
        status(5, "closed"),
    ]
}

async fn replay(deployment: &Deployment, args: &[&str], env: &[(&str, &str)]) -> Run {
    let topic = deployment.topic("wallet-events");
    let mut all = vec!["replay", "--summary", "json"];
    if !args.contains(&"--run") || args.contains(&"--topic") {
        all.extend(["--topic", &topic]);
    }
    all.extend(args.iter().filter(|arg| **arg != "--topic"));
    let mut command = deployment.command(&all);
    command.envs(env.iter().copied());
    run_of(tokio::time::timeout(RUN_MAX, command.output()).await.expect("ends in time").unwrap())
}

/// Without the ledger, which a replay adds to, and the clocks.
async fn state(deployment: &Deployment) -> BTreeMap<String, Vec<Value>> {
    let mut tables = BTreeMap::new();
    for table in ["wallet_records", "wallet_inventory", "user_wallet_mapping"] {
        let mut items: Vec<Value> = deployment.scan(table).await.iter().map(plain).collect();
        items.sort_by_key(Value::to_string);
        tables.insert(table.to_owned(), items);
    }
    tables
}

async fn delete_all(deployment: &Deployment, table: &str, keys: &[&str]) {
    let client = deployment.dynamodb_client().await;
    for item in deployment.scan(table).await {
        let key = keys.iter().map(|name| ((*name).to_owned(), item[*name].clone())).collect();
        client
            .delete_item()
            .table_name(format!("{}-{table}", deployment.name))
            .set_key(Some(key))
            .send()
            .await
            .unwrap();
    }
}

/// Grant, revoke, replay of everything: still revoked, nothing else changed, no request sent; what was lost is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_repairs_what_is_missing_and_changes_nothing_else() {
    let deployment = Deployment::start("replay", "wallets", 1).await;
    deployment.publish(&history()).await;
    let run = deployment.run_until_idle().await;
    assert_eq!((run.code, run.count("recorded"), run.dead("undecodable")), (Some(0), 5, 1), "{}", run.stderr);
    let before = state(&deployment).await;
    assert_eq!(before["user_wallet_mapping"][0]["status"], "revoked");
    let chains = ledger::chains(&deployment).await;

    let again = replay(&deployment, &["--run", "first", "--topic"], &[]).await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    again.assert_sums();
    assert_eq!((again.count("consumed"), again.count("repeated"), again.dead("undecodable")), (6, 5, 1));
    assert_eq!(again.count("requests"), 0);
    assert_eq!(state(&deployment).await, before);
    assert_eq!(deployment.read_topic(&deployment.requests).len(), 1, "no request again");
    assert_eq!(deployment.committed("wallet-events", 1)[&0], 6, "the group's place is not touched");
    let after = ledger::chains(&deployment).await;
    assert_eq!((after.len(), &after[0].outcomes), (1, &chains[0].outcomes), "nor its ledger");
    let own = ledger::chains_of(&deployment, &format!("{}/replay/wallets/first", deployment.group())).await;
    assert_eq!(own[0].outcomes, ["r", "r", "r", "r", "xu", "r"]);

    let done = replay(&deployment, &["--run", "first"], &[]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(ledger::chains_of(&deployment, &format!("{}/replay/wallets/first", deployment.group())).await[0].end, 6);

    delete_all(&deployment, "wallet_inventory", &["wallet_id"]).await;
    delete_all(&deployment, "user_wallet_mapping", &["user_id", "wallet_id"]).await;
    let none = replay(&deployment, &["--effects", "none"], &[]).await;
    assert_eq!((none.code, none.count("repeated")), (Some(0), 5), "{}", none.stderr);
    assert_eq!(deployment.scan("wallet_inventory").await.len(), 0, "records alone");
    let repaired = replay(&deployment, &["--effects", "state"], &[]).await;
    assert_eq!(repaired.code, Some(0), "{}", repaired.stderr);
    let wallet = plain(&deployment.scan("wallet_inventory").await[0]);
    assert_eq!(wallet["wallet_status"], "closed");
    assert_eq!(plain(&deployment.scan("user_wallet_mapping").await[0])["status"], "revoked");
    assert_eq!(deployment.read_topic(&deployment.requests).len(), 1);
    let all = replay(&deployment, &["--effects", "all"], &[]).await;
    assert_eq!((all.code, all.count("requests")), (Some(0), 1), "{}", all.stderr);
    assert_eq!(deployment.read_topic(&deployment.requests).len(), 2);
    crate::tampering::assert_sound(&deployment).await;
}

/// Killed half-way and taken up again beside a consumer that goes on: each position of the range once in the run's ledger.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_was_killed_goes_on_where_its_ledger_ends() {
    let deployment = Deployment::start("replay-killed", "wallets", 2).await;
    let events: Vec<Event> =
        (1..=200).map(|n| Event { partition: Some(i32::try_from(n % 2).unwrap()), ..status(n, "active") }).collect();
    deployment.publish(&events).await;
    let consumer = Running::start(&deployment, "run.log", &["run"], &[]);
    attested(&deployment).await;
    let small = [("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "10"), ("RECORDKEEPER_ENGINE_ATTEST_INTERVAL", "10ms")];
    let dies = [&small[..], &[("RECORDKEEPER_FAILPOINT", "attested:3")]].concat();
    let killed = replay(&deployment, &["--run", "again", "--topic", "--rate", "unlimited"], &dies).await;
    assert_eq!(killed.code, None, "{}", killed.stderr);
    let group = format!("{}/replay/wallets/again", deployment.group());
    let half: u64 = ledger::chains_of(&deployment, &group).await.iter().map(|chain| chain.end).sum();
    assert!(half > 0 && half < 200, "{half}");

    deployment.publish(&[status(201, "closed")]).await;
    let run = replay(&deployment, &["--run", "again", "--rate", "unlimited"], &small).await;
    assert_eq!((run.code, run.count("consumed")), (Some(0), 200 - half), "{}", run.stderr);
    let chains = ledger::chains_of(&deployment, &group).await;
    assert_eq!(chains.iter().map(|chain| chain.end).sum::<u64>(), 200, "what came after it began is not in its range");
    assert!(chains.iter().all(|chain| chain.outcomes.iter().all(|outcome| outcome == "r")));
    until("the consumer", async || {
        let wallet = plain(&deployment.scan("wallet_inventory").await[0]);
        (wallet["wallet_status"] == "closed").then_some(())
    })
    .await;
    consumer.terminate().await;
    assert_eq!(consumer.ended().await.0, Some(0));
    assert_eq!(deployment.scan("wallet_records").await.len(), 201);
    crate::tampering::assert_sound(&deployment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_replay_is_refused_before_anything_is_read() {
    let deployment = Deployment::start("replay-wrong", "wallets", 2).await;
    deployment.publish(&history()).await;
    let told = replay(&deployment, &["--run", "one", "--topic", "--partition", "0", "--to", "3"], &[]).await;
    assert_eq!((told.code, told.count("consumed")), (Some(0), 3), "{}", told.stderr);
    let before = deployment.snapshot().await;
    for (args, hint) in [
        (&["--from", "2"][..], "exactly one --partition"),
        (&["--partition", "7"], "has the partitions [0, 1]"),
        (&["--partition", "0", "--from", "9"], "holds offsets from 0 on, below 6"),
        (&["--partition", "0", "--from", "4", "--to", "2"], "--to lies before --from"),
        (&["--partition", "1"], "nothing stands in this range"),
        (&["--run", "a/b", "--topic"], "1 to 64 of"),
        (&["--run", "unknown"], "no replay unknown was begun"),
        (&["--run", "one", "--effects", "all"], "begun with another --effects"),
        (&["--rate", "0"], "a number from 1 on"),
        (&["--from", "yesterday"], "give earliest, latest"),
    ] {
        let wrong = replay(&deployment, args, &[]).await;
        assert_eq!(wrong.code, Some(2), "{args:?}: {}", wrong.stderr);
        assert!(wrong.stderr.contains(hint), "{args:?}: {}", wrong.stderr);
    }
    assert_eq!(deployment.snapshot().await, before);
}

async fn output(deployment: &Deployment, args: &[&str]) -> (Option<i32>, String, String) {
    let output = deployment.command(args).output();
    let output = tokio::time::timeout(RUN_MAX, output).await.expect("ends in time").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What was archived, in whatever form, brings everything back into empty tables, under the first origins; a damaged line is a dead
/// letter with all of its bytes, and the rest goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_brings_everything_back() {
    let deployment = Deployment::start("archive", "wallets", 1).await;
    let mut events = history();
    events[3].headers = vec![("empty".to_owned(), None), ("odd".to_owned(), Some(vec![0xff, 0]))];
    events[3].key = Some(vec![0xfe]);
    deployment.publish(&events).await;
    assert_eq!(deployment.run_until_idle().await.code, Some(0));
    let before = state(&deployment).await;
    let topic = deployment.topic("wallet-events");
    for (how, suffix) in [("none", "ndjson"), ("gzip", "ndjson.gz"), ("zstd", "ndjson.zst")] {
        let out = deployment.dir.join(how);
        let args = ["archive", "--topic", &topic, "--compress", how, "--out", out.to_str().unwrap()];
        let (code, stdout, stderr) = output(&deployment, &args).await;
        assert_eq!(code, Some(0), "{stderr}");
        let file = out.join(format!("{topic}-0-0-5.{suffix}"));
        assert_eq!(stdout, format!("{} 6 events\n", file.display()));
        assert_eq!(output(&deployment, &args).await.0, Some(2), "nothing is written over");

        delete_all(&deployment, "wallet_records", &["record_id"]).await;
        delete_all(&deployment, "wallet_inventory", &["wallet_id"]).await;
        delete_all(&deployment, "user_wallet_mapping", &["user_id", "wallet_id"]).await;
        let args = ["replay", "--archive", file.to_str().unwrap(), "--summary", "json"];
        let (code, stdout, stderr) = output(&deployment, &args).await;
        let summary: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        let counts = (&summary["recorded"], &summary["dead_lettered"]["undecodable"]);
        assert_eq!((code, counts), (Some(0), (&json!(5), &json!(1))), "{stderr}");
        let clocks = ["recorded_at", "record_digest", "created_at", "updated_at"];
        let without = |tables: &BTreeMap<String, Vec<Value>>| {
            let mut tables = tables.clone();
            for item in tables.values_mut().flatten() {
                clocks.iter().for_each(|clock| drop(item.as_object_mut().unwrap().remove(*clock)));
            }
            tables.values_mut().for_each(|items| items.sort_by_key(Value::to_string));
            tables
        };
        assert_eq!(without(&state(&deployment).await), without(&before), "{how}");
    }

    let whole = deployment.dir.join(format!("none/{topic}-0-0-5.ndjson"));
    let text = std::fs::read_to_string(&whole).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let damaged = &lines[1][..lines[1].len() - 9];
    lines[1] = damaged;
    let file = deployment.dir.join("damaged.ndjson");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let letters = deployment.read_topic(&deployment.dead_letters).len();
    let args = ["replay", "--archive", file.to_str().unwrap(), "--summary", "json", "--run", "damaged"];
    let (code, stdout, stderr) = output(&deployment, &args).await;
    let summary: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((code, &summary["consumed"], &summary["repeated"]), (Some(0), &json!(6), &json!(4)), "{stderr}");
    let after = deployment.read_topic(&deployment.dead_letters);
    assert_eq!(after.len(), letters + 2);
    let letter = after.iter().find(|letter| letter.payload() == Some(damaged.as_bytes())).expect("the whole line");
    assert_eq!(header(letter, "recordkeeper-origin-topic"), Some("damaged.ndjson"));
    assert_eq!(header(letter, "recordkeeper-origin-offset"), Some("1"));

    // Whatever became of the topic meanwhile.
    delete_all(&deployment, "wallet_records", &["record_id"]).await;
    crate::services::kafka().await.delete_topic(&topic).await;
    let args = ["replay", "--archive", whole.to_str().unwrap(), "--summary", "json"];
    let (code, stdout, stderr) = output(&deployment, &args).await;
    let summary: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((code, &summary["recorded"]), (Some(0), &json!(5)), "{stderr}");

    let packed = std::fs::read(deployment.dir.join(format!("gzip/{topic}-0-0-5.ndjson.gz"))).unwrap();
    let cut = deployment.dir.join("cut.ndjson.gz");
    std::fs::write(&cut, &packed[..packed.len() - 20]).unwrap();
    let (cut, whole) = (cut.to_str().unwrap(), whole.to_str().unwrap());
    for (args, hint) in [
        (&["--archive", cut][..], "cut.ndjson.gz: after "),
        (&["--archive", "/nonexistent"], "/nonexistent: "),
        (&["--archive", "/dev/zero"], "not a regular file"),
        (&["--archive", whole, "--archive", whole], "is given twice"),
        (&["--archive", whole, "--topic", &topic], "cannot be used with"),
        (&["--archive", whole, "--run", "damaged"], "the files are not those"),
    ] {
        let (code, _, stderr) = output(&deployment, &[&["replay"], args].concat()).await;
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(hint), "{args:?}: {stderr}");
    }
}

/// What a replay would do is said, and nothing is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_diff_says_what_a_replay_would_do_and_writes_nothing() {
    let deployment = Deployment::start("diff", "wallets", 1).await;
    let mut events = history();
    events.push(events[3].clone());
    deployment.publish(&events).await;
    assert_eq!(deployment.run_until_idle().await.code, Some(0));
    let records = deployment.scan("wallet_records").await;
    let grant = records.iter().find(|record| plain(record)["event_id"] == "grant").unwrap();
    let client = deployment.dynamodb_client().await;
    let table = format!("{}-wallet_records", deployment.name);
    client.delete_item().table_name(&table).key("record_id", grant["record_id"].clone()).send().await.unwrap();
    delete_all(&deployment, "user_wallet_mapping", &["user_id", "wallet_id"]).await;
    let file = deployment.dir.join("pipelines/wallets.yaml");
    let pipeline = std::fs::read_to_string(&file).unwrap();
    let changed = pipeline.replace("type: wallet.requested\n        fields:", "type: wallet.wanted\n        fields:");
    assert_ne!(changed, pipeline);
    std::fs::write(&file, changed).unwrap();
    let other = json!({"wallet_id": WALLET, "wallet_status": "active", "version": 9});
    deployment.publish(&[event("3", "wallet.status_changed", other)]).await;
    let before = deployment.snapshot().await;
    let messages = || [&deployment.requests, &deployment.dead_letters].map(|topic| deployment.read_topic(topic).len());
    let sent = messages();

    let topic = deployment.topic("wallet-events");
    let args = ["replay", "--topic", &topic, "--diff", "--effects", "all", "--summary", "json"];
    let (code, stdout, stderr) = output(&deployment, &args).await;
    assert_eq!(code, Some(0), "{stderr}");
    let found: Value = serde_json::from_str(stdout.trim()).unwrap();
    for (what, count) in [
        ("events", 8),
        ("recorded", 1),
        ("present", 3),
        ("remapped", 1),
        ("duplicate", 1),
        ("conflict", 1),
        ("states", 2),
        ("stale", 2),
        ("ties", 0),
        ("requests", 1),
    ] {
        assert_eq!(found[what], count, "{what} in {found}");
    }
    assert_eq!(found["dead_lettered"]["undecodable"], 1);
    assert_eq!((deployment.snapshot().await, messages()), (before, sent));
    let (code, stdout, _) = output(&deployment, &["replay", "--topic", &topic, "--diff"]).await;
    assert!(code == Some(0) && stdout.contains("would be recorded"), "{stdout}");
}
