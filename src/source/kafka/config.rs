//! What the Kafka source is told, and the librdkafka settings that follow from it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::config::Secret;
use crate::source::SourceError;

/// Which SCRAM hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scram {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

/// How a client proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Not at all, or by a client certificate given in the security settings.
    None,
    /// SASL PLAIN.
    Plain {
        /// The user's name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// SASL SCRAM.
    Scram {
        /// Which hash.
        hash: Scram,
        /// The user's name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// SASL OAUTHBEARER with a token that something else keeps fresh in a file; read again every few minutes.
    TokenFile {
        /// Path of the file; white space around the token is ignored.
        path: std::path::PathBuf,
    },
    /// SASL OAUTHBEARER with librdkafka's own OIDC client; its `sasl.oauthbearer.*` settings go into the security
    /// settings. Refused at start where librdkafka was built without curl.
    Oidc,
    /// SASL OAUTHBEARER with tokens signed by AWS credentials (Amazon MSK's IAM).
    MskIam {
        /// The cluster's AWS region.
        region: String,
    },
}

/// How to reach a cluster; the same for sources, topics and administration.
#[derive(Clone, Debug)]
pub struct KafkaConnection {
    /// `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// Who we are.
    pub auth: Auth,
    /// Further librdkafka settings about security, with their secrets resolved (`ssl.ca.location`, `ssl.key.password`).
    pub security: Vec<(String, Secret)>,
}

impl KafkaConnection {
    /// Without encryption and authentication.
    pub fn plaintext(bootstrap_servers: impl Into<String>) -> Self {
        Self { bootstrap_servers: bootstrap_servers.into(), tls: false, auth: Auth::None, security: Vec::new() }
    }

    /// librdkafka's settings for a client of this cluster, secrets among them: never to be shown. Tokens (OAUTHBEARER,
    /// MSK IAM) need more than settings.
    pub fn options(&self) -> Vec<(String, String)> {
        self.client_config()
            .config_map()
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// The settings that every client of this cluster begins with.
    pub(crate) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_servers).set("client.id", "recordkeeper");
        // A producer or admin client that asks about a missing topic would otherwise have it created, with a broker's
        // defaults for partitions and replicas.
        config.set("allow.auto.create.topics", "false");
        let sasl = !matches!(self.auth, Auth::None);
        let protocol = match (sasl, self.tls) {
            (false, false) => "plaintext",
            (false, true) => "ssl",
            (true, false) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        match &self.auth {
            Auth::None => {}
            Auth::Plain { username, password } => {
                config.set("sasl.mechanisms", "PLAIN");
                config.set("sasl.username", username).set("sasl.password", password.expose());
            }
            Auth::Scram { hash, username, password } => {
                let mechanism = match hash {
                    Scram::Sha256 => "SCRAM-SHA-256",
                    Scram::Sha512 => "SCRAM-SHA-512",
                };
                config.set("sasl.mechanisms", mechanism);
                config.set("sasl.username", username).set("sasl.password", password.expose());
            }
            Auth::TokenFile { .. } | Auth::MskIam { .. } => {
                config.set("sasl.mechanisms", "OAUTHBEARER");
            }
            Auth::Oidc => {
                config.set("sasl.mechanisms", "OAUTHBEARER").set("sasl.oauthbearer.method", "oidc");
            }
        }
        for (name, value) in &self.security {
            config.set(name, value.expose());
        }
        config
    }
}

/// Where a group begins on a topic that it has no checkpoint for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPolicy {
    /// At the log's start.
    Earliest,
    /// At the log's end: what was written before is skipped.
    Latest,
    /// At the first message whose broker's time is not before this.
    At(SystemTime),
}

/// How the group shares its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupProtocol {
    /// The classic protocol with cooperative-sticky assignment.
    Classic,
    /// KIP-848: the broker assigns; brokers from 4.0.
    Consumer,
}

/// Everything the Kafka source is told.
#[derive(Clone, Debug)]
pub struct KafkaSourceConfig {
    /// The cluster.
    pub connection: KafkaConnection,
    /// The consumer group.
    pub group: String,
    /// Topics by name; no patterns.
    pub topics: Vec<String>,
    /// Of topics whose log was replaced where no topic id says so: which one it is.
    pub topic_epochs: BTreeMap<String, u32>,
    /// Where the group begins.
    pub start: StartPolicy,
    /// How the group shares.
    pub protocol: GroupProtocol,
    /// Static membership: a name that outlives restarts and that no two running members share.
    pub group_instance_id: Option<String>,
    /// Further librdkafka settings, passed through; those that this source depends on are refused.
    pub options: BTreeMap<String, String>,
    /// A batch is handed over at this many messages.
    pub batch_messages_max: usize,
    /// A batch is handed over at this many bytes; one message may exceed it.
    pub batch_bytes_max: usize,
    /// Batches that wait to be taken; with the bytes of a batch the bound on memory here. librdkafka's own is apart.
    pub batches_max: usize,
    /// How long a batch that is not full waits for more messages.
    pub linger: Duration,
    /// Whether to say [`crate::source::SourceEvent::EndOfInput`] when all is read.
    pub until_end: bool,
    /// How long the group may wait for a member that is silent or does not let go of a partition.
    pub max_poll_interval: Duration,
    /// How long a revoked partition may drain; cut at four fifths of `max_poll_interval`.
    pub drain_deadline: Duration,
}

/// Settings that the source's promises rest on, and why they are not free.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it has a setting of its own"),
    ("group.id", "it has a setting of its own"),
    ("group.instance.id", "it has a setting of its own"),
    ("group.protocol", "it has a setting of its own"),
    ("enable.auto.commit", "only durable positions are committed"),
    ("enable.auto.offset.store", "only durable positions are committed"),
    ("auto.offset.reset", "a lost position is never reset silently"),
    ("isolation.level", "aborted transactions are never read"),
    ("enable.partition.eof", "the end of input rests on it"),
    ("partition.assignment.strategy", "the classic protocol uses cooperative-sticky, the consumer protocol its own"),
    ("max.poll.interval.ms", "it has a setting of its own"),
    ("test.mock.num.brokers", "an embedded cluster is chosen by name"),
    ("enable.metrics.push", "the broker's telemetry is not used"),
    ("allow.auto.create.topics", "a missing topic is reported, never created unasked"),
];

impl KafkaSourceConfig {
    /// The consumer's settings.
    ///
    /// # Errors
    /// A setting that contradicts the source, by name and with what to do.
    pub(super) fn consumer_config(&self) -> Result<ClientConfig, SourceError> {
        self.check()?;
        let mut config = self.connection.client_config();
        let poll_ms = self.max_poll_interval.as_millis().to_string();
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("enable.metrics.push", "false")
            .set("max.poll.interval.ms", &poll_ms)
            // librdkafka's default of a second caps a consumer at a third of its rate.
            .set("fetch.queue.backoff.ms", "20")
            // New partitions of a topic are found within this time.
            .set("topic.metadata.refresh.interval.ms", "30000")
            // A bound a partition, since each has a queue of its own.
            .set("queued.max.messages.kbytes", "8192");
        match self.protocol {
            GroupProtocol::Classic => {
                config.set("partition.assignment.strategy", "cooperative-sticky");
                let session = self.max_poll_interval.min(Duration::from_secs(45));
                config.set("session.timeout.ms", session.as_millis().to_string());
            }
            GroupProtocol::Consumer => {
                config.set("group.protocol", "consumer");
            }
        }
        if let Some(id) = &self.group_instance_id {
            config.set("group.instance.id", id);
        }
        for (name, value) in &self.options {
            config.set(name, value);
        }
        // Says when a topic was made anew.
        let debug = self.options.get("debug").filter(|debug| !debug.is_empty());
        let debug = debug.map_or_else(String::new, |debug| format!("{debug},"));
        config.set("debug", format!("{debug}metadata")).set_log_level(RDKafkaLogLevel::Debug);
        Ok(config)
    }

    fn check(&self) -> Result<(), SourceError> {
        let refuse = |text: String| Err(SourceError::Fatal(text));
        if self.topics.is_empty() {
            return refuse(format!("group {} reads no topic: name at least one", self.group));
        }
        if let Some(pattern) = self.topics.iter().find(|topic| topic.starts_with('^')) {
            return refuse(format!("topic {pattern} is a pattern: name each topic"));
        }
        if self.batch_messages_max == 0 || self.batch_bytes_max == 0 || self.batches_max == 0 {
            return refuse("a batch needs room for one message at least: raise the batch limits above 0".to_owned());
        }
        if let Some((name, why)) = OWNED.iter().find(|(name, _)| self.options.contains_key(*name)) {
            return refuse(format!("librdkafka setting {name} may not be set ({why}): remove it"));
        }
        let member_timers = ["session.timeout.ms", "heartbeat.interval.ms", "group.protocol.type"];
        if self.protocol == GroupProtocol::Consumer
            && let Some(name) = member_timers.iter().find(|name| self.options.contains_key(**name))
        {
            return refuse(format!(
                "librdkafka setting {name} may not be set with the consumer group protocol (the broker decides): remove it"
            ));
        }
        Ok(())
    }

    /// How long a revoked partition may drain before the group would throw the member out.
    pub(super) fn drain_deadline(&self) -> Duration {
        self.drain_deadline.min(self.max_poll_interval.mul_f32(0.8))
    }
}

/// A client could not be made: names the setting, never its value.
pub(crate) fn setting_fault(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, _, name, _) => {
            format!("librdkafka refuses the setting {name}: correct its name or value")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn config() -> KafkaSourceConfig {
        KafkaSourceConfig {
            topic_epochs: BTreeMap::new(),
            connection: KafkaConnection::plaintext("127.0.0.1:1"),
            group: "g".into(),
            topics: vec!["t".into()],
            start: StartPolicy::Earliest,
            protocol: GroupProtocol::Consumer,
            group_instance_id: None,
            options: BTreeMap::new(),
            batch_messages_max: 10,
            batch_bytes_max: 1000,
            batches_max: 4,
            linger: Duration::ZERO,
            until_end: false,
            max_poll_interval: Duration::from_secs(300),
            drain_deadline: Duration::from_secs(25),
        }
    }

    #[test]
    fn a_setting_that_the_promises_rest_on_is_refused_by_name() {
        for name in [
            "auto.offset.reset",
            "enable.auto.commit",
            "session.timeout.ms",
            "partition.assignment.strategy",
            "allow.auto.create.topics",
        ] {
            let mut config = config();
            config.options.insert(name.into(), "1".into());
            let error = config.consumer_config().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("remove it"), "{error}");
        }
    }

    #[test]
    fn no_client_of_the_cluster_has_a_missing_topic_created() {
        let connection = KafkaConnection::plaintext("127.0.0.1:1");
        // librdkafka's default for producers and admin clients is true.
        assert_eq!(connection.client_config().get("allow.auto.create.topics"), Some("false"));
        assert!(connection.options().contains(&("allow.auto.create.topics".into(), "false".into())));
    }

    #[test]
    fn what_is_refused_here_is_refused_when_the_settings_are_read() {
        for (name, _) in OWNED {
            let env = |variable: &str| match variable {
                "RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS" => Some("a:1".to_owned()),
                "RECORDKEEPER_DEDUPE" => Some("memory".to_owned()),
                "AWS_DEFAULT_REGION" => Some("eu-central-1".to_owned()),
                "RECORDKEEPER_KAFKA_OPTIONS" => Some(format!("{name}=1")),
                _ => None,
            };
            let found = crate::config::load(&crate::config::ConfigArgs::default(), env, |_| Vec::new()).unwrap_err();
            assert!(found.iter().any(|told| told.to_string().contains(name)), "{name}: {found:?}");
        }
    }

    #[test]
    fn the_consumer_protocol_sets_none_of_the_classic_timers() {
        let consumer = config().consumer_config().unwrap();
        assert_eq!(consumer.get("group.protocol"), Some("consumer"));
        for name in ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"] {
            assert_eq!(consumer.get(name), None, "{name}");
        }
        let classic = KafkaSourceConfig { protocol: GroupProtocol::Classic, ..config() }.consumer_config().unwrap();
        assert_eq!(classic.get("partition.assignment.strategy"), Some("cooperative-sticky"));
    }

    #[test]
    fn a_password_is_in_no_debug_text() {
        let mut config = config();
        config.connection.auth = Auth::Plain { username: "u".into(), password: Secret::new("hunter2") };
        config.connection.security.push(("ssl.key.password".into(), Secret::new("hunter2")));
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_wrong_setting_is_named_without_its_value() {
        let mut config = config();
        config.connection.security.push(("ssl.key.passwort".into(), Secret::new("hunter2")));
        let error =
            config.consumer_config().unwrap().create::<rdkafka::consumer::BaseConsumer>().map(|_| ()).unwrap_err();
        let text = setting_fault(&error);
        assert!(text.contains("ssl.key.passwort") && !text.contains("hunter2"), "{text}");
    }
}
