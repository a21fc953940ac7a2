//! Write statements of many callers in few calls.
//!
//! Each table has one queue. Callers put their statements in; a bounded number of tasks empties it, each taking up to 25 from
//! the front, whosever they are, as soon as a call slot is free. So calls fill up by themselves while slots are scarce, and
//! nothing waits for a timer while they are not. Tasks, not callers, make the calls: a caller that is not polled or goes away
//! holds up nobody else. A task ends with the queue, or with its runtime.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{
    AttributeValue, BatchStatementRequest, BatchStatementResponse, ReturnValuesOnConditionCheckFailure,
};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::breaker::{Door, Pass};
use super::budget::Budget;
use super::codes::{self, Trouble};
use super::counted::CallMetrics;
use super::schema::Table;
use crate::store::{Retry, RetryCause};
use crate::telemetry::{Alert, At};

/// The most statements of one call.
const STATEMENTS_MAX: usize = 25;
/// The most bytes of one call's parameters; a single statement may be larger.
const CALL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many statements go alone after a call was refused as a whole: enough that those of that call come by again.
const ALONE_AFTER_REFUSAL: usize = 200;

/// One parameterised write.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// A hash of the item's key: two statements with the same one never share a call.
    pub(crate) key_hash: u64,
    /// The PartiQL text, built once per shape.
    pub(crate) text: Arc<str>,
    /// Its parameters.
    pub(crate) parameters: Vec<AttributeValue>,
    /// The item's size, for the write budget and the call's size.
    pub(crate) bytes: usize,
}

/// What became of one statement.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Written.
    Done,
    /// An INSERT found an item under its key.
    Exists,
    /// An UPDATE's condition was false: the item, unless there is none (or an old server does not send it).
    ConditionFailed(Option<HashMap<String, AttributeValue>>),
    /// It did not work.
    Trouble(Trouble),
}

/// One table's statements on their way. Not cancel safe: statements of a caller that went away are still written.
#[derive(Debug)]
pub(crate) struct Calls {
    client: Client,
    table: Table,
    /// The table's full name, for messages.
    name: String,
    metrics: Option<CallMetrics>,
    door: Door,
    slots: Arc<Semaphore>,
    tasks_max: usize,
    budget: Budget,
    /// The longest wait for the budget before callers are told to come back later.
    wait_max: Duration,
    queue: Mutex<Queue>,
    /// Held by the one task that fills the next call.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Tasks that there are.
    tasks: usize,
    /// Those of them that are about to take statements, not busy with a call.
    ready: usize,
    /// How many statements more are sent one a call.
    alone: usize,
}

#[derive(Debug)]
struct Waiting {
    statement: Statement,
    place: usize,
    group: Arc<Group>,
}

/// The statements of one caller.
#[derive(Debug)]
struct Group {
    answers: Mutex<Vec<Option<Answer>>>,
    unanswered: AtomicUsize,
    finished: Notify,
}

impl Waiting {
    fn answer(self, answer: Answer) {
        if let Some(slot) = lock(&self.group.answers).get_mut(self.place) {
            *slot = Some(answer);
        }
        if self.group.unanswered.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.group.finished.notify_one();
        }
    }
}

/// Statements taken from the queue; those that nobody answered are unknown, also when their task ends with its runtime.
struct Batch {
    waiting: Vec<Option<Waiting>>,
}

impl Batch {
    /// Write units: one for each KB begun.
    fn units(&self) -> usize {
        self.waiting.iter().flatten().map(|waiting| waiting.statement.bytes.div_ceil(1024).max(1)).sum()
    }

    fn answer(&mut self, at: usize, answer: Answer) {
        if let Some(waiting) = self.waiting.get_mut(at).and_then(Option::take) {
            waiting.answer(answer);
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for at in 0..self.waiting.len() {
            self.answer(at, given_up());
        }
    }
}

fn given_up() -> Answer {
    Answer::Trouble(codes::unavailable("the call was given up".to_owned()))
}

/// A task's place among the queue's tasks, given back however it ends.
struct Task {
    calls: Arc<Calls>,
    state: TaskState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TaskState {
    Ready,
    Busy,
    Left,
}

impl Task {
    /// Always under the queue's lock, so that nobody counts on a task that is about to leave.
    fn enter(&mut self, queue: &mut Queue, state: TaskState) {
        let count = |state| (usize::from(state != TaskState::Left), usize::from(state == TaskState::Ready));
        let ((tasks_before, ready_before), (tasks, ready)) = (count(self.state), count(state));
        queue.tasks = queue.tasks + tasks - tasks_before;
        queue.ready = queue.ready + ready - ready_before;
        self.state = state;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.state == TaskState::Left {
            return;
        }
        // Its runtime ends, or it panicked. The last one may leave statements behind that nobody else would answer.
        let calls = self.calls.clone();
        let mut queue = lock(&calls.queue);
        self.enter(&mut queue, TaskState::Left);
        let left = if queue.tasks == 0 { std::mem::take(&mut queue.waiting) } else { VecDeque::new() };
        drop(queue);
        left.into_iter().for_each(|waiting| waiting.answer(given_up()));
    }
}

impl Calls {
    /// For one table. At most `tasks_max` of its calls are in flight, and of all tables together as many as `slots` has.
    pub(crate) fn new(
        client: Client,
        (table, name): (Table, String),
        metrics: Option<CallMetrics>,
        (slots, tasks_max): (Arc<Semaphore>, usize),
        budget: Budget,
        wait_max: Duration,
    ) -> Arc<Self> {
        let (queue, turn) = (Mutex::default(), tokio::sync::Mutex::new(()));
        let door = Door::writes(metrics.as_ref(), table);
        Arc::new(Self { client, table, name, metrics, door, slots, tasks_max, budget, wait_max, queue, turn })
    }

    /// Runs all; one answer a statement, in order.
    pub(crate) async fn run(self: &Arc<Self>, statements: Vec<Statement>) -> Vec<Answer> {
        if statements.is_empty() {
            return Vec::new();
        }
        let count = statements.len();
        let group = Arc::new(Group {
            answers: Mutex::new(vec![None; count]),
            unanswered: AtomicUsize::new(count),
            finished: Notify::new(),
        });
        self.push(statements, &group);
        while group.unanswered.load(Ordering::Acquire) > 0 {
            group.finished.notified().await;
        }
        std::mem::take(&mut *lock(&group.answers)).into_iter().map(|answer| answer.unwrap_or_else(given_up)).collect()
    }

    /// Queues the statements and starts as many tasks as they need and may have.
    fn push(self: &Arc<Self>, statements: Vec<Statement>, group: &Arc<Group>) {
        let mut queue = lock(&self.queue);
        let waiting = statements.into_iter().enumerate();
        queue.waiting.extend(waiting.map(|(place, statement)| Waiting { statement, place, group: group.clone() }));
        let needed = queue.waiting.len().div_ceil(STATEMENTS_MAX).saturating_sub(queue.ready);
        let started = needed.min(self.tasks_max.saturating_sub(queue.tasks));
        queue.tasks += started;
        queue.ready += started;
        drop(queue);
        for _ in 0..started {
            tokio::spawn(Task { calls: self.clone(), state: TaskState::Ready }.work());
        }
    }

    /// The store asked to slow down.
    fn throttled(&self, trouble: &Trouble) {
        let slowed = self.budget.throttled(Instant::now());
        let Some(metrics) = &self.metrics else { return };
        metrics.throttles.add(self.table, 1);
        if let (true, Trouble::Retry(Retry { detail, .. })) = (slowed, trouble) {
            let message = format_args!("writes are slowed down, give the table more capacity if it lasts: {detail}");
            metrics.alerts.raise(Alert::Throttled, &At::default(), message);
        }
    }

    /// Waits until the budget allows another call, or answers everything if that takes too long.
    async fn wait_for_budget(&self) {
        let wait = self.budget.delay(Instant::now());
        if wait > self.wait_max {
            let left = std::mem::take(&mut lock(&self.queue).waiting);
            for waiting in left {
                let detail = format!("{}: the write budget is spent", self.name);
                let retry = Retry { cause: RetryCause::Throttled, after: Some(wait), detail };
                waiting.answer(Answer::Trouble(Trouble::Retry(retry)));
            }
        } else if wait > Duration::ZERO {
            tokio::time::sleep(wait).await;
        }
    }

    async fn execute(&self, mut batch: Batch, pass: Pass<'_>) {
        let requests: Result<Vec<_>, _> =
            batch.waiting.iter_mut().flatten().map(|waiting| request(&mut waiting.statement)).collect();
        let trouble = match requests {
            Ok(requests) => match self.send(requests, pass).await {
                Ok(answers) => {
                    for (at, answer) in answers.into_iter().enumerate() {
                        batch.answer(at, answer);
                    }
                    return;
                }
                Err(trouble) => trouble,
            },
            Err(error) => Trouble::Rejected(format!("{}: {error}", self.name)),
        };
        let trouble = match trouble {
            // A call that is refused as a whole does not say because of which statement. Sent again, they go alone.
            Trouble::Rejected(detail) if batch.waiting.len() > 1 => {
                lock(&self.queue).alone = ALONE_AFTER_REFUSAL;
                codes::unavailable(format!(
                    "{detail} (a call of {} as a whole; the next go alone)",
                    batch.waiting.len()
                ))
            }
            trouble => trouble,
        };
        for at in 0..batch.waiting.len() {
            batch.answer(at, Answer::Trouble(trouble.clone()));
        }
    }

    async fn send(&self, requests: Vec<BatchStatementRequest>, pass: Pass<'_>) -> Result<Vec<Answer>, Trouble> {
        let count = requests.len();
        let trouble = match self.client.batch_execute_statement().set_statements(Some(requests)).send().await {
            Ok(output) => {
                let responses = output.responses.unwrap_or_default();
                if responses.len() == count {
                    let answers: Vec<_> = responses.into_iter().map(|response| self.read(response)).collect();
                    let mut troubles = answers.iter().filter_map(|answer| match answer {
                        Answer::Trouble(trouble) => Some(trouble),
                        Answer::Done | Answer::Exists | Answer::ConditionFailed(_) => None,
                    });
                    if let Some(trouble) = troubles.find(|trouble| is_throttle(trouble)) {
                        self.throttled(trouble);
                    }
                    pass.batch(&answers);
                    return Ok(answers);
                }
                codes::unavailable(format!("{}: {} answers to {count} statements", self.name, responses.len()))
            }
            Err(error) => codes::by_batch_error(&error, &self.name),
        };
        pass.troubled(&trouble);
        if is_throttle(&trouble) {
            self.throttled(&trouble);
        }
        Err(trouble)
    }

    fn read(&self, response: BatchStatementResponse) -> Answer {
        let Some(error) = response.error else { return Answer::Done };
        match error.code.as_ref().map_or("no code", |code| code.as_str()) {
            "DuplicateItem" => Answer::Exists,
            "ConditionalCheckFailed" => Answer::ConditionFailed(error.item),
            code => Answer::Trouble(codes::by_code(code, error.message.as_deref().unwrap_or_default(), &self.name)),
        }
    }
}

impl Task {
    /// Makes calls until the queue is empty.
    async fn work(mut self) {
        let calls = self.calls.clone();
        loop {
            let turn = calls.turn.lock().await;
            calls.wait_for_budget().await;
            // The semaphore is never closed; were it, going on without a slot would be right.
            let _slot = calls.slots.acquire().await.ok();
            let (batch, pass) = {
                let mut queue = lock(&calls.queue);
                if queue.waiting.is_empty() {
                    return self.enter(&mut queue, TaskState::Left);
                }
                match calls.door.enter() {
                    Ok(pass) => {
                        self.enter(&mut queue, TaskState::Busy);
                        (queue.take(), pass)
                    }
                    // Nobody waits here for a table that is left alone.
                    Err(trouble) => {
                        self.enter(&mut queue, TaskState::Left);
                        let left = std::mem::take(&mut queue.waiting);
                        drop(queue);
                        left.into_iter().for_each(|waiting| waiting.answer(Answer::Trouble(trouble.clone())));
                        return;
                    }
                }
            };
            calls.budget.spend(batch.units(), Instant::now());
            drop(turn);
            calls.execute(batch, pass).await;
            self.enter(&mut lock(&calls.queue), TaskState::Ready);
        }
    }
}

impl Queue {
    /// From the front, one key once, within a call's limits; at least one statement if there is any.
    fn take(&mut self) -> Batch {
        let most = if self.alone > 0 { 1 } else { STATEMENTS_MAX };
        self.alone = self.alone.saturating_sub(1);
        let mut taken: Vec<Option<Waiting>> = Vec::with_capacity(most);
        let (mut passed, mut bytes) = (Vec::new(), 0);
        while taken.len() < most
            && let Some(waiting) = self.waiting.pop_front()
        {
            let known = |other: &Waiting| other.statement.key_hash == waiting.statement.key_hash;
            let full = !taken.is_empty() && bytes + waiting.statement.bytes > CALL_BYTES_MAX;
            if full || taken.iter().flatten().any(known) {
                passed.push(waiting);
                if full {
                    break;
                }
            } else {
                bytes += waiting.statement.bytes;
                taken.push(Some(waiting));
            }
        }
        for waiting in passed.into_iter().rev() {
            self.waiting.push_front(waiting);
        }
        Batch { waiting: taken }
    }
}

fn is_throttle(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Retry(Retry { cause: RetryCause::Throttled, .. }))
}

fn request(statement: &mut Statement) -> Result<BatchStatementRequest, BuildError> {
    BatchStatementRequest::builder()
        .statement(&*statement.text)
        .set_parameters(Some(std::mem::take(&mut statement.parameters)))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .build()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queue(statements: &[(u64, usize)]) -> Queue {
        let group = Arc::new(Group {
            answers: Mutex::new(vec![None; statements.len()]),
            unanswered: AtomicUsize::new(statements.len()),
            finished: Notify::new(),
        });
        let waiting = statements.iter().enumerate().map(|(place, (key_hash, bytes))| {
            let statement = Statement { key_hash: *key_hash, text: "".into(), parameters: Vec::new(), bytes: *bytes };
            Waiting { statement, place, group: group.clone() }
        });
        Queue { waiting: waiting.collect(), ..Queue::default() }
    }

    proptest! {
        #[test]
        fn every_statement_is_taken_once_within_the_limits_and_one_keys_in_order(
            statements in proptest::collection::vec((0u64..12, 1usize..CALL_BYTES_MAX / 3), 0..120),
            alone in 0usize..4,
        ) {
            let mut queue = queue(&statements);
            queue.alone = alone;
            let (mut seen, mut calls) = (Vec::new(), 0);
            while !queue.waiting.is_empty() {
                let batch = queue.take();
                let taken: Vec<_> = batch.waiting.iter().flatten().collect();
                prop_assert!(!taken.is_empty());
                let most = if calls < alone { 1 } else { STATEMENTS_MAX };
                prop_assert!(taken.len() <= most);
                prop_assert!(taken.iter().map(|waiting| waiting.statement.bytes).sum::<usize>() <= CALL_BYTES_MAX);
                let mut keys: Vec<_> = taken.iter().map(|waiting| waiting.statement.key_hash).collect();
                keys.sort_unstable();
                prop_assert!(keys.is_sorted_by(|a, b| a < b), "one key once a call");
                seen.extend(taken.iter().map(|waiting| waiting.place));
                calls += 1;
            }
            for key in 0..12 {
                let of_key: Vec<_> = seen.iter().filter(|place| statements[**place].0 == key).collect();
                prop_assert!(of_key.is_sorted());
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..statements.len()).collect::<Vec<_>>());
        }
    }
}
