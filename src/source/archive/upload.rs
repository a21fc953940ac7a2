//! An object that is written: whole or not at all, and over nothing that stands.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;

use super::location::ObjectName;
use super::objects::{Failure, Found, Objects};

/// The metadata that tells our own object where an answer was lost.
pub(super) const WRITTEN_AS: &str = "recordkeeper-written-as";

/// S3 takes 5 MiB to 5 GiB a part and 10,000 parts
/// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html); some servers take parts of one size only.
const PART_BYTES: usize = 16 * 1024 * 1024;
const PARTS_MAX: usize = 10_000;
/// S3 may take minutes to put an object together
/// (https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html).
const COMPLETE_DEADLINE: Duration = Duration::from_secs(600);

/// See the module. Blocks. One that is dropped unfinished leaves its parts with S3, as a killed process does; a lifecycle rule of the
/// bucket (AbortIncompleteMultipartUpload) removes these.
pub(super) struct Upload {
    objects: Objects,
    name: ObjectName,
    written_as: String,
    /// Of the part that is next.
    buffer: Vec<u8>,
    /// Once there is more than one part.
    id: Option<String>,
    parts: Vec<CompletedPart>,
    /// An encoder that is dropped may still write.
    abandoned: bool,
}

impl Upload {
    pub fn new(objects: Objects, name: ObjectName) -> Self {
        let written_as = uuid::Uuid::new_v4().to_string();
        Self { objects, name, written_as, buffer: Vec::new(), id: None, parts: Vec::new(), abandoned: false }
    }

    fn begin(&self) -> Result<String, Failure> {
        let Self { name, written_as, .. } = self;
        self.objects.call(name, self.objects.deadline(0), |client| async move {
            let create = client.create_multipart_upload().bucket(&name.bucket).key(&name.key);
            let created = create.metadata(WRITTEN_AS, written_as).send().await?;
            let nameless = || Failure::Final(None, "S3 gave an upload no id".to_owned());
            created.upload_id().map(ToOwned::to_owned).ok_or_else(nameless)
        })
    }

    fn send_part(&mut self) -> io::Result<()> {
        if self.parts.len() == PARTS_MAX {
            let gib = (PARTS_MAX * PART_BYTES) >> 30;
            return Err(io::Error::other(format!("an object holds {gib} GiB at most: write a smaller range")));
        }
        let id = match self.id.take() {
            Some(id) => id,
            None => self.begin()?,
        };
        let (name, number) = (&self.name, self.parts.len() as i32 + 1);
        let body = Bytes::from(std::mem::take(&mut self.buffer));
        let sent = self.objects.call(name, self.objects.deadline(body.len() as u64), |client| {
            let upload = client.upload_part().bucket(&name.bucket).key(&name.key).upload_id(&id).part_number(number);
            let upload = upload.body(ByteStream::from(body.clone()));
            async move { Ok(upload.send().await?) }
        });
        self.id = Some(id);
        self.parts.push(CompletedPart::builder().part_number(number).set_e_tag(sent?.e_tag).build());
        Ok(())
    }

    fn put(&mut self) -> Result<(), Failure> {
        let body = Bytes::from(std::mem::take(&mut self.buffer));
        let Self { objects, name, written_as, .. } = self;
        objects.call(name, objects.deadline(body.len() as u64), |client| {
            let put = client.put_object().bucket(&name.bucket).key(&name.key).if_none_match("*");
            let put = put.metadata(WRITTEN_AS, written_as.as_str()).body(ByteStream::from(body.clone()));
            async move { put.send().await.map(drop).map_err(Failure::from) }
        })
    }

    fn complete(&self, id: &str) -> Result<(), Failure> {
        let name = &self.name;
        self.objects.call(name, COMPLETE_DEADLINE, |client| {
            let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
            let complete = client.complete_multipart_upload().bucket(&name.bucket).key(&name.key).upload_id(id);
            let complete = complete.multipart_upload(parts).if_none_match("*");
            async move { complete.send().await.map(drop).map_err(Failure::from) }
        })
    }

    /// The object is there from now on.
    ///
    /// # Errors
    ///
    /// Where S3 refuses it, also because there is such an object; then nothing of it is there. Where S3 does not answer it may be
    /// there, and the error says so.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.id.is_some() && !self.buffer.is_empty() {
            self.send_part()?;
        }
        let done = match self.id.clone() {
            Some(id) => self.complete(&id),
            None => self.put(),
        };
        let Err(failure) = done else { return Ok(()) };
        // The answer of an earlier attempt may have been lost, and this one met its object.
        let found = self.objects.find(&self.name);
        let ours = |found: &Found| found.written_as.as_ref() == Some(&self.written_as);
        match (failure, found) {
            (_, Ok(Some(found))) if ours(&found) => Ok(()),
            (Failure::Final(Some(412), _), _) => Err(io::Error::other("it exists already")),
            (failure @ Failure::Final(..), _) => Err(failure.into()),
            (Failure::Passing(why), _) => {
                // Giving it up might meet its completion.
                self.id = None;
                let left = "whether it was written is not known: look for it, and for an unfinished upload";
                Err(io::Error::new(ErrorKind::TimedOut, format!("{why}; {left}")))
            }
        }
    }

    /// Nothing is left of it, unless S3 does not answer.
    pub fn abandon(&mut self) {
        self.abandoned = true;
        let Some(id) = self.id.take() else { return };
        let name = &self.name;
        let aborted = self.objects.call_once(self.objects.deadline(0), |client| {
            let abort = client.abort_multipart_upload().bucket(&name.bucket).key(&name.key).upload_id(&id);
            async move { Ok(abort.send().await?) }
        });
        if let Err(failure) = aborted.map(drop) {
            tracing::warn!(object = %name, upload_id = %id, %failure, "an unfinished upload is left in S3");
        }
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.abandoned {
            return Err(io::Error::other("the upload was given up"));
        }
        let taken = bytes.len().min(PART_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == PART_BYTES {
            self.send_part()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
