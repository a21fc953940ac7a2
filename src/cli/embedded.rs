//! `run --embedded`: broker, tables and cache in this process, fed with sample events; nothing outlives it.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;

use crate::config::{Diagnostic, Settings};
use crate::embedded::dynamodb::{self as store, EmbeddedDynamo};
use crate::embedded::kafka::EmbeddedKafka;
use crate::generate::{Events, GenerateArgs, Plan, TRANSACTION_TOPIC, WALLET_TOPIC};
use crate::pipeline::Pipeline;
use crate::source::kafka::GroupProtocol;
use crate::store::dynamodb::tables::{self, TableOptions};
use crate::topic::kafka::{KafkaTopic, Measured};
use crate::topic::{Message, Placement, Published, Topic as _};

use super::run::{Deployment, Process, consume, embedded_settings, progress, show_summary, start_admin, start_process};
use super::{EXIT_USAGE, GlobalArgs, RunArgs, SummaryForm, backends, check, report};

/// Partitions of each topic.
const PARTITIONS: i32 = 4;
/// The embedded broker keeps 5 MiB a partition and forgets the oldest silently, so the feeder stays this close.
const AHEAD_MAX: u64 = 4_000;
/// Sample events of a run that ends by itself; they fit the embedded broker all at once.
const UNTIL_IDLE_EVENTS: u64 = 4_000;
/// Events published in one go.
const PORTION: usize = 200;
/// Between two portions, so that a demonstration does not fill the memory in minutes.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs the shipped native pipeline on embedded parts.
pub async fn run(global: &GlobalArgs, args: &RunArgs) -> Result<ExitCode, anyhow::Error> {
    // The broker has to know its topics when it starts, and the settings name some of them.
    let nowhere = embedded_settings(global, "127.0.0.1:1", "http://127.0.0.1:1", EmbeddedDynamo::REGION);
    let named = match global.load(nowhere) {
        Ok(loaded) => loaded.settings,
        Err(code) => return Ok(code),
    };
    let Some(pipelines) = check::pipelines(global, &named) else {
        return Ok(ExitCode::from(EXIT_USAGE));
    };
    let Some(pipelines) = fed(pipelines, global) else { return Ok(ExitCode::from(EXIT_USAGE)) };
    let names = topic_names(&named, &pipelines);
    let dynamo = store::start(None).await.context("embedded store")?;
    let topics: Vec<(&str, i32)> = names.iter().map(|name| (name.as_str(), PARTITIONS)).collect();
    let kafka = EmbeddedKafka::start(&topics).context("embedded broker")?;
    let loaded = match global.load_again(embedded_settings(
        global,
        kafka.bootstrap_servers(),
        &dynamo.endpoint,
        EmbeddedDynamo::REGION,
    )) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let process = start_process(&loaded)?;
    let admin = start_admin(&loaded.settings, &process).await?;
    create_tables(&loaded.settings).await?;
    say(&[
        "embedded run: broker, tables and cache are in this process, and gone when it ends".to_owned(),
        format!("  kafka      {} (keeps 5 MiB a partition; topics {})", kafka.bootstrap_servers(), names.join(", ")),
        format!("  dynamodb   {} (region {}, any credentials)", dynamo.endpoint, EmbeddedDynamo::REGION),
        format!("  metrics    http://{}/metrics", admin.addr()),
        "  stop with Ctrl-C: it drains and shows what it did".to_owned(),
    ])?;
    let deployment = Deployment {
        settings: loaded.settings,
        pipelines,
        credentials: Some(EmbeddedDynamo::credentials()),
        protocol: Some(GroupProtocol::Consumer),
        until_idle: args.until_idle,
    };
    let complete = if args.until_idle {
        feed(&deployment, &process, UNTIL_IDLE_EVENTS).await?;
        let progress = tokio::spawn(progress(process.metrics.clone()));
        let complete = consume(&deployment, &process).await;
        progress.abort();
        complete
    } else {
        let progress = tokio::spawn(progress(process.metrics.clone()));
        // Whichever of the two ends first ends the other.
        let consuming = async { (consume(&deployment, &process).await, process.stop.cancel()).0 };
        let feeding = async { (feed(&deployment, &process, u64::MAX).await, process.stop.cancel()).0 };
        let (complete, fed) = tokio::join!(consuming, feeding);
        progress.abort();
        fed?;
        complete
    };
    admin.stop().await?;
    say(&[String::new()])?;
    show_summary(&process, Some(args.summary.unwrap_or(SummaryForm::Table)))?;
    dynamo.stop().await;
    Ok(if complete? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The pipelines that the sample events are for; `None`, reported, where one was asked for that they are not for.
fn fed(pipelines: Vec<Pipeline>, global: &GlobalArgs) -> Option<Vec<Arc<Pipeline>>> {
    let is_fed =
        |pipeline: &Pipeline| pipeline.topics().iter().any(|topic| topic == WALLET_TOPIC || topic == TRANSACTION_TOPIC);
    let (fed, left_out): (Vec<_>, Vec<_>) = pipelines.into_iter().partition(is_fed);
    let why = format!("--embedded feeds sample events to {WALLET_TOPIC} and {TRANSACTION_TOPIC} only");
    let refuse = |flag: &str, what: String, hint: &str| {
        report(&[Diagnostic::error(flag, None, format!("{what}: {why}")).with_hint(hint)]);
        None
    };
    if let Some(pipeline) = left_out.iter().find(|pipeline| global.pipeline.iter().any(|name| name == pipeline.name()))
    {
        let what = format!("the pipeline `{}` reads none of the embedded topics", pipeline.name());
        return refuse("--pipeline", what, "leave it out, or run it on brokers of your own, without --embedded");
    }
    if fed.is_empty() {
        return refuse("--pipelines", "no pipeline reads the embedded topics".to_owned(), "name the shipped directory");
    }
    Some(fed.into_iter().map(Arc::new).collect())
}

/// The topics that have to be there when the broker starts: those of the pipelines and of the settings.
fn topic_names(settings: &Settings, pipelines: &[Arc<Pipeline>]) -> Vec<String> {
    let general = &settings.general;
    let mut names: Vec<String> = pipelines.iter().flat_map(|pipeline| pipeline.topics().to_vec()).collect();
    names.extend([general.requests_topic.clone(), general.dead_letters_topic.clone()]);
    names
}

async fn create_tables(settings: &Settings) -> anyhow::Result<()> {
    let dynamo = backends::dynamo(settings, Some(EmbeddedDynamo::credentials()), 1, None).await?;
    let options = TableOptions {
        kms_key: None,
        point_in_time_recovery: false,
        deletion_protection: false,
        records_stream: false,
        deadline: Duration::from_secs(30),
    };
    tables::create(&dynamo, &options).await?;
    Ok(())
}

/// Publishes sample events, never further ahead of what is attested than the broker keeps, until `events` are out or the
/// process is told to stop.
async fn feed(deployment: &Deployment, process: &Process, events: u64) -> anyhow::Result<()> {
    let settings = &deployment.settings;
    let mut topics = Vec::new();
    for name in [WALLET_TOPIC, TRANSACTION_TOPIC] {
        topics.push((
            name,
            KafkaTopic::connect(backends::kafka_topic(settings, name, Measured::BeforeCompression)).await?,
        ));
    }
    let generated = events.min(10_000_000).to_string();
    let partitions = PARTITIONS.to_string();
    let plan = Sample::try_parse_from(["sample", "--events", &generated, "--partitions", &partitions])?;
    let mut stream = Events::new(Plan::new(&plan.generate)?);
    let mut sent = 0;
    while !process.stop.is_cancelled() && sent < events {
        let portion: Vec<_> = stream.by_ref().take(PORTION).collect();
        if portion.is_empty() {
            break;
        }
        sent += portion.len() as u64;
        for (name, topic) in &topics {
            let messages: Vec<Message> = portion.iter().filter(|event| event.topic == *name).map(message).collect();
            let verdicts = topic.publish(&messages.iter().collect::<Vec<_>>()).await;
            anyhow::ensure!(
                verdicts.iter().all(|verdict| *verdict == Published::Durable),
                "the embedded broker refuses events"
            );
        }
        if events == u64::MAX {
            tokio::time::sleep(PAUSE).await;
            while sent.saturating_sub(process.metrics.summary().attested) > AHEAD_MAX && !process.stop.is_cancelled() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    Ok(())
}

/// The generator's own flags and defaults.
#[derive(clap::Parser)]
struct Sample {
    #[command(flatten)]
    generate: GenerateArgs,
}

fn message(event: &crate::generate::Generated) -> Message {
    Message {
        key: Some(event.key.clone()),
        value: event.value.clone(),
        headers: event.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        placement: Placement::ByKey,
    }
}

fn say(lines: &[String]) -> std::io::Result<()> {
    let mut err = std::io::stderr().lock();
    lines.iter().try_for_each(|line| writeln!(err, "{line}"))
}
