//! Write statements of many callers in few calls.
//!
//! Each table has one queue. Callers put their statements in; whoever gets a free call slot takes up to 25 of them from the
//! front, its own or not, and carries the answers back. So calls fill up by themselves while slots are scarce, and nothing
//! waits for a timer while they are not.

use std::collections::{HashMap, HashSet, VecDeque};
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

use super::budget::Budget;
use super::codes::{self, Trouble};
use crate::store::{Retry, RetryCause};

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

/// One table's statements on their way. Not cancel safe: statements of a dropped caller may be written.
#[derive(Debug)]
pub(crate) struct Calls {
    client: Client,
    /// The table's full name, for messages.
    table: String,
    slots: Arc<Semaphore>,
    budget: Budget,
    /// The longest wait for the budget before a caller is told to come back later.
    wait_max: Duration,
    queue: Mutex<VecDeque<Waiting>>,
    /// Held by the one caller that fills the next call.
    turn: tokio::sync::Mutex<()>,
    /// How many statements more are sent one a call.
    alone: AtomicUsize,
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
    queued: AtomicUsize,
    unanswered: AtomicUsize,
    finished: Notify,
}

impl Group {
    fn answer(&self, place: usize, answer: Answer) {
        if let Some(slot) = lock(&self.answers).get_mut(place) {
            *slot = Some(answer);
        }
        if self.unanswered.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finished.notify_one();
        }
    }
}

/// Statements taken from the queue; those that nobody answered are unknown, also when the one who took them goes away.
struct Batch {
    waiting: Vec<Option<Waiting>>,
}

impl Batch {
    fn answer(&mut self, at: usize, answer: Answer) {
        if let Some(waiting) = self.waiting.get_mut(at).and_then(Option::take) {
            waiting.group.answer(waiting.place, answer);
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for at in 0..self.waiting.len() {
            self.answer(at, Answer::Trouble(codes::unavailable("the call was given up".to_owned())));
        }
    }
}

/// Takes a dropped caller's statements out of the queue.
struct Leaving<'a> {
    calls: &'a Calls,
    group: Arc<Group>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if self.group.queued.load(Ordering::Acquire) > 0 {
            let trouble = codes::unavailable("the caller went away".to_owned());
            self.calls.withdraw(&self.group, &trouble);
        }
    }
}

impl Calls {
    /// For one table; `slots` bounds the calls in flight, and may be shared between tables.
    pub(crate) fn new(
        client: Client,
        table: String,
        slots: Arc<Semaphore>,
        budget: Budget,
        wait_max: Duration,
    ) -> Self {
        Self {
            client,
            table,
            slots,
            budget,
            wait_max,
            queue: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
            alone: AtomicUsize::new(0),
        }
    }

    /// Runs all; one answer a statement, in order.
    pub(crate) async fn run(&self, statements: Vec<Statement>) -> Vec<Answer> {
        if statements.is_empty() {
            return Vec::new();
        }
        let count = statements.len();
        let group = Arc::new(Group {
            answers: Mutex::new(vec![None; count]),
            queued: AtomicUsize::new(count),
            unanswered: AtomicUsize::new(count),
            finished: Notify::new(),
        });
        let waiting = statements.into_iter().enumerate();
        lock(&self.queue).extend(waiting.map(|(place, statement)| Waiting { statement, place, group: group.clone() }));
        let _leaving = Leaving { calls: self, group: group.clone() };
        // One driver for each call that this caller's statements may need; each stops once none of them is queued.
        futures::future::join_all((0..count.div_ceil(STATEMENTS_MAX)).map(|_| self.drive(&group))).await;
        while group.unanswered.load(Ordering::Acquire) > 0 {
            group.finished.notified().await;
        }
        let unknown = || Answer::Trouble(codes::unavailable(format!("{}: no answer", self.table)));
        std::mem::take(&mut *lock(&group.answers)).into_iter().map(|answer| answer.unwrap_or_else(unknown)).collect()
    }

    /// Writes units a second at the moment; `None` = no limit.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.budget.rate(Instant::now())
    }

    /// Makes calls until none of the group's statements is queued.
    async fn drive(&self, group: &Group) {
        while group.queued.load(Ordering::Acquire) > 0 {
            let turn = self.turn.lock().await;
            let wait = self.budget.delay(Instant::now());
            if wait > self.wait_max {
                let detail = format!("{}: the write budget is spent", self.table);
                let retry = Retry { cause: RetryCause::Throttled, after: Some(wait), detail };
                self.withdraw(group, &Trouble::Retry(retry));
                return;
            }
            if wait > Duration::ZERO {
                tokio::time::sleep(wait).await;
            }
            // The semaphore is never closed; were it, going on without a slot would be right.
            let _slot = self.slots.acquire().await.ok();
            if group.queued.load(Ordering::Acquire) == 0 {
                return;
            }
            let batch = self.take();
            drop(turn);
            self.execute(batch).await;
        }
    }

    /// From the front, one key once, within a call's limits.
    fn take(&self) -> Batch {
        let (mut keys, mut bytes) = (HashSet::with_capacity(STATEMENTS_MAX), 0);
        let (mut taken, mut left) = (Vec::with_capacity(STATEMENTS_MAX), VecDeque::new());
        let mut units = 0;
        let alone = self.alone.load(Ordering::Acquire);
        let most = if alone > 0 { 1 } else { STATEMENTS_MAX };
        self.alone.store(alone.saturating_sub(1), Ordering::Release);
        let mut queue = lock(&self.queue);
        while taken.len() < most
            && let Some(waiting) = queue.pop_front()
        {
            let full = !taken.is_empty() && bytes + waiting.statement.bytes > CALL_BYTES_MAX;
            if full || keys.contains(&waiting.statement.key_hash) {
                left.push_back(waiting);
                if full {
                    break;
                }
                continue;
            }
            keys.insert(waiting.statement.key_hash);
            bytes += waiting.statement.bytes;
            units += waiting.statement.bytes.div_ceil(1024).max(1);
            waiting.group.queued.fetch_sub(1, Ordering::AcqRel);
            taken.push(Some(waiting));
        }
        while let Some(waiting) = left.pop_back() {
            queue.push_front(waiting);
        }
        drop(queue);
        self.budget.spend(units, Instant::now());
        Batch { waiting: taken }
    }

    /// Takes the group's statements out of the queue and answers them all alike.
    fn withdraw(&self, group: &Group, trouble: &Trouble) {
        let mut out = Vec::new();
        lock(&self.queue).retain(|waiting| {
            let theirs = std::ptr::eq(Arc::as_ptr(&waiting.group), group);
            if theirs {
                out.push(waiting.place);
            }
            !theirs
        });
        group.queued.fetch_sub(out.len(), Ordering::AcqRel);
        for place in out {
            group.answer(place, Answer::Trouble(trouble.clone()));
        }
    }

    async fn execute(&self, mut batch: Batch) {
        let requests: Result<Vec<_>, _> =
            batch.waiting.iter_mut().flatten().map(|waiting| request(&mut waiting.statement)).collect();
        let trouble = match requests {
            Ok(requests) => match self.send(requests).await {
                Ok(answers) => {
                    for (at, answer) in answers.into_iter().enumerate() {
                        batch.answer(at, answer);
                    }
                    return;
                }
                Err(trouble) => trouble,
            },
            Err(error) => Trouble::Rejected(format!("{}: {error}", self.table)),
        };
        let trouble = match trouble {
            // A call that is refused as a whole does not say because of which statement. Sent again, they go alone.
            Trouble::Rejected(detail) if batch.waiting.len() > 1 => {
                self.alone.store(ALONE_AFTER_REFUSAL, Ordering::Release);
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

    async fn send(&self, requests: Vec<BatchStatementRequest>) -> Result<Vec<Answer>, Trouble> {
        let count = requests.len();
        let trouble = match self.client.batch_execute_statement().set_statements(Some(requests)).send().await {
            Ok(output) => {
                let responses = output.responses.unwrap_or_default();
                if responses.len() == count {
                    let answers: Vec<_> = responses.into_iter().map(|response| self.read(response)).collect();
                    if answers.iter().any(|answer| matches!(answer, Answer::Trouble(trouble) if is_throttle(trouble))) {
                        self.budget.throttled(Instant::now());
                    }
                    return Ok(answers);
                }
                codes::unavailable(format!("{}: {} answers to {count} statements", self.table, responses.len()))
            }
            Err(error) => codes::by_error(&error, &self.table),
        };
        if is_throttle(&trouble) {
            self.budget.throttled(Instant::now());
        }
        Err(trouble)
    }

    fn read(&self, response: BatchStatementResponse) -> Answer {
        let Some(error) = response.error else { return Answer::Done };
        match error.code.as_ref().map_or("no code", |code| code.as_str()) {
            "DuplicateItem" => Answer::Exists,
            "ConditionalCheckFailed" => Answer::ConditionFailed(error.item),
            code => Answer::Trouble(codes::by_code(code, error.message.as_deref().unwrap_or_default(), &self.table)),
        }
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
