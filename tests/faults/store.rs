//! The store of the rounds: a DynamoDB server in a process of its own, whose disk can be full.

use std::path::PathBuf;
use std::process::Command;

use crate::running::until;
use crate::services;

/// Names the folder that a process of this test binary is to serve from.
const FOLDER: &str = "RECORDKEEPER_TEST_STORE";

pub struct Store {
    pub endpoint: String,
    pid: u32,
}

impl Store {
    pub async fn start() -> Self {
        let folder = services::scratch("store");
        let mut command = Command::new("sh");
        // A write above the limit fails as one on a full disk does; the signal that comes with it would kill. What the test runner
        // says would go to a file, too.
        let serve = "exec \"$0\" --exact store::serves_where_it_is_told_to --nocapture > /dev/null 2>&1";
        command.args(["-c", &format!("trap '' XFSZ; {serve}")]);
        command.arg(std::env::current_exe().unwrap()).env(FOLDER, &folder);
        let pid = services::start(&mut command, &folder.join("log"));
        let endpoint = until("the store", async || std::fs::read_to_string(folder.join("endpoint")).ok()).await;
        Self { endpoint, pid }
    }

    /// From now on its files take no byte.
    pub async fn fill(&self) {
        self.limit("--fsize=0:unlimited").await;
    }

    /// There is room again.
    pub async fn make_room(&self) {
        self.limit("--fsize=unlimited:unlimited").await;
    }

    async fn limit(&self, limit: &str) {
        let pid = self.pid.to_string();
        let set = tokio::process::Command::new("prlimit").args(["--pid", &pid, limit]).status().await;
        assert!(set.expect("prlimit").success(), "{limit} of {pid}");
    }
}

/// No test: the process that [`Store::start`] starts.
#[tokio::test(flavor = "multi_thread")]
async fn serves_where_it_is_told_to() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let server = recordkeeper::embedded::dynamodb::start(Some(&folder.join("store.db"))).await.unwrap();
    std::fs::write(folder.join("endpoint.part"), &server.endpoint).unwrap();
    std::fs::rename(folder.join("endpoint.part"), folder.join("endpoint")).unwrap();
    std::future::pending::<()>().await;
    drop(server);
}
