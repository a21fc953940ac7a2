//! `tables`: create what is absent, describe what is there.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::Settings;
use crate::lock::{Lock, Locks, Taken};
use crate::store::dynamodb::tables::{self, Made, TableOptions};
use crate::telemetry::Metrics;
use crate::topic::kafka::topics::{TopicSpec, create_missing};

use super::{EXIT_USAGE, GlobalArgs, TablesArgs, TablesCommand, backends, check, run, show};

/// How long new tables may take until they are usable.
const DEADLINE: Duration = Duration::from_secs(300);
/// A new dead-letter topic takes the largest event that Kafka takes by default, and its headers.
const LETTER_BYTES_MAX: usize = 1_048_588 + 128 * 1024;

/// Creates or describes the tables.
pub async fn tables(global: &GlobalArgs, args: &TablesArgs) -> Result<ExitCode, anyhow::Error> {
    let loaded = match global.load([]) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let settings = &loaded.settings;
    let dynamo = backends::dynamo(settings, None, 1, None).await?;
    match args.command {
        TablesCommand::Describe => {
            let mut out = Vec::new();
            for table in tables::describe(&dynamo).await? {
                let status = table.status.as_deref().unwrap_or("missing");
                let items = table.items.map_or_else(String::new, |items| format!(", about {items} items"));
                writeln!(out, "{}: {status}{items}, key {}", table.name, table.key.join(" / "))?;
                for (index, key) in table.indexes {
                    writeln!(out, "  index {index}: {}", key.join(" / "))?;
                }
            }
            show(&out)?;
        }
        TablesCommand::Create { topics } => {
            let metrics = Metrics::new()?;
            // The tables have no identity before they are there.
            let locks = backends::locks(settings, String::new(), run::writer(), &metrics);
            let ours = match &locks {
                Ok(Some(locks)) => take_lock(locks, settings).await?,
                Ok(None) => None,
                Err(error) => without_lock(&format!("{error:#}"))?,
            };
            let options = table_options(settings);
            let report = match ours {
                None => tables::create(&dynamo, &options).await,
                Some(lock) => {
                    // Whoever has it then makes the same tables, and each step is conditional.
                    let report = tokio::select! {
                        report = tables::create(&dynamo, &options) => report,
                        holder = lock.keep() => anyhow::bail!("the tables are being created by {holder}"),
                    };
                    // One that is not answered ends by itself.
                    let _ = lock.release().await;
                    report
                }
            }?;
            for (table, made) in report.tables {
                let made = match made {
                    Made::Created => "created",
                    Made::Exists => "was there",
                };
                writeln!(std::io::stdout().lock(), "table {table}: {made}")?;
            }
            if topics {
                return create_topics(global, settings).await;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps other processes from creating the same tables; nothing where Redis does not answer: each step is conditional anyway.
async fn take_lock<'a>(locks: &'a Locks, settings: &Settings) -> anyhow::Result<Option<Lock<'a>>> {
    match locks.take(&format!("tables|{}", settings.general.table_prefix)).await {
        Taken::Ours(lock) => Ok(Some(lock)),
        Taken::Held(holder) => anyhow::bail!("the tables are being created by {holder}: wait until it is done"),
        Taken::Unknown(why) => without_lock(&format!("redis: {why}")),
    }
}

/// Says that there is no lock, and why.
fn without_lock<'a>(why: &str) -> anyhow::Result<Option<Lock<'a>>> {
    writeln!(std::io::stderr().lock(), "no lock: nothing keeps another process from creating the same tables: {why}")?;
    Ok(None)
}

/// On AWS: recovery, protection, a stream on the records, and the key that is configured. Another endpoint is a server for
/// development, which has none of the former.
fn table_options(settings: &Settings) -> TableOptions {
    let aws = settings.dynamodb.endpoint.as_deref().is_none_or(|endpoint| endpoint.contains(".amazonaws.com"));
    TableOptions {
        kms_key: settings.dynamodb.kms_key.clone(),
        point_in_time_recovery: aws,
        deletion_protection: aws,
        records_stream: aws,
        deadline: DEADLINE,
    }
}

async fn create_topics(global: &GlobalArgs, settings: &Settings) -> Result<ExitCode, anyhow::Error> {
    let Some(pipelines) = check::pipelines(global, settings) else { return Ok(ExitCode::from(EXIT_USAGE)) };
    let mut names: BTreeSet<&str> =
        pipelines.iter().flat_map(|pipeline| pipeline.topics()).map(String::as_str).collect();
    names.insert(&settings.general.requests_topic);
    let partitions = i32::try_from(settings.kafka.new_topic_partitions)?;
    let replication = i32::try_from(settings.kafka.new_topic_replication)?;
    let wanted = topic_specs(names, &settings.general.dead_letters_topic, partitions, replication);
    let created = create_missing(&backends::kafka_connection(settings), &wanted).await?;
    let mut out = std::io::stdout().lock();
    for topic in &wanted {
        let made = if created.contains(&topic.name) { "created" } else { "was there" };
        writeln!(out, "topic {}: {made}", topic.name)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The topics as they are made: a broker may be away without an acknowledged message being lost, and letters wait for a
/// person for as long as that takes.
fn topic_specs(names: BTreeSet<&str>, letters: &str, partitions: i32, replication: i32) -> Vec<TopicSpec> {
    let spec = |name: &str, further: &[(&str, String)]| {
        let in_sync = ("min.insync.replicas", (replication - 1).max(1).to_string());
        let settings = std::iter::once(&in_sync).chain(further);
        TopicSpec {
            name: name.to_owned(),
            partitions,
            replication: Some(replication),
            settings: settings.map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        }
    };
    let mut wanted: Vec<TopicSpec> = names.into_iter().map(|name| spec(name, &[])).collect();
    let of_letters = [("max.message.bytes", LETTER_BYTES_MAX.to_string()), ("retention.ms", "-1".to_owned())];
    wanted.push(spec(letters, &of_letters));
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_replica_loses_no_message_and_time_no_letter() {
        let setting = |spec: &TopicSpec, wanted: &str| {
            spec.settings.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
        };
        for (replication, in_sync) in [(1, "1"), (2, "1"), (3, "2"), (5, "4")] {
            let specs = topic_specs(BTreeSet::from(["a", "b"]), "letters", 12, replication);
            assert_eq!(specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>(), ["a", "b", "letters"]);
            for spec in &specs {
                assert_eq!(setting(spec, "min.insync.replicas").as_deref(), Some(in_sync), "{spec:?}");
                let retention = (spec.name == "letters").then_some("-1");
                assert_eq!(setting(spec, "retention.ms").as_deref(), retention, "{spec:?}");
            }
        }
    }
}
