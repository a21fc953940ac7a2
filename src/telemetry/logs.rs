//! Logs: one line an event on stderr, as flat JSON or as text.
//!
//! In JSON the fields of the event and of the spans around it (topic, partition, offset, correlation_id) stand side by
//! side with timestamp, level, target and message; what is said closest to the event wins. Lines never hold payloads, and
//! libraries that print requests at DEBUG or TRACE are held at INFO unless they are named themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::ser::{SerializeMap as _, Serializer as _};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{FormatEvent, JsonFields, Writer};
use tracing_subscriber::fmt::{self as subscriber_fmt, FmtContext, FormattedFields, MakeWriter};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For a person at a terminal.
    Text,
}

/// Logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A filter that does not read.
    #[error("log filter {filter:?} does not read: {detail}; write a level, or target=level pairs, separated by commas")]
    Filter {
        /// What was given (RECORDKEEPER_LOG or the setting).
        filter: String,
        /// What is wrong.
        detail: String,
    },
    /// Called twice.
    #[error("logging was started before: {0}")]
    Started(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Starts logging to stderr for the whole process. The filter is a level and `target=level` pairs, separated by commas,
/// such as `info,recordkeeper=debug`; without a level, INFO.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let targets = targets(filter)?;
    tracing::subscriber::set_global_default(subscriber(format, targets, io::stderr))?;
    Ok(())
}

/// Libraries whose DEBUG and TRACE lines hold headers, tokens or messages. A prefix of their targets.
const HELD_AT_INFO: [&str; 9] = ["aws", "h2", "hyper", "librdkafka", "rdkafka", "redis", "reqwest", "rustls", "tower"];

fn targets(filter: &str) -> Result<Targets, LogError> {
    let mut targets: Targets = filter.parse().map_err(|error: tracing_subscriber::filter::ParseError| {
        LogError::Filter { filter: filter.to_owned(), detail: error.to_string() }
    })?;
    // Targets gives no default level for pairs alone, and would then keep everything else silent.
    let default = targets.default_level().unwrap_or(LevelFilter::INFO);
    targets = targets.with_default(default);
    for held in HELD_AT_INFO {
        if !targets.iter().any(|(target, _)| target == held) {
            targets = targets.with_target(held, default.min(LevelFilter::INFO));
        }
    }
    Ok(targets)
}

fn subscriber<W>(format: LogFormat, targets: Targets, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = subscriber_fmt::layer().with_writer(writer);
    let layer = match format {
        LogFormat::Json => layer.fmt_fields(JsonFields::new()).event_format(FlatJson).boxed(),
        LogFormat::Text => layer.boxed(),
    };
    Registry::default().with(layer.with_filter(targets))
}

/// One flat JSON object a line.
struct FlatJson;

impl<S> FormatEvent<S, JsonFields> for FlatJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        for span in ctx.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(stored) = span.extensions().get::<FormattedFields<JsonFields>>() {
                let stored: BTreeMap<String, Value> = serde_json::from_str(stored).map_err(|_| fmt::Error)?;
                fields.0.extend(stored);
            }
        }
        event.record(&mut fields);
        let message = fields.0.remove("message").unwrap_or_default();
        let line = line(event, &message, &fields.0).map_err(|_| fmt::Error)?;
        writer.write_str(&line)?;
        writer.write_char('\n')
    }
}

fn line(
    event: &Event<'_>,
    message: &Value,
    fields: &BTreeMap<String, Value>,
) -> Result<String, Box<dyn std::error::Error>> {
    const OWN: [&str; 4] = ["timestamp", "level", "target", "message"];
    let mut line = Vec::with_capacity(256);
    let mut json = serde_json::Serializer::new(&mut line);
    let mut map = json.serialize_map(None)?;
    map.serialize_entry("timestamp", &format!("{:.6}", jiff::Timestamp::now()))?;
    map.serialize_entry("level", event.metadata().level().as_str())?;
    map.serialize_entry("target", event.metadata().target())?;
    map.serialize_entry("message", message)?;
    for (name, value) in fields.iter().filter(|(name, _)| !OWN.contains(&name.as_str())) {
        map.serialize_entry(name, value)?;
    }
    map.end()?;
    Ok(String::from_utf8(line)?)
}

/// An event's fields as JSON values.
#[derive(Default)]
struct Fields(BTreeMap<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Alert, At, Metrics};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, work: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(format, targets(filter).unwrap(), move || writer.clone());
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_is_flat_and_the_nearest_word_wins() {
        let text = logged(LogFormat::Json, "info", || {
            let lane = tracing::info_span!("lane", topic = "t", partition = 3, correlation_id = tracing::field::Empty);
            let _lane = lane.enter();
            lane.record("correlation_id", "outer");
            let _batch = tracing::info_span!("batch", offset = 7u64).entered();
            tracing::warn!(correlation_id = "inner", level = "mine", "a \"quoted\"\nmessage");
        });
        let line: serde_json::Map<String, Value> = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
        assert!(!text.trim_end().contains('\n'), "one line: {text}");
        assert_eq!(line["message"], "a \"quoted\"\nmessage");
        assert_eq!(line["level"], "WARN");
        assert_eq!((&line["topic"], &line["partition"], &line["offset"]), (&"t".into(), &3.into(), &7.into()));
        assert_eq!(line["correlation_id"], "inner");
        assert_eq!(line["target"], "recordkeeper::telemetry::logs::tests");
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(timestamp.len() == 27 && timestamp.ends_with('Z'), "{timestamp}");
        assert!(line.values().all(|value| !value.is_object()));
    }

    #[test]
    fn an_alert_is_one_error_line_and_one_count() {
        let metrics = Metrics::new().unwrap();
        let text = logged(LogFormat::Json, "error", || {
            let at = At { topic: Some("t"), offset: Some(9), ..At::default() };
            metrics.alerts.raise(Alert::Tie, &at, "two writes of version 3 differ");
        });
        let line: serde_json::Map<String, Value> = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((&line["alert"], &line["level"]), (&"tie".into(), &"ERROR".into()));
        assert_eq!((&line["topic"], &line["offset"]), (&"t".into(), &9.into()));
        assert!(!line.contains_key("partition"));
        assert!(metrics.render().contains("recordkeeper_alerts_total{alert=\"tie\"} 1\n"));
    }

    #[test]
    fn text_is_readable() {
        let text = logged(LogFormat::Text, "info", || tracing::info!(topic = "t", "hello"));
        assert!(text.contains("INFO") && text.contains("hello topic=\"t\""), "{text}");
    }

    #[test]
    fn libraries_that_print_headers_stay_at_info_unless_named() {
        let enabled = |filter: &str, target: &str, level| targets(filter).unwrap().would_enable(target, &level);
        use tracing::Level;
        for library in ["aws_smithy_runtime::client", "hyper_util::client", "rdkafka::client", "redis", "h2::proto"] {
            assert!(!enabled("trace", library, Level::DEBUG), "{library}");
            assert!(enabled("trace", library, Level::INFO), "{library}");
            assert!(!enabled("warn", library, Level::INFO), "{library}");
        }
        assert!(enabled("trace", "recordkeeper::store", Level::TRACE));
        assert!(enabled("info,aws_smithy_runtime=trace", "aws_smithy_runtime::client", Level::TRACE));
        assert!(!enabled("info,aws_smithy_runtime=trace", "aws_config", Level::DEBUG));
        assert!(enabled("aws=debug", "aws_config", Level::DEBUG));
        assert!(enabled("recordkeeper=debug", "something_else", Level::INFO));
    }

    #[test]
    fn a_filter_that_does_not_read_is_refused_by_name() {
        let error = targets("recordkeeper=loud").unwrap_err().to_string();
        assert!(error.contains("recordkeeper=loud"), "{error}");
    }
}
