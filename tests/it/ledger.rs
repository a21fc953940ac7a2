//! The ledger as an auditor reads it, without the product's code.

use std::collections::BTreeMap;

use crate::deployment::{Deployment, Item, text};

/// One partition's chain.
#[derive(Debug)]
pub struct Chain {
    /// The partition's key, as origins carry it.
    pub key: String,
    pub topic: String,
    pub partition: i32,
    /// The first offset above the chain.
    pub end: u64,
    /// Of each offset from zero on: the letters of its outcome.
    pub outcomes: Vec<String>,
}

/// All chains of a deployment's own group: contiguous from offset zero, and linked.
pub async fn chains(deployment: &Deployment) -> Vec<Chain> {
    chains_of(deployment, &deployment.group()).await
}

/// All chains of one group, or of a run that reads again: contiguous from offset zero, and linked. A chain that was taken over
/// and the one that goes on count as one.
pub async fn chains_of(deployment: &Deployment, group: &str) -> Vec<Chain> {
    let prefix = format!("{group}|");
    let mut entries: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for item in deployment.scan("ledger").await {
        let key = text(&item, "ledger_id").to_owned();
        if key.starts_with(&prefix) && !item.contains_key("sealed_for") {
            let (lineage, _) = key.rsplit_once('|').unwrap();
            entries.entry(lineage.to_owned()).or_default().push(item);
        }
    }
    entries.into_iter().map(|(key, entries)| chain(&key, entries)).collect()
}

fn chain(key: &str, mut entries: Vec<Item>) -> Chain {
    entries.sort_by(|a, b| text(a, "from").cmp(text(b, "from")));
    let mut at = "0".to_owned();
    let mut previous = None;
    let mut outcomes = Vec::new();
    for entry in &entries {
        assert_eq!(text(entry, "from"), at, "{key} has a hole or an overlap");
        let id = text(entry, "ledger_id");
        if let Some((of, previous)) = previous
            && of == id
        {
            assert_eq!(text(entry, "previous"), previous, "{key} is not linked");
        }
        for run in text(entry, "outcomes").split(' ') {
            let count = run.trim_start_matches(char::is_alphabetic);
            let outcome = run.strip_suffix(count).unwrap().to_owned();
            outcomes.extend(std::iter::repeat_n(outcome, count.parse().unwrap()));
        }
        at = text(entry, "to").to_owned();
        previous = Some((id, text(entry, "digest").to_owned()));
    }
    let end = at.strip_prefix('1').map_or(0, |last| last.parse::<u64>().unwrap() + 1);
    assert_eq!(outcomes.len() as u64, end, "{key}: an outcome for each position");
    // group|cluster|topic|topic id|topic epoch|partition
    let parts: Vec<&str> = key.split('|').collect();
    assert_eq!(parts.len(), 6, "{key}");
    Chain {
        key: parts[1..6].join("|"),
        topic: parts[2].to_owned(),
        partition: parts[5].parse().unwrap(),
        end,
        outcomes,
    }
}

/// The chains hold this many positions, gaps of the log aside.
pub async fn assert_holds(deployment: &Deployment, positions: u64) -> Vec<Chain> {
    let chains = chains(deployment).await;
    let held = chains.iter().flat_map(|chain| &chain.outcomes).filter(|outcome| *outcome != "h").count();
    assert_eq!(held as u64, positions, "positions in the ledger");
    chains
}
