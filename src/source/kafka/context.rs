//! librdkafka's callbacks. They only take notes: the reader thread acts on them between two polls, so that no callback
//! ever waits.

use std::error::Error;
use std::io::Read as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::config::{Auth, KafkaConnection};

/// Topic and partition number, as librdkafka names them.
pub(super) type Key = (String, i32);

/// Something that a callback has told.
#[derive(Debug)]
pub(super) enum Note {
    /// The group gives us these.
    Assign(Vec<Key>),
    /// The group takes these; `lost` where it already has.
    Revoke { keys: Vec<Key>, lost: bool },
    /// The answer to a commit: why it was refused; none where all went well.
    Committed(Option<String>),
    /// librdkafka cannot make a group assignment out of it.
    Odd(String),
}

/// The context of every client of one cluster: logs and tokens; for consumers also the notes.
pub(crate) struct Context {
    tokens: Tokens,
    notes: Mutex<Vec<Note>>,
    reason: Mutex<String>,
}

/// Where OAUTHBEARER tokens come from.
enum Tokens {
    None,
    File(std::path::PathBuf),
    MskIam { region: String, runtime: Option<tokio::runtime::Handle> },
}

/// A token file that is larger holds something else.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;
/// A token file is read again after four fifths of this.
const TOKEN_FILE_LIFETIME: Duration = Duration::from_secs(300);
const TOKEN_DEADLINE: Duration = Duration::from_secs(10);

impl Context {
    /// To be called inside a Tokio runtime where the connection uses MSK's IAM: signing needs one.
    pub(crate) fn new(connection: &KafkaConnection) -> Self {
        let tokens = match &connection.auth {
            Auth::TokenFile { path } => Tokens::File(path.clone()),
            Auth::MskIam { region } => {
                Tokens::MskIam { region: region.clone(), runtime: tokio::runtime::Handle::try_current().ok() }
            }
            Auth::None | Auth::Plain { .. } | Auth::Scram { .. } | Auth::Oidc => Tokens::None,
        };
        Self { tokens, notes: Mutex::default(), reason: Mutex::default() }
    }

    pub(super) fn note(&self, note: Note) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// What the callbacks have told since the last call, in order.
    pub(super) fn take_notes(&self) -> Vec<Note> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// librdkafka's words for the error that a poll has just returned.
    pub(super) fn take_reason(&self) -> String {
        std::mem::take(&mut *self.reason.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, fac: &str, log_message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(target: "librdkafka", facility = fac, "{log_message}");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility = fac, "{log_message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility = fac, "{log_message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Called for the end of a partition as well; the poll that calls this returns the error to whom it concerns.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        match &self.tokens {
            Tokens::None => Err("no token source is configured".into()),
            Tokens::File(path) => {
                let mut text = String::new();
                std::fs::File::open(path)
                    .and_then(|file| file.take(TOKEN_BYTES_MAX + 1).read_to_string(&mut text))
                    .map_err(|error| format!("cannot read the token file {}: {error}", path.display()))?;
                if text.len() as u64 > TOKEN_BYTES_MAX {
                    return Err(
                        format!("the token file {} is larger than {TOKEN_BYTES_MAX} bytes", path.display()).into()
                    );
                }
                let expires = SystemTime::now().duration_since(UNIX_EPOCH)? + TOKEN_FILE_LIFETIME;
                Ok(OAuthToken {
                    token: text.trim().to_owned(),
                    principal_name: "recordkeeper".to_owned(),
                    lifetime_ms: i64::try_from(expires.as_millis())?,
                })
            }
            Tokens::MskIam { region, runtime } => {
                let runtime = runtime.as_ref().ok_or("the client was not made inside a Tokio runtime")?;
                let region = aws_config::Region::new(region.clone());
                // Called on a thread of librdkafka's polling, never on the runtime's own.
                let (token, lifetime_ms) = runtime.block_on(async {
                    tokio::time::timeout(TOKEN_DEADLINE, aws_msk_iam_sasl_signer::generate_auth_token(region)).await
                })??;
                Ok(OAuthToken { token, principal_name: "recordkeeper".to_owned(), lifetime_ms })
            }
        }
    }
}

impl ConsumerContext for Context {
    // librdkafka waits for the assign or unassign call itself, not for this callback: the reader may answer later, and
    // goes on polling meanwhile.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, tpl: &mut TopicPartitionList) {
        let keys = || tpl.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
        self.note(match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Note::Assign(keys()),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                Note::Revoke { keys: keys(), lost: consumer.assignment_lost() }
            }
            other => Note::Odd(RDKafkaErrorCode::from(other).to_string()),
        });
    }
}
