//! The cache of known event ids.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::general::Dedupe;
use super::secret_file;
use crate::config::reader::Reader;
use crate::config::setting::{Fault, Setting, choice, section};
use crate::config::{Secret, pem};

choice! {
    /// How Redis is laid out.
    RedisMode {
        /// One node, or a primary behind one name.
        Single = "single",
        /// A cluster, ElastiCache Serverless included.
        Cluster = "cluster",
    }
}

section! {
    /// Redis or Valkey, in front of the judge. Losing it costs time, never a record. Read only where `dedupe` is `redis`.
    "redis" => RedisSettings {
        /// Where it is: `redis://host:6379/0`, with TLS `rediss://host:6379`; in a cluster some of its nodes. Required where `dedupe` is `redis`. A password in it is taken from the variable only.
        url: Vec<RedisUrl> = "";
        /// How it is laid out.
        mode: RedisMode = "single";
        /// The user of its access control list; without it the default user.
        username: Option<String>;
        /// The password.
        password: Option<Secret>;
        /// A file that holds the password.
        password_file: Option<PathBuf>;
        /// Authorities to trust for `rediss://`, PEM; without it the public ones.
        ca_file: Option<PathBuf>;
        /// The first part of every key, for a Redis that others use too.
        key_prefix: String = "recordkeeper";
        /// How long an id is known. It has to cover redelivery, not history: DynamoDB judges what is no longer known.
        ttl: Duration = "1h" ["1s"..="30d"];
        /// How long a lock outlives its holder: `replay`, `redrive` and `tables create` hold one, so that two processes do not do the same thing at once.
        lock_ttl: Duration = "15s" ["1s"..="10m"];
        /// Connections that calls are spread over; each carries many calls at once.
        connections: NonZeroUsize = "2" ["1"..="256"];
        /// How long a call may take before its ids count as unknown.
        deadline: Duration = "250ms" ["1ms"..="10s"];
    }
}

impl RedisSettings {
    /// Checks how it fits together, reads secrets from their files and takes credentials out of the URLs. `dedupe` is
    /// `None` where it is wrong itself.
    pub(super) fn check(&mut self, reader: &mut Reader<'_>, dedupe: Option<Dedupe>) {
        match dedupe {
            Some(Dedupe::Redis) if self.url.is_empty() && reader.are_sound(&["redis.url"]) => {
                if let Some(def) = Self::SECTION.settings.iter().find(|def| def.name == "url") {
                    reader.missing(def, "redis.url", "has to be given, since dedupe is redis");
                }
            }
            Some(Dedupe::Memory) if !self.url.is_empty() && !reader.is_brought("dedupe") => {
                reader.warn("redis.url", Fault::with_hint("has no effect: dedupe is memory", "set dedupe to redis"));
            }
            _ => {}
        }
        let given = self.password.take();
        self.password = secret_file::read(reader, "redis.password", given, self.password_file.as_deref());
        self.take_credentials(reader);
        let mode_is_sound = reader.are_sound(&["redis.mode"]);
        if mode_is_sound && self.mode == RedisMode::Single && self.url.len() > 1 {
            let hint = "set redis.mode to cluster, or name one";
            reader.complain("redis.url", Fault::with_hint("names several nodes, and redis.mode is single", hint));
        }
        if self.mode == RedisMode::Cluster && self.url.iter().any(|url| url.database != 0) {
            reader.complain("redis.url", Fault::new("names a database; a cluster has only 0"));
        }
        let tls = self.url.iter().filter(|url| url.tls).count();
        if tls != 0 && tls != self.url.len() {
            reader.complain("redis.url", Fault::new("mixes redis:// and rediss://"));
        }
        if let Some(file) = &self.ca_file {
            if self.url.is_empty() {
                // Whether it is of use cannot be told.
            } else if tls == 0 {
                reader.warn(
                    "redis.ca_file",
                    Fault::with_hint("has no effect without TLS", "write rediss:// in redis.url"),
                );
            } else if let Err(what) = pem::certificates(file) {
                reader.complain("redis.ca_file", Fault::new(format!("{} {what}", file.display())));
            }
        }
    }

    fn take_credentials(&mut self, reader: &mut Reader<'_>) {
        let mut inside: Vec<Credentials> = self.url.iter_mut().filter_map(|url| url.credentials.take()).collect();
        inside.dedup();
        let Some(credentials) = inside.pop() else { return };
        if !inside.is_empty() {
            reader.complain("redis.url", Fault::new("holds several credentials; all nodes take the same"));
        } else if self.password.is_some() || (self.username.is_some() && credentials.username.is_some()) {
            let fault =
                Fault::new("holds credentials, and redis.username or redis.password gives them too; one has to go");
            reader.complain("redis.url", fault);
        } else {
            self.username = credentials.username.or(self.username.take());
            self.password = credentials.password;
        }
    }
}

/// One node's address. Credentials are moved to [`RedisSettings`] when the configuration is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl {
    /// `rediss://`.
    pub tls: bool,
    /// Name or address; an IPv6 address in brackets.
    pub host: String,
    /// 6379 unless given.
    pub port: u16,
    /// 0 unless given.
    pub database: u32,
    credentials: Option<Credentials>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Credentials {
    username: Option<String>,
    password: Option<Secret>,
}

impl fmt::Display for RedisUrl {
    /// Without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)?;
        if self.database != 0 {
            write!(f, "/{}", self.database)?;
        }
        Ok(())
    }
}

impl Setting for RedisUrl {
    const KIND: &'static str = "redis[s]://host[:port][/database]";

    fn from_text(text: &str) -> Result<Self, Fault> {
        // The text may hold a password: it is never repeated in a message.
        let refuse = |what: &str| Fault::with_hint(what, "write redis://host:6379 or rediss://host:6379");
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refuse("is no URL"))?;
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(refuse("begins with neither redis:// nor rediss://")),
        };
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = if database.is_empty() { Ok(0) } else { database.parse() };
        let database = database.map_err(|_| refuse("ends in something that is no database's number"))?;
        let (user_info, address) = match authority.rsplit_once('@') {
            Some((user_info, address)) => (Some(user_info), address),
            None => (None, authority),
        };
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| refuse("has a port that is no number"))?)
            }
            _ => (address, 6379),
        };
        if host.is_empty() || host.contains(['?', '#']) || host.contains(char::is_whitespace) || port == 0 {
            return Err(refuse("names no host"));
        }
        let credentials = user_info.map(Credentials::parse).transpose().map_err(refuse)?;
        Ok(Self { tls, host: host.to_owned(), port, database, credentials })
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn holds_secret(&self) -> bool {
        self.credentials.as_ref().is_some_and(|credentials| credentials.password.is_some())
    }
}

impl Credentials {
    /// `user`, `user:password` or `:password`, percent-encoded.
    fn parse(user_info: &str) -> Result<Self, &'static str> {
        let (username, password) = match user_info.split_once(':') {
            Some((username, password)) => (username, Some(password)),
            None => (user_info, None),
        };
        let decode = |text: &str| decode(text).ok_or("has a user or password with a broken %-escape");
        Ok(Self {
            username: Some(decode(username)?).filter(|name| !name.is_empty()),
            password: password.map(decode).transpose()?.map(Secret::new),
        })
    }
}

/// Undoes percent-encoding; `None` where an escape is broken.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        if *byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok().filter(|digits| !digits.starts_with('+'))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after.get(2..)?;
        } else {
            bytes.push(*byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_shown_without_its_password() {
        let url = RedisUrl::from_text("rediss://app:p%40ss@cache.example:6380/2").unwrap();
        assert_eq!(url.show(), "rediss://cache.example:6380/2");
        assert!(!format!("{url:?}").contains("p@ss"));
        let credentials = url.credentials.unwrap();
        assert_eq!((credentials.username.as_deref(), credentials.password.unwrap().expose()), (Some("app"), "p@ss"));
        assert_eq!(RedisUrl::from_text("redis://[::1]").unwrap().show(), "redis://[::1]:6379");
    }

    #[test]
    fn no_message_repeats_a_url() {
        for bad in
            ["hunter2", "http://hunter2@x", "redis://u:hunter2@:1", "redis://u:hunter2%zz@x", "redis://u:hunter2@x:y"]
        {
            let fault = RedisUrl::from_text(bad).unwrap_err();
            assert!(!format!("{fault:?}").contains("hunter2"), "{bad}");
        }
    }
}
