//! `redrive`: dead letters are tried again under a ledger of their own, shown, corrected and dismissed.

use std::collections::BTreeSet;

use rdkafka::Message as _;
use rdkafka::message::{Headers as _, OwnedMessage};
use serde_json::{Value, json};

use crate::deployment::{Deployment, Event, RUN_MAX, Run, header, plain, run_of, text};
use crate::ledger;
use crate::running::{Running, until};
use crate::spine::events_or;

const WALLET: &str = "evm:1:0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";
/// Most of what these tests publish is refused.
const NO_LIMIT: [(&str, &str); 1] = [("RECORDKEEPER_ENGINE_POISON_SHARE_MAX", "off")];
const SCHEMA: &str = "schemas/native/wallet.status_changed.json";

fn event(id: &str, kind: &str, data: Value) -> Event {
    let value = json!({"specversion": "1.0", "id": id, "source": "/redrive", "type": kind, "data": data});
    Event::new("wallet-events", "k", value.to_string())
}

fn status(version: u64) -> Event {
    let data = json!({"wallet_id": WALLET, "wallet_status": "active", "version": version});
    event(&version.to_string(), "wallet.status_changed", data)
}

/// What the command printed, and how it ended.
async fn redrive(deployment: &Deployment, args: &[&str], env: &[(&str, &str)]) -> (Run, String) {
    let mut command = deployment.command(&[&["redrive"], args].concat());
    command.envs(env.iter().copied());
    let output = tokio::time::timeout(RUN_MAX, command.output()).await.expect("ends in time").unwrap();
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    (run_of(output), stdout)
}

async fn execute(deployment: &Deployment, args: &[&str]) -> Run {
    let (run, stdout) = redrive(deployment, &[&["--execute", "--summary", "json"], args].concat(), &[]).await;
    assert_eq!(run.code, Some(0), "{args:?}: {stdout}{}", run.stderr);
    run
}

async fn listed(deployment: &Deployment, args: &[&str]) -> Vec<Value> {
    let (run, stdout) = redrive(deployment, &[&["list", "--json"], args].concat(), &[]).await;
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Makes the schema of status changes ask for what no publisher sends; gives what it was.
fn break_schema(deployment: &Deployment) -> String {
    let file = deployment.dir.join(SCHEMA);
    let sound = std::fs::read_to_string(&file).unwrap();
    let mut schema: Value = serde_json::from_str(&sound).unwrap();
    schema["required"] = json!(["what_nobody_sends"]);
    std::fs::write(&file, schema.to_string()).unwrap();
    sound
}

fn mend_schema(deployment: &Deployment, sound: &str) {
    std::fs::write(deployment.dir.join(SCHEMA), sound).unwrap();
}

/// After the schema is mended all that it refused is recorded, from where it was read first; nothing else is tried, the group's
/// ledger and place stay, and no second redrive finds anything.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_broken_schema_refused_is_recorded_once_it_is_mended() {
    let deployment = Deployment::start("redrive", "wallets", 1).await;
    let sound = break_schema(&deployment);
    let mut events: Vec<Event> = (1..=30).map(status).collect();
    events.insert(10, Event::new("wallet-events", "k", "no event"));
    deployment.publish(&events).await;
    let run = deployment.run_with(&NO_LIMIT).await;
    assert_eq!((run.code, run.dead("schema"), run.dead("undecodable")), (Some(0), 30, 1), "{}", run.stderr);
    let live = ledger::chains(&deployment).await;
    let letters = listed(&deployment, &["--reason", "schema"]).await;
    assert_eq!(letters.len(), 30);
    assert!(letters.iter().all(|letter| letter["attempts"] == 1 && letter["route"] == "wallet-status-changed"));
    assert_eq!(listed(&deployment, &["--reason", "schema", "--count", "7"]).await.len(), 7);
    assert_eq!(listed(&deployment, &["--key", "other"]).await.len(), 0);
    assert_eq!(listed(&deployment, &["--until", "2020-01-01T00:00:00Z"]).await.len(), 0);

    mend_schema(&deployment, &sound);
    let (dry, stdout) = redrive(&deployment, &["--reason", "schema"], &[]).await;
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    assert!(stdout.contains("30 dead letters") && stdout.contains("--execute does it"), "{stdout}");
    assert_eq!(deployment.scan("wallet_records").await.len(), 0, "only shown");

    let done = execute(&deployment, &["--reason", "schema", "--run", "mended"]).await;
    done.assert_sums();
    assert_eq!((done.count("recorded"), done.count("repeated")), (30, 0), "{}", done.summary);
    let records = deployment.scan("wallet_records").await;
    let origins: BTreeSet<String> = records.iter().map(|record| text(record, "origin").to_owned()).collect();
    let expected: BTreeSet<String> =
        letters.iter().map(|letter| letter["origin"].as_str().unwrap().to_owned()).collect();
    assert_eq!((records.len(), origins), (30, expected));
    let wallet = plain(&deployment.scan("wallet_inventory").await[0]);
    assert_eq!(wallet["wallet_status"], "active");
    assert!(wallet["status_version"].as_str().unwrap().trim_start_matches('0').starts_with("30"), "{wallet}");

    let after = ledger::chains(&deployment).await;
    assert_eq!(after[0].outcomes, live[0].outcomes);
    assert_eq!(deployment.committed("wallet-events", 1)[&0], 31);
    let group = format!("{}/redrive/wallets/mended", deployment.group());
    let mut filled: Vec<u64> = deployment
        .scan("ledger")
        .await
        .iter()
        .filter(|item| text(item, "ledger_id").starts_with(&format!("{group}|")))
        .flat_map(|item| plain(item)["fills"].as_object().cloned().unwrap_or_default().into_values())
        .flat_map(|offsets| offsets.as_str().unwrap().split(',').map(str::to_owned).collect::<Vec<_>>())
        .flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((&range, &range));
            first.parse::<u64>().unwrap()..=last.parse().unwrap()
        })
        .collect();
    filled.sort_unstable();
    assert!(
        filled.into_iter().eq((0..=30).filter(|offset| *offset != 10)),
        "the ledger says whose letters were filled"
    );

    assert!(listed(&deployment, &["--reason", "schema"]).await.is_empty());
    let (again, stdout) = redrive(&deployment, &["--reason", "schema", "--execute"], &[]).await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(stdout.contains("nothing to redrive"), "{stdout}");
    assert_eq!(deployment.read_topic(&deployment.dead_letters).len(), 31);
    crate::tampering::assert_sound(&deployment).await;
}

fn headers(letter: &OwnedMessage) -> Vec<(String, Vec<u8>)> {
    let headers = letter.headers().unwrap();
    headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect()
}

/// c-23: the same poison redriven again and again: its value and its origin stay, one attempt count grows, and at the cap it stays
/// where it is, and is reported.
#[tokio::test(flavor = "multi_thread")]
async fn a_poison_event_that_is_redriven_again_and_again_stays_what_it_is() {
    let deployment = Deployment::start("c23", "wallets", 1).await;
    let mut poison = Event::new("wallet-events", "k", "\u{feff}no event");
    poison.headers = vec![("publisher".into(), Some(b"bank".to_vec())), ("empty".into(), None)];
    deployment.publish(&[status(1), poison]).await;
    assert_eq!(deployment.run_with(&NO_LIMIT).await.code, Some(0));
    for attempt in 2..=4 {
        let run = execute(&deployment, &["--attempts-max", "4"]).await;
        assert_eq!(run.dead("undecodable"), 1, "{}", run.summary);
        assert_eq!(deployment.read_topic(&deployment.dead_letters).len(), attempt);
    }
    for _ in 0..2 {
        let (capped, stdout) = redrive(&deployment, &["--attempts-max", "4", "--execute"], &[]).await;
        assert_eq!(capped.code, Some(0), "{}", capped.stderr);
        assert!(
            stdout.contains("1 of them were tried 4 times or more") && stdout.contains("nothing to redrive"),
            "{stdout}"
        );
    }
    let mut letters = deployment.read_topic(&deployment.dead_letters);
    letters.sort_by_key(|letter| header(letter, "recordkeeper-attempt").map(str::to_owned));
    let attempts: Vec<_> = letters.iter().map(|letter| header(letter, "recordkeeper-attempt").unwrap()).collect();
    assert_eq!(attempts, ["1", "2", "3", "4"]);
    let plain = |letter: &OwnedMessage| -> Vec<_> {
        headers(letter).into_iter().filter(|(name, _)| name != "recordkeeper-attempt").collect()
    };
    for letter in &letters {
        assert_eq!((letter.payload(), letter.key()), (Some("\u{feff}no event".as_bytes()), Some(b"k".as_slice())));
        assert_eq!(plain(letter), plain(&letters[0]), "one set of headers, and it does not grow");
    }
    let open = listed(&deployment, &[]).await;
    assert_eq!((open.len(), &open[0]["attempts"]), (1, &json!(4)));
}

/// Killed half-way and taken up again: every letter's event is recorded, none twice, and no letter is written anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_that_was_killed_goes_on_where_its_ledger_ends() {
    let deployment = Deployment::start("redrive-killed", "wallets", 1).await;
    let sound = break_schema(&deployment);
    let count = events_or(10_000) / 20;
    deployment.publish(&(1..=count).map(status).collect::<Vec<_>>()).await;
    let run = deployment.run_with(&NO_LIMIT).await;
    assert_eq!((run.code, run.dead("schema")), (Some(0), count), "{}", run.stderr);
    mend_schema(&deployment, &sound);
    let small = [("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "20"), ("RECORDKEEPER_ENGINE_ATTEST_INTERVAL", "10ms")];
    let args = ["--reason", "schema", "--execute", "--summary", "json", "--rate", "unlimited", "--run", "again"];
    for failpoint in ["attested:3", "applied:5", "judged:7"] {
        let dies = [&small[..], &[("RECORDKEEPER_FAILPOINT", failpoint)]].concat();
        let (killed, stdout) = redrive(&deployment, &args, &dies).await;
        assert_eq!(killed.code, None, "{failpoint}: {stdout}{}", killed.stderr);
    }
    let group = format!("{}/redrive/wallets/again", deployment.group());
    let half: u64 = ledger::chains_of(&deployment, &group).await.iter().map(|chain| chain.end).sum();
    assert!(half > 0 && half < count, "{half}");
    let (resumed, stdout) = redrive(&deployment, &args, &small).await;
    assert_eq!((resumed.code, resumed.count("consumed")), (Some(0), count - half), "{stdout}{}", resumed.stderr);
    assert_eq!(deployment.scan("wallet_records").await.len() as u64, count);
    assert_eq!(deployment.read_topic(&deployment.dead_letters).len() as u64, count);
    let chains = ledger::chains_of(&deployment, &group).await;
    let outcomes: Vec<&String> = chains.iter().flat_map(|chain| &chain.outcomes).collect();
    assert_eq!(outcomes.len() as u64, count);
    assert!(outcomes.iter().all(|outcome| *outcome == "r"));
    crate::tampering::assert_sound(&deployment).await;
    assert!(listed(&deployment, &[]).await.is_empty());
}

/// While a redrive is under way another one of the pipeline is refused, whatever it would try. Once it was told to stop, the next
/// one does the rest.
#[tokio::test(flavor = "multi_thread")]
async fn letters_are_redriven_by_one_process_at_a_time() {
    const COUNT: u64 = 60;
    let deployment = Deployment::start("redrive-lock", "wallets", 1).await;
    let sound = break_schema(&deployment);
    deployment.publish(&(1..=COUNT).map(status).collect::<Vec<_>>()).await;
    assert_eq!(deployment.run_with(&NO_LIMIT).await.dead("schema"), COUNT);
    mend_schema(&deployment, &sound);
    let small = [("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "5"), ("RECORDKEEPER_ENGINE_ATTEST_INTERVAL", "10ms")];
    let args = ["redrive", "--reason", "schema", "--execute", "--summary", "json", "--rate", "2", "--run", "first"];
    let first = Running::start(&deployment, "first.log", &args, &small);
    let group = format!("{}/redrive/wallets/first", deployment.group());
    until("at work", async || (!ledger::chains_of(&deployment, &group).await.is_empty()).then_some(())).await;
    for name in ["first", "second"] {
        let (refused, stdout) = redrive(&deployment, &["--execute", "--run", name], &[]).await;
        assert_eq!(refused.code, Some(1), "{stdout}");
        assert!(refused.stderr.contains("a redrive of pipeline wallets is under way in"), "{}", refused.stderr);
    }
    first.terminate().await;
    let (code, log) = first.ended().await;
    assert_eq!(code, Some(1), "{log}");
    let half: u64 = ledger::chains_of(&deployment, &group).await.iter().map(|chain| chain.end).sum();
    let rest = execute(&deployment, &["--run", "first"]).await;
    assert_eq!((rest.count("consumed"), rest.count("recorded")), (COUNT - half, COUNT - half), "{}", rest.summary);
    assert_eq!(deployment.scan("wallet_records").await.len() as u64, COUNT);
    assert_eq!(deployment.read_topic(&deployment.dead_letters).len() as u64, COUNT);
    crate::tampering::assert_sound(&deployment).await;
}

/// Corrected from a file, an event is recorded under its first origin, and says what it corrects; what is dismissed is on record
/// and is seen no more.
#[tokio::test(flavor = "multi_thread")]
async fn letters_are_corrected_shown_and_dismissed() {
    let deployment = Deployment::start("redrive-corrected", "wallets", 1).await;
    let wrong = |n: u32| {
        let data = json!({"wallet_id": WALLET, "wallet_status": "asleep", "version": n});
        event(&n.to_string(), "wallet.status_changed", data)
    };
    deployment.publish(&[wrong(1), wrong(2), Event::new("wallet-events", "secret-key", "no event")]).await;
    let run = deployment.run_with(&NO_LIMIT).await;
    assert_eq!((run.code, run.dead("schema"), run.dead("undecodable")), (Some(0), 2, 1), "{}", run.stderr);
    let letters = listed(&deployment, &[]).await;
    let origin = |n: usize| {
        letters
            .iter()
            .map(|letter| letter["origin"].as_str().unwrap())
            .find(|origin| origin.ends_with(&format!("|{n}")))
            .unwrap()
    };

    let value = json!({"specversion": "1.0", "id": "1", "source": "/redrive", "type": "wallet.status_changed",
        "data": {"wallet_id": WALLET, "wallet_status": "frozen", "version": 1}});
    let file = deployment.dir.join("corrected.ndjson");
    std::fs::write(&file, format!("{}\n", json!({"origin": origin(0), "value": value}))).unwrap();
    let file = file.to_str().unwrap();
    let done = execute(&deployment, &["--corrected", file]).await;
    assert_eq!((done.count("recorded"), done.dead("schema")), (1, 0), "only what the file names: {}", done.summary);
    let records = deployment.scan("wallet_records").await;
    assert_eq!((records.len(), text(&records[0], "origin")), (1, origin(0)));
    let digest = letters.iter().find(|letter| letter["origin"] == origin(0)).unwrap()["content_digest"].clone();
    assert_eq!(text(&records[0], "corrects"), digest.as_str().unwrap());
    assert_eq!(plain(&deployment.scan("wallet_inventory").await[0])["wallet_status"], "frozen");

    let (shown, stdout) = redrive(&deployment, &["show", origin(2)], &[]).await;
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(
        stdout.contains("undecodable") && !stdout.contains("no event") && !stdout.contains("secret-key"),
        "{stdout}"
    );
    let (_, stdout) = redrive(&deployment, &["show", origin(2), "--payload"], &[]).await;
    assert!(stdout.contains("no event") && stdout.contains("secret-key"), "{stdout}");

    let dismiss = ["dismiss", "--reason", "undecodable", "--why", "a test of the publisher's"];
    let (_, stdout) = redrive(&deployment, &dismiss, &[]).await;
    assert!(stdout.contains("nothing was changed"), "{stdout}");
    assert_eq!(listed(&deployment, &[]).await.len(), 2);
    let (dismissed, stdout) = redrive(&deployment, &[&dismiss[..], &["--execute"]].concat(), &[]).await;
    assert_eq!(dismissed.code, Some(0), "{stdout}{}", dismissed.stderr);
    let left = listed(&deployment, &[]).await;
    assert_eq!((left.len(), &left[0]["origin"]), (1, &json!(origin(1))));
    let ledger = deployment.scan("ledger").await;
    let record = ledger.iter().find(|item| text(item, "ledger_id").starts_with("dismissed#")).unwrap();
    assert_eq!((text(record, "from"), text(record, "reason")), (origin(2), "a test of the publisher's"));
    crate::tampering::assert_sound(&deployment).await;

    // A schema that takes what was refused: the correction stands for it, and nothing of it is applied.
    let mut schema: Value = serde_json::from_str(&break_schema(&deployment)).unwrap();
    schema.as_object_mut().unwrap().retain(|name, _| name.starts_with('$'));
    mend_schema(&deployment, &schema.to_string());
    let topic = deployment.topic("wallet-events");
    let again = ["replay", "--topic", &topic, "--partition", "0", "--to", "1", "--summary", "json"];
    for (args, count) in [(vec!["--diff"], "duplicate"), (vec![], "duplicate")] {
        let output = deployment.command(&[&again[..], &args].concat()).output();
        let replayed = run_of(tokio::time::timeout(RUN_MAX, output).await.expect("ends in time").unwrap());
        assert_eq!((replayed.code, replayed.count(count)), (Some(0), 1), "{}{}", replayed.summary, replayed.stderr);
        assert!(!replayed.stderr.contains("\"alert\""), "{}", replayed.stderr);
    }
    assert_eq!(deployment.read_topic(&deployment.dead_letters).len(), 3);
    assert_eq!(plain(&deployment.scan("wallet_inventory").await[0])["wallet_status"], "frozen");
    crate::tampering::assert_sound(&deployment).await;
}

/// Killed between record and effects, a correction is finished by the run that has its file; another run that takes the letter as it
/// came meanwhile leaves it open.
#[tokio::test(flavor = "multi_thread")]
async fn a_correction_that_was_killed_is_left_to_its_own_run() {
    let deployment = Deployment::start("redrive-left", "wallets", 1).await;
    let data = |status: &str| json!({"wallet_id": WALLET, "wallet_status": status, "version": 1});
    deployment.publish(&[event("1", "wallet.status_changed", data("asleep"))]).await;
    assert_eq!(deployment.run_with(&NO_LIMIT).await.dead("schema"), 1);
    let origin = listed(&deployment, &[]).await[0]["origin"].clone();
    let value = json!({"specversion": "1.0", "id": "1", "source": "/redrive", "type": "wallet.status_changed",
        "data": data("frozen")});
    let file = deployment.dir.join("corrected.ndjson");
    std::fs::write(&file, json!({"origin": origin, "value": value}).to_string()).unwrap();
    let file = file.to_str().unwrap();
    let corrected = ["--corrected", file, "--run", "corrected", "--execute", "--summary", "json"];
    let (killed, _) = redrive(&deployment, &corrected, &[("RECORDKEEPER_FAILPOINT", "judged:1")]).await;
    assert_eq!(killed.code, None);
    let mut schema: Value = serde_json::from_str(&break_schema(&deployment)).unwrap();
    schema.as_object_mut().unwrap().retain(|name, _| name.starts_with('$'));
    mend_schema(&deployment, &schema.to_string());

    let other = execute(&deployment, &["--run", "other", "--reason", "schema"]).await;
    assert_eq!((other.count("consumed"), other.count("skipped")), (1, 1), "{}", other.summary);
    assert_eq!((listed(&deployment, &[]).await.len(), deployment.scan("wallet_inventory").await.len()), (1, 0));
    let (finished, stdout) = redrive(&deployment, &corrected, &[]).await;
    assert_eq!((finished.code, finished.count("recorded")), (Some(0), 1), "{stdout}{}", finished.stderr);
    assert_eq!(plain(&deployment.scan("wallet_inventory").await[0])["wallet_status"], "frozen");
    assert!(listed(&deployment, &[]).await.is_empty());
    crate::tampering::assert_sound(&deployment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_redrive_is_refused_before_anything_is_read() {
    let deployment = Deployment::start("redrive-wrong", "wallets", 1).await;
    deployment.publish(&[Event::new("wallet-events", "k", "no event")]).await;
    assert_eq!(deployment.run_with(&NO_LIMIT).await.code, Some(0));
    let write = |name: &str, text: &str| {
        let file = deployment.dir.join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let unreadable = write("unreadable.ndjson", "\n{\"origin\"\n");
    let blank = write("blank.ndjson", "\n\n");
    let stranger = write("stranger.ndjson", "{\"origin\":\"c|t|i|0|0|9\",\"value\":1}\n");
    for (args, hint) in [
        (&["--reason", "bad"][..], "give one of tombstone"),
        (&["--since", "monday"], "--since"),
        (&["--corrected", "/nonexistent"], "/nonexistent: "),
        (&["--corrected", &unreadable], "unreadable.ndjson:2: "),
        (&["--corrected", &stranger], "no open dead letter has the origin"),
        (&["--corrected", &stranger, "--origin", "c|t|i|0|0|8"], "no open dead letter has the origin"),
        (&["--run", "a|b"], "1 to 64 of"),
        (&["--run", "unbegun"], "no redrive unbegun was begun"),
        (&["--corrected", "/dev/null"], "not a regular file"),
        (&["--corrected", &blank], "corrects nothing"),
        (&["show", "somewhere"], "is no origin"),
        (&["dismiss", "--why", " "], "--why: say why"),
        (&["dismiss"], "--why"),
    ] {
        let (wrong, stdout) = redrive(&deployment, args, &[]).await;
        assert_eq!(wrong.code, Some(2), "{args:?}: {stdout}{}", wrong.stderr);
        assert!(wrong.stderr.contains(hint), "{args:?}: {}", wrong.stderr);
    }
}

/// A second pipeline, on a topic of its own, in the same group.
async fn add_pipeline_in_the_same_group(deployment: &Deployment) {
    let (topic, group) = (deployment.topic("other"), deployment.group());
    crate::services::kafka().await.create_topic(&topic, 1, &[("max.message.bytes", "2000000")]).await;
    let pipeline = format!(
        "pipeline: another\nsource:\n  kafka: {{topics: [{topic}], group: {group}, start: earliest}}\nroutes:\n  - name: any\n    \
         match: {{topic: {topic}}}\n    format: json\n    schema: ../schemas/other.json\n    source: other\n    id: \"{{/id}}\"\n    \
         records: [{{name: event, type: other.event, fields: {{id: /id}}}}]\n"
    );
    std::fs::write(deployment.dir.join("pipelines/another.yaml"), pipeline).unwrap();
}

fn other_schema(deployment: &Deployment, required: &str) {
    let schema = json!({"type": "object", "required": [required]});
    std::fs::write(deployment.dir.join("schemas/other.json"), schema.to_string()).unwrap();
}

/// Pipelines that share a group keep ledgers of their own: each one's letters are tried by its own rules, whoever comes first.
#[tokio::test(flavor = "multi_thread")]
async fn pipelines_that_share_a_group_are_redriven_and_replayed_each_by_its_own_rules() {
    let deployment = Deployment::start("redrive-shared", "wallets", 1).await;
    add_pipeline_in_the_same_group(&deployment).await;
    other_schema(&deployment, "what_nobody_sends");
    let sound = break_schema(&deployment);
    let others = (0..40).map(|n| Event::new("other", "k", json!({"id": n.to_string()}).to_string()));
    deployment.publish(&(1..=30).map(status).chain(others).collect::<Vec<_>>()).await;
    let run = deployment.run_with(&NO_LIMIT).await;
    assert_eq!((run.code, run.dead("schema")), (Some(0), 70), "{}", run.stderr);
    mend_schema(&deployment, &sound);
    other_schema(&deployment, "id");
    execute(&deployment, &["--reason", "schema", "--run", "both"]).await;
    assert_eq!(deployment.scan("wallet_records").await.len(), 70);
    assert!(listed(&deployment, &[]).await.is_empty());
    assert_eq!(deployment.read_topic(&deployment.dead_letters).len(), 70, "nothing was refused again");

    let replay = async |args: &[&str], env: &[(&str, &str)]| {
        let mut command = deployment.command(&[&["replay", "--summary", "json"], args].concat());
        command.envs(env.iter().copied());
        run_of(tokio::time::timeout(RUN_MAX, command.output()).await.expect("ends in time").unwrap())
    };
    let topics = [deployment.topic("wallet-events"), deployment.topic("other")];
    let small = [("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "5"), ("RECORDKEEPER_ENGINE_ATTEST_INTERVAL", "10ms")];
    let dies = [&small[..], &[("RECORDKEEPER_FAILPOINT", "prepared:3")]].concat();
    assert_eq!(replay(&["--topic", &topics[1], "--run", "again"], &dies).await.code, None);
    let resumed = replay(&["--run", "again"], &small).await;
    assert_eq!((resumed.code, resumed.dead("unclassified")), (Some(0), 0), "{}", resumed.stderr);
    assert!(resumed.count("repeated") > 0, "{}", resumed.summary);
    assert_eq!(replay(&["--topic", &topics[0], "--run", "again"], &[]).await.count("repeated"), 30);
    let unclear = replay(&["--run", "again"], &[]).await;
    assert!(unclear.code == Some(2) && unclear.stderr.contains("name one with --pipeline"), "{}", unclear.stderr);
    crate::tampering::assert_sound(&deployment).await;
}

/// Killed in the first of two pipelines and taken up by its name alone: filters and count hold in the second one too, which it had
/// not come to, and in one that it chose nothing of.
#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_that_is_taken_up_is_the_same_in_pipelines_that_it_had_not_come_to() {
    let deployment = Deployment::start("redrive-order", "wallets", 1).await;
    add_pipeline_in_the_same_group(&deployment).await;
    other_schema(&deployment, "what_nobody_sends");
    let sound = break_schema(&deployment);
    let others = (0..20).map(|n| Event::new("other", "k", json!({"id": n.to_string()}).to_string()));
    let garbage = Event::new("wallet-events", "k", "no event");
    deployment.publish(&(1..=20).map(status).chain(others).chain([garbage]).collect::<Vec<_>>()).await;
    assert_eq!(deployment.run_with(&NO_LIMIT).await.code, Some(0));
    mend_schema(&deployment, &sound);
    other_schema(&deployment, "id");
    let small = [("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "5"), ("RECORDKEEPER_ENGINE_BATCHES_IN_FLIGHT", "1")];
    let dies = [&small[..], &[("RECORDKEEPER_FAILPOINT", "judged:2")]].concat();
    let letters = async || deployment.read_topic(&deployment.dead_letters).len();

    let first = ["--execute", "--reason", "schema", "--count", "12", "--run", "few"];
    assert_eq!(redrive(&deployment, &first, &dies).await.0.code, None);
    let resumed = execute(&deployment, &["--run", "few"]).await;
    assert_eq!((resumed.code, deployment.scan("wallet_records").await.len()), (Some(0), 12), "{}", resumed.summary);

    let second = ["--execute", "--reason", "schema", "--count", "13", "--run", "more"];
    assert_eq!(redrive(&deployment, &second, &dies).await.0.code, None);
    execute(&deployment, &["--run", "more"]).await;
    let records = deployment.scan("wallet_records").await;
    let of_others = records.iter().filter(|record| text(record, "source") == "other").count();
    assert_eq!((records.len(), of_others, letters().await), (25, 20, 41));

    let third = ["--execute", "--reason", "schema", "--run", "rest"];
    assert_eq!(redrive(&deployment, &third, &dies).await.0.code, None);
    let (other, _) = redrive(&deployment, &["--execute", "--reason", "undecodable", "--run", "rest"], &[]).await;
    assert!(other.code == Some(2) && other.stderr.contains("begun with other filters"), "{}", other.stderr);
    execute(&deployment, &["--run", "rest"]).await;
    assert_eq!((deployment.scan("wallet_records").await.len(), letters().await), (40, 41), "the garbage stays");
    let left = listed(&deployment, &[]).await;
    assert_eq!((left.len(), &left[0]["attempts"]), (1, &json!(1)));
    crate::tampering::assert_sound(&deployment).await;
}

/// A redrive with a file goes on although one of its letters was dismissed meanwhile, and tries none that a later letter stands for.
#[tokio::test(flavor = "multi_thread")]
async fn what_changed_since_a_redrive_began_is_left_alone_when_it_goes_on() {
    let deployment = Deployment::start("redrive-changed", "wallets", 1).await;
    let wrong = |n: u64| {
        let data = json!({"wallet_id": WALLET, "wallet_status": "asleep", "version": n});
        event(&n.to_string(), "wallet.status_changed", data)
    };
    deployment.publish(&(0..30).map(wrong).collect::<Vec<_>>()).await;
    assert_eq!(deployment.run_with(&NO_LIMIT).await.dead("schema"), 30);
    let letters = listed(&deployment, &[]).await;
    let line = |letter: &Value, status: &str| {
        let n = letter["origin"].as_str().unwrap().rsplit_once('|').unwrap().1;
        let value = json!({"specversion": "1.0", "id": n, "source": "/redrive", "type": "wallet.status_changed",
            "data": {"wallet_id": WALLET, "wallet_status": status, "version": n.parse::<u64>().unwrap()}});
        json!({"origin": letter["origin"], "value": value}).to_string()
    };
    let file = deployment.dir.join("corrected.ndjson");
    std::fs::write(&file, letters.iter().map(|letter| line(letter, "frozen")).collect::<Vec<_>>().join("\n")).unwrap();
    let args = ["--execute", "--summary", "json", "--run", "slow", "--corrected", file.to_str().unwrap()];
    let dies = [
        ("RECORDKEEPER_ENGINE_BATCH_MESSAGES_MAX", "1"),
        ("RECORDKEEPER_ENGINE_BATCHES_IN_FLIGHT", "1"),
        ("RECORDKEEPER_ENGINE_WORKER_THREADS", "1"),
        ("RECORDKEEPER_FAILPOINT", "prepared:4"),
    ];
    assert_eq!(redrive(&deployment, &args, &dies).await.0.code, None);
    let recorded: BTreeSet<String> =
        deployment.scan("wallet_records").await.iter().map(|record| text(record, "origin").to_owned()).collect();
    let mut open = letters.iter().filter(|letter| !recorded.contains(letter["origin"].as_str().unwrap()));
    let (dismissed, superseded) = (open.next_back().unwrap(), open.next_back().unwrap());
    let origin = |letter: &Value| letter["origin"].as_str().unwrap().to_owned();
    let (gone, _) =
        redrive(&deployment, &["dismiss", "--origin", &origin(dismissed), "--why", "a test", "--execute"], &[]).await;
    assert_eq!(gone.code, Some(0), "{}", gone.stderr);
    let other = deployment.dir.join("other.ndjson");
    std::fs::write(&other, line(superseded, "dreaming")).unwrap();
    let later = execute(&deployment, &["--corrected", other.to_str().unwrap()]).await;
    assert_eq!(later.dead("schema"), 1, "{}", later.summary);

    let (resumed, stdout) = redrive(&deployment, &args, &[]).await;
    assert_eq!(resumed.code, Some(0), "{stdout}{}", resumed.stderr);
    let recorded: BTreeSet<String> =
        deployment.scan("wallet_records").await.iter().map(|record| text(record, "origin").to_owned()).collect();
    assert_eq!(recorded.len(), 28);
    assert!(!recorded.contains(&origin(dismissed)) && !recorded.contains(&origin(superseded)));
    let left = listed(&deployment, &[]).await;
    assert_eq!((left.len(), &left[0]["origin"], &left[0]["attempts"]), (1, &superseded["origin"], &json!(2)));
    crate::tampering::assert_sound(&deployment).await;
}

/// Where the form that was corrected stands and one of its effects was refused, a further correction is still the same event.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_may_be_corrected_more_than_once() {
    let deployment = Deployment::start("redrive-twice", "wallets", 1).await;
    let form = |status: &str, reason: &str| {
        let data = json!({"wallet_id": WALLET, "wallet_status": status, "version": 1, "reason": reason});
        json!({"specversion": "1.0", "id": "1", "source": "/redrive", "type": "wallet.status_changed", "data": data})
    };
    deployment.publish(&[Event::new("wallet-events", "k", form("asleep", "none").to_string())]).await;
    assert_eq!(deployment.run_until_idle().await.dead("schema"), 1);
    let origin = listed(&deployment, &[]).await[0]["origin"].as_str().unwrap().to_owned();
    let correct = async |value: Value, store: &str| {
        let file = deployment.dir.join("corrected.ndjson");
        std::fs::write(&file, json!({"origin": origin, "value": value}).to_string()).unwrap();
        let args = ["--execute", "--summary", "json", "--corrected", file.to_str().unwrap()];
        let (run, stdout) = redrive(&deployment, &args, &[("AWS_ENDPOINT_URL_DYNAMODB", store)]).await;
        assert_eq!(run.code, Some(0), "{stdout}{}", run.stderr);
        run
    };
    let store = crate::fault_proxy::FaultProxy::start(&deployment.dynamodb).await;
    store.refuse("wallet_inventory", "unwelcome");
    let refused = correct(form("frozen", "unwelcome"), &store.endpoint).await;
    assert_eq!(refused.dead("rejected"), 1, "{}", refused.summary);
    assert_eq!(deployment.scan("wallet_records").await.len(), 1, "its record stands");
    let done = correct(form("frozen", "welcome"), &deployment.dynamodb).await;
    assert_eq!((done.count("recorded"), done.dead("conflict")), (1, 0), "{}", done.summary);
    assert_eq!(plain(&deployment.scan("wallet_inventory").await[0])["reason"], "welcome");
    assert!(listed(&deployment, &[]).await.is_empty());
    crate::tampering::assert_sound(&deployment).await;
}

/// A count is one of letters that are tried, over all pipelines, and stays what it was when a run goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_count_is_of_what_is_tried() {
    let deployment = Deployment::start("redrive-count", "wallets", 1).await;
    let poison = |n: u32| Event::new("wallet-events", "k", format!("no event {n}"));
    deployment.publish(&(0..9).map(poison).collect::<Vec<_>>()).await;
    assert_eq!(deployment.run_with(&NO_LIMIT).await.dead("undecodable"), 9);
    assert_eq!(execute(&deployment, &[]).await.dead("undecodable"), 9);
    deployment.publish(&(9..15).map(poison).collect::<Vec<_>>()).await;
    assert_eq!(deployment.run_with(&NO_LIMIT).await.dead("undecodable"), 6);
    let dies = [("RECORDKEEPER_FAILPOINT", "prepared:1")];
    let args = ["--execute", "--summary", "json", "--run", "four", "--attempts-max", "2", "--count", "4"];
    assert_eq!(redrive(&deployment, &args, &dies).await.0.code, None);
    let (resumed, stdout) = redrive(&deployment, &["--execute", "--summary", "json", "--run", "four"], &[]).await;
    assert_eq!(resumed.code, Some(0), "{stdout}{}", resumed.stderr);
    assert_eq!(resumed.dead("undecodable"), 4, "{}", resumed.summary);
    let attempts: Vec<Value> = listed(&deployment, &[]).await.iter().map(|letter| letter["attempts"].clone()).collect();
    assert_eq!(attempts.iter().filter(|attempts| **attempts == json!(1)).count(), 2, "{attempts:?}");
    assert_eq!(listed(&deployment, &["--count", "3"]).await.len(), 3);
}
