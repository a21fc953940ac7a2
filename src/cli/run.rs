//! `run`: the consumer.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Loaded, LogFormat, Override, Settings};
use crate::dedupe::DedupeStore;
use crate::engine::{Coordinator, Ending};
use crate::pipeline::Pipeline;
use crate::pipeline::protocol::Purpose;
use crate::source::kafka::{GroupProtocol, KafkaSource};
use crate::store::dynamodb::{StaticCredentials, tables};
use crate::telemetry::{AdminServer, AdminState, Alert, At, Dependency, Heartbeats, Metrics, Readiness, logs};

use super::lanes::Lanes;
use super::ready::{self, Topics};
use super::{EXIT_USAGE, GlobalArgs, RunArgs, SummaryForm, backends, check, show};

/// From the end of the drain deadline until the process ends, whatever a library's destructor does.
const LAST_GRACE: Duration = Duration::from_secs(8);

/// How long a thread may not move before it counts as hung.
pub(super) const BEATS: Duration = Duration::from_secs(30);

/// How old the word of the breakers may be that readiness goes by.
const LOOK: Duration = Duration::from_secs(1);

/// What a run is made of, wherever its parts are.
pub(super) struct Deployment {
    /// Settings.
    pub settings: Settings,
    /// What to run.
    pub pipelines: Vec<Arc<Pipeline>>,
    /// Credentials of the embedded store.
    pub credentials: Option<StaticCredentials>,
    /// The group protocol; else the pipelines' own.
    pub protocol: Option<GroupProtocol>,
    /// Whether to end when all is read.
    pub until_idle: bool,
}

/// Everything of the process that is not a part of one pipeline.
#[derive(Clone)]
pub(super) struct Process {
    /// Metrics and alerts.
    pub metrics: Arc<Metrics>,
    /// Whether work can be done.
    pub readiness: Arc<Readiness>,
    /// Whether the loops move.
    pub heartbeats: Arc<Heartbeats>,
    /// Cancelled to drain and end.
    pub stop: CancellationToken,
}

/// Consumes events until stopped, or until idle.
pub async fn run(global: &GlobalArgs, args: &RunArgs) -> Result<ExitCode, anyhow::Error> {
    if args.embedded {
        return embedded(global, args).await;
    }
    let loaded = match global.load([]) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let Some(pipelines) = check::pipelines(global, &loaded.settings) else { return Ok(ExitCode::from(EXIT_USAGE)) };
    let process = start_process(&loaded)?;
    let admin = start_admin(&loaded.settings, &process).await?;
    tracing::info!(address = %admin.addr(), "admin port listens: /metrics /livez /readyz");
    let pipelines = pipelines.into_iter().map(Arc::new).collect();
    let deployment = Deployment {
        settings: loaded.settings,
        pipelines,
        credentials: None,
        protocol: None,
        until_idle: args.until_idle,
    };
    let complete = consume(&deployment, &process).await;
    admin.stop().await?;
    show_summary(&process, args.summary)?;
    Ok(if complete? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(feature = "embedded")]
async fn embedded(global: &GlobalArgs, args: &RunArgs) -> Result<ExitCode, anyhow::Error> {
    super::embedded::run(global, args).await
}

#[cfg(not(feature = "embedded"))]
async fn embedded(_: &GlobalArgs, _: &RunArgs) -> Result<ExitCode, anyhow::Error> {
    anyhow::bail!("this binary was built without its embedded parts: build it with the feature `embedded`")
}

/// Logs, metrics, signals.
pub(super) fn start_process(loaded: &Loaded) -> anyhow::Result<Process> {
    let settings = &loaded.settings;
    let format = match settings.log.format {
        LogFormat::Json => logs::LogFormat::Json,
        LogFormat::Text => logs::LogFormat::Text,
    };
    logs::init(format, &settings.log.filter)?;
    let metrics = Arc::new(Metrics::new()?);
    let expected = [
        Dependency::Kafka,
        Dependency::SourceTopics,
        Dependency::RequestTopic,
        Dependency::DeadLetterTopic,
        Dependency::Tables,
    ];
    let readiness = Arc::new(Readiness::new(metrics.clone(), &expected));
    let stop = CancellationToken::new();
    listen_to_signals(stop.clone(), readiness.clone(), settings.engine.drain_deadline)?;
    Ok(Process { metrics, readiness, heartbeats: Arc::new(Heartbeats::new()), stop })
}

/// The first TERM or INT drains, a second one ends the process at once; and so does the deadline.
fn listen_to_signals(stop: CancellationToken, readiness: Arc<Readiness>, drain: Duration) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be listened to")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be listened to")?;
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        tracing::info!("told to stop: draining");
        readiness.drain();
        // Cancelling wakes the coordinators; the deadline holds even where none of them can move any more.
        stop.cancel();
        let deadline = drain + LAST_GRACE;
        std::thread::spawn(move || {
            std::thread::sleep(deadline);
            tracing::error!(alert = "drain_deadline", "still running {deadline:?} after the order to stop: ending now");
            std::process::exit(1);
        });
        next().await;
        tracing::warn!("told to stop a second time: ending at once");
        std::process::exit(1);
    });
    Ok(())
}

/// Opens the admin port.
pub(super) async fn start_admin(settings: &Settings, process: &Process) -> anyhow::Result<AdminServer> {
    let state = AdminState {
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
        heartbeats: process.heartbeats.clone(),
    };
    Ok(AdminServer::start(settings.admin.listen, state).await?)
}

/// Waits for what the pipelines depend on, then runs them side by side. True where everything read was drained.
///
/// # Errors
///
/// A source that cannot go on, wrong settings, or, until idle, dependencies that are not there by the start deadline.
pub(super) async fn consume(deployment: &Deployment, process: &Process) -> anyhow::Result<bool> {
    let settings = &deployment.settings;
    anyhow::ensure!(!deployment.pipelines.is_empty(), "no pipeline to run: name a directory that holds some");
    let dynamo = backends::dynamo(settings, deployment.credentials.clone(), 1, Some(&process.metrics)).await?;
    let waiting = ready::wait(settings, &dynamo, &deployment.pipelines, &process.readiness, &process.stop);
    let topics = if deployment.until_idle {
        let deadline = settings.engine.start_deadline;
        tokio::time::timeout(deadline, waiting)
            .await
            .with_context(|| format!("not ready within {deadline:?}: the log names what is missing"))?
    } else {
        waiting.await
    };
    let Some(topics) = topics else { return Ok(true) };
    let cache = backends::dedupe(settings, tables::identity(&dynamo).await?, &process.metrics)?;
    let mut running = JoinSet::new();
    for pipeline in &deployment.pipelines {
        let coordinator = coordinator(deployment, process, pipeline, &topics, &cache).await?;
        let (stop, name) = (process.stop.clone(), pipeline.name().to_owned());
        running.spawn(async move { (name, coordinator.run(stop).await) });
    }
    let mut complete = true;
    let mut failure: Option<anyhow::Error> = None;
    let mut look = tokio::time::interval(LOOK);
    loop {
        let ended = tokio::select! {
            ended = running.join_next() => match ended {
                Some(ended) => ended,
                None => break,
            },
            _ = look.tick() => {
                process.readiness.read_breakers();
                continue;
            }
        };
        match ended {
            Ok((_, Ok(Ending::Drained))) => {}
            Ok((pipeline, Ok(Ending::Left(partitions)))) => {
                complete = false;
                let message = format_args!("{pipeline}: not drained in time: {}", partitions.join(", "));
                process.metrics.alerts.raise(Alert::DrainDeadline, &At::default(), message);
            }
            // The other pipelines drain: the process is to be started again as a whole.
            Ok((pipeline, Err(error))) => {
                process.metrics.alerts.raise(Alert::SourceFailed, &At::default(), format_args!("{pipeline}: {error}"));
                process.stop.cancel();
                failure.get_or_insert(error.into());
            }
            Err(panic) => {
                process.metrics.alerts.raise(Alert::SourceFailed, &At::default(), "a pipeline broke down");
                process.stop.cancel();
                failure.get_or_insert(anyhow::Error::new(panic).context("a pipeline broke down"));
            }
        }
    }
    failure.map_or(Ok(complete), Err)
}

async fn coordinator(
    deployment: &Deployment,
    process: &Process,
    pipeline: &Arc<Pipeline>,
    topics: &Topics,
    cache: &Arc<dyn DedupeStore>,
) -> anyhow::Result<Coordinator> {
    let settings = &deployment.settings;
    let protocol = deployment.protocol.unwrap_or_else(|| backends::group_protocol(pipeline.protocol()));
    let source = backends::kafka_source(settings, pipeline, protocol, deployment.until_idle);
    let source = KafkaSource::connect(source, process.heartbeats.register("kafka-reader", BEATS))?;
    let lanes = Lanes {
        settings,
        credentials: deployment.credentials.clone(),
        pipeline,
        topics,
        cache,
        group: pipeline.group(),
        tokens: None,
        purpose: Purpose::Live,
        pipelines: deployment.pipelines.len(),
        until_idle: deployment.until_idle,
    };
    lanes.start(process, Box::new(source)).await
}

/// Names this process in ledger entries: host and process id.
pub(super) fn writer() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}/{}", host.trim(), std::process::id())
}

/// Writes what was done, in the form asked for.
pub(super) fn show_summary(process: &Process, form: Option<SummaryForm>) -> anyhow::Result<()> {
    let summary = process.metrics.summary();
    let text = match form {
        Some(SummaryForm::Json) => format!("{}\n", summary.json()?),
        Some(SummaryForm::Table) => summary.to_string(),
        None => return Ok(()),
    };
    Ok(show(text.as_bytes())?)
}

/// One line that tells how it goes: rewritten on a terminal, else written every few seconds. Runs until dropped.
pub(super) async fn progress(metrics: Arc<Metrics>) {
    let terminal = std::io::stderr().is_terminal();
    let every = Duration::from_secs(if terminal { 1 } else { 5 });
    let mut tick = tokio::time::interval(every);
    let (mut before, mut at) = (0, Instant::now());
    loop {
        tick.tick().await;
        let summary = metrics.summary();
        let rate = (summary.consumed.saturating_sub(before)) as f64 / at.elapsed().as_secs_f64().max(0.001);
        (before, at) = (summary.consumed, Instant::now());
        let dead: u64 = summary.dead_lettered.values().sum();
        let line = format!(
            "consumed {} ({rate:.0}/s)  recorded {}  duplicate {}  dead-lettered {dead}  requests {}  attested {}",
            summary.consumed, summary.recorded, summary.duplicate, summary.requests, summary.attested
        );
        let mut err = std::io::stderr().lock();
        // Where standard error is gone nobody watches.
        let _ =
            if terminal { write!(err, "\r\x1b[K{line}").and_then(|()| err.flush()) } else { writeln!(err, "{line}") };
    }
}

/// The settings that make a run use the parts in the process.
pub(super) fn embedded_settings(global: &GlobalArgs, bootstrap: &str, endpoint: &str, region: &str) -> Vec<Override> {
    // The samples hold conflicts and ties on purpose, which would be alerts among the progress lines. Why it is not ready is
    // said all the same.
    let quiet = !global.is_given("log.filter", &["RECORDKEEPER_LOG_FILTER", "RUST_LOG"]);
    let log = quiet.then_some(("log.filter", "off,recordkeeper::cli=warn"));
    [
        ("dedupe", "memory"),
        ("table_prefix", ""),
        ("kafka.bootstrap_servers", bootstrap),
        ("kafka.security", "plaintext"),
        ("dynamodb.endpoint", endpoint),
        ("dynamodb.region", region),
        ("log.format", "text"),
    ]
    .into_iter()
    .chain(log)
    .map(|(name, value)| Override::new(name, value))
    .collect()
}
