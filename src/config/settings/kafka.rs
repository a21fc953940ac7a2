//! The Kafka cluster: where it is, how it is secured, what is passed through to librdkafka.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::dynamodb::is_region;
use super::secret_file;
use crate::config::reader::Reader;
use crate::config::setting::{Fault, Setting, choice, section};
use crate::config::{ByteSize, Names, Secret, pem};

choice! {
    /// How connections to the brokers are secured.
    Security {
        /// Not at all.
        Plaintext = "plaintext",
        /// Encrypted; with a client certificate also authenticated.
        Tls = "tls",
        /// Authenticated, not encrypted.
        SaslPlaintext = "sasl_plaintext",
        /// Authenticated and encrypted.
        SaslTls = "sasl_tls",
    }
}

choice! {
    /// How a client authenticates.
    SaslMechanism {
        /// User name and password as they are.
        Plain = "PLAIN",
        /// Challenge and response over SHA-256.
        ScramSha256 = "SCRAM-SHA-256",
        /// Challenge and response over SHA-512.
        ScramSha512 = "SCRAM-SHA-512",
        /// A token that something else keeps fresh in a file.
        Oauthbearer = "OAUTHBEARER",
        /// Tokens signed with the AWS credentials of the process (Amazon MSK).
        AwsMskIam = "AWS_MSK_IAM",
    }
}

section! {
    /// The Kafka cluster that sources are read from and that requests and dead letters are written to.
    "kafka" => KafkaSettings {
        /// The brokers to ask first, each `host:port`. No default: events of a wrong cluster would be recorded for good.
        bootstrap_servers: Vec<HostPort>;
        /// How connections are secured.
        security: Security = "plaintext";
        /// Authorities to trust, PEM; without it those of the system.
        ca_file: Option<PathBuf>;
        /// The client's certificate, PEM, for brokers that ask for one.
        certificate_file: Option<PathBuf>;
        /// The key of the client's certificate, PEM.
        key_file: Option<PathBuf>;
        /// The password of the key file.
        key_password: Option<Secret>;
        /// A file that holds the password of the key file.
        key_password_file: Option<PathBuf>;
        /// How the client authenticates; required with `sasl_plaintext` and `sasl_tls`.
        sasl_mechanism: Option<SaslMechanism>;
        /// The user's name for PLAIN and SCRAM.
        username: Option<String>;
        /// The user's password for PLAIN and SCRAM.
        password: Option<Secret>;
        /// A file that holds the password.
        password_file: Option<PathBuf>;
        /// A file that holds the token of OAUTHBEARER, kept fresh by something else, such as a projected service account token.
        token_file: Option<PathBuf>;
        /// The cluster's AWS region for AWS_MSK_IAM; without it that of the tables.
        region: Option<String>;
        /// The name by which brokers log and limit this client.
        client_id: String = "recordkeeper";
        /// A name that an instance keeps over restarts (static membership), so that a rolling restart moves no partitions. Each instance needs its own.
        group_instance_id: Option<String>;
        /// How long the consumer may be silent before its partitions are given to others.
        poll_interval_max: Duration = "5m" ["10s"..="24h"];
        /// Fetched and not yet handed on, at most, for each partition: that many times this is the memory it takes. 8 MiB costs no more CPU than librdkafka's 64 MiB and much less memory.
        fetch_queue_bytes_max: ByteSize = "8MiB" ["1MiB"..="1GiB"];
        /// How long a partition with a full queue waits before it fetches again. librdkafka's 1s holds a fast consumer back.
        fetch_backoff: Duration = "20ms" ["0s"..="10s"];
        /// How long a request or dead letter may take to be acknowledged by all replicas.
        message_timeout: Duration = "30s" ["1s"..="5m"];
        /// The largest message that is sent. Above the brokers' own limit, so that it is the topic's limit that counts.
        message_bytes_max: ByteSize = "16MiB" ["64KiB"..="900MiB"];
        /// Partitions of the topics that `tables create --topics` creates.
        new_topic_partitions: u32 = "12" ["1"..="10000"];
        /// Replicas of the topics that `tables create --topics` creates.
        new_topic_replication: u32 = "3" ["1"..="15"];
        /// Further settings for librdkafka under its own names, as they are. What the product sets itself, and what librdkafka does not take, is refused.
        options: Names<String> = "";
    }
}

/// Options of librdkafka that promises depend on, or that have a setting of their own (named beside them).
const OWNED_OPTIONS: &[(&str, &str)] = &[
    ("acks", ""),
    ("request.required.acks", ""),
    ("enable.idempotence", ""),
    ("enable.auto.commit", ""),
    ("auto.commit.enable", ""),
    ("enable.auto.offset.store", ""),
    ("auto.offset.reset", ""),
    ("enable.partition.eof", ""),
    ("isolation.level", ""),
    ("transactional.id", ""),
    ("partitioner", ""),
    ("queue.buffering.max.messages", ""),
    ("group.protocol", "protocol in the pipeline's source"),
    ("partition.assignment.strategy", ""),
    ("test.mock.num.brokers", ""),
    ("enable.metrics.push", ""),
    ("allow.auto.create.topics", ""),
    ("group.id", ""),
    ("group.instance.id", "kafka.group_instance_id"),
    ("bootstrap.servers", "kafka.bootstrap_servers"),
    ("metadata.broker.list", "kafka.bootstrap_servers"),
    ("client.id", "kafka.client_id"),
    ("security.protocol", "kafka.security"),
    ("sasl.mechanism", "kafka.sasl_mechanism"),
    ("sasl.mechanisms", "kafka.sasl_mechanism"),
    ("sasl.username", "kafka.username"),
    ("sasl.password", "kafka.password_file"),
    ("sasl.oauthbearer.config", "kafka.token_file"),
    ("ssl.ca.location", "kafka.ca_file"),
    ("ssl.certificate.location", "kafka.certificate_file"),
    ("ssl.key.location", "kafka.key_file"),
    ("ssl.key.password", "kafka.key_password_file"),
    ("ssl.key.pem", "kafka.key_file"),
    ("max.poll.interval.ms", "kafka.poll_interval_max"),
    ("queued.max.messages.kbytes", "kafka.fetch_queue_bytes_max"),
    ("fetch.queue.backoff.ms", "kafka.fetch_backoff"),
    ("message.timeout.ms", "kafka.message_timeout"),
    ("delivery.timeout.ms", "kafka.message_timeout"),
    ("message.max.bytes", "kafka.message_bytes_max"),
];

impl KafkaSettings {
    /// What a consumer passes to librdkafka under its names: `options`, and the settings that only librdkafka knows.
    pub fn consumer_options(&self) -> Names<String> {
        let mut options = self.options.clone();
        options.extend([
            ("client.id".to_owned(), self.client_id.clone()),
            ("queued.max.messages.kbytes".to_owned(), (self.fetch_queue_bytes_max.0 / 1024).to_string()),
            ("fetch.queue.backoff.ms".to_owned(), self.fetch_backoff.as_millis().to_string()),
        ]);
        options
    }

    /// Checks how it fits together, and reads secrets from their files.
    pub(super) fn check(&mut self, reader: &mut Reader<'_>) {
        if self.bootstrap_servers.is_empty() {
            reader.complain("kafka.bootstrap_servers", Fault::new("names no broker"));
        }
        let (password, key_password) = (self.password.take(), self.key_password.take());
        self.password = secret_file::read(reader, "kafka.password", password, self.password_file.as_deref());
        let file = self.key_password_file.as_deref();
        self.key_password = secret_file::read(reader, "kafka.key_password", key_password, file);
        self.check_tls(reader);
        self.check_sasl(reader);
        self.check_options(reader);
    }

    fn check_options(&self, reader: &mut Reader<'_>) {
        for name in self.options.keys() {
            if let Some((_, own)) = OWNED_OPTIONS.iter().find(|(owned, _)| owned == name) {
                let message = format!("may not hold \"{name}\", which the product sets itself");
                reader.complain(
                    "kafka.options",
                    match *own {
                        "" => Fault::with_hint(message, "leave it out: promises depend on it"),
                        own => Fault::with_hint(message, format!("use {own}")),
                    },
                );
            } else if ["password", "secret", "jaas"].iter().any(|word| name.contains(word)) || name.ends_with(".pem") {
                let message = format!("may not hold \"{name}\": secrets are never passed through");
                reader.complain(
                    "kafka.options",
                    Fault::with_hint(message, "use a file (kafka.key_file, kafka.password_file)"),
                );
            }
        }
    }

    fn check_tls(&self, reader: &mut Reader<'_>) {
        let files = [
            ("kafka.ca_file", &self.ca_file),
            ("kafka.certificate_file", &self.certificate_file),
            ("kafka.key_file", &self.key_file),
        ];
        let tls = matches!(self.security, Security::Tls | Security::SaslTls);
        for (name, file) in files {
            let Some(file) = file else { continue };
            if !tls {
                self.complain_without_effect(reader, name, "tls or sasl_tls");
                continue;
            }
            let looked_into = if name == "kafka.key_file" { pem::key(file) } else { pem::certificates(file) };
            if let Err(what) = looked_into {
                reader.complain(name, Fault::new(format!("{} {what}", file.display())));
            }
        }
        let mentioned = |name: &str| reader.is_mentioned(name);
        match (mentioned("kafka.certificate_file"), mentioned("kafka.key_file")) {
            (true, false) => reader.complain("kafka.certificate_file", Fault::new("needs kafka.key_file")),
            (false, true) => reader.complain("kafka.key_file", Fault::new("needs kafka.certificate_file")),
            _ => {}
        }
    }

    fn check_sasl(&self, reader: &mut Reader<'_>) {
        if matches!(self.security, Security::Plaintext | Security::Tls) {
            for name in
                ["kafka.sasl_mechanism", "kafka.username", "kafka.password", "kafka.password_file", "kafka.token_file"]
            {
                if reader.is_given(name) {
                    self.complain_without_effect(reader, name, "sasl_tls");
                }
            }
            return;
        }
        let Some(mechanism) = self.sasl_mechanism else {
            if !reader.is_mentioned("kafka.sasl_mechanism") {
                let hint = "set kafka.sasl_mechanism, or kafka.security to plaintext or tls";
                reader.complain("kafka.security", Fault::with_hint("needs kafka.sasl_mechanism", hint));
            }
            return;
        };
        let needs: &[&str] = match mechanism {
            SaslMechanism::Plain | SaslMechanism::ScramSha256 | SaslMechanism::ScramSha512 => {
                &["kafka.username", "kafka.password_file"]
            }
            SaslMechanism::Oauthbearer => &["kafka.token_file"],
            SaslMechanism::AwsMskIam => &[],
        };
        for name in needs {
            let either = name.strip_suffix("_file").unwrap_or(name);
            if !reader.is_mentioned(name) && !reader.is_mentioned(either) {
                let message = format!("{} needs {name}", mechanism.name());
                reader.complain("kafka.sasl_mechanism", Fault::new(message));
            }
        }
        if let (SaslMechanism::AwsMskIam, Some(region)) = (mechanism, &self.region)
            && let Err(fault) = is_region(region)
        {
            reader.complain("kafka.region", fault);
        }
        if let Some(file) = &self.token_file
            && let Err(what) = secret_file::read_file(file)
        {
            reader.complain("kafka.token_file", Fault::new(format!("{} {what}", file.display())));
        }
        if mechanism == SaslMechanism::Plain && self.security == Security::SaslPlaintext {
            let fault = Fault::with_hint("sends the password readable over the network", "use sasl_tls");
            reader.warn("kafka.security", fault);
        }
    }

    /// Who gives these means to have a connection secured that would not be.
    fn complain_without_effect(&self, reader: &mut Reader<'_>, name: &str, wanted: &str) {
        if !reader.are_sound(&["kafka.security"]) || reader.is_brought("kafka.security") {
            return;
        }
        let message = format!("has no effect: kafka.security is {}", self.security.name());
        reader.complain(name, Fault::with_hint(message, format!("set kafka.security to {wanted}, or leave it out")));
    }
}

/// `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort(String);

impl HostPort {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Setting for HostPort {
    const KIND: &'static str = "host:port";

    fn from_text(text: &str) -> Result<Self, Fault> {
        let whole = text.rsplit_once(':').is_some_and(|(host, port)| {
            let strange = |c: char| c.is_control() || c.is_whitespace() || ['/', '@'].contains(&c);
            !host.is_empty() && !host.contains(strange) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if whole { Ok(Self(text.to_owned())) } else { Err(Fault::new(format!("takes host:port, not \"{text}\""))) }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}
