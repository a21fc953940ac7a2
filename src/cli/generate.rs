//! `generate`.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use crate::generate::{GenerateArgs, GenerateError, Target, run};

use super::{GlobalArgs, backends, wrong};

/// Generates sample events.
pub async fn generate(global: &GlobalArgs, args: &GenerateArgs) -> Result<ExitCode, anyhow::Error> {
    let stop = CancellationToken::new();
    let options = if args.to == Target::Kafka && args.bootstrap_servers.is_none() {
        match global.load([]) {
            Ok(loaded) => backends::kafka_connection(&loaded.settings).options(),
            Err(code) => return Ok(code),
        }
    } else {
        Vec::new()
    };
    let stopping = stop.clone();
    let on_signal = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopping.cancel();
        }
    });
    let result = run(args, &options, stop).await;
    on_signal.abort();
    match result {
        Ok(report) => {
            let seconds = report.elapsed.as_secs_f64();
            writeln!(std::io::stderr().lock(), "{} events, {} bytes in {seconds:.1} s", report.events, report.bytes)?;
            Ok(ExitCode::SUCCESS)
        }
        // Who reads it has seen enough.
        Err(GenerateError::Write { source, .. })
            if args.to == Target::Stdout && source.kind() == ErrorKind::BrokenPipe =>
        {
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ GenerateError::Usage(_)) => wrong(error),
        Err(error) => Err(error.into()),
    }
}
