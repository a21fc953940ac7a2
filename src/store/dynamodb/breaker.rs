//! A table's breakers, as its calls use them.
//!
//! What counts is whether the table answers: a throttle, a refused condition, a statement that is wrong are answers. No
//! connection, no answer in time, a server's fault, a table that is missing or that we may not use are none.

use std::sync::Arc;

use super::calls::Answer;
use super::codes::Trouble;
use super::counted::CallMetrics;
use super::schema::Table;
use crate::store::{Retry, RetryCause};
use crate::telemetry::{Call, Guarded, Watched};

/// The breaker of one kind of calls; none where there are no metrics, as in a command that asks once.
#[derive(Clone, Debug)]
pub(crate) struct Door(Option<Arc<Watched>>);

/// Leave to make one call; dropped without a word it counts as neither.
pub(crate) struct Pass<'a>(Option<Call<'a>>);

impl Door {
    fn of(metrics: Option<&CallMetrics>, guarded: Guarded) -> Self {
        Self(metrics.map(|metrics| metrics.breakers.of(guarded)))
    }

    /// Of a table's batched writes. Nothing here writes requests.
    pub(super) fn writes(metrics: Option<&CallMetrics>, table: Table) -> Self {
        let guarded = match table {
            Table::Records => Guarded::RecordWrites,
            Table::Wallets => Guarded::WalletWrites,
            Table::Mappings => Guarded::MappingWrites,
            Table::Ledger | Table::Requests => Guarded::LedgerWrites,
        };
        Self::of(metrics, guarded)
    }

    /// Of a table's reads.
    pub(super) fn reads(metrics: Option<&CallMetrics>, table: Table) -> Self {
        let guarded = match table {
            Table::Records => Guarded::RecordReads,
            Table::Wallets => Guarded::WalletReads,
            Table::Mappings => Guarded::MappingReads,
            Table::Requests => Guarded::RequestReads,
            Table::Ledger => Guarded::LedgerReads,
        };
        Self::of(metrics, guarded)
    }

    /// Of transactions.
    pub(super) fn transactions(metrics: Option<&CallMetrics>) -> Self {
        Self::of(metrics, Guarded::Transactions)
    }

    /// Leave to make a call; where the table is left alone, what its callers are told instead.
    pub(crate) fn enter(&self) -> Result<Pass<'_>, Trouble> {
        let Some(watched) = &self.0 else { return Ok(Pass(None)) };
        watched.permit().map(|call| Pass(Some(call))).map_err(|after| {
            let detail = format!("{} gave no answer a moment ago and is left alone", watched.name());
            Trouble::Retry(Retry { cause: RetryCause::Unavailable, after: Some(after), detail })
        })
    }
}

impl Pass<'_> {
    /// The call was answered.
    pub(crate) fn answered(self) {
        if let Some(call) = self.0 {
            call.success();
        }
    }

    /// The call as a whole ended in trouble.
    pub(crate) fn troubled(self, trouble: &Trouble) {
        match no_answer(trouble) {
            None => self.answered(),
            Some(detail) => self.failed(detail),
        }
    }

    /// A batch was answered, statement by statement. It is an outage where no statement got an answer. A single one without
    /// is no sign of anything: one item may be stuck while its table is well.
    pub(super) fn batch(self, answers: &[Answer]) {
        let troubles = answers.iter().map(|answer| match answer {
            Answer::Trouble(trouble) => no_answer(trouble).map(|detail| (is_refused(trouble), detail)),
            Answer::Done | Answer::Exists | Answer::ConditionFailed(_) => None,
        });
        let troubles: Option<Vec<_>> = troubles.collect();
        match troubles.as_deref() {
            None | Some([]) => self.answered(),
            Some([(false, _)]) => {}
            Some([(_, detail), ..]) => self.failed(detail),
        }
    }

    fn failed(self, detail: &str) {
        if let Some(call) = self.0 {
            call.failure(detail);
        }
    }
}

/// Why this counts as no answer; `None` where it is one.
fn no_answer(trouble: &Trouble) -> Option<&str> {
    match trouble {
        Trouble::Retry(Retry { cause: RetryCause::Unavailable | RetryCause::Refused, detail, .. }) => Some(detail),
        Trouble::Retry(Retry { cause: RetryCause::Throttled | RetryCause::Contended, .. }) => None,
        Trouble::Rejected(_) => None,
    }
}

fn is_refused(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Retry(Retry { cause: RetryCause::Refused, .. }))
}
