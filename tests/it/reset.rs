//! `reset`: a group is moved, forward and back, with a reason, on record.

use std::collections::{BTreeMap, BTreeSet};

use crate::deployment::{Deployment, Event, RUN_MAX, text};
use crate::ledger;
use crate::running::{Running, attested};

struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn reset(deployment: &Deployment, to: &str, further: &[&str]) -> Answer {
    let topic = deployment.topic("transaction-events");
    let args = ["reset", "--topic", &topic, "--to", to, "--reason", "a publisher went mad"];
    let output = deployment.command(&[&args[..], further].concat()).output();
    let output = tokio::time::timeout(RUN_MAX, output).await.expect("ends in time").unwrap();
    Answer {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn transactions(range: std::ops::Range<u32>) -> Vec<Event> {
    let one = |n: u32| {
        let event = serde_json::json!({
            "specversion": "1.0", "id": n.to_string(), "source": "/bank", "type": "transaction.submitted",
            "data": {"transaction_id": format!("t{n}"), "wallet_id": "ext:w", "amount": "1", "asset": "x"},
        });
        Event::new("transaction-events", "ext:w", event.to_string())
    };
    range.map(one).collect()
}

async fn orders(deployment: &Deployment) -> Vec<String> {
    let items = deployment.scan("ledger").await;
    items
        .iter()
        .filter(|item| text(item, "ledger_id").starts_with("order#"))
        .map(|item| format!("{} -> {}: {}", text(item, "ledger_end"), text(item, "to"), text(item, "reason")))
        .collect()
}

fn committed(deployment: &Deployment) -> Option<i64> {
    deployment.committed("transaction-events", 1).get(&0).copied()
}

/// Back: the same events are made sure of again, and nothing changes. Forward: what is skipped is never recorded, and the ledger
/// says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_moved_back_and_forward_on_record() {
    let deployment = Deployment::start("reset", "wallets", 1).await;
    deployment.publish(&transactions(0..20)).await;
    let first = deployment.run_until_idle().await;
    assert_eq!((first.code, first.count("recorded")), (Some(0), 20), "{}", first.stderr);
    let chains = ledger::assert_holds(&deployment, 20).await;

    let shown = reset(&deployment, "5", &["--partition", "0"]).await;
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(shown.stdout.contains("makes sure of 15 positions again"), "{}", shown.stdout);
    assert!(shown.stdout.contains("nothing was changed"), "{}", shown.stdout);
    assert_eq!((committed(&deployment), orders(&deployment).await.len()), (Some(20), 0), "only shown");

    let back = reset(&deployment, "5", &["--partition", "0", "--execute"]).await;
    assert_eq!(back.code, Some(0), "{}{}", back.stdout, back.stderr);
    assert_eq!(committed(&deployment), Some(5));
    let again = deployment.run_until_idle().await;
    assert_eq!((again.code, again.count("consumed"), again.count("repeated")), (Some(0), 15, 15), "{}", again.stderr);
    let after = ledger::assert_holds(&deployment, 20).await;
    assert_eq!(after[0].outcomes, chains[0].outcomes);
    assert_eq!(committed(&deployment), Some(20));

    deployment.publish(&transactions(20..27)).await;
    let forward = reset(&deployment, "latest", &["--execute"]).await;
    assert_eq!(forward.code, Some(0), "{}{}", forward.stdout, forward.stderr);
    assert!(forward.stdout.contains("skips 7 positions"), "{}", forward.stdout);
    deployment.publish(&transactions(27..30)).await;
    let later = deployment.run_until_idle().await;
    assert_eq!((later.code, later.count("consumed"), later.count("recorded")), (Some(0), 3, 3), "{}", later.stderr);
    let chain = &ledger::assert_holds(&deployment, 30).await[0];
    assert_eq!(chain.outcomes[19..28], ["r", "s", "s", "s", "s", "s", "s", "s", "r"]);
    assert_eq!(deployment.scan("wallet_records").await.len(), 23);
    let at = |offset: u64| format!("1{offset:020}");
    let mut expected = vec![
        format!("{} -> {}: a publisher went mad", at(19), at(4)),
        format!("{} -> {}: a publisher went mad", at(19), at(26)),
    ];
    let mut found = orders(&deployment).await;
    expected.sort();
    found.sort();
    assert_eq!(found, expected);

    let nothing = reset(&deployment, "latest", &["--execute"]).await;
    assert!(nothing.stdout.contains("nothing to do"), "{}", nothing.stdout);
    assert_eq!(orders(&deployment).await.len(), 2, "what changes nothing is no order");
    let by_time = reset(&deployment, "2020-01-01T00:00:00Z", &[]).await;
    assert!(by_time.stdout.contains("makes sure of 30 positions again"), "{}{}", by_time.stdout, by_time.stderr);
    crate::tampering::assert_sound(&deployment).await;
}

/// A move that died between two partitions: an instance that starts then leaves alone what is on record as skipped, and the same
/// order again does the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_died_half_way_is_finished_by_the_same_order() {
    let deployment = Deployment::start("reset-dies", "wallets", 2).await;
    let spread = |(n, event)| Event { partition: Some(n % 2), ..event };
    let events = |range| (0..).zip(transactions(range)).map(spread).collect::<Vec<_>>();
    deployment.publish(&events(0..20)).await;
    assert_eq!(deployment.run_until_idle().await.count("recorded"), 20);
    deployment.publish(&events(20..34)).await;
    let topic = deployment.topic("transaction-events");
    let args = ["reset", "--topic", &topic, "--to", "latest", "--reason", "a publisher went mad", "--execute"];
    let mut command = deployment.command(&args);
    command.env("RECORDKEEPER_FAILPOINT", "skipped:1");
    let killed = tokio::time::timeout(RUN_MAX, command.output()).await.expect("ends in time").unwrap();
    assert_eq!(killed.status.code(), None, "{killed:?}");
    assert_eq!(deployment.committed("transaction-events", 2), BTreeMap::from([(0, 10), (1, 10)]));

    let run = deployment.run_until_idle().await;
    assert_eq!((run.code, run.count("consumed"), run.count("recorded")), (Some(0), 14, 7), "{}", run.stderr);
    crate::tampering::assert_sound(&deployment).await;

    deployment.publish(&events(34..40)).await;
    let again = reset(&deployment, "latest", &["--execute"]).await;
    assert_eq!(again.code, Some(0), "{}{}", again.stdout, again.stderr);
    assert_eq!(deployment.run_until_idle().await.count("consumed"), 0);
    let chains = ledger::assert_holds(&deployment, 40).await;
    let skipped = chains.iter().map(|chain| chain.outcomes.iter().filter(|outcome| *outcome == "s").count());
    assert_eq!(skipped.collect::<BTreeSet<_>>(), BTreeSet::from([3, 10]));
    assert_eq!((deployment.scan("wallet_records").await.len(), orders(&deployment).await.len()), (27, 3));
    crate::tampering::assert_sound(&deployment).await;
}

/// While somebody reads, nothing is moved and nothing is written; once all are gone, it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_at_work_is_not_moved() {
    for protocol in ["classic", "consumer"] {
        let deployment = Deployment::start("reset-busy", "wallets", 1).await;
        let file = deployment.dir.join("pipelines/wallets.yaml");
        let yaml = std::fs::read_to_string(&file).unwrap();
        let changed = yaml.replace("    start: earliest", &format!("    start: earliest\n    protocol: {protocol}"));
        assert_ne!(changed, yaml);
        std::fs::write(&file, changed).unwrap();
        deployment.publish(&transactions(0..5)).await;
        let run = Running::start(&deployment, "run.log", &["run"], &[]);
        let consumed = async {
            attested(&deployment).await;
            while committed(&deployment) != Some(5) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(RUN_MAX, consumed).await.expect("consumes");
        let busy = reset(&deployment, "earliest", &["--execute"]).await;
        assert_eq!(busy.code, Some(1), "{protocol}: {}", busy.stdout);
        assert!(busy.stderr.contains("the group has members"), "{protocol}: {}", busy.stderr);
        assert_eq!((committed(&deployment), orders(&deployment).await.len()), (Some(5), 0));
        run.terminate().await;
        assert_eq!(run.ended().await.0, Some(0));
        let idle = reset(&deployment, "earliest", &["--execute"]).await;
        assert_eq!(idle.code, Some(0), "{protocol}: {}{}", idle.stdout, idle.stderr);
        assert_eq!((committed(&deployment), orders(&deployment).await.len()), (Some(0), 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_reset_is_refused_before_anything_is_written() {
    let deployment = Deployment::start("reset-wrong", "wallets", 1).await;
    let unbegun = reset(&deployment, "latest", &["--execute"]).await;
    assert_eq!(unbegun.code, Some(2), "{}", unbegun.stdout);
    assert!(unbegun.stderr.contains("has not begun"), "{}", unbegun.stderr);
    deployment.publish(&transactions(0..5)).await;
    assert_eq!(deployment.run_until_idle().await.code, Some(0));
    for (to, further, hint) in [
        ("7", &["--partition", "0", "--execute"][..], "the log ends before offset 5"),
        ("3", &["--execute"], "exactly one --partition"),
        ("latest", &["--partition", "4", "--execute"], "has the partitions [0]"),
        ("soon", &[], "give earliest, latest"),
        ("latest", &["--partition", "0", "--partition", "0", "--execute"], "0 is given twice"),
    ] {
        let wrong = reset(&deployment, to, further).await;
        assert_eq!(wrong.code, Some(2), "{to}: {}", wrong.stdout);
        assert!(wrong.stderr.contains(hint), "{to}: {}", wrong.stderr);
    }
    let topic = deployment.topic("transaction-events");
    for (topic, reason, hint) in
        [("other", "r", "no pipeline reads topic other"), (topic.as_str(), " ", "--reason: say why")]
    {
        let mut wrong = deployment.command(&["reset", "--topic", topic, "--to", "latest", "--reason", reason]);
        let output = wrong.output().await.unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(hint), "{output:?}");
    }
    assert_eq!((committed(&deployment), orders(&deployment).await.len()), (Some(5), 0));
}
