//! Waiting until everything that a run depends on is there, and saying what to do where it is not.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::pipeline::Pipeline;
use crate::store::dynamodb::{Dynamo, tables};
use crate::telemetry::{Condition, Dependency, Readiness};
use crate::topic::Topic as _;
use crate::topic::kafka::{KafkaTopic, describe};

use super::backends;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// A dead letter is its event, whole, and headers: the dead-letter topic takes this much more than the sources.
const LETTER_OVERHEAD_BYTES: usize = 64 * 1024;

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
    let mut said = Vec::new();
    let topics = stop.run_until_cancelled(async {
        loop {
            let (topics, problems) = look(settings, dynamo, pipelines, readiness).await;
            if problems != said {
                for problem in &problems {
                    tracing::warn!("not ready: {problem}");
                }
                said = problems;
            }
            if let (Some(topics), true) = (topics, said.is_empty()) {
                return topics;
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    topics.await
}

async fn look(
    settings: &Settings,
    dynamo: &Dynamo,
    pipelines: &[Arc<Pipeline>],
    readiness: &Readiness,
) -> (Option<Topics>, Vec<String>) {
    let mut problems = Vec::new();
    let mut say = |dependency: Dependency, found: Vec<String>| {
        let condition = if found.is_empty() { Condition::Ready } else { Condition::NotReady(found.join("; ")) };
        readiness.set(dependency, condition);
        problems.extend(found);
    };
    say(Dependency::Tables, tables::check(dynamo).await);
    let (source_problems, source_bytes_max) = source_topics(settings, pipelines).await;
    say(Dependency::SourceTopics, source_problems);
    let requests = open(settings, &settings.general.requests_topic).await;
    say(Dependency::RequestTopic, requests.as_ref().err().cloned().into_iter().collect());
    let letters = open(settings, &settings.general.dead_letters_topic).await.and_then(|topic| {
        let needed = source_bytes_max + LETTER_OVERHEAD_BYTES;
        if topic.bytes_max() >= needed {
            return Ok(topic);
        }
        Err(format!(
            "topic {} takes messages of {} bytes at most, and dead letters of its sources may have {needed}: raise its \
             max.message.bytes",
            settings.general.dead_letters_topic,
            topic.bytes_max()
        ))
    });
    say(Dependency::DeadLetterTopic, letters.as_ref().err().cloned().into_iter().collect());
    let topics = requests.ok().zip(letters.ok()).map(|(requests, letters)| Topics { requests, letters });
    (topics, problems)
}

/// What is wrong with the topics that are read, and the largest message that they take.
async fn source_topics(settings: &Settings, pipelines: &[Arc<Pipeline>]) -> (Vec<String>, usize) {
    let connection = backends::kafka_connection(settings);
    let mut problems = Vec::new();
    let mut bytes_max = 0;
    for topic in pipelines.iter().flat_map(|pipeline| pipeline.topics()) {
        match describe(&connection, topic).await {
            Ok(report) => bytes_max = bytes_max.max(report.message_bytes_max.unwrap_or(0)),
            Err(error) => problems.push(error.to_string()),
        }
    }
    (problems, bytes_max)
}

async fn open(settings: &Settings, topic: &str) -> Result<Arc<KafkaTopic>, String> {
    let topic = KafkaTopic::connect(backends::kafka_topic(settings, topic)).await.map_err(|error| error.to_string())?;
    topic.check().await.map_err(|error| error.to_string())?;
    Ok(Arc::new(topic))
}
