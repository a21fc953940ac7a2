//! The group: who is a member, and whose each partition is.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use recordkeeper::event::{PartitionRef, Position};
use recordkeeper::source::{Assignment, SourceEvent};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::instance::Instance;
use crate::world::{Shared, lock};

/// A member as the group sees it.
struct Member {
    instance: Instance,
    /// Taken from it while it stood still; it hears of it some time after it goes on.
    taken: Vec<PartitionRef>,
    hears_at: Option<Instant>,
}

pub struct Group {
    world: Shared,
    members: BTreeMap<usize, Member>,
    next: usize,
}

impl Group {
    pub fn new(world: &Shared) -> Self {
        Self { world: world.clone(), members: BTreeMap::new(), next: 0 }
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    fn any(&self) -> Option<usize> {
        let members: Vec<usize> = self.members.keys().copied().collect();
        lock(&self.world).chance.choice(members)
    }

    pub fn start(&mut self) {
        let member = self.next;
        self.next += 1;
        lock(&self.world).note(|| format!("{member} starts"));
        let instance = Instance::start(member, &self.world);
        self.members.insert(member, Member { instance, taken: Vec::new(), hears_at: None });
    }

    /// As kill -9 does.
    pub fn kill(&mut self) {
        let Some((member, gone)) = self.any().and_then(|member| self.members.remove_entry(&member)) else { return };
        gone.instance.task.abort();
        self.leave(member, "is killed");
    }

    fn leave(&self, member: usize, how: &str) {
        let mut world = lock(&self.world);
        world.note(|| format!("{member} {how}"));
        world.owners.retain(|_, owner| *owner != member);
    }

    /// Freezes a member, or lets it go on.
    pub fn freeze_or_thaw(&mut self) {
        let Some(id) = self.any() else { return };
        let Some(member) = self.members.get_mut(&id) else { return };
        let frozen = member.instance.freeze.is_on();
        let mut world = lock(&self.world);
        world.note(|| format!("{id} {}", if frozen { "goes on" } else { "freezes" }));
        if frozen {
            member.hears_at = Some(Instant::now() + Duration::from_millis(world.chance.u64(0..3_000)));
        }
        drop(world);
        member.instance.freeze.set(!frozen);
    }

    /// Tells members what was taken from them while they stood still, where it is time.
    pub fn tell_taken(&mut self) {
        for (id, member) in &mut self.members {
            if !member.instance.freeze.is_on() && member.hears_at.is_some_and(|at| at <= Instant::now()) {
                member.hears_at = None;
                let partitions = std::mem::take(&mut member.taken);
                if !partitions.is_empty() {
                    lock(&self.world).note(|| format!("{id} hears what it lost"));
                    let (ack, _) = oneshot::channel();
                    let _ = member.instance.events.send(SourceEvent::Revoked { partitions, lost: true, ack });
                }
            }
        }
    }

    /// Ends a member as SIGTERM does. Where nothing goes wrong it drains.
    pub async fn stop(&mut self, calm: bool) {
        let Some((id, member)) = self.any().and_then(|member| self.members.remove_entry(&member)) else { return };
        lock(&self.world).note(|| format!("{id} is told to stop"));
        member.instance.freeze.set(false);
        member.instance.stop.cancel();
        let ended = timeout(Duration::from_secs(60), member.instance.task).await;
        let drained = matches!(ended, Ok(Ok(Ok(recordkeeper::engine::Ending::Drained))));
        let sound = matches!(ended, Ok(Ok(Ok(_))));
        if !sound || (calm && !drained) {
            lock(&self.world).wrong(|| format!("{id} was told to stop and ended with {ended:?}"));
        }
        if calm {
            let summary = member.instance.metrics.summary();
            if summary.in_flight != 0 {
                lock(&self.world).wrong(|| format!("{id} drained and counts {} in flight", summary.in_flight));
            }
        }
        self.leave(id, "has stopped");
    }

    /// Members work, and what they count adds up.
    pub fn look_after(&mut self) {
        for (id, member) in &self.members {
            if !member.instance.adds_up() {
                lock(&self.world).wrong(|| format!("{id}: counts do not add up"));
            }
            if member.instance.task.is_finished() {
                lock(&self.world).wrong(|| format!("{id} ended by itself"));
            }
        }
    }

    /// Whether every partition is owned by a member that moves.
    pub fn settled(&self) -> bool {
        let world = lock(&self.world);
        world.logs.keys().all(|partition| {
            world.owners.get(partition).and_then(|owner| self.members.get(owner)).is_some_and(Member::able)
        })
    }

    /// Lets everybody go on.
    pub fn thaw_all(&mut self) {
        for member in self.members.values_mut().filter(|member| member.instance.freeze.is_on()) {
            member.hears_at = Some(Instant::now());
            member.instance.freeze.set(false);
        }
    }

    /// Hands partitions out anew: from those who have them, or do not move, to those who move.
    pub async fn rebalance(&mut self) {
        let able: Vec<usize> = self.members.iter().filter(|(_, member)| member.able()).map(|(id, _)| *id).collect();
        if able.is_empty() {
            return;
        }
        let mut leaving: BTreeMap<usize, Vec<PartitionRef>> = BTreeMap::new();
        let mut coming: BTreeMap<usize, Vec<PartitionRef>> = BTreeMap::new();
        let patience = {
            let mut world = lock(&self.world);
            for partition in world.logs.keys().cloned().collect::<Vec<_>>() {
                let owner = world.owners.get(&partition).copied();
                let stays = owner.filter(|owner| able.contains(owner) && world.chance.u32(0..100) < 60);
                let Some(target) = stays.or_else(|| world.chance.choice(&able).copied()) else { continue };
                if owner == Some(target) {
                    continue;
                }
                if let Some(owner) = owner {
                    leaving.entry(owner).or_default().push(partition.clone());
                }
                coming.entry(target).or_default().push(partition);
            }
            for (verb, moving) in [("leaves", &leaving), ("comes to", &coming)] {
                for (member, partition) in moving.iter().flat_map(|(id, all)| all.iter().map(move |one| (id, one))) {
                    world.note(|| format!("rebalance: {partition} {verb} {member}"));
                }
            }
            Duration::from_millis(world.chance.choice([500, 8_000]).unwrap_or(0))
        };
        let mut acks = Vec::new();
        for (owner, partitions) in leaving {
            let Some(member) = self.members.get_mut(&owner) else { continue };
            if member.able() {
                let (ack, acked) = oneshot::channel();
                let _ = member.instance.events.send(SourceEvent::Revoked { partitions, lost: false, ack });
                acks.push(timeout(patience, acked));
            } else {
                member.taken.extend(partitions);
            }
        }
        join_all(acks).await;
        for (target, partitions) in coming {
            let assignments = {
                let mut world = lock(&self.world);
                let assign = |partition: PartitionRef| {
                    world.assign(&partition, target);
                    let checkpoint = world.committed.get(&partition).copied();
                    let log_end = Position::before_offset(world.logs[&partition].end);
                    let number = world.generations[&partition];
                    Assignment { partition, number, checkpoint, log_start: Position::Begin, log_end }
                };
                partitions.into_iter().map(assign).collect()
            };
            let pause = lock(&self.world).chance.u64(0..200);
            sleep(Duration::from_millis(pause)).await;
            if let Some(member) = self.members.get(&target) {
                let _ = member.instance.events.send(SourceEvent::Assigned(assignments));
            }
        }
    }
}

impl Member {
    /// Moves, and has heard all that it was to hear.
    fn able(&self) -> bool {
        !self.instance.freeze.is_on() && self.taken.is_empty() && self.hears_at.is_none()
    }
}
