//! `verify`: what was tampered with in the tables is named, all of it and nothing else.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;

use crate::deployment::{Deployment, Event, Item, RUN_MAX, text};
use crate::manifest::read_events;
use crate::running::{Running, page, until};
use crate::spine::events_or;
use crate::tampering::{
    Tampering, assert_sound, next_offset, publish_heads, range, rewritten, s, verify, with_its_digest,
};

/// Generated events, consumed in several runs, so that each chain has several entries.
async fn consume(deployment: &Deployment, events: u64) {
    let file = deployment.dir.join("events.ndjson");
    let events = events.to_string();
    let args = ["generate", "--to", file.to_str().unwrap(), "--events", &events, "--seed", "11"];
    let output = deployment.command(&args).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events = read_events(&file);
    for part in events.chunks(events.len().div_ceil(4)) {
        deployment.publish(part).await;
        let run = deployment.run_until_idle().await;
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
}

/// Each alone, and put right again afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_altered_deleted_edited_or_forged_is_named() {
    let deployment = Deployment::start("audit", "wallets", 8).await;
    consume(&deployment, events_or(3000)).await;
    let sound = assert_sound(&deployment).await;
    assert!(sound.found.is_empty(), "{:?}", sound.found);
    let tampering = Tampering::with(deployment).await;
    let chain = tampering.longest_chain().await;
    assert!(chain.len() >= 4, "{} entries", chain.len());
    let victim_entry = &chain[1];
    let parts: Vec<&str> = text(victim_entry, "ledger_id").split('|').collect();
    let (partition, entry_range) = (parts[1..6].join("|"), range(victim_entry));
    let (from, to) = (next_offset(text(victim_entry, "from")), next_offset(text(victim_entry, "to")));
    let records = tampering.deployment.scan("wallet_records").await;
    let victim = records
        .iter()
        .find(|record| {
            let (of, offset) = text(record, "origin").rsplit_once('|').unwrap();
            of == partition && (from..to).contains(&offset.parse().unwrap())
        })
        .unwrap();
    let id = text(victim, "record_id");
    let offset = text(victim, "origin").rsplit_once('|').unwrap().1;

    let mut altered = victim.clone();
    altered.insert("type".to_owned(), s("wallet.forged"));
    tampering.put("wallet_records", altered.clone()).await;
    tampering.assert_found("an altered record", &[format!("record_altered {id}")]).await;

    tampering.put("wallet_records", with_its_digest(altered)).await;
    let differs = [format!("records_differ {entry_range}")];
    tampering.assert_found("a record altered with its digest", &differs).await;

    let mut unreadable = victim.clone();
    unreadable.remove("fields");
    tampering.put("wallet_records", unreadable).await;
    tampering.assert_found("an unreadable record", &[format!("record_unreadable {id}")]).await;

    tampering.delete("wallet_records", victim).await;
    tampering.assert_found("a deleted record", &[format!("records_missing {entry_range}")]).await;
    let missing = verify(&tampering.deployment, &[]).await;
    assert!(missing.text.contains(&format!("no record of offsets {offset}\"")), "{}", missing.text);
    tampering.put("wallet_records", victim.clone()).await;

    let mut forged = victim.clone();
    forged.insert("record_id".to_owned(), s("forged|1"));
    tampering.put("wallet_records", with_its_digest(forged.clone())).await;
    tampering.assert_found("a forged record", &["record_foreign forged|1".to_owned()]).await;
    tampering.delete("wallet_records", &forged).await;

    let mut edited = victim_entry.clone();
    edited.insert("record_count".to_owned(), AttributeValue::N("1".to_owned()));
    tampering.put("ledger", edited).await;
    tampering.assert_found("an edited entry", &[format!("entry_altered {entry_range}")]).await;
    tampering.delete("ledger", victim_entry).await;
    tampering.assert_found("a deleted entry", &[format!("gap {entry_range}")]).await;
    tampering.put("ledger", victim_entry.clone()).await;
    tampering.delete("ledger", &chain[0]).await;
    tampering.assert_found("a deleted first entry", &[format!("beginning {entry_range}")]).await;
    tampering.put("ledger", chain[0].clone()).await;

    let mended = assert_sound(&tampering.deployment).await;
    assert_eq!(mended.summary, sound.summary);
    let people = tampering.deployment.command(&["verify", "--read-units", "100000"]).output().await.unwrap();
    let shown = String::from_utf8(people.stdout).unwrap();
    assert!(shown.contains("sound: nothing is missing, altered or foreign"), "{shown}");
}

/// What fits in the tables, however it was made to: only what was published outside of them tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_tail_and_a_rewritten_chain_are_found_by_signed_heads() {
    let mut deployment = Deployment::start("audit-heads", "wallets", 8).await;
    let [heads, public] = publish_heads(&mut deployment);
    consume(&deployment, events_or(2000)).await;
    let with_heads = ["--heads", &heads, "--heads-key", &public];
    let sound = verify(&deployment, &with_heads).await;
    assert_eq!((sound.code, sound.found.len()), (Some(0), 0), "{}", sound.text);
    let published = std::fs::read_to_string(&heads).unwrap();
    let count = published.lines().filter(|line| !line.is_empty()).count();
    assert!(count >= 16, "each chain at the end of each run: {count}");
    assert_eq!(sound.summary["heads"]["read"], count);
    assert_eq!(verify(&deployment, &[]).await.summary["heads"], Value::Null);

    let tampering = Tampering::with(deployment).await;
    let chain = tampering.longest_chain().await;
    let key = text(&chain[0], "ledger_id");
    let last = chain.last().unwrap();
    tampering.delete("ledger", last).await;
    let without = verify(&tampering.deployment, &[]).await;
    assert_eq!(without.code, Some(0), "its records count as in flight: {}", without.text);
    let cut = verify(&tampering.deployment, &with_heads).await;
    assert_eq!((cut.code, cut.found), (Some(1), vec!["chain_cut null-null".to_owned()]));
    assert!(cut.text.contains(key), "{}", cut.text);
    tampering.put("ledger", last.clone()).await;

    for item in rewritten(&chain, 1) {
        tampering.put("ledger", item).await;
    }
    assert_eq!(verify(&tampering.deployment, &[]).await.code, Some(0), "everything fits");
    let rewritten = verify(&tampering.deployment, &with_heads).await;
    assert_eq!((rewritten.code, rewritten.found), (Some(1), vec!["chain_rewritten null-null".to_owned()]));
    for item in chain {
        tampering.put("ledger", item).await;
    }

    let first = published.lines().find(|line| !line.is_empty()).unwrap();
    let forged = first.replacen("\"at\":\"20", "\"at\":\"21", 1);
    std::fs::write(&heads, format!("{published}\n{forged}\n")).unwrap();
    let unsigned = verify(&tampering.deployment, &with_heads).await;
    assert_eq!((unsigned.code, unsigned.found), (Some(1), vec!["head_unsound null-null".to_owned()]));
    let wrong = verify(&tampering.deployment, &["--heads", &heads, "--heads-key", &heads]).await;
    assert_eq!(wrong.code, Some(2), "{}", wrong.text);
    assert!(wrong.text.contains("no PEM public key"), "{}", wrong.text);
    std::fs::write(&heads, "\r\n").unwrap();
    let empty = verify(&tampering.deployment, &with_heads).await;
    assert_eq!(empty.code, Some(2), "{}", empty.text);
    assert!(empty.text.contains("no head in it fits"), "{}", empty.text);
    let half = verify(&tampering.deployment, &["--heads", &heads]).await;
    assert_eq!(half.code, Some(2), "{}", half.text);
}

/// Where heads cannot be written, records are kept all the same, and somebody is told.
#[tokio::test(flavor = "multi_thread")]
async fn heads_that_cannot_be_written_are_an_alert() {
    let mut deployment = Deployment::start("audit-no-heads", "wallets", 1).await;
    let key = deployment.dir.join("heads.pem");
    let made =
        std::process::Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&key).output();
    assert!(made.unwrap().status.success());
    let folder = deployment.dir.join("a-folder");
    std::fs::create_dir(&folder).unwrap();
    deployment.env = vec![
        ("RECORDKEEPER_LEDGER_HEADS_FILE".to_owned(), folder.to_str().unwrap().to_owned()),
        ("RECORDKEEPER_LEDGER_HEADS_KEY_FILE".to_owned(), key.to_str().unwrap().to_owned()),
    ];
    deployment.publish(&[Event::new("wallet-events", "k", "no event")]).await;
    let run = deployment.run_until_idle().await;
    assert_eq!((run.code, run.count("attested")), (Some(0), 1), "{}", run.stderr);
    assert!(run.stderr.contains("\"alert\":\"heads_unpublished\""), "{}", run.stderr);
    for (variable, value, hint) in [
        ("RECORDKEEPER_LEDGER_HEADS_KEY_FILE", "", "ledger.heads_file needs ledger.heads_key_file"),
        ("RECORDKEEPER_LEDGER_HEADS_FILE", "/no/such/folder/heads", "/no/such/folder is no folder"),
        (
            "RECORDKEEPER_LEDGER_HEADS_KEY_FILE",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
            "no PEM private key",
        ),
    ] {
        let mut command = deployment.command(&["run", "--until-idle"]);
        if value.is_empty() {
            command.env_remove(variable)
        } else {
            command.env(variable, value)
        };
        let output = tokio::time::timeout(RUN_MAX, command.output()).await.expect("ends in time").unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(hint), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_not_there_end_it_with_their_name() {
    let deployment = Deployment::start("audit-none", "wallets", 1).await;
    let mut command = deployment.command(&["verify"]);
    command.env("RECORDKEEPER_TABLE_PREFIX", "no-such-");
    let output = tokio::time::timeout(RUN_MAX, command.output()).await.expect("ends in time").unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-ledger"), "{output:?}");
}

/// Held against the source, what is missing or altered has its key; where the source no longer has it, that is said.
#[tokio::test(flavor = "multi_thread")]
async fn the_source_names_missing_and_altered_records_while_it_has_their_events() {
    let deployment = Deployment::start("audit-source", "wallets", 2).await;
    deployment.publish(&transactions(0..20)).await;
    assert_eq!(deployment.run_until_idle().await.code, Some(0));
    let tampering = Tampering::with(deployment).await;
    let deployment = &tampering.deployment;
    let records = deployment.scan("wallet_records").await;
    let the = |id: &str| records.iter().find(|record| text(record, "event_id") == id).unwrap();
    tampering.delete("wallet_records", the("6")).await;
    let mut altered = the("11").clone();
    altered.insert("occurred_at".to_owned(), s("2020-01-02T03:04:05.678901Z"));
    tampering.put("wallet_records", with_its_digest(altered)).await;
    let without = verify(deployment, &[]).await;
    assert_eq!(sorted(without.found), ["records_differ 0-9", "records_missing 0-9"]);
    let with = verify(deployment, &["--source"]).await;
    assert_eq!(with.code, Some(1), "{}", with.text);
    let expected = ["record_altered /bank|11", "record_missing /bank|6", "records_differ 0-9", "records_missing 0-9"];
    assert_eq!(sorted(with.found), expected, "{}", with.text);
    assert!(with.text.contains("differs from its event at offset 5 in occurred_at"), "{}", with.text);

    let topic = deployment.topic("transaction-events");
    for partition in [0, 1] {
        crate::services::kafka().await.delete_records(&topic, partition, 5).await;
    }
    let later = verify(deployment, &["--source"]).await;
    let expected = [
        "not_compared 0-9",
        "not_compared 0-9",
        "record_altered /bank|11",
        "records_differ 0-9",
        "records_missing 0-9",
    ];
    assert_eq!(sorted(later.found), expected, "{}", later.text);
    assert!(later.text.contains("no longer holds offsets below 5"), "{}", later.text);

    let mut elsewhere = deployment.command(&["verify", "--json", "--source"]);
    elsewhere.env("RECORDKEEPER_PIPELINES", "/no/such/folder");
    let output = tokio::time::timeout(RUN_MAX, elsewhere.output()).await.expect("ends in time").unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

fn sorted(mut found: Vec<String>) -> Vec<String> {
    found.sort();
    found
}

fn transactions(range: std::ops::Range<u32>) -> Vec<Event> {
    let one = |n: u32| {
        let event = serde_json::json!({
            "specversion": "1.0", "id": n.to_string(), "source": "/bank", "type": "transaction.submitted",
            "data": {"transaction_id": format!("t{n}"), "wallet_id": "ext:w", "amount": "1", "asset": "x"},
        });
        Event { partition: Some((n % 2) as i32), ..Event::new("transaction-events", "ext:w", event.to_string()) }
    };
    range.map(one).collect()
}

struct Answer {
    code: Option<i32>,
    text: String,
}

async fn new_epoch(deployment: &Deployment, further: &[&str]) -> Answer {
    let topic = deployment.topic("transaction-events");
    let args = ["new-epoch", "--topic", &topic, "--partition", "0", "--reason", "an entry was edited"];
    let output = deployment.command(&[&args[..], further].concat()).output();
    let output = tokio::time::timeout(RUN_MAX, output).await.expect("ends in time").unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Answer { code: output.status.code(), text }
}

async fn ids(deployment: &Deployment) -> BTreeSet<u32> {
    let records = deployment.scan("wallet_records").await;
    records.iter().map(|record| text(record, "event_id").parse().unwrap()).collect()
}

/// The entries of partition 0's chain of an epoch, in order.
async fn entries(deployment: &Deployment, epoch: u32) -> Vec<Item> {
    let mut entries = deployment.scan("ledger").await;
    entries.retain(|item| {
        let key = text(item, "ledger_id");
        !key.contains('#') && key.ends_with(&format!("|0|{epoch}"))
    });
    entries.sort_by(|a, b| text(a, "from").cmp(text(b, "from")));
    entries
}

/// A partition whose chain's end was edited is left alone, with an alert, while others go on; a new epoch begins where the old
/// chain is sound, and everything above is read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_chain_is_not_extended_until_a_new_epoch_begins() {
    let deployment = Deployment::start("audit-epoch", "wallets", 2).await;
    for part in [0..10, 10..20] {
        deployment.publish(&transactions(part)).await;
        assert_eq!(deployment.run_until_idle().await.code, Some(0));
    }
    let unbegun = new_epoch(&deployment, &["--from", "11"]).await;
    assert_eq!(unbegun.code, Some(2), "{}", unbegun.text);
    assert!(unbegun.text.contains("from offset 0 up to offset 10"), "{}", unbegun.text);

    let tampering = Tampering::with(deployment).await;
    let chain = entries(&tampering.deployment, 0).await;
    let mut edited = chain.last().unwrap().clone();
    let sound = next_offset(text(&edited, "from"));
    edited.insert("writer".to_owned(), s("somebody else"));
    tampering.put("ledger", edited).await;
    let deployment = &tampering.deployment;
    deployment.publish(&transactions(20..30)).await;
    let run = Running::start(deployment, "run.log", &["run"], &[]);
    let address = run.admin().await;
    run.line_with("\"alert\":\"ledger_broken\"").await;
    let odd: BTreeSet<u32> = (0..30).filter(|n| n % 2 == 1 || *n < 20).collect();
    until("the other partition", async || (ids(deployment).await == odd).then_some(())).await;
    until("not ready", async || page(&address, "/readyz").await.contains("new-epoch").then_some(())).await;
    let busy = new_epoch(deployment, &["--execute"]).await;
    assert_eq!(busy.code, Some(1), "{}", busy.text);
    assert!(busy.text.contains("the group has members"), "{}", busy.text);
    run.terminate().await;
    run.ended().await;
    assert_eq!(ids(deployment).await, odd);
    let refused = deployment.run_until_idle().await;
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);

    let shown = new_epoch(deployment, &[]).await;
    assert_eq!(shown.code, Some(0), "{}", shown.text);
    assert!(shown.text.contains(&format!("sound up to offset {sound}")), "{}", shown.text);
    assert!(shown.text.contains("nothing was changed"), "{}", shown.text);
    assert_eq!(deployment.run_until_idle().await.code, Some(1), "only shown");
    let begun = new_epoch(deployment, &["--execute"]).await;
    assert_eq!(begun.code, Some(0), "{}", begun.text);
    let later = deployment.run_until_idle().await;
    assert_eq!(later.code, Some(0), "{}", later.stderr);
    assert!(!later.stderr.contains("\"alert\""), "{}", later.stderr);
    assert_eq!(ids(deployment).await, (0..30).collect());
    let anew = entries(deployment, 1).await;
    assert_eq!(next_offset(text(&anew[0], "from")), sound);
    assert_eq!(next_offset(text(anew.last().unwrap(), "to")), 15);
    let verdict = assert_sound(deployment).await;
    assert_eq!(verdict.found.len(), 1, "{}", verdict.text);
    assert!(verdict.found[0].starts_with("on_record"), "{}", verdict.text);
}

/// A chain that is left behind is sealed where it ends, so that an instance that comes meanwhile cannot go on in it; broken off
/// between seal and epoch, `new-epoch` does the rest when it is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_left_behind_can_grow_no_more() {
    let deployment = Deployment::start("audit-left", "wallets", 2).await;
    deployment.publish(&transactions(0..10)).await;
    assert_eq!(deployment.run_until_idle().await.code, Some(0));
    let end = text(entries(&deployment, 0).await.last().unwrap(), "to").to_owned();
    let begun = new_epoch(&deployment, &["--from", "2", "--execute"]).await;
    assert_eq!(begun.code, Some(0), "{}", begun.text);
    let seal = entries(&deployment, 0).await.pop().unwrap();
    assert!(seal.contains_key("sealed_for") && text(&seal, "from") == end, "{seal:?}");

    let tampering = Tampering::with(deployment).await;
    let deployment = &tampering.deployment;
    let ledger = deployment.scan("ledger").await;
    let epoch = ledger.iter().find(|item| text(item, "ledger_id").starts_with("epoch#")).unwrap();
    tampering.delete("ledger", epoch).await;
    let unread = deployment.run_until_idle().await;
    assert_eq!(unread.code, Some(1), "{}", unread.stderr);
    assert!(unread.stderr.contains("new-epoch` that broke off"), "{}", unread.stderr);
    let topic = deployment.topic("transaction-events");
    let moved = deployment.command(&["reset", "--topic", &topic, "--to", "latest", "--reason", "r"]).output().await;
    let moved = moved.unwrap();
    let said = String::from_utf8_lossy(&moved.stderr);
    assert!(moved.status.code() == Some(2) && said.contains("new-epoch` that broke off"), "{said}");
    let begun = new_epoch(deployment, &["--from", "2", "--execute"]).await;
    assert_eq!(begun.code, Some(0), "{}", begun.text);
    let again = deployment.run_until_idle().await;
    assert_eq!((again.code, again.count("consumed")), (Some(0), 3), "{}", again.stderr);
    assert_sound(deployment).await;
}

/// `verify --mark-broken` takes a chain out of use; a new epoch that begins below what is missing brings it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_marked_as_broken_is_read_again_from_where_a_new_epoch_begins() {
    let deployment = Deployment::start("audit-mark", "wallets", 2).await;
    deployment.publish(&transactions(0..10)).await;
    assert_eq!(deployment.run_until_idle().await.code, Some(0));
    let tampering = Tampering::with(deployment).await;
    let deployment = &tampering.deployment;
    let records = deployment.scan("wallet_records").await;
    tampering.delete("wallet_records", records.iter().find(|record| text(record, "event_id") == "4").unwrap()).await;
    let sound = deployment.run_until_idle().await;
    assert_eq!(sound.code, Some(0), "not marked yet: {}", sound.stderr);
    let marked = verify(deployment, &["--mark-broken"]).await;
    assert_eq!((marked.code, marked.found), (Some(1), vec!["records_missing 0-4".to_owned()]));
    let refused = deployment.run_until_idle().await;
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("marked as broken"), "{}", refused.stderr);
    let topic = deployment.topic("transaction-events");
    let moved = deployment.command(&["reset", "--topic", &topic, "--to", "earliest", "--reason", "r"]).output().await;
    let moved = moved.unwrap();
    assert_eq!(moved.status.code(), Some(2), "{moved:?}");

    let begun = new_epoch(deployment, &["--from", "0", "--execute"]).await;
    assert_eq!(begun.code, Some(0), "{}", begun.text);
    assert!(
        entries(deployment, 0).await.pop().unwrap().contains_key("sealed_for"),
        "who has it open extends it no more"
    );
    crate::services::redis().await.flush().await;
    let again = deployment.run_until_idle().await;
    assert_eq!((again.code, again.count("repeated"), again.count("recorded")), (Some(0), 4, 5), "{}", again.stderr);
    assert_eq!(ids(deployment).await, (0..10).collect());
    let verdict = verify(deployment, &["--mark-broken"]).await;
    assert_eq!(verdict.code, Some(0), "{}", verdict.text);
    assert_eq!(deployment.run_until_idle().await.code, Some(0), "nothing was marked");
}
