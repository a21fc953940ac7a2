//! Command line and dispatch, nothing else.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use recordkeeper::cli::{self, Cli, Command};

// Events are allocated on one thread and freed on another, which the system's allocator pays dearly for: a sixth of all CPU
// time in `make bench`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    dispatch(&cli).unwrap_or_else(|error| {
        // Where even standard error is gone, the exit code still tells.
        let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

fn dispatch(cli: &Cli) -> Result<ExitCode, anyhow::Error> {
    let global = &cli.global;
    match &cli.command {
        Command::Run(args) => on_runtime(cli::run::run(global, args)),
        Command::Check(args) => cli::check::check(global, args),
        Command::Tables(args) => on_runtime(cli::tables::tables(global, args)),
        Command::Get(args) => on_runtime(cli::get::get(global, args)),
        Command::Reset(args) => on_runtime(cli::reset::reset(global, args)),
        Command::Replay(args) => on_runtime(cli::repair::replay::replay(global, args)),
        Command::Redrive(args) => on_runtime(cli::repair::list::command(global, args)),
        Command::Archive(args) => on_runtime(cli::archive::archive(global, args)),
        Command::NewEpoch(args) => on_runtime(cli::new_epoch::new_epoch(global, args)),
        Command::Verify(args) => on_runtime(cli::verify::verify(global, args)),
        Command::Generate(args) => on_runtime(cli::generate::generate(global, args)),
        Command::Health(args) => cli::health::health(global, args),
        Command::Reference => cli::reference::reference(),
    }
}

fn on_runtime(work: impl Future<Output = Result<ExitCode, anyhow::Error>>) -> Result<ExitCode, anyhow::Error> {
    let runtime = tokio::runtime::Runtime::new()?;
    let code = runtime.block_on(work);
    // What was begun is done or given up by now; a look at the cluster that has not come back yet holds up nobody's end.
    runtime.shutdown_background();
    code
}
