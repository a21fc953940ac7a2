//! The way to a dependency and back, and what goes wrong on it.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use recordkeeper::store::{Retry, RetryCause};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::world::{Shared, World, lock};

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependency {
    Store,
    Ledger,
    Cache,
    Topics,
    Source,
}

impl Dependency {
    pub const ALL: [Self; 5] = [Self::Store, Self::Ledger, Self::Cache, Self::Topics, Self::Source];
}

/// How likely it is, in percent, that something goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// A call never arrives.
    pub unsent: u32,
    /// A call is carried out and its answer lost.
    pub unanswered: u32,
    /// A call, or its answer, takes very long.
    pub slow: u32,
    /// An item of a call is not taken.
    pub partial: u32,
}

impl Trouble {
    /// Between none at all and hardly anything works.
    pub fn draw(chance: &mut Rng) -> Self {
        let mut percent = || chance.choice([0, 0, 1, 5, 20]).unwrap_or(0);
        Self { unsent: percent(), unanswered: percent(), slow: percent(), partial: percent() }
    }
}

/// Dependencies that are away, and until when.
#[derive(Debug, Default)]
pub struct Outages(BTreeMap<Dependency, Instant>);

impl Outages {
    pub fn begin(&mut self, dependency: Dependency, length: Duration) {
        self.0.insert(dependency, Instant::now() + length);
    }

    pub fn end_all(&mut self) {
        self.0.clear();
    }

    fn is_away(&self, dependency: Dependency) -> bool {
        self.0.get(&dependency).is_some_and(|until| Instant::now() < *until)
    }
}

/// How long a caller waits for its answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// Whether something of this likelihood happens.
pub fn happens(chance: &mut Rng, percent: u32) -> bool {
    chance.u32(0..100) < percent
}

fn delay(world: &mut World) -> Duration {
    let slow = world.trouble.slow;
    let millis = if happens(&mut world.chance, slow) { world.chance.u64(500..6_000) } else { world.chance.u64(0..20) };
    Duration::from_millis(millis)
}

/// Carries a call out. `None`: no answer; whether it was, or will be, carried out is unknown to the caller. What is on its way
/// arrives whatever becomes of the caller.
pub async fn call<R: Send + 'static>(
    world: &Shared,
    dependency: Dependency,
    carried_out: impl FnOnce(&mut World) -> R + Send + 'static,
) -> Option<R> {
    let (unsent, unanswered, out, back) = {
        let mut world = lock(world);
        let trouble = world.trouble;
        let unsent = happens(&mut world.chance, trouble.unsent);
        let unanswered = happens(&mut world.chance, trouble.unanswered);
        let (out, back) = (delay(&mut world), delay(&mut world));
        (unsent, unanswered, out, back)
    };
    if unsent {
        sleep(out.min(DEADLINE)).await;
        return None;
    }
    let (reply, answer) = oneshot::channel();
    let server = world.clone();
    tokio::spawn(async move {
        sleep(out).await;
        let done = {
            let mut world = lock(&server);
            if world.outages.is_away(dependency) { None } else { Some(carried_out(&mut world)) }
        };
        if let Some(done) = done.filter(|_| !unanswered) {
            sleep(back).await;
            // A caller that is gone wants no answer.
            let _ = reply.send(done);
        }
    });
    timeout(DEADLINE, answer).await.ok()?.ok()
}

/// What a caller says of a call without an answer.
pub fn unavailable() -> Retry {
    Retry { cause: RetryCause::Unavailable, after: None, detail: "no answer".into() }
}

/// What the store says of an item that it does not take now.
pub fn throttled(chance: &mut Rng) -> Retry {
    let after = happens(chance, 50).then(|| Duration::from_millis(chance.u64(1..200)));
    Retry { cause: RetryCause::Throttled, after, detail: "slow down".into() }
}
