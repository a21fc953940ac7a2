//! A topic whose log is another one than the group read before: noticed, and never mixed with the earlier one.

use crate::deployment::{Deployment, text};
use crate::reset::transactions;
use crate::running::{Running, until};
use crate::services;
use crate::tampering::assert_sound;

/// Deletes the topic and makes another one of its name.
async fn make_anew(deployment: &Deployment) {
    let (kafka, topic) = (services::kafka().await, deployment.topic("transaction-events"));
    kafka.delete_topic(&topic).await;
    until("the topic made anew", async || kafka.try_create_topic(&topic, 1).await.then_some(())).await;
}

/// Of each chain on the topic: the log that it speaks of (topic id and topic epoch), and how many entries it has.
async fn chains(deployment: &Deployment) -> Vec<(String, usize)> {
    let mut chains = std::collections::BTreeMap::new();
    for item in deployment.scan("ledger").await {
        let key: Vec<&str> = text(&item, "ledger_id").split('|').collect();
        if item.contains_key("outcomes") && key[2].ends_with("transaction-events") {
            *chains.entry(key[3..5].join("|")).or_default() += 1;
        }
    }
    chains.into_iter().collect()
}

/// The logs that the records' events were first read from, and how many of each.
async fn logs(deployment: &Deployment) -> Vec<(String, usize)> {
    let mut logs = std::collections::BTreeMap::new();
    for record in deployment.scan("wallet_records").await {
        let origin: Vec<&str> = text(&record, "origin").split('|').collect();
        *logs.entry(origin[2..4].join("|")).or_default() += 1;
    }
    logs.into_iter().collect()
}

/// The new log has more than the old one: the group's checkpoint points into its middle, and nothing of it may be left out.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_is_read_from_its_beginning_under_a_ledger_of_its_own() {
    let deployment = Deployment::start("anew", "wallets", 1).await;
    deployment.publish(&transactions(0..20)).await;
    let first = deployment.run_until_idle().await;
    assert_eq!((first.code, first.count("recorded")), (Some(0), 20), "{}", first.stderr);
    let (old_chains, old_logs) = (chains(&deployment).await, logs(&deployment).await);
    assert_eq!((old_chains.len(), old_logs.len()), (1, 1));

    make_anew(&deployment).await;
    // Five of them stand already.
    deployment.publish(&transactions(15..60)).await;
    let second = deployment.run_until_idle().await;
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    let counts = ["consumed", "recorded", "duplicate"].map(|count| second.count(count));
    assert_eq!(counts, [45, 40, 5], "{}", second.stderr);
    assert_eq!(second.stderr.matches("\"alert\":\"topic_recreated\"").count(), 1, "{}", second.stderr);
    assert!(!second.stderr.contains("\"alert\":\"ignored_reset\""), "{}", second.stderr);
    let (chains, logs) = (chains(&deployment).await, logs(&deployment).await);
    assert_eq!((chains.len(), logs.len()), (2, 2));
    assert!(chains.contains(&old_chains[0]) && logs.contains(&old_logs[0]), "the earlier ones are as they were");
    assert_eq!(deployment.committed("transaction-events", 1)[&0], 45);
    assert_sound(&deployment).await;

    let third = deployment.run_until_idle().await;
    assert_eq!((third.code, third.count("consumed")), (Some(0), 0), "{}", third.stderr);
    assert!(!third.stderr.contains("topic_recreated"), "said once: {}", third.stderr);
}

/// The same while the group is at work.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_under_a_running_group_is_read_from_its_beginning() {
    let deployment = Deployment::start("anew-running", "wallets", 1).await;
    let fast = [("RECORDKEEPER_KAFKA_OPTIONS", "topic.metadata.refresh.interval.ms=1000")];
    let consumer = Running::start(&deployment, "run.log", &["run"], &fast);
    deployment.publish(&transactions(0..20)).await;
    until("the first log", async || (deployment.scan("wallet_records").await.len() == 20).then_some(())).await;
    // It must not learn of the new log by an offset that is out of its range.
    consumer.signal("STOP").await;
    make_anew(&deployment).await;
    deployment.publish(&transactions(20..70)).await;
    consumer.signal("CONT").await;
    until("the second log", async || (deployment.scan("wallet_records").await.len() == 70).then_some(())).await;
    consumer.line_with("topic_recreated").await;
    consumer.terminate().await;
    assert_eq!(consumer.ended().await.0, Some(0));
    assert_eq!(chains(&deployment).await.len(), 2);
    let mut of_each: Vec<usize> = logs(&deployment).await.into_iter().map(|(_, count)| count).collect();
    of_each.sort_unstable();
    assert_eq!(of_each, [20, 50], "each record names the log that its event is in");
    assert_sound(&deployment).await;
}

/// Where no topic id tells the logs apart, the operator's topic epoch does.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_epoch_makes_another_log_of_a_topic() {
    let deployment = Deployment::start("epoch", "wallets", 1).await;
    deployment.publish(&transactions(0..20)).await;
    assert_eq!(deployment.run_until_idle().await.count("recorded"), 20);
    let topic = deployment.topic("transaction-events");
    let file = deployment.dir.join("pipelines/wallets.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let begun =
        text.replacen("    start: earliest\n", &format!("    start: earliest\n    topic_epochs: {{{topic}: 1}}\n"), 1);
    assert_ne!(begun, text);
    std::fs::write(&file, begun).unwrap();
    let run = deployment.run_until_idle().await;
    assert_eq!((run.code, run.count("duplicate")), (Some(0), 20), "{}", run.stderr);
    assert!(run.stderr.contains("\"alert\":\"topic_recreated\""), "{}", run.stderr);
    assert!(!run.stderr.contains("ignored_reset"), "the checkpoint of the earlier log means nothing: {}", run.stderr);
    let chains = chains(&deployment).await;
    assert_eq!(chains.len(), 2);
    assert!(chains[0].0.ends_with("|0") && chains[1].0.ends_with("|1"), "{chains:?}");
    assert!(logs(&deployment).await.iter().all(|(log, _)| log.ends_with("|0")), "first read from the earlier one");
    assert_sound(&deployment).await;
}
