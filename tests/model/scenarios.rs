//! Worlds, each with some of the faults, explored to the end; and the same worlds with one rule switched off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::progress::KnownGood;
use crate::rules::Rule;
use crate::steps::Action;
use crate::world::{Effects, Event, Faults, State, World};

/// A world as stateright explores it.
#[derive(Clone)]
struct Explored {
    world: World,
    /// The properties that are looked at.
    asked: &'static [&'static str],
    good: Arc<KnownGood>,
    /// Whether a state that is wrong was found: the first one is told of, since the way to it is short.
    found: Arc<AtomicBool>,
}

const SAFE: &str = "the promises hold";
const LIVE: &str = "the log can be consumed";

impl Model for Explored {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(&self.world)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.world.steps(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.world.step(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let safe = Property::always(SAFE, |model: &Self, state| model.is_well(|| model.world.wrong(state).is_none()));
        let live = Property::always(LIVE, |model: &Self, state| {
            model.is_well(|| model.world.can_be_consumed(state, &model.good))
        });
        [safe, live].into_iter().filter(|property| self.asked.contains(&property.name)).collect()
    }
}

impl Explored {
    fn is_well(&self, holds: impl Fn() -> bool) -> bool {
        self.found.load(Ordering::Relaxed) || holds() || self.found.swap(true, Ordering::Relaxed)
    }
}

/// Explores a world to the end, or until one of these properties does not hold; tells how that state is reached.
fn explore(world: &World, asked: &'static [&'static str]) -> Result<usize, String> {
    let model = Explored { world: world.clone(), asked, good: Arc::default(), found: Arc::default() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::Any).spawn_bfs().join();
    if let Some(path) = asked.iter().find_map(|property| checker.discovery(property)) {
        let wrong = world.wrong(path.last_state()).unwrap_or_else(|| "the rest can never be consumed any more".into());
        let steps: Vec<String> = path.into_actions().iter().map(|action| format!("  {action:?}")).collect();
        return Err(format!("{wrong}\n{}", steps.join("\n")));
    }
    Ok(checker.unique_state_count())
}

const fn event(id: u8, content: u8) -> Event {
    Event { id, content }
}

/// The third event repeats the first's identity with the same content.
const DUPLICATE: [Event; 3] = [event(0, 1), event(1, 1), event(0, 1)];
/// The third event repeats the first's identity with other content.
const CONFLICT: [Event; 3] = [event(0, 1), event(1, 1), event(0, 2)];
/// Two events of one identity side by side; the first one's content is not what comes from elsewhere.
const NEIGHBOURS: [Event; 3] = [event(0, 2), event(0, 1), event(1, 1)];

const fn effects(groups: [u8; 2], request: bool) -> Option<Effects> {
    Some(Effects { groups, request })
}

/// The first identity creates a wallet and asks for another; the second one, of a lower version, writes to another group.
const PLAIN: [Option<Effects>; 2] = [effects([2, 0], true), effects([0, 1], false)];
/// Both write the same version of the same group.
const TIE: [Option<Effects>; 2] = [effects([2, 0], true), effects([2, 0], false)];
/// The second identity's events are refused.
const REFUSES: [Option<Effects>; 2] = [effects([2, 0], true), None];
/// The first identity's events write to both groups.
const WIDER: [Option<Effects>; 2] = [effects([2, 3], true), effects([0, 1], false)];

const NONE: Faults = Faults {
    crashes: 0,
    flushes: 0,
    strangers: 0,
    moves: 0,
    resets: 0,
    skips: 0,
    lost: 0,
    deploys: 0,
    replays: 0,
    redrives: 0,
    trims: 0,
    further: 0,
    damages: 0,
    takeovers: 0,
};

fn world(log: [Event; 3], mapping: [[Option<Effects>; 2]; 2], batches_in_flight: usize, faults: Faults) -> World {
    World { log, mapping, begins: 0, instances: 2, batches_in_flight, faults, off: None }
}

/// Instances die, partitions move, answers are lost.
fn unrest(log: [Event; 3]) -> World {
    let faults = Faults { flushes: 1, moves: 1, lost: 1, ..NONE };
    world(log, [PLAIN; 2], 1, large(faults, Faults { crashes: 1, ..faults }))
}

/// An instance stands still, loses its partition meanwhile, and goes on with what it had fetched.
fn resumed(log: [Event; 3]) -> World {
    let faults = Faults { moves: 1, further: 2, lost: 1, ..NONE };
    world(log, [PLAIN; 2], 1, large(faults, Faults { crashes: 1, ..faults }))
}

/// So does one whose mapping is no longer the deployed one.
fn resumed_outdated(log: [Event; 3], after: [Option<Effects>; 2]) -> World {
    let faults = Faults { moves: 1, further: 1, deploys: 1, ..NONE };
    world(log, [PLAIN, after], 1, large(faults, Faults { crashes: 1, further: 2, ..faults }))
}

/// Checkpoints are moved, expire, or an order skips what is there.
fn moved_checkpoints(log: [Event; 3]) -> World {
    let faults = Faults { crashes: 1, flushes: 1, resets: 1, skips: 1, lost: 1, ..NONE };
    world(log, [PLAIN; 2], 1, large(faults, Faults { moves: 1, lost: 0, flushes: 0, ..faults }))
}

/// Retention takes events away, of a group that did not begin at the log's start; checkpoints are moved.
fn trimmed(begins: u8) -> World {
    let faults = Faults { crashes: 1, resets: 1, trims: 1, ..NONE };
    let faults = large(faults, Faults { moves: 1, trims: 2, resets: 0, ..faults });
    World { begins, ..world(DUPLICATE, [PLAIN; 2], 1, faults) }
}

/// Somebody else writes to the same tables.
fn strangers(log: [Event; 3]) -> World {
    let faults = Faults { strangers: 1, crashes: 1, lost: 1, ..NONE };
    world(log, [PLAIN; 2], 1, large(faults, Faults { moves: 1, ..faults }))
}

/// Several batches of a lane at a time.
fn in_flight(log: [Event; 3]) -> World {
    let faults = Faults { moves: 1, ..NONE };
    world(log, [PLAIN; 2], 2, large(faults, Faults { crashes: 1, lost: 1, ..faults }))
}

/// Two events of one version.
fn tie() -> World {
    let faults = Faults { crashes: 1, lost: 1, ..NONE };
    world(DUPLICATE, [TIE; 2], 2, large(faults, Faults { moves: 1, ..faults }))
}

/// A mapping changed between deliveries.
fn deployed(log: [Event; 3], before: [Option<Effects>; 2], after: [Option<Effects>; 2]) -> World {
    let faults = Faults { moves: 1, deploys: 1, ..NONE };
    world(log, [before, after], 1, large(faults, Faults { crashes: 1, flushes: 1, ..faults }))
}

/// A replay beside the consumer, perhaps by another mapping.
fn replayed(after: [Option<Effects>; 2]) -> World {
    let faults = Faults { deploys: 1, replays: 1, ..NONE };
    world(DUPLICATE, [PLAIN, after], 1, large(faults, Faults { crashes: 1, lost: 1, ..faults }))
}

/// Dead letters brought back by a mapping that takes them.
fn redriven(log: [Event; 3]) -> World {
    let faults = Faults { crashes: 1, deploys: 1, redrives: 1, ..NONE };
    world(log, [REFUSES, PLAIN], 1, large(faults, Faults { moves: 1, ..faults }))
}

/// An entry of the group's chain is altered, and a person begins its next epoch.
fn broken(log: [Event; 3]) -> World {
    let faults = Faults { damages: 1, moves: 1, further: 1, ..NONE };
    world(log, [PLAIN; 2], 1, large(faults, Faults { crashes: 1, ..faults }))
}

/// A replay that another process takes up, by itself.
fn taken_up(log: [Event; 3]) -> World {
    let faults = Faults { crashes: 1, lost: 1, replays: 1, takeovers: 1, ..NONE };
    World { instances: 0, ..world(log, [PLAIN; 2], 1, large(faults, Faults { takeovers: 2, ..faults })) }
}

/// A redrive that another process takes up, beside a consumer.
fn redrive_taken_up(log: [Event; 3]) -> World {
    let faults = Faults { deploys: 1, redrives: 1, takeovers: 1, ..NONE };
    let faults = large(faults, Faults { crashes: 1, lost: 1, ..faults });
    World { instances: 1, ..world(log, [REFUSES, PLAIN], 1, faults) }
}

/// The larger world of `make model`, tens of millions of states, only where it is asked for.
fn large(small: Faults, large: Faults) -> Faults {
    if std::env::var_os("RECORDKEEPER_MODEL_LARGE").is_some() { large } else { small }
}

fn holds(world: &World) {
    match explore(world, &[SAFE, LIVE]) {
        Ok(states) => println!("holds in {states} states"),
        Err(wrong) => panic!("{wrong}"),
    }
}

/// Each rule, switched off, is missed by one of these properties.
fn is_missed(rule: Rule, asked: &'static [&'static str], world: World) {
    match explore(&World { off: Some(rule), ..world }, asked) {
        Ok(states) => panic!("{rule:?} is not missed in {states} states"),
        Err(wrong) => println!("{rule:?} is missed: {wrong}"),
    }
}

#[test]
fn instances_that_lose_their_partition() {
    holds(&unrest(DUPLICATE));
    holds(&unrest(CONFLICT));
}

#[test]
fn an_instance_that_goes_on_after_it_stood_still() {
    holds(&resumed(DUPLICATE));
    holds(&resumed(CONFLICT));
    holds(&resumed_outdated(DUPLICATE, WIDER));
    holds(&resumed_outdated(CONFLICT, REFUSES));
}

#[test]
fn checkpoints_that_are_moved_or_expire() {
    holds(&moved_checkpoints(DUPLICATE));
    holds(&moved_checkpoints(CONFLICT));
}

#[test]
fn a_log_whose_beginning_is_gone() {
    holds(&trimmed(0));
    holds(&trimmed(1));
}

#[test]
fn somebody_else_stores_the_same_event_and_never_comes_back() {
    holds(&strangers(DUPLICATE));
    holds(&strangers(CONFLICT));
    holds(&strangers(NEIGHBOURS));
}

#[test]
fn several_batches_at_a_time() {
    holds(&in_flight(DUPLICATE));
    holds(&in_flight(CONFLICT));
}

#[test]
fn two_events_of_one_version() {
    holds(&tie());
}

#[test]
fn a_mapping_that_changes_between_deliveries() {
    holds(&deployed(DUPLICATE, PLAIN, REFUSES));
    holds(&deployed(CONFLICT, REFUSES, PLAIN));
    holds(&deployed(DUPLICATE, PLAIN, WIDER));
}

#[test]
fn a_replay_beside_the_consumer() {
    holds(&replayed(PLAIN));
    holds(&replayed(WIDER));
}

#[test]
fn dead_letters_redriven_beside_the_consumer() {
    holds(&redriven(DUPLICATE));
    holds(&redriven(CONFLICT));
}

#[test]
fn a_chain_that_is_left_behind() {
    holds(&broken(DUPLICATE));
    holds(&broken(CONFLICT));
}

#[test]
fn a_run_that_another_process_takes_up() {
    holds(&taken_up(DUPLICATE));
    holds(&taken_up(CONFLICT));
    holds(&redrive_taken_up(DUPLICATE));
    holds(&redrive_taken_up(CONFLICT));
}

#[test]
fn every_rule_is_needed() {
    is_missed(Rule::DoAll, &[SAFE], strangers(DUPLICATE));
    is_missed(Rule::RememberLast, &[SAFE], in_flight(DUPLICATE));
    is_missed(Rule::LettersFirst, &[SAFE], in_flight(CONFLICT));
    is_missed(Rule::AttestFirst, &[SAFE], in_flight(DUPLICATE));
    is_missed(Rule::Fence, &[SAFE], unrest(DUPLICATE));
    is_missed(Rule::Reread, &[LIVE], unrest(DUPLICATE));
    is_missed(Rule::StartLower, &[SAFE], moved_checkpoints(DUPLICATE));
    is_missed(Rule::StartBelow, &[SAFE], moved_checkpoints(DUPLICATE));
    is_missed(Rule::LossIsAttested, &[SAFE], trimmed(0));
    is_missed(Rule::DigestOfContent, &[SAFE], deployed(DUPLICATE, PLAIN, WIDER));
    is_missed(Rule::OwnLedger, &[SAFE], replayed(PLAIN));
    is_missed(Rule::RepairUnasked, &[SAFE], replayed(WIDER));
    is_missed(Rule::JudgeInOrder, &[SAFE], in_flight(CONFLICT));
    is_missed(Rule::TieIsNothing, &[SAFE], tie());
    is_missed(Rule::VersionByGroup, &[SAFE], in_flight(DUPLICATE));
    is_missed(Rule::WholeReplayRemembers, &[SAFE], replayed(PLAIN));
    is_missed(Rule::JudgedByRecord, &[SAFE], strangers(NEIGHBOURS));
    is_missed(Rule::LastEpoch, &[LIVE], broken(DUPLICATE));
    is_missed(Rule::OwnChain, &[LIVE], broken(DUPLICATE));
    is_missed(Rule::SoundBegin, &[SAFE], broken(DUPLICATE));
    is_missed(Rule::StartBelow, &[SAFE], broken(DUPLICATE));
    is_missed(Rule::Fence, &[SAFE], taken_up(DUPLICATE));
    is_missed(Rule::Seal, &[SAFE], taken_up(DUPLICATE));
    is_missed(Rule::SealAgain, &[SAFE], taken_up(DUPLICATE));
    is_missed(Rule::NextEpoch, &[LIVE], taken_up(DUPLICATE));
    is_missed(Rule::BeginAtSeal, &[SAFE], taken_up(DUPLICATE));
    is_missed(Rule::TokenHeld, &[SAFE], taken_up(DUPLICATE));
    is_missed(Rule::EpochOnce, &[SAFE], taken_up(DUPLICATE));
}
