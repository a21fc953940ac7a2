//! Processes of the product that tests watch, signal and end, and waiting for what they do.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

use crate::deployment::Deployment;

/// The drain deadline of these tests (2 s), the product's last grace (8 s), and as much again for a busy machine.
pub const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// A process whose standard error goes to a file, so that a test can read along.
pub struct Running {
    child: Child,
    pub log: PathBuf,
}

impl Running {
    pub fn start(deployment: &Deployment, log: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let log = deployment.dir.join(log);
        let mut command = deployment.command(args);
        command.envs(env.iter().copied());
        command.stdout(std::process::Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
        Self { child: command.spawn().unwrap(), log }
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log has a line with this text; gives the line.
    pub async fn line_with(&self, wanted: &str) -> String {
        until(wanted, async || self.stderr().lines().find(|line| line.contains(wanted)).map(str::to_owned)).await
    }

    pub async fn admin(&self) -> String {
        let line: Value = serde_json::from_str(&self.line_with("admin port listens").await).unwrap();
        line["address"].as_str().unwrap().to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub async fn terminate(&self) {
        self.signal("TERM").await;
    }

    pub async fn signal(&self, name: &str) {
        let (name, pid) = (format!("-{name}"), self.pid().to_string());
        assert!(tokio::process::Command::new("kill").args([name, pid]).status().await.unwrap().success());
    }

    /// How it ended, where it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Whether each of its threads was stopped by a signal.
    pub fn is_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        tasks.flatten().all(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap();
            // The name before the state may hold anything but is the only thing in parentheses.
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        })
    }

    /// As kill -9 does.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// The exit code and standard output, once it ended within its deadline.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let mut stdout = self.child.stdout.take().unwrap();
        let mut text = String::new();
        let ends = async {
            stdout.read_to_string(&mut text).await.unwrap();
            self.child.wait().await.unwrap()
        };
        let Ok(status) = tokio::time::timeout(ENDS_WITHIN, ends).await else { panic!("still runs: {}", self.stderr()) };
        (status.code(), text)
    }
}

/// Looks again until something is found, a minute long.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_some(look).await.unwrap_or_else(|| panic!("a minute without: {what}"))
}

/// The same; `None` where a minute went by.
pub async fn until_some<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    for _ in 0..600 {
        if let Some(found) = look().await {
            return Some(found);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

/// Waits until the ledger has an entry.
pub async fn attested(deployment: &Deployment) {
    until("an attestation", async || {
        deployment.scan("ledger").await.iter().any(|item| item.contains_key("outcomes")).then_some(())
    })
    .await;
}

/// Status line, headers and body of a page.
pub async fn page(address: &str, path: &str) -> String {
    page_of(address, path).await.expect("an answer")
}

/// The same of a process that may have ended; `None` where it does not answer.
pub async fn page_of(address: &str, path: &str) -> Option<String> {
    let mut connection = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
