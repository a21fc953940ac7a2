//! The instances of a round.

use std::os::unix::process::ExitStatusExt as _;

use crate::History;
use crate::deployment::Deployment;
use crate::running::{Running, page_of, until, until_some};

/// Partitions of all source topics together.
pub const PARTITIONS: u64 = 16;

struct Instance {
    name: String,
    running: Running,
    admin: String,
    stopped: bool,
}

/// The running instances of one deployment, oldest first.
pub struct Fleet<'a> {
    deployment: &'a Deployment,
    history: &'a History,
    env: Vec<(String, String)>,
    started: usize,
    instances: Vec<Instance>,
}

impl<'a> Fleet<'a> {
    pub fn new(deployment: &'a Deployment, history: &'a History, env: Vec<(String, String)>) -> Self {
        Self { deployment, history, env, started: 0, instances: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Starts one more; back when its admin port listens.
    pub async fn start(&mut self, failpoint: Option<&str>) {
        let name = format!("instance-{}", self.started);
        self.started += 1;
        let mut env: Vec<(&str, &str)> = self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        env.extend(failpoint.map(|failpoint| ("RECORDKEEPER_FAILPOINT", failpoint)));
        let log = format!("{name}.log");
        let running = Running::start(self.deployment, &log, &["run", "--summary", "json"], &env);
        let admin = running.admin().await;
        self.history.note(format!("{name} started, pid {}", running.pid()));
        self.instances.push(Instance { name, running, admin, stopped: false });
    }

    /// Starts until there are this many.
    pub async fn grow_to(&mut self, count: usize) {
        while self.instances.len() < count {
            self.start(None).await;
        }
    }

    /// The sum of a metric's lines that hold this text, of one instance; `None` where it does not answer.
    async fn metric_of(instance: &Instance, name: &str, holds: &str) -> Option<u64> {
        let page = page_of(&instance.admin, "/metrics").await?;
        Some(sum(&page, name, holds))
    }

    /// The same over all instances that are not stopped.
    pub async fn metric(&self, name: &str, holds: &str) -> u64 {
        let mut total = 0;
        for instance in self.instances.iter().filter(|instance| !instance.stopped) {
            total += Self::metric_of(instance, name, holds).await.unwrap_or(0);
        }
        total
    }

    async fn assigned(instance: &Instance) -> u64 {
        Self::metric_of(instance, "recordkeeper_assigned_partitions", "").await.unwrap_or(0)
    }

    /// Waits until every instance that is not stopped owns partitions and together they own all.
    pub async fn balanced(&mut self) {
        let mut seen = String::new();
        let balanced = until_some(async || {
            let mut owned = Vec::new();
            for instance in self.instances.iter().filter(|instance| !instance.stopped) {
                owned.push(Self::assigned(instance).await);
            }
            seen = format!("{owned:?}");
            (!owned.contains(&0) && owned.iter().sum::<u64>() == PARTITIONS).then_some(())
        });
        let balanced = balanced.await;
        self.assert_alive();
        assert!(balanced.is_some(), "a minute without all partitions owned and some by each instance: {seen}");
    }

    /// Nobody died whom no fault killed.
    pub fn assert_alive(&mut self) {
        for instance in &mut self.instances {
            if let Some(status) = instance.running.exited() {
                panic!("{} ended by itself: {status}\n{}", instance.name, tail(&instance.running.stderr()));
            }
        }
    }

    /// `consumed` is the sum of all outcomes and what is in flight, at every scrape.
    pub async fn assert_sums(&self) {
        for instance in self.instances.iter().filter(|instance| !instance.stopped) {
            let Some(page) = page_of(&instance.admin, "/metrics").await else { continue };
            let consumed = sum(&page, "recordkeeper_consumed_total", "");
            let ended = sum(&page, "recordkeeper_outcomes_total", "");
            let in_flight = sum(&page, "recordkeeper_in_flight", "");
            assert_eq!(consumed, ended + in_flight, "{}: the sum rule", instance.name);
        }
    }

    /// Waits until the youngest owns partitions, or has died already of what its failpoint met there.
    pub async fn youngest_takes_part(&mut self) {
        let Some(youngest) = self.instances.last_mut() else { return };
        until("partitions of the youngest", async || {
            let gone = youngest.running.exited().is_some();
            (gone || Self::assigned(youngest).await > 0).then_some(())
        })
        .await;
    }

    /// Waits until the youngest was killed by its failpoint.
    pub async fn youngest_dies(&mut self) {
        let Some(mut victim) = self.instances.pop() else { return };
        let died = until("the failpoint", async || victim.running.exited()).await;
        assert_eq!(died.signal(), Some(9), "{}: {}", victim.name, tail(&victim.running.stderr()));
        self.history.note(format!("{} killed itself at its failpoint", victim.name));
    }

    /// Kills one as kill -9 does.
    pub async fn kill(&mut self, which: usize) {
        let mut victim = self.instances.remove(which);
        assert!(victim.running.exited().is_none(), "{} runs until it is killed", victim.name);
        self.history.note(format!("{} killed", victim.name));
        victim.running.kill().await;
    }

    /// Tells one to stop; it drains.
    pub async fn stop(&mut self, which: usize) {
        let leaver = self.instances.remove(which);
        leaver.running.terminate().await;
        let log = leaver.running.log.clone();
        let (code, _) = leaver.running.ended().await;
        self.history.note(format!("{} left with {code:?}", leaver.name));
        let said = std::fs::read_to_string(log).unwrap();
        assert_eq!(code, Some(0), "{} did not drain\n{}", leaver.name, tail(&said));
    }

    /// Freezes one, until [`Self::thaw`].
    pub async fn freeze(&mut self, which: usize) {
        let held = Self::metric_of(&self.instances[which], "recordkeeper_in_flight", "").await;
        let instance = &mut self.instances[which];
        instance.running.signal("STOP").await;
        instance.stopped = true;
        self.history.note(format!("{} stopped with {held:?} in flight", instance.name));
    }

    /// Waits until the instances that are not frozen own everything.
    pub async fn taken_over(&mut self) {
        until("the others own all partitions", async || {
            let mut total = 0;
            for instance in self.instances.iter().filter(|instance| !instance.stopped) {
                total += Self::assigned(instance).await;
            }
            (total == PARTITIONS).then_some(())
        })
        .await;
        self.history.note("the others own all partitions");
    }

    /// Lets a frozen one go on; back when it noticed that its partitions were lost.
    pub async fn thaw(&mut self, which: usize) {
        let instance = &mut self.instances[which];
        instance.running.signal("CONT").await;
        instance.stopped = false;
        let instance = &self.instances[which];
        until("the zombie lets go of what it lost", async || {
            let lost = Self::metric_of(instance, "recordkeeper_rebalances_total", "kind=\"lost\"").await?;
            let revoked = Self::metric_of(instance, "recordkeeper_rebalances_total", "kind=\"revoked\"").await?;
            (lost + revoked > 0).then_some(())
        })
        .await;
        self.history.note(format!("{} goes on and noticed", instance.name));
    }
}

fn sum(page: &str, name: &str, holds: &str) -> u64 {
    page.lines()
        .filter(|line| line.starts_with(name) && line.contains(holds))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .map(|value| value as u64)
        .sum()
}

/// The end of a log.
fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(4_000);
    &text[text.ceil_char_boundary(from)..]
}
