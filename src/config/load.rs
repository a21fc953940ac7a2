//! From flags, variables and a file to settings, or to everything that is wrong with them.

use std::path::PathBuf;

use super::reader::Reader;
use super::{AdminSettings, Diagnostic, Effective, Fault, Settings, Severity, unknown, yaml};

/// What the command line says about the configuration.
#[derive(Clone, Debug, Default)]
pub struct ConfigArgs {
    /// The file, where one is named.
    pub file: Option<PathBuf>,
    /// Settings given by flags.
    pub overrides: Vec<Override>,
    /// Settings that the parts of `run --embedded` bring along; none of them can be given by a flag as well.
    pub brought: Vec<Override>,
}

/// One setting given by a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// `section.name`.
    pub name: String,
    /// Its value, written as in a variable.
    pub value: String,
}

impl Override {
    /// A setting and its value.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Every setting as it applies, and which source won.
    pub effective: Vec<Effective>,
    /// What is worth a look.
    pub warnings: Vec<Diagnostic>,
}

/// What the adapters would refuse, by setting. It is asked after other faults too, so that all are told at once; settings
/// that were found wrong hold their defaults then.
pub type ByAdapters = fn(&Settings) -> Vec<(&'static str, Fault)>;

/// Reads the configuration; `env` looks up a variable. Fails with everything that is wrong, warnings included, in the
/// order of the file.
pub fn load(
    args: &ConfigArgs,
    env: impl Fn(&str) -> Option<String>,
    by_adapters: ByAdapters,
) -> Result<Loaded, Vec<Diagnostic>> {
    let mut found = unknown::in_flags(args);
    let path = args.file.as_deref();
    let (root, faults) = path.map(yaml::read).unwrap_or_default();
    found.extend(faults);
    if path.is_some() && root.is_none() {
        // Without its file nearly every setting would be reported as missing.
        return Err(found);
    }
    let mut reader = Reader::new(args, &env, root.as_ref());
    if let (Some(path), Some(root)) = (path, &root) {
        found.extend(unknown::in_file(path, root, &mut reader.meant));
    }
    let settings = Settings::read(&mut reader);
    for (name, fault) in settings.as_ref().map(by_adapters).unwrap_or_default() {
        reader.complain(name, fault);
    }
    found.append(&mut reader.found);
    found.sort_by(|a, b| a.place.is_none().cmp(&b.place.is_none()).then(a.place.cmp(&b.place)));
    match settings {
        Some(settings) if found.iter().all(|finding| finding.severity == Severity::Warning) => {
            Ok(Loaded { settings, effective: reader.effective, warnings: found })
        }
        _ => Err(found),
    }
}

/// [`load`] with the variables of this process, those that nothing reads reported as well.
pub fn load_from_process(args: &ConfigArgs, by_adapters: ByAdapters) -> Result<Loaded, Vec<Diagnostic>> {
    let mut wrong = Vec::new();
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("RECORDKEEPER_") && value.to_str().is_none() {
            wrong.push(Diagnostic::error(&name, None, "variable is not UTF-8"));
        }
        variables.push((name, value.to_string_lossy().into_owned()));
    }
    variables.sort();
    wrong.extend(unknown::unknown_variables(variables));
    match load(args, |name| std::env::var(name).ok(), by_adapters) {
        Ok(loaded) if wrong.is_empty() => Ok(loaded),
        Ok(loaded) => Err(loaded.warnings.into_iter().chain(wrong).collect()),
        Err(found) => Err(found.into_iter().chain(wrong).collect()),
    }
}

/// The admin section alone: what asks a running instance needs none of the others, nor their secrets.
pub fn admin_from_process(args: &ConfigArgs) -> Result<AdminSettings, Vec<Diagnostic>> {
    let (root, mut found) = args.file.as_deref().map(yaml::read).unwrap_or_default();
    let env = |name: &str| std::env::var(name).ok();
    let mut reader = Reader::new(args, &env, root.as_ref());
    let admin = AdminSettings::read(&mut reader);
    found.append(&mut reader.found);
    admin.filter(|_| found.is_empty()).ok_or(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    const NEEDED: [(&str, &str); 3] = [
        ("RECORDKEEPER_KAFKA_BOOTSTRAP_SERVERS", "a:1,b:2"),
        ("RECORDKEEPER_DEDUPE", "memory"),
        ("AWS_DEFAULT_REGION", "eu-central-1"),
    ];

    /// Loads from variables alone: those needed, and these.
    fn with(variables: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
        let env = |name: &str| {
            let given = variables.iter().chain(&NEEDED).find(|(known, _)| *known == name);
            given.map(|(_, value)| (*value).to_owned())
        };
        load(&ConfigArgs::default(), env, |_| Vec::new())
            .map_err(|found| found.iter().map(ToString::to_string).collect())
    }

    fn warnings(variables: &[(&str, &str)]) -> Vec<String> {
        with(variables).unwrap().warnings.iter().map(|warning| warning.message.clone()).collect()
    }

    #[test]
    fn variables_alone_make_a_configuration() {
        let loaded = with(&[]).unwrap();
        let servers: Vec<_> = loaded.settings.kafka.bootstrap_servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["a:1", "b:2"]);
        let region = loaded.effective.iter().find(|setting| setting.name == "dynamodb.region").unwrap();
        assert_eq!(region.origin, Origin::Variable("AWS_DEFAULT_REGION".into()));
        let own = with(&[("RECORDKEEPER_DYNAMODB_REGION", "us-east-1")]).unwrap();
        assert_eq!(own.settings.dynamodb.region, "us-east-1");
    }

    #[test]
    fn credentials_move_out_of_the_url_and_debug_shows_none() {
        let loaded = with(&[
            ("RECORDKEEPER_DEDUPE", "redis"),
            ("RECORDKEEPER_REDIS_URL", "redis://app:hunter2@a,redis://app:hunter2@b"),
            ("RECORDKEEPER_REDIS_MODE", "cluster"),
            ("RECORDKEEPER_KAFKA_SECURITY", "sasl_tls"),
            ("RECORDKEEPER_KAFKA_SASL_MECHANISM", "PLAIN"),
            ("RECORDKEEPER_KAFKA_USERNAME", "app"),
            ("RECORDKEEPER_KAFKA_PASSWORD", "hunter2"),
        ])
        .unwrap();
        let redis = &loaded.settings.redis;
        assert_eq!(redis.username.as_deref(), Some("app"));
        assert_eq!(redis.password.as_ref().map(crate::config::Secret::expose), Some("hunter2"));
        assert!(!format!("{loaded:?}").contains("hunter2"));
    }

    #[test]
    fn librdkafka_gets_its_options_under_its_own_names() {
        let loaded = with(&[
            ("RECORDKEEPER_KAFKA_OPTIONS", "client.rack=az1"),
            ("RECORDKEEPER_KAFKA_FETCH_QUEUE_BYTES_MAX", "2MiB"),
        ])
        .unwrap();
        let options: Vec<_> = loaded.settings.kafka.consumer_options().into_iter().collect();
        let expected = [
            ("client.id", "recordkeeper"),
            ("client.rack", "az1"),
            ("fetch.queue.backoff.ms", "20"),
            ("queued.max.messages.kbytes", "2048"),
        ];
        assert_eq!(options, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn settings_that_do_not_fit_together_are_refused() {
        for (variables, message) in [
            (vec![("RECORDKEEPER_KAFKA_SECURITY", "sasl_tls")], "kafka.security needs kafka.sasl_mechanism"),
            (
                vec![("RECORDKEEPER_KAFKA_SECURITY", "sasl_tls"), ("RECORDKEEPER_KAFKA_SASL_MECHANISM", "PLAIN")],
                "kafka.sasl_mechanism PLAIN needs kafka.username",
            ),
            (
                vec![("RECORDKEEPER_KAFKA_SECURITY", "sasl_tls"), ("RECORDKEEPER_KAFKA_SASL_MECHANISM", "OAUTHBEARER")],
                "kafka.sasl_mechanism OAUTHBEARER needs kafka.token_file",
            ),
            (vec![("RECORDKEEPER_KAFKA_USERNAME", "u")], "kafka.username has no effect: kafka.security is plaintext"),
            (vec![("RECORDKEEPER_KAFKA_CA_FILE", "c")], "kafka.ca_file has no effect: kafka.security is plaintext"),
            (vec![("RECORDKEEPER_KAFKA_CLIENT_ID", "a\0b")], "kafka.client_id holds a control character"),
            (vec![("RECORDKEEPER_DYNAMODB_REGION", "eu central")], "dynamodb.region is no name of a region"),
            (vec![("RECORDKEEPER_KAFKA_OPTIONS", "partitioner=random")], "the product sets itself"),
            (vec![("RECORDKEEPER_KAFKA_OPTIONS", "enable.auto.commit=true")], "the product sets itself"),
            (vec![("RECORDKEEPER_KAFKA_OPTIONS", "ssl.keystore.password=x")], "secrets are never passed through"),
            (
                vec![("RECORDKEEPER_ENGINE_DRAIN_DEADLINE", "10m")],
                "engine.drain_deadline is not below kafka.poll_interval_max",
            ),
            (
                vec![("RECORDKEEPER_ENGINE_BATCH_BYTES_MAX", "32MiB")],
                "engine.batch_bytes_max is above engine.lane_bytes_max",
            ),
            (vec![("RECORDKEEPER_ENGINE_LINGER", "11s")], "engine.linger takes 0s to 10s, not 11s"),
            (vec![("RECORDKEEPER_REQUESTS_TOPIC", "recordkeeper-dead-letters")], "the two must differ"),
            (vec![("RECORDKEEPER_DYNAMODB_WRITE_BUDGETS", "leger=5")], "knows no table \"leger\""),
            (vec![("RECORDKEEPER_LOG_FILTER", "recordkeeper=lod")], "log.filter is no filter"),
            (
                vec![("RECORDKEEPER_DEDUPE", "redis"), ("RECORDKEEPER_REDIS_URL", "redis://a,rediss://b")],
                "mixes redis:// and rediss://",
            ),
        ] {
            let found = with(&variables).unwrap_err();
            assert!(found.iter().any(|fault| fault.contains(message)), "{message}: {found:?}");
        }
    }

    #[test]
    fn what_has_no_effect_is_a_warning() {
        assert_eq!(warnings(&[]), Vec::<String>::new());
        assert_eq!(warnings(&[("RECORDKEEPER_REDIS_URL", "redis://a")]), ["redis.url has no effect: dedupe is memory"]);
    }

    #[test]
    fn every_default_and_bound_is_a_value() {
        // A default that its own type or bounds refuse would make every start fail.
        with(&[]).unwrap();
        for def in crate::config::SECTIONS.iter().flat_map(|section| section.settings) {
            for edge in def.bounds.map(|(low, high)| [low, high]).into_iter().flatten() {
                let variable = def.variable();
                let faults = with(&[(variable.as_str(), edge)]).err().unwrap_or_default();
                let refused = faults.iter().any(|fault| fault.contains(" takes "));
                assert!(!refused, "{variable}={edge}: {faults:?}");
            }
        }
    }
}
