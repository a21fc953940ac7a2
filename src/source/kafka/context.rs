//! librdkafka's callbacks. They only take notes: the reader thread acts on them between two polls, so that no callback
//! ever waits.

use std::collections::HashMap;
use std::error::Error;
use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
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
use super::native;

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
    /// How many callbacks were served.
    served: AtomicU64,
    logs: Logs,
}

/// Which log of each topic librdkafka reads. It goes on at the same offset where a topic was made anew ("an offset reset must be
/// triggered", rdkafka_topic.c, 2.12.1), and says so by a debug line alone. The line enters the group's queue before anything is
/// fetched from the new log, since brokers from 3.1 on are asked by topic id: whoever serves that queue after a message came knows
/// whether the message is of the log that it takes it for.
#[derive(Default)]
struct Logs {
    ids: Mutex<HashMap<String, String>>,
    changes: AtomicU64,
}

impl Logs {
    /// Takes a debug line of librdkafka: `Topic NAME changed id from ID to ID`.
    fn hear(&self, line: &str) {
        let told = line.split_once("Topic ").and_then(|(_, told)| told.split_once(" changed id from "));
        let Some((topic, (_, id))) = told.and_then(|(topic, ids)| Some((topic, ids.split_once(" to ")?))) else {
            return;
        };
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert(topic.to_owned(), native::id_text(id));
        self.changes.fetch_add(1, Ordering::Release);
    }
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
        Self {
            tokens,
            notes: Mutex::default(),
            reason: Mutex::default(),
            served: AtomicU64::new(0),
            logs: Logs::default(),
        }
    }

    /// How many callbacks were served: a poll that served one returns nothing, as one of an empty queue does.
    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// How often librdkafka has gone over to another log of some topic; the first one of each counts, too.
    pub(super) fn log_changes(&self) -> u64 {
        self.logs.changes.load(Ordering::Acquire)
    }

    /// Whether librdkafka reads another log of the topic than the one with this id, as far as it tells.
    pub(super) fn reads_another_log(&self, topic: &str, id: &str) -> bool {
        let ids = self.logs.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.get(topic).is_some_and(|read| !read.is_empty() && read != id)
    }

    pub(super) fn note(&self, note: Note) {
        self.served.fetch_add(1, Ordering::Relaxed);
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
        self.served.fetch_add(1, Ordering::Relaxed);
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(target: "librdkafka", facility = fac, "{log_message}");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility = fac, "{log_message}");
            }
            RDKafkaLogLevel::Debug => {
                self.logs.hear(log_message);
                tracing::debug!(target: "librdkafka", facility = fac, "{log_message}");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.served.fetch_add(1, Ordering::Relaxed);
        // Called for the end of a partition as well; the poll that calls this returns the error to whom it concerns.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.served.fetch_add(1, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_librdkafka_tells_which_log_it_reads() {
        let context = Context::new(&KafkaConnection::plaintext("127.0.0.1:1"));
        let hear = |line: &str| context.log(RDKafkaLogLevel::Debug, "METADATA", line);
        assert!(!context.reads_another_log("t", "a"), "nothing was told yet");
        hear("[thrd:main]: Topic t changed id from AAAAAAAAAAAAAAAAAAAAAA to nOeY+rlnQz/8SRY8XkrAJA");
        assert!(!context.reads_another_log("t", "nOeY-rlnQz_8SRY8XkrAJA") && !context.reads_another_log("u", "a"));
        assert!(context.reads_another_log("t", "a"));
        hear("[thrd:main]: Topic t [0] Leader 1 Epoch 0");
        assert_eq!(context.log_changes(), 1);
        hear("[thrd:main]: Topic t changed id from nOeY+rlnQz/8SRY8XkrAJA to AAAAAAAAAAAAAAAAAAAAAA");
        assert!(!context.reads_another_log("t", "a"), "a broker that tells no ids says nothing");
        assert_eq!((context.log_changes(), context.served()), (2, 3));
    }
}
