//! All that one event writes in one transaction.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::execute_transaction::ExecuteTransactionError;
use aws_sdk_dynamodb::types::{CancellationReason, ParameterizedStatement, ReturnValuesOnConditionCheckFailure};
use uuid::Uuid;

use super::calls::{Answer, Statement};
use super::codes::{self, Trouble};
use super::insert::vanished;
use super::schema::Table;
use super::state::Keyed;
use super::update::{Next, Step, key};
use super::{Dynamo, state};
use crate::event::Record;
use crate::store::{Changed, Retry, RetryCause, Transacted, Transaction};

/// The most statements of a transaction.
const STATEMENTS_MAX: usize = 100;
/// INSERT or UPDATE of each state, guessed wrong at most a few times.
const ROUNDS_MAX: usize = 4;

impl Dynamo {
    pub(super) async fn transact_all(&self, transaction: Transaction<'_>) -> Transacted {
        let count = transaction.records.len() + transaction.states.len();
        if transaction.records.is_empty() || count > STATEMENTS_MAX {
            return Transacted::Rejected(format!(
                "transaction of {count} statements: 1 record to {STATEMENTS_MAX} in all are allowed"
            ));
        }
        let states: Vec<Keyed<'_>> = transaction.states.iter().map(Keyed::of).collect();
        let mut next: Vec<_> = states.iter().map(|write| self.first_statement(write)).collect();
        for _ in 0..ROUNDS_MAX {
            match self.attempt(transaction.records, &states, &mut next).await {
                Ok(Some(verdict)) => return verdict,
                Ok(None) => {}
                Err(Trouble::Retry(retry)) => return Transacted::Retry(retry),
                Err(Trouble::Rejected(detail)) => return Transacted::Rejected(detail),
            }
        }
        let detail = "transaction: another writer was in the way each time".to_owned();
        Transacted::Retry(Retry { cause: RetryCause::Contended, after: None, detail })
    }

    /// One call; `None` where a state's statement turned out to be the wrong one and `next` was mended.
    async fn attempt(
        &self,
        records: &[Record],
        states: &[Keyed<'_>],
        next: &mut [Next],
    ) -> Result<Option<Transacted>, Trouble> {
        let shards = self.shards().await?;
        let now = super::stored_now();
        let (mut statements, mut record_digests) = (Vec::new(), Vec::new());
        for record in records {
            let (statement, digest) = self.record_statement(record, shards.records, &now).map_err(Trouble::Rejected)?;
            statements.push(statement);
            record_digests.push(digest);
        }
        for (write, next) in states.iter().zip(next.iter()) {
            let statement = match next {
                Next::Insert => state::insert(&self.state_texts, *write, shards.wallets, &now),
                Next::Update => state::update(&self.state_texts, *write, shards.wallets, &now),
            };
            statements.push(statement.map_err(Trouble::Rejected)?);
        }
        let Err(reasons) = self.send_transaction(statements).await? else {
            for write in states {
                self.known.insert(write.hash(), ());
            }
            return Ok(Some(Transacted::Done { record_digests }));
        };
        self.cancelled(records, states, next, reasons).await
    }

    /// `Ok(Err(..))`: cancelled, with an answer for each statement.
    async fn send_transaction(&self, statements: Vec<Statement>) -> Result<Result<(), Vec<Answer>>, Trouble> {
        let count = statements.len();
        let statements = statements.into_iter().map(|statement| {
            ParameterizedStatement::builder()
                .statement(&*statement.text)
                .set_parameters(Some(statement.parameters))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .build()
        });
        let statements = statements.collect::<Result<Vec<_>, _>>();
        let statements = statements.map_err(|error| Trouble::Rejected(format!("transaction: {error}")))?;
        let _connection = self.connection().await;
        let pass = self.transactions.enter()?;
        let call = self.client.execute_transaction().set_transact_statements(Some(statements));
        match call.client_request_token(Uuid::new_v4().to_string()).send().await {
            Ok(_) => {
                pass.answered();
                Ok(Ok(()))
            }
            Err(SdkError::ServiceError(answer)) if is_cancelled(answer.err()) => {
                pass.answered();
                let ExecuteTransactionError::TransactionCanceledException(cancelled) = answer.into_err() else {
                    return Err(codes::unavailable("transaction: cancelled".to_owned()));
                };
                let reasons = cancelled.cancellation_reasons.unwrap_or_default();
                if reasons.len() != count {
                    let detail = format!("transaction: {} reasons for {count} statements", reasons.len());
                    return Err(codes::unavailable(detail));
                }
                Ok(Err(reasons.into_iter().map(read).collect()))
            }
            Err(error) => {
                let trouble = codes::by_error(&error, "transaction");
                pass.troubled(&trouble);
                Err(trouble)
            }
        }
    }

    /// Nothing was written. The judge first: what stands decides. Then what may pass, what never does, and last the states.
    async fn cancelled(
        &self,
        records: &[Record],
        states: &[Keyed<'_>],
        next: &mut [Next],
        mut reasons: Vec<Answer>,
    ) -> Result<Option<Transacted>, Trouble> {
        let of_states = reasons.split_off(records.len());
        let judge = &records[0].record_id;
        if matches!(reasons.first(), Some(Answer::Exists)) {
            return match self.standing(&[judge]).await.swap_remove(0)? {
                Some(standing) => Ok(Some(Transacted::Present(standing))),
                None => Err(vanished(Table::Records)),
            };
        }
        let mut rejected = None;
        for reason in reasons.iter().chain(&of_states) {
            match reason {
                Answer::Trouble(Trouble::Retry(retry)) => return Err(Trouble::Retry(retry.clone())),
                Answer::Trouble(Trouble::Rejected(detail)) => rejected = Some(detail.clone()),
                Answer::Done | Answer::Exists | Answer::ConditionFailed(_) => {}
            }
        }
        if let Some(detail) = rejected {
            return Err(Trouble::Rejected(detail));
        }
        if let Some(at) = reasons.iter().position(|reason| matches!(reason, Answer::Exists)) {
            let id = &records[at].record_id;
            return Err(Trouble::Rejected(format!("transaction: record {id:?} stands without its judge")));
        }
        let mut unchanged = Vec::new();
        for (at, reason) in of_states.into_iter().enumerate() {
            if matches!(reason, Answer::Done) {
                continue;
            }
            let write = &states[at];
            let step = match self.judge(write, next[at], reason) {
                Step::Look => self.look_once(write).await?,
                step => step,
            };
            match step {
                Step::Verdict(Changed::Retry(retry)) => return Err(Trouble::Retry(retry)),
                Step::Verdict(Changed::Rejected(detail)) => return Err(Trouble::Rejected(detail)),
                Step::Verdict(verdict) => unchanged.push((at, verdict)),
                Step::Again(other) => next[at] = other,
                Step::Look => return Err(codes::unavailable("transaction: a state could not be read".to_owned())),
            }
        }
        Ok(if unchanged.is_empty() { None } else { Some(Transacted::Unchanged(unchanged)) })
    }

    async fn look_once(&self, keyed: &Keyed<'_>) -> Result<Step, Trouble> {
        let write = keyed.write;
        let (table, key) = (state::table(write), key(&write.key));
        let fetched = self.fetch(table, std::slice::from_ref(&key), &[]).await;
        let Some(item) = fetched.get(&key)? else {
            self.known.remove(&keyed.hash());
            return Ok(Step::Again(Next::Insert));
        };
        match state::compare(write, item) {
            Ok(Some(verdict)) => Ok(Step::Verdict(verdict)),
            Ok(None) => Ok(Step::Again(Next::Update)),
            Err(what) => Err(super::fetch::garbled(&self.table_name(table), &format!("{key:?}: {what}"))),
        }
    }
}

fn is_cancelled(error: &ExecuteTransactionError) -> bool {
    error.is_transaction_canceled_exception()
}

/// A reason in the form of a single statement's answer; `None` as a code means that this one was all right.
fn read(reason: CancellationReason) -> Answer {
    match reason.code.as_deref().unwrap_or("None") {
        "None" => Answer::Done,
        "DuplicateItem" => Answer::Exists,
        "ConditionalCheckFailed" => Answer::ConditionFailed(reason.item),
        code => Answer::Trouble(codes::by_code(code, reason.message.as_deref().unwrap_or_default(), "transaction")),
    }
}
