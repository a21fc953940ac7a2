//! Archives in S3: objects read part by part, and written as a whole or not at all.
//!
//! Calls are made from threads that may block. Each attempt has a deadline, its body included, and is made again for as long as
//! [`PATIENCE`] where what failed may pass; the SDK's own retries are off, since they end where a body begins.

use std::fmt;
use std::io::{self, BufRead, ErrorKind, Read};
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
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::location::{Location, ObjectName, is_archive};
use crate::guard::Backoff;

/// How long what may pass is tried again.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A body gets a second more for each of these.
const BYTES_A_SECOND_MIN: u64 = 1024 * 1024;
/// What is read of an object at once, and held for each that is open.
const PART_BYTES: u64 = 1024 * 1024;

/// Where S3 is.
#[derive(Clone, Debug)]
pub struct ObjectsConfig {
    /// The region.
    pub region: String,
    /// Another address than the region's own; buckets then stand in its path.
    pub endpoint: Option<String>,
    /// The longest that an attempt of a call may take; with a body a second more for each MiB.
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
    stop: CancellationToken,
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

impl From<Failure> for io::Error {
    /// What may pass is `TimedOut`, also where it was refused for a while.
    fn from(failure: Failure) -> Self {
        let kind = match failure {
            Failure::Passing(_) => ErrorKind::TimedOut,
            Failure::Final(..) => ErrorKind::Other,
        };
        Self::new(kind, failure.to_string())
    }
}

impl<E: ProvideErrorMetadata + std::error::Error + 'static> From<SdkError<E>> for Failure {
    fn from(error: SdkError<E>) -> Self {
        let answer = error.raw_response().map(|answer| (answer.status().as_u16(), answer.headers()));
        let why = match (&error, error.code(), answer) {
            (_, Some(code), _) => format!("{code}: {}", error.message().unwrap_or_default()),
            // The answer to a HEAD has no body that would say more.
            (SdkError::ServiceError(_), None, Some((status @ (301 | 400), headers))) => {
                let region = headers.get("x-amz-bucket-region").unwrap_or("another one than asked, perhaps");
                format!("HTTP status {status}; the bucket's region is {region}: set s3.region")
            }
            (SdkError::ServiceError(_), None, Some((403, _))) => {
                "HTTP status 403: s3:GetObject on the object and s3:ListBucket on its bucket are needed".to_owned()
            }
            (SdkError::ServiceError(_), None, Some((status, _))) => format!("HTTP status {status}"),
            _ => DisplayErrorContext(&error).to_string(),
        };
        match (&error, answer) {
            (SdkError::ConstructionFailure(_), _) => Self::Final(None, why),
            // https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html: RequestTimeout comes as 400, and a
            // conditional write that met another one as 409.
            (SdkError::ServiceError(_), Some((status @ 300..=499, _)))
                if !matches!(status, 408 | 409 | 429) && error.code() != Some("RequestTimeout") =>
            {
                Self::Final(Some(status), why)
            }
            _ => Self::Passing(why),
        }
    }
}

impl Objects {
    /// Calls are made on the runtime that this is called on, and none any more once `stop` is cancelled.
    pub fn new(config: ObjectsConfig, stop: CancellationToken) -> Self {
        Self { shared: Arc::new(Shared { config, client: OnceCell::new(), runtime: Handle::current(), stop }) }
    }

    /// How long an attempt may take that carries so much.
    pub(super) fn deadline(&self, body_bytes: u64) -> Duration {
        self.shared.config.call_deadline + Duration::from_secs(body_bytes / BYTES_A_SECOND_MIN)
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

    /// Makes a call until it is answered, or for as long as that makes sense; each attempt may take so long. Blocks.
    pub(super) fn call<T, F>(
        &self,
        what: &ObjectName,
        deadline: Duration,
        call: impl Fn(Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.shared.runtime.block_on(async {
            let (mut backoff, began) = (Backoff::new(PAUSE, PAUSE_MAX), Instant::now());
            let stopped = || Failure::Passing("told to stop".to_owned());
            loop {
                let why = tokio::select! {
                    attempted = self.attempt(deadline, &call) => match attempted {
                        Err(Failure::Passing(why)) => why,
                        ended => return ended,
                    },
                    () = self.shared.stop.cancelled() => return Err(stopped()),
                };
                if began.elapsed() > PATIENCE {
                    return Err(Failure::Passing(why));
                }
                tracing::warn!(object = %what, %why, "S3 did not do it: asked again");
                tokio::select! {
                    () = tokio::time::sleep(backoff.next_delay()) => {}
                    () = self.shared.stop.cancelled() => return Err(stopped()),
                }
            }
        })
    }

    /// Makes a call once, also where all is to stop. Blocks.
    pub(super) fn call_once<T, F>(&self, deadline: Duration, call: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.shared.runtime.block_on(self.attempt(deadline, &call))
    }

    async fn attempt<T, F>(&self, deadline: Duration, call: &impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let client = self.client().await.clone();
        let answered = tokio::time::timeout(deadline, call(client)).await;
        answered.unwrap_or_else(|_| Err(Failure::Passing(format!("no answer within {deadline:?}"))))
    }

    /// What the object is; `None` where there is none.
    pub(super) fn find(&self, name: &ObjectName) -> io::Result<Option<Found>> {
        let found = self.call(name, self.deadline(0), |client| async move {
            let head = client.head_object().bucket(&name.bucket).key(&name.key).send().await?;
            let untold = |what: &str| Failure::Final(None, format!("S3 does not tell the object's {what}"));
            let bytes = head.content_length().and_then(|bytes| u64::try_from(bytes).ok());
            let etag = head.e_tag().filter(|etag| !etag.is_empty());
            Ok(Found {
                bytes: bytes.ok_or_else(|| untold("length"))?,
                etag: etag.ok_or_else(|| untold("ETag"))?.to_owned(),
                written_as: head.metadata().and_then(|all| all.get(super::upload::WRITTEN_AS)).cloned(),
            })
        });
        match found {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.is_absent() => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Whether there is such a bucket.
    pub(super) fn has_bucket(&self, name: &ObjectName) -> io::Result<bool> {
        let head = |client: Client| async move { Ok(client.head_bucket().bucket(&name.bucket).send().await?) };
        match self.call(name, self.deadline(0), head) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_absent() => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The object, from its beginning.
    pub(super) fn open(&self, name: &ObjectName) -> io::Result<ObjectReader> {
        let absent = "there is no such object; for all archives right below it end it with /";
        let found = self.find(name)?.ok_or_else(|| io::Error::new(ErrorKind::NotFound, absent))?;
        Ok(ObjectReader { objects: self.clone(), name: name.clone(), found, next: 0, part: Bytes::new() })
    }

    /// The archives right below, in the order of their names: all of them, or more than `files_max`.
    pub(super) fn list(&self, prefix: &ObjectName, files_max: usize) -> io::Result<Vec<Location>> {
        let (mut places, mut after) = (Vec::new(), None);
        loop {
            let page = self.call(prefix, self.deadline(0), |client| {
                let list = client.list_objects_v2().bucket(&prefix.bucket).prefix(&prefix.key).delimiter("/");
                let list = list.set_continuation_token(after.clone());
                async move { Ok(list.send().await?) }
            })?;
            let keys = page.contents().iter().filter_map(|object| object.key()).filter(|key| is_archive(key));
            places.extend(keys.map(|key| Location::S3(ObjectName { key: key.to_owned(), ..prefix.clone() })));
            after = page.next_continuation_token().map(ToOwned::to_owned);
            match (page.is_truncated() == Some(true), &after) {
                (true, Some(_)) if places.len() <= files_max => {}
                (true, None) => return Err(io::Error::other("S3 does not tell how its list goes on")),
                _ => return Ok(places),
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
        let (name, etag, length) = (&self.name, &self.found.etag, bytes.end - bytes.start);
        let range = format!("bytes={}-{}", bytes.start, bytes.end - 1);
        let fetched = self.objects.call(name, self.objects.deadline(length), |client| {
            let get = client.get_object().bucket(&name.bucket).key(&name.key).range(&range).if_match(etag);
            async move {
                let got = get.send().await?;
                if got.content_length().and_then(|length| u64::try_from(length).ok()) != Some(length) {
                    let why = format!("S3 was asked for {length} bytes and gives {:?}", got.content_length());
                    return Err(Failure::Final(None, why));
                }
                let body = got.body.collect().await;
                body.map(|all| all.into_bytes())
                    .map_err(|error| Failure::Passing(DisplayErrorContext(&error).to_string()))
            }
        });
        match fetched {
            Ok(part) if part.len() as u64 == length => Ok(part),
            Ok(part) => Err(io::Error::other(format!("S3 gave {} bytes of {length}", part.len()))),
            Err(Failure::Final(Some(404 | 412), _)) => Err(io::Error::other("it was changed while it was read")),
            Err(failure) => Err(failure.into()),
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
