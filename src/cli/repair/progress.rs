//! How a run gets on: a bar on a terminal, lines of JSON elsewhere.

use std::convert::Infallible;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::ledger::RunItem;
use crate::telemetry::Metrics;

const BAR_CELLS: u64 = 30;

/// One run's progress, in positions that its ledger holds.
pub(super) struct Progress {
    kind: String,
    run: String,
    total: u64,
    done_before: u64,
    /// What the process had attested for another run before.
    others: u64,
    metrics: Arc<Metrics>,
}

impl Progress {
    pub(super) fn new(run: &RunItem, total: u64, done_before: u64, metrics: Arc<Metrics>) -> Self {
        let others = metrics.summary().attested;
        Self { kind: run.kind.clone(), run: run.name.clone(), total, done_before, others, metrics }
    }

    /// Tells it to standard error until dropped.
    pub(super) async fn show(&self) -> Infallible {
        let terminal = std::io::stderr().is_terminal();
        let mut tick = tokio::time::interval(Duration::from_secs(if terminal { 1 } else { 10 }));
        let since = Instant::now();
        loop {
            tick.tick().await;
            // Nobody scrapes a run: what it observes would pile up.
            self.metrics.upkeep();
            let summary = self.metrics.summary();
            let attested = summary.attested - self.others;
            let done = self.done_before + attested;
            let rate = attested as f64 / since.elapsed().as_secs_f64().max(0.001);
            let dead: u64 = summary.dead_lettered.values().sum();
            let mut err = std::io::stderr().lock();
            // Where standard error is gone nobody watches.
            let _ = if terminal {
                write!(err, "\r\x1b[K{} {done}/{} {rate:.0}/s", self.bar(done), self.total).and_then(|()| err.flush())
            } else {
                let line = json!({
                    "progress": self.kind, "run": self.run, "done": done, "total": self.total, "per_second": rate.round(),
                    "recorded": summary.recorded, "duplicate": summary.duplicate, "skipped": summary.skipped,
                    "dead_lettered": dead,
                });
                writeln!(err, "{line}")
            };
        }
    }

    /// Ends the line on a terminal.
    pub(super) fn end(&self) {
        let mut err = std::io::stderr().lock();
        if std::io::stderr().is_terminal() {
            let _ = writeln!(err);
        }
    }

    fn bar(&self, done: u64) -> String {
        let full = done.min(self.total) * BAR_CELLS / self.total.max(1);
        (0..BAR_CELLS).map(|cell| if cell < full { '#' } else { '.' }).collect()
    }
}
