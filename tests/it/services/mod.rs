//! Real servers for tests: each is started once a test binary, on free ports of 127.0.0.1, and dies with it.
//!
//! `scripts/test-services.sh` installs what they need.

mod dynamodb;
mod kafka;
mod redis;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

pub use dynamodb::dynamodb;
pub use kafka::{KafkaBroker, kafka};
pub use redis::redis;

/// Where the services' files are: `target/test-services`.
fn home() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target").join("test-services")
}

/// A fresh folder for a service of this process; those of processes that are gone are removed.
fn fresh_folder(service: &str) -> PathBuf {
    let runs = home().join("run");
    std::fs::create_dir_all(&runs).expect("run folder");
    for entry in std::fs::read_dir(&runs).expect("run folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.split('-').next_back().unwrap_or_default();
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            // Another test binary may be at it too.
            std::fs::remove_dir_all(entry.path()).unwrap_or_default();
        }
    }
    let folder = runs.join(format!("{service}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("service folder");
    folder
}

/// A fresh folder for one test.
pub fn scratch(name: &str) -> PathBuf {
    let folder = fresh_folder("scratch").join(name);
    std::fs::create_dir_all(&folder).expect("scratch folder");
    folder
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address").port()
}

/// Starts a server that the kernel kills when this process ends, however it ends. Gives its process id.
pub fn start(command: &mut Command, log: &Path) -> u32 {
    let log = std::fs::File::create(log).expect("log file");
    let mut guarded = Command::new("setpriv");
    guarded.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            guarded.env(name, value);
        }
    }
    if let Some(folder) = command.get_current_dir() {
        guarded.current_dir(folder);
    }
    guarded.stdin(Stdio::null()).stderr(log.try_clone().expect("log file")).stdout(log);
    // The kernel's signal comes when the thread that started the child ends: a thread of its own, which waits for the
    // child and so outlives every test.
    let (started, starting) = channel();
    std::thread::spawn(move || match guarded.spawn() {
        Ok(mut child) => {
            started.send(Ok(child.id())).unwrap_or_default();
            child.wait().map(drop).unwrap_or_default();
        }
        Err(error) => started.send(Err(error)).unwrap_or_default(),
    });
    starting.recv().expect("starter").unwrap_or_else(|error| panic!("run scripts/test-services.sh first: {error}"))
}

/// As kill -9 does.
async fn kill(pid: u32) {
    let killed = tokio::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().await;
    assert!(killed.expect("kill").success(), "process {pid}");
}

#[tokio::test]
async fn a_service_is_started_once() {
    let (one, other) = tokio::join!(redis(), redis());
    assert!(one.url.ends_with(&one.port.to_string()));
    assert!(std::ptr::eq(one, other));
}
