//! Waiting until everything that a run depends on is there, and saying what to do where it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::pipeline::Pipeline;
use crate::store::dynamodb::{Dynamo, tables};
use crate::telemetry::{Condition, Dependency, Readiness};
use crate::topic::kafka::{KafkaTopic, Measured, TopicReport, describe};

use super::backends;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// A dead letter is its event, whole, and headers: the dead-letter topic takes this much more than the sources.
const LETTER_OVERHEAD_BYTES: usize = 64 * 1024;

/// Letters wait for a person, who may be away for a while.
const LETTERS_KEPT: Duration = Duration::from_secs(14 * 24 * 3600);

/// The topics to publish to.
pub struct Topics {
    /// Creation requests.
    pub requests: Arc<KafkaTopic>,
    /// Dead letters.
    pub letters: Arc<KafkaTopic>,
}

/// Looks again and again until tables and topics are there; what is missing stands in readiness and, once for each change,
/// in the log. `None` where `stop` came first.
pub async fn wait(
    settings: &Settings,
    dynamo: &Dynamo,
    pipelines: &[Arc<Pipeline>],
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Option<Topics> {
    let looking = Looking { readiness, said: Mutex::default(), warned: Mutex::default() };
    let topics = stop.run_until_cancelled(async {
        loop {
            if let Some(topics) = look(settings, dynamo, pipelines, &looking).await {
                return topics;
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    topics.await
}

/// Tells readiness what was found, and the log where it is news.
struct Looking<'a> {
    readiness: &'a Readiness,
    said: Mutex<BTreeMap<Dependency, String>>,
    warned: Mutex<BTreeSet<String>>,
}

impl Looking<'_> {
    /// At once, since the next look may take as long as a start may. True where all is well.
    fn found(&self, dependency: Dependency, problems: &[String]) -> bool {
        let what = problems.join("; ");
        let condition = if problems.is_empty() { Condition::Ready } else { Condition::NotReady(what.clone()) };
        self.readiness.set(dependency, condition);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let before = said.insert(dependency, what.clone());
        if !what.is_empty() && before.as_ref() != Some(&what) {
            tracing::warn!("not ready: {what}");
        }
        problems.is_empty()
    }

    /// What a run can go on with, and should not for long: each once in the log.
    fn doubt(&self, doubts: impl IntoIterator<Item = String>) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        for doubt in doubts {
            if !warned.contains(&doubt) {
                tracing::warn!("{doubt}");
                warned.insert(doubt);
            }
        }
    }
}

async fn look(
    settings: &Settings,
    dynamo: &Dynamo,
    pipelines: &[Arc<Pipeline>],
    looking: &Looking<'_>,
) -> Option<Topics> {
    let general = &settings.general;
    let tables = async { looking.found(Dependency::Tables, &tables::check(dynamo).await) };
    let sources = async {
        let (problems, bytes_max) = source_topics(settings, pipelines).await;
        looking.found(Dependency::SourceTopics, &problems).then_some(bytes_max)
    };
    let requests = async {
        let topic = open(settings, &general.requests_topic, Measured::BeforeCompression).await;
        looking.found(Dependency::RequestTopic, topic.as_ref().err().map_or(&[], std::slice::from_ref));
        let (topic, report) = topic.ok()?;
        looking.doubt(report.durability_doubts(&general.requests_topic));
        Some(topic)
    };
    // The broker measures letters: an event that is large and was sent compressed must have a place to go to.
    let letters = open(settings, &general.dead_letters_topic, Measured::ByBroker);
    let (tables, sources, requests, letters) = tokio::join!(tables, sources, requests, letters);
    // Judged by the sources' sizes, so last.
    let letters = letters.and_then(|(topic, report)| {
        let name = &general.dead_letters_topic;
        looking.doubt(report.durability_doubts(name).into_iter().chain(report.retention_doubts(name, LETTERS_KEPT)));
        let needed = sources.unwrap_or(0) + LETTER_OVERHEAD_BYTES;
        match report.message_bytes_max {
            Some(limit) if limit < needed => Err(format!(
                "topic {name} takes messages of {limit} bytes at most, and dead letters of its sources may have {needed}: \
                 raise its max.message.bytes"
            )),
            // Where the cluster does not tell, its answer to a letter will.
            Some(_) | None => Ok(topic),
        }
    });
    looking.found(Dependency::DeadLetterTopic, letters.as_ref().err().map_or(&[], std::slice::from_ref));
    let (requests, letters) = requests.zip(letters.ok())?;
    (tables && sources.is_some()).then_some(Topics { requests, letters })
}

/// What is wrong with the topics that are read, and the largest message that they take.
async fn source_topics(settings: &Settings, pipelines: &[Arc<Pipeline>]) -> (Vec<String>, usize) {
    let connection = backends::kafka_connection(settings);
    let mut problems = Vec::new();
    let mut bytes_max = 0;
    for topic in pipelines.iter().flat_map(|pipeline| pipeline.topics()) {
        match describe(&connection, topic).await {
            Ok(report) => bytes_max = bytes_max.max(report.bytes_max()),
            Err(error) => problems.push(error.to_string()),
        }
    }
    (problems, bytes_max)
}

async fn open(settings: &Settings, topic: &str, measured: Measured) -> Result<(Arc<KafkaTopic>, TopicReport), String> {
    let config = backends::kafka_topic(settings, topic, measured);
    let topic = KafkaTopic::connect(config).await.map_err(|error| error.to_string())?;
    let report = topic.check().await.map_err(|error| error.to_string())?;
    Ok((Arc::new(topic), report))
}
