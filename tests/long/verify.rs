//! `verify` over many records.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;

use crate::deployment::{Deployment, Item, RUN_MAX, text};
use crate::supply::Supply;
use crate::tampering::{Tampering, Verdict, next_offset, publish_heads, range, rewritten, s, verdict, with_its_digest};
use crate::{events, kilobytes};

/// Runs in which the events are consumed, so that each chain has several entries.
const RUNS: u64 = 3;

/// `verify` and what it took.
async fn measured(deployment: &Deployment, what: &str, heads: &[&str]) -> Verdict {
    let child = deployment.spawn(&[&["verify", "--json"][..], heads].concat(), &[]);
    let (pid, began, mut peak) = (child.id().unwrap(), Instant::now(), 0);
    let ends = child.wait_with_output();
    tokio::pin!(ends);
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    let output = loop {
        tokio::select! {
            output = &mut ends => break output.unwrap(),
            _ = looks.tick() => peak = kilobytes(pid, "VmHWM").unwrap_or(peak),
        }
        assert!(began.elapsed() < RUN_MAX, "ends in time");
    };
    let verdict = verdict(output);
    let (seconds, summary) = (began.elapsed().as_secs_f64(), &verdict.summary);
    eprintln!(
        "verify, {what}: {seconds:.1} s, {} MB at most, {} entries, {} records",
        peak / 1024,
        summary["entries"],
        summary["records"]
    );
    verdict
}

/// Some records: the first page of the table, which is ordered by a hash.
async fn some_records(tampering: &Tampering) -> Vec<Item> {
    let table = format!("{}-wallet_records", tampering.deployment.name);
    tampering.client.scan().table_name(table).limit(1_000).send().await.unwrap().items.unwrap()
}

/// A record that this chain attests, and the entry that does.
fn attested<'a>(records: &'a [Item], chain: &'a [Item]) -> (&'a Item, &'a Item) {
    let partition = text(&chain[0], "ledger_id").split('|').collect::<Vec<_>>()[1..6].join("|");
    let of = |record: &&Item| text(record, "origin").rsplit_once('|').unwrap().0 == partition;
    let record = records.iter().find(of).expect("a record of each chain");
    let offset = text(record, "origin").rsplit_once('|').unwrap().1.parse::<u64>().unwrap();
    let entry = chain.iter().find(|entry| offset < next_offset(text(entry, "to"))).unwrap();
    (record, entry)
}

/// Each thing that is done to the tables is found, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_all_that_was_done_to_the_tables_and_nothing_else() {
    let events = events();
    let mut deployment = Deployment::start("long-verify", "wallets", 8).await;
    let [heads, key] = publish_heads(&mut deployment);
    let heads = ["--heads", &heads, "--heads-key", &key];
    // Many entries, as slower traffic makes them.
    for (name, value) in [("ATTEST_INTERVAL", "10ms"), ("BATCH_MESSAGES_MAX", "50")] {
        deployment.env.push((format!("RECORDKEEPER_ENGINE_{name}"), value.to_owned()));
    }
    let mut supply = Supply::new(events, 21);
    let began = Instant::now();
    for _ in 0..RUNS {
        supply.publish(&deployment, events.div_ceil(RUNS)).await;
        let run = deployment.run_until_idle().await;
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
    eprintln!("{events} events published and recorded in {:.0} s", began.elapsed().as_secs_f64());
    let sound = measured(&deployment, "sound", &heads).await;
    assert_eq!((sound.code, sound.found.len()), (Some(0), 0), "{}", sound.text);
    let manifest = supply.manifest();
    assert_eq!(sound.summary["records"], manifest["records"]);
    assert_eq!(sound.summary["positions"], manifest["consumed"]);

    let tampering = Tampering::with(deployment).await;
    let (chains, records) = (tampering.chains().await, some_records(&tampering).await);
    let mut chains = chains.iter().filter(|chain| chain.len() > 2);
    let mut next = || chains.next().expect("enough chains of several entries");
    let mut expected = Vec::new();

    let (record, _) = attested(&records, next());
    let mut altered = record.clone();
    altered.insert("type".to_owned(), s("wallet.forged"));
    tampering.put("wallet_records", altered).await;
    expected.push(format!("record_altered {}", text(record, "record_id")));

    let (record, entry) = attested(&records, next());
    let mut altered = record.clone();
    altered.insert("type".to_owned(), s("wallet.forged"));
    tampering.put("wallet_records", with_its_digest(altered)).await;
    expected.push(format!("records_differ {}", range(entry)));

    let (record, entry) = attested(&records, next());
    tampering.delete("wallet_records", record).await;
    expected.push(format!("records_missing {}", range(entry)));

    let entry = &next()[1];
    let mut edited = entry.clone();
    edited.insert("record_count".to_owned(), AttributeValue::N("1".to_owned()));
    tampering.put("ledger", edited).await;
    expected.push(format!("entry_altered {}", range(entry)));

    let cut = next();
    tampering.delete("ledger", cut.last().unwrap()).await;
    expected.push("chain_cut null-null".to_owned());

    let forged = next();
    for item in rewritten(forged, forged.len() - 2) {
        tampering.put("ledger", item).await;
    }
    expected.push("chain_rewritten null-null".to_owned());

    let found = measured(&tampering.deployment, "tampered with", &heads).await;
    let mut named = found.found.clone();
    named.sort();
    expected.sort();
    assert_eq!((found.code, named), (Some(1), expected), "{}", found.text);
    for (kind, chain) in [("chain_cut", cut), ("chain_rewritten", forged)] {
        let line = found.text.lines().find(|line| line.contains(kind)).unwrap();
        assert!(line.contains(text(&chain[0], "ledger_id")), "{line}");
    }
}
