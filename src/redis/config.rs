//! Where the Redis is and how it is spoken to.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use redis::cluster::ClusterClientBuilder;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, TlsCertificates};

/// How many nodes, and who finds the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisMode {
    /// One node (or one address in front of it).
    Single,
    /// The cluster protocol; also for ElastiCache Serverless.
    Cluster,
}

/// All that is to be known of it. Its `Debug` shows no secret.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://host:port` or `rediss://host:port` (TLS): one in single mode, one or more seed nodes in cluster mode.
    pub urls: Vec<String>,
    /// Single node or cluster.
    pub mode: RedisMode,
    /// The ACL user; wins over one in the URL.
    pub username: Option<String>,
    /// The password; wins over one in the URL.
    pub password: Option<String>,
    /// PEM file of the authorities to trust instead of the public ones; only with `rediss://`.
    pub tls_ca_file: Option<PathBuf>,
    /// First part of every key.
    pub prefix: String,
    /// Tells the tables that the ids stand for from all others, so that two installations never share ids: what is known of one
    /// is unknown to the other.
    pub table_id: String,
    /// How long an id is remembered; at least one millisecond, no key is ever without it.
    pub ttl: Duration,
    /// Connections (to each node), shared by all lanes.
    pub connections: NonZeroUsize,
    /// The most that one look-up or one remembering may take on an open connection.
    pub deadline: Duration,
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { urls, mode, username, password, tls_ca_file, prefix, table_id, ttl, connections, deadline } = self;
        f.debug_struct("RedisConfig")
            .field("urls", &urls.iter().map(|url| without_credentials(url)).collect::<Vec<_>>())
            .field("mode", mode)
            .field("username", username)
            .field("password", &password.as_ref().map(|_| "<redacted>"))
            .field("tls_ca_file", tls_ca_file)
            .field("prefix", prefix)
            .field("table_id", table_id)
            .field("ttl", ttl)
            .field("connections", connections)
            .field("deadline", deadline)
            .finish()
    }
}

/// A URL without what stands between its scheme and its host, and without its query.
fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{}", host.split('?').next().unwrap_or_default())
}

/// What is wrong with a [`RedisConfig`]; shows no secret.
#[derive(Debug, thiserror::Error)]
pub enum RedisConfigError {
    /// Not the right number of addresses.
    #[error("redis in single mode takes exactly one url, {0} are given: give one, or choose cluster mode")]
    Urls(usize),
    /// An address that cannot be used.
    #[error("redis url {url} cannot be used: {detail}; write redis://host:port, or rediss://host:port for TLS")]
    Url {
        /// The address, without credentials.
        url: String,
        /// What is wrong.
        detail: String,
    },
    /// A certificate file without TLS.
    #[error("redis url {url} does not use TLS, but a CA file is set: write rediss://, or leave the CA file out")]
    CaWithoutTls {
        /// The address, without credentials.
        url: String,
    },
    /// The certificate file does not read.
    #[error("redis CA file {path} cannot be read: {source}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No time to live.
    #[error("redis ttl must be at least 1 ms: a key without a time to live would never leave")]
    Ttl,
    /// What the client says about it.
    #[error("redis settings are refused by the client: {0}; check the urls and the CA file (PEM)")]
    Client(redis::RedisError),
}

/// A checked configuration, ready to be connected to.
pub(super) enum Target {
    Single(Box<Client>),
    Cluster(Box<redis::cluster::ClusterClient>),
}

impl RedisConfig {
    /// Checks everything that can be checked without a connection; reads the CA file.
    pub(super) fn target(&self) -> Result<Target, RedisConfigError> {
        if self.ttl < Duration::from_millis(1) {
            return Err(RedisConfigError::Ttl);
        }
        let nodes = self.urls.iter().map(|url| self.node(url)).collect::<Result<Vec<_>, _>>()?;
        let certificates = self.certificates()?;
        match self.mode {
            RedisMode::Single => {
                let [node] =
                    <[ConnectionInfo; 1]>::try_from(nodes).map_err(|nodes| RedisConfigError::Urls(nodes.len()))?;
                match certificates {
                    Some(certificates) => Client::build_with_tls(node, certificates),
                    None => Client::open(node),
                }
                .map(|client| Target::Single(Box::new(client)))
            }
            RedisMode::Cluster => {
                let mut builder = ClusterClientBuilder::new(nodes)
                    // Once more after a redirection or a lost connection; then the judge decides without the cache.
                    .retries(1)
                    .connection_timeout(self.connect_deadline())
                    .response_timeout(self.deadline)
                    .overall_response_timeout(Some(self.deadline));
                if let Some(certificates) = certificates {
                    builder = builder.certs(certificates);
                }
                builder.build().map(|client| Target::Cluster(Box::new(client)))
            }
        }
        .map_err(RedisConfigError::Client)
    }

    /// The most that opening a connection may take: a TLS handshake needs several round trips.
    pub(super) fn connect_deadline(&self) -> Duration {
        self.deadline.max(Duration::from_secs(2))
    }

    fn node(&self, url: &str) -> Result<ConnectionInfo, RedisConfigError> {
        let shown = || without_credentials(url);
        let info = url
            .into_connection_info()
            .map_err(|error| RedisConfigError::Url { url: shown(), detail: error.to_string() })?;
        if self.tls_ca_file.is_some() && !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err(RedisConfigError::CaWithoutTls { url: shown() });
        }
        if let ConnectionAddr::TcpTls { insecure: true, .. } = info.addr() {
            return Err(RedisConfigError::Url { url: shown(), detail: "certificates must be checked".to_owned() });
        }
        let mut settings = info.redis_settings().clone().set_skip_set_lib_name();
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        Ok(info.set_redis_settings(settings))
    }

    fn certificates(&self) -> Result<Option<TlsCertificates>, RedisConfigError> {
        let Some(path) = &self.tls_ca_file else { return Ok(None) };
        let pem = std::fs::read(path).map_err(|source| RedisConfigError::CaFile { path: path.clone(), source })?;
        Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(pem) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> RedisConfig {
        RedisConfig {
            urls: vec![url.to_owned()],
            mode: RedisMode::Single,
            username: None,
            password: None,
            tls_ca_file: None,
            prefix: "recordkeeper".to_owned(),
            table_id: "t".to_owned(),
            ttl: Duration::from_secs(3600),
            connections: NonZeroUsize::MIN,
            deadline: Duration::from_millis(200),
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let mut config = config("rediss://user:hunter1@redis.example:6379/0?password=hunter3");
        config.password = Some("hunter2".to_owned());
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(shown.contains("rediss://redis.example:6379/0"), "{shown}");
        config.urls = vec!["http://user:hunter1@redis.example".to_owned()];
        let error = config.target().err().unwrap();
        assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_to_do() {
        let refused = |config: RedisConfig| config.target().err().unwrap().to_string();
        assert!(refused(config("localhost")).contains("redis://host:port"));
        assert!(refused(RedisConfig { urls: vec![], ..config("") }).contains("exactly one url"));
        assert!(refused(RedisConfig { ttl: Duration::ZERO, ..config("redis://h") }).contains("ttl"));
        assert!(refused(RedisConfig { urls: vec![], mode: RedisMode::Cluster, ..config("") }).contains("redis"));
        let ca = Some(PathBuf::from("/nonexistent/ca.pem"));
        assert!(refused(RedisConfig { tls_ca_file: ca.clone(), ..config("redis://h") }).contains("rediss://"));
        assert!(refused(RedisConfig { tls_ca_file: ca, ..config("rediss://h") }).contains("/nonexistent/ca.pem"));
        assert!(refused(config("rediss://h/#insecure")).contains("certificates must be checked"));
    }
}
