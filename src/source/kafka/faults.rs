//! What librdkafka's error codes mean for the source.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// What to make of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The partition is read to its end; no fault at all.
    End,
    /// The offset asked for is not in the log.
    OffsetGone,
    /// The cluster is away; librdkafka goes on trying.
    Unwell,
    /// A broker is away, which may be the last one: worth a question.
    Suspect,
    /// A topic is not there, for now or for good.
    Topic(Code),
    /// No retry helps; what to do.
    Fatal(&'static str),
    /// librdkafka gets over it by itself.
    Passing,
}

pub(super) fn classify(error: &KafkaError) -> Fault {
    let code = match error {
        KafkaError::PartitionEOF(_) => return Fault::End,
        KafkaError::MessageConsumptionFatal(code) => {
            return Fault::Fatal(remedy(*code).unwrap_or("librdkafka cannot go on: restart this instance"));
        }
        other => other.rdkafka_error_code(),
    };
    match code {
        Some(Code::PartitionEOF) => Fault::End,
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Fault::OffsetGone,
        Some(Code::AllBrokersDown) => Fault::Unwell,
        Some(
            Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::Authentication
            | Code::SaslAuthenticationFailed,
        ) => Fault::Suspect,
        Some(code @ (Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition)) => {
            Fault::Topic(code)
        }
        Some(code) => remedy(code).map_or(Fault::Passing, Fault::Fatal),
        None => Fault::Passing,
    }
}

/// What to do about a code that no retry helps against.
fn remedy(code: Code) -> Option<&'static str> {
    match code {
        Code::FencedInstanceId => {
            Some("another instance joined with the same group instance id: give each instance its own, then restart")
        }
        Code::UnreleasedInstanceId => Some(
            "a running instance still holds this group instance id: stop it, or give each instance its own, then restart",
        ),
        Code::TopicAuthorizationFailed => Some("grant Read and Describe on the topic to this user, then restart"),
        Code::GroupAuthorizationFailed => Some("grant Read on the group to this user, then restart"),
        Code::ClusterAuthorizationFailed => Some("grant Describe on the cluster to this user, then restart"),
        Code::UnsupportedVersion | Code::UnsupportedFeature => {
            Some("the brokers do not know this group protocol: use the classic one, or brokers from 4.0")
        }
        Code::UnsupportedAssignor | Code::InconsistentGroupProtocol => {
            Some("other members of the group use another protocol or assignor: use one for all, or another group")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fenced_instance_is_told_what_to_do_and_a_lost_connection_is_ridden_out() {
        assert!(
            matches!(classify(&KafkaError::MessageConsumptionFatal(Code::FencedInstanceId)), Fault::Fatal(text) if text.contains("its own"))
        );
        assert_eq!(classify(&KafkaError::MessageConsumption(Code::BrokerTransportFailure)), Fault::Suspect);
        assert_eq!(classify(&KafkaError::MessageConsumption(Code::AutoOffsetReset)), Fault::OffsetGone);
        assert_eq!(classify(&KafkaError::PartitionEOF(3)), Fault::End);
    }
}
