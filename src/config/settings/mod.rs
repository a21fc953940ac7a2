//! All settings, one file a section: the declarations, and how the settings of a section must fit together.

mod admin;
mod dynamodb;
mod engine;
mod general;
mod kafka;
mod ledger;
mod log;
mod redis;
mod s3;
mod secret_file;

pub use admin::AdminSettings;
pub use dynamodb::DynamodbSettings;
pub use engine::EngineSettings;
pub use general::{Dedupe, GeneralSettings};
pub use kafka::{HostPort, KafkaSettings, SaslMechanism, Security};
pub use ledger::LedgerSettings;
pub use log::{LogFormat, LogSettings};
pub use redis::{RedisMode, RedisSettings, RedisUrl};
pub use s3::S3Settings;

use super::reader::Reader;
use super::setting::{Fault, SectionDef};

/// Every section in the order of the reference.
pub const SECTIONS: &[SectionDef] = &[
    GeneralSettings::SECTION,
    KafkaSettings::SECTION,
    RedisSettings::SECTION,
    DynamodbSettings::SECTION,
    LedgerSettings::SECTION,
    S3Settings::SECTION,
    EngineSettings::SECTION,
    AdminSettings::SECTION,
    LogSettings::SECTION,
];

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What stands at the top level of the file.
    pub general: GeneralSettings,
    /// The Kafka cluster.
    pub kafka: KafkaSettings,
    /// The cache in front of the judge.
    pub redis: RedisSettings,
    /// The tables.
    pub dynamodb: DynamodbSettings,
    /// Heads of the ledger.
    pub ledger: LedgerSettings,
    /// Archives in S3.
    pub s3: S3Settings,
    /// Batches, memory and deadlines.
    pub engine: EngineSettings,
    /// The admin port.
    pub admin: AdminSettings,
    /// The log.
    pub log: LogSettings,
}

impl Settings {
    /// Reads all sections, then looks at how the settings of each, and of several, fit together. What was found wrong is
    /// with the reader, and what comes back is then of no use.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let general = GeneralSettings::read(reader);
        let kafka = KafkaSettings::read(reader);
        let redis = RedisSettings::read(reader);
        let dynamodb = DynamodbSettings::read(reader);
        let ledger = LedgerSettings::read(reader);
        let s3 = S3Settings::read(reader);
        let engine = EngineSettings::read(reader);
        let admin = AdminSettings::read(reader);
        let log = LogSettings::read(reader);
        let (general, mut kafka, mut redis, dynamodb) = (general?, kafka?, redis?, dynamodb?);
        let (mut ledger, s3, engine, admin, log) = (ledger?, s3?, engine?, admin?, log?);

        general.check(reader);
        kafka.check(reader);
        redis.check(reader, reader.are_sound(&["dedupe"]).then_some(general.dedupe));
        dynamodb.check(reader);
        ledger.check(reader);
        s3.check(reader);
        engine.check(reader);
        log.check(reader);
        if reader.are_sound(&["kafka.poll_interval_max"]) && engine.drain_deadline >= kafka.poll_interval_max {
            let fault = Fault::with_hint(
                "is not below kafka.poll_interval_max",
                "a drain that outlasts it loses its partitions; shorten it",
            );
            reader.complain("engine.drain_deadline", fault);
        }
        Some(Self { general, kafka, redis, dynamodb, ledger, s3, engine, admin, log })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_and_variables_are_unique_and_every_setting_has_its_reason() {
        let defs: Vec<_> = SECTIONS.iter().flat_map(|section| section.settings).collect();
        let variables: BTreeSet<_> = defs.iter().map(|def| def.variable()).collect();
        assert_eq!(variables.len(), defs.len());
        for def in defs {
            assert!(def.reason.ends_with('.'), "{}", def.full_name());
            assert!(def.default.is_none() || !def.optional, "{}", def.full_name());
        }
        for contract in ["RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS", "RECORDKEEPER_REDIS_URL", "RECORDKEEPER_TABLE_PREFIX"]
        {
            assert!(variables.contains(contract), "{contract}");
        }
    }
}
