//! Archives in S3: objects read part by part, and written as a whole or not at all.
//!
//! Calls are made from threads that may block. Each has a deadline, its body included, and is made a few times where what failed may
//! pass; the SDK's own retries are off, since they end where a body begins.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use super::place::{ObjectName, Place, is_archive};
use crate::guard::Backoff;

/// How often a call is made, at most.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// What is read of an object at once, and held for each that is open.
const PART_BYTES: u64 = 1024 * 1024;
/// S3 lists so many objects at once, at most.
const LISTED_MAX: usize = 1_000;

/// Where S3 is.
#[derive(Clone, Debug)]
pub struct ObjectsConfig {
    /// The region.
    pub region: String,
    /// Another address than the region's own; buckets then stand in its path.
    pub endpoint: Option<String>,
    /// The longest that an attempt of a call may take, its body included.
    pub call_deadline: Duration,
}

/// S3. Nothing is asked of it, nor are credentials looked for, before the first call.
#[derive(Clone, Debug)]
pub struct Objects {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ObjectsConfig,
    client: OnceCell<Client>,
    runtime: Handle,
}

/// What an object was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub bytes: u64,
    /// Another one for other contents.
    pub etag: String,
    /// Who wrote it, where [`super::upload`] did.
    pub written_as: Option<String>,
}

/// Why a call did not work.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may work later.
    Passing(String),
    /// For good, and the HTTP status that said so.
    Final(Option<u16>, String),
}

impl Failure {
    /// Whether the object is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Final(Some(404), _))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passing(why) | Self::Final(_, why) => f.write_str(why),
        }
    }
}

impl<E: ProvideErrorMetadata + std::error::Error + 'static> From<SdkError<E>> for Failure {
    fn from(error: SdkError<E>) -> Self {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let why = match (error.code(), error.message()) {
            (Some(code), message) => format!("{code}: {}", message.unwrap_or_default()),
            // A HEAD has no body that would say more.
            (None, _) if status.is_some() => format!("HTTP status {}", status.unwrap_or_default()),
            (None, _) => DisplayErrorContext(&error).to_string(),
        };
        match (&error, status) {
            (SdkError::ConstructionFailure(_), _) => Self::Final(None, why),
            // https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html: RequestTimeout comes as 400, and a
            // conditional write that met another one as 409.
            (SdkError::ServiceError(_), Some(status @ 300..=499))
                if !matches!(status, 408 | 409 | 429) && error.code() != Some("RequestTimeout") =>
            {
                Self::Final(Some(status), why)
            }
            _ => Self::Passing(why),
        }
    }
}

/// How long one step of reading may take at most, by the deadline of a call: an object is found, and a part of it fetched.
pub fn step_max(call_deadline: Duration) -> Duration {
    2 * ATTEMPTS * (call_deadline + PAUSE_MAX)
}

impl Objects {
    /// Calls are made on the runtime that this is called on.
    pub fn new(config: ObjectsConfig) -> Self {
        Self { shared: Arc::new(Shared { config, client: OnceCell::new(), runtime: Handle::current() }) }
    }

    async fn client(&self) -> &Client {
        let ObjectsConfig { region, endpoint, call_deadline: _ } = &self.shared.config;
        self.shared
            .client
            .get_or_init(|| async {
                let mut loader = aws_config::defaults(BehaviorVersion::latest())
                    .retry_config(RetryConfig::disabled())
                    .region(Region::new(region.clone()));
                if let Some(endpoint) = endpoint {
                    loader = loader.endpoint_url(endpoint);
                }
                let shared = loader.load().await;
                let config = aws_sdk_s3::config::Builder::from(&shared).force_path_style(endpoint.is_some());
                Client::from_conf(config.build())
            })
            .await
    }

    /// Makes a call until it is answered, a few times at most: blocks.
    pub(super) fn call<T, F>(&self, what: &ObjectName, call: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let deadline = self.shared.config.call_deadline;
        self.shared.runtime.block_on(async {
            let mut backoff = Backoff::new(PAUSE, PAUSE_MAX);
            let mut attempt = 1;
            loop {
                let client = self.client().await.clone();
                let why = match tokio::time::timeout(deadline, call(client)).await {
                    Ok(Ok(done)) => return Ok(done),
                    Ok(Err(failure @ Failure::Final(..))) => return Err(failure),
                    Ok(Err(Failure::Passing(why))) => why,
                    Err(_) => format!("no answer within {deadline:?}"),
                };
                if attempt == ATTEMPTS {
                    return Err(Failure::Passing(why));
                }
                tracing::warn!(object = %what, attempt, %why, "S3 did not do it: asked again");
                attempt += 1;
                tokio::time::sleep(backoff.next_delay()).await;
            }
        })
    }

    /// What the object is; `None` where there is none.
    pub(super) fn find(&self, name: &ObjectName) -> io::Result<Option<Found>> {
        let found = self.call(name, |client| async move {
            let head = client.head_object().bucket(&name.bucket).key(&name.key).send().await?;
            Ok(Found {
                bytes: head.content_length().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default(),
                etag: head.e_tag().unwrap_or_default().to_owned(),
                written_as: head.metadata().and_then(|all| all.get(super::upload::WRITTEN_AS)).cloned(),
            })
        });
        match found {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.is_absent() => Ok(None),
            Err(failure) => Err(io::Error::other(failure.to_string())),
        }
    }

    /// Whether there is such an object.
    ///
    /// # Errors
    ///
    /// `NotFound` where there is no such bucket; where S3 does not say.
    pub(super) fn is_there(&self, name: &ObjectName) -> io::Result<bool> {
        if self.find(name)?.is_some() {
            return Ok(true);
        }
        let bucket =
            self.call(name, |client| async move { Ok(client.head_bucket().bucket(&name.bucket).send().await?) });
        match bucket {
            Ok(_) => Ok(false),
            Err(failure) if failure.is_absent() => {
                Err(io::Error::new(io::ErrorKind::NotFound, "there is no such bucket"))
            }
            Err(failure) => Err(io::Error::other(failure.to_string())),
        }
    }

    /// The object, from its beginning.
    pub(super) fn open(&self, name: &ObjectName) -> io::Result<ObjectReader> {
        let found =
            self.find(name)?.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such object"))?;
        Ok(ObjectReader { objects: self.clone(), name: name.clone(), found, next: 0, part: Bytes::new() })
    }

    /// The archives right below, in the order of their names.
    pub(super) fn list(&self, folder: &ObjectName, files_max: usize) -> io::Result<Vec<Place>> {
        let (mut places, mut after) = (Vec::new(), None);
        loop {
            let page = self.call(folder, |client| {
                let list = client.list_objects_v2().bucket(&folder.bucket).prefix(&folder.key).delimiter("/");
                let list = list.max_keys(LISTED_MAX as i32).set_continuation_token(after.clone());
                async move { Ok(list.send().await?) }
            });
            let page = page.map_err(|failure| io::Error::other(failure.to_string()))?;
            let keys = page.contents().iter().filter_map(|object| object.key()).filter(|key| is_archive(key));
            places.extend(keys.map(|key| Place::S3(ObjectName { key: key.to_owned(), ..folder.clone() })));
            after = page.next_continuation_token().map(ToOwned::to_owned);
            // More than are wanted are refused by the caller.
            if after.is_none() || places.len() > files_max {
                return Ok(places);
            }
        }
    }
}

/// Reads an object as it was when it was opened; one that has changed meanwhile is an error.
pub(super) struct ObjectReader {
    objects: Objects,
    name: ObjectName,
    found: Found,
    /// Where the next part begins.
    next: u64,
    part: Bytes,
}

impl ObjectReader {
    /// What it reads.
    pub fn found(&self) -> &Found {
        &self.found
    }

    fn fetch(&self, bytes: Range<u64>) -> io::Result<Bytes> {
        let (name, etag) = (&self.name, &self.found.etag);
        let range = format!("bytes={}-{}", bytes.start, bytes.end - 1);
        let fetched = self.objects.call(name, |client| {
            let get = client.get_object().bucket(&name.bucket).key(&name.key).range(&range).if_match(etag);
            async move {
                let body = get.send().await?.body;
                body.collect().await.map(|all| all.into_bytes()).map_err(|error| Failure::Passing(error.to_string()))
            }
        });
        match fetched {
            Ok(part) if part.len() as u64 == bytes.end - bytes.start => Ok(part),
            Ok(part) => Err(io::Error::other(format!("S3 gave {} bytes of {range}", part.len()))),
            Err(Failure::Final(Some(404 | 412), _)) => Err(io::Error::other("it was changed while it was read")),
            Err(failure) => Err(io::Error::other(failure.to_string())),
        }
    }
}

impl BufRead for ObjectReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.part.is_empty() && self.next < self.found.bytes {
            let end = self.found.bytes.min(self.next + PART_BYTES);
            self.part = self.fetch(self.next..end)?;
            self.next = end;
        }
        Ok(&self.part)
    }

    fn consume(&mut self, count: usize) {
        self.part.advance(count);
    }
}

impl Read for ObjectReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let part = self.fill_buf()?;
        let count = part.len().min(into.len());
        into[..count].copy_from_slice(&part[..count]);
        self.consume(count);
        Ok(count)
    }
}
