//! Counts and times every call that the SDK makes, and tells when a table asks to slow down.

use std::sync::Arc;

use aws_sdk_dynamodb::config::interceptors::{
    BeforeSerializationInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use tokio::time::Instant;

use super::schema::Table;
use crate::telemetry::metrics::{CallResult, CounterGrid, Counters, Operation, Timers};
use crate::telemetry::{Alerts, Breakers, Metrics};

/// The metrics of a store's calls.
#[derive(Clone, Debug)]
pub struct CallMetrics {
    /// By operation and result.
    pub calls: CounterGrid<Operation, CallResult>,
    /// How long they take.
    pub seconds: Timers<Operation>,
    /// Write calls that were told to slow down, by table.
    pub throttles: Counters<Table>,
    /// Where it is said that a table's writes were slowed down.
    pub alerts: Alerts,
    /// The breakers that its calls go behind.
    pub breakers: Arc<Breakers>,
}

impl CallMetrics {
    /// Those of the process.
    pub fn of(metrics: &Metrics) -> Self {
        Self {
            calls: metrics.store_calls.clone(),
            seconds: metrics.store_call_seconds.clone(),
            throttles: metrics.throttles.clone(),
            alerts: metrics.alerts.clone(),
            breakers: metrics.breakers.clone(),
        }
    }
}

#[derive(Debug)]
struct Began(Instant);

impl Storable for Began {
    type Storer = StoreReplace<Self>;
}

impl Intercept for CallMetrics {
    fn name(&self) -> &'static str {
        "recordkeeper call metrics"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        cfg.interceptor_state().store_put(Began(Instant::now()));
        Ok(())
    }

    fn read_after_execution(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = match cfg.load::<Metadata>().map(Metadata::name) {
            Some("BatchExecuteStatement") => Operation::BatchExecuteStatement,
            Some("ExecuteTransaction") => Operation::ExecuteTransaction,
            Some("BatchGetItem") => Operation::BatchGetItem,
            Some("Query") => Operation::Query,
            _ => Operation::Other,
        };
        let result = match context.output_or_error() {
            Some(Ok(_)) => CallResult::Ok,
            Some(Err(error)) if error.is_timeout_error() => CallResult::Timeout,
            Some(Err(error)) if error.is_operation_error() => CallResult::Refused,
            Some(Err(_)) | None => CallResult::Unavailable,
        };
        self.calls.add(operation, result, 1);
        if let Some(Began(at)) = cfg.load::<Began>() {
            self.seconds.observe(operation, at.elapsed());
        }
        Ok(())
    }
}
