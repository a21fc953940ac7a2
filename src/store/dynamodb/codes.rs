//! What the store's error codes mean. Codes only, never texts: a code that is not known here may pass.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::batch_execute_statement::BatchExecuteStatementError;

use crate::store::{Retry, RetryCause};

/// The most characters of the store's own message that are passed on: enough to say what is wrong, too few to carry data.
const MESSAGE_CHARS_MAX: usize = 200;

/// Trouble with one statement or one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// May pass.
    Retry(Retry),
    /// Never passes.
    Rejected(String),
}

/// By code; `what` names the table and the operation.
pub(crate) fn by_code(code: &str, message: &str, what: &str) -> Trouble {
    let message: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
    let cause = match code {
        "ProvisionedThroughputExceeded"
        | "ProvisionedThroughputExceededException"
        | "ThrottlingError"
        | "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded" => RetryCause::Throttled,
        "TransactionConflict"
        | "TransactionConflictException"
        | "TransactionInProgressException"
        | "ReplicatedWriteConflictException" => RetryCause::Contended,
        "AccessDenied"
        | "AccessDeniedException"
        | "ResourceNotFound"
        | "ResourceNotFoundException"
        | "UnrecognizedClientException"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "IncompleteSignatureException"
        | "InvalidSignatureException"
        | "ExpiredTokenException"
        | "NotAuthorized" => RetryCause::Refused,
        "ValidationError"
        | "ValidationException"
        | "ItemCollectionSizeLimitExceeded"
        | "ItemCollectionSizeLimitExceededException" => return Trouble::Rejected(format!("{what}: {code}: {message}")),
        _ => RetryCause::Unavailable,
    };
    Trouble::Retry(Retry { cause, after: None, detail: format!("{what}: {code}: {message}") })
}

/// A call that failed as a whole.
pub(crate) fn by_error<E: ProvideErrorMetadata + std::error::Error + 'static>(
    error: &SdkError<E>,
    what: &str,
) -> Trouble {
    match error {
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or("no code");
            by_code(code, answer.err().message().unwrap_or("no message"), what)
        }
        SdkError::TimeoutError(_) => unavailable(format!("{what}: no answer within the deadline")),
        SdkError::DispatchFailure(failure) => {
            let cause = failure.as_connector_error().map_or_else(String::new, |error| source_texts(error));
            unavailable(format!("{what}: the call could not be sent or was cut: {cause}"))
        }
        SdkError::ResponseError(_) => unavailable(format!("{what}: an answer that cannot be read")),
        other => unavailable(format!("{what}: {}", source_texts(other))),
    }
}

/// A batch of statements that failed as a whole: of a throttle also why, and which table or index it was.
pub(crate) fn by_batch_error(error: &SdkError<BatchExecuteStatementError>, what: &str) -> Trouble {
    let reasons = match error.as_service_error() {
        Some(BatchExecuteStatementError::ThrottlingException(slow)) => slow.throttling_reasons(),
        Some(BatchExecuteStatementError::RequestLimitExceeded(slow)) => slow.throttling_reasons(),
        _ => &[],
    };
    let mut what = what.to_owned();
    for reason in reasons {
        let (why, resource) = (reason.reason().unwrap_or("no reason"), reason.resource().unwrap_or("no resource"));
        what.push_str(&format!(" ({why} at {resource})"));
    }
    by_error(error, &what)
}

/// Nothing is known about what became of it.
pub(crate) fn unavailable(detail: String) -> Trouble {
    Trouble::Retry(Retry { cause: RetryCause::Unavailable, after: None, detail })
}

/// An error and what caused it, in one line.
fn source_texts(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_into_their_classes() {
        let cause = |code| match by_code(code, "", "") {
            Trouble::Retry(retry) => Some(retry.cause),
            Trouble::Rejected(_) => None,
        };
        assert_eq!(cause("ThrottlingError"), Some(RetryCause::Throttled));
        assert_eq!(cause("TransactionConflict"), Some(RetryCause::Contended));
        assert_eq!(cause("AccessDenied"), Some(RetryCause::Refused));
        assert_eq!(cause("SomethingNew"), Some(RetryCause::Unavailable));
        assert_eq!(cause("ValidationError"), None);
    }
}
