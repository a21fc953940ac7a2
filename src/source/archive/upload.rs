//! An object that is written: whole or not at all, and over nothing that stands.

use std::io::{self, Write};

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;

use super::objects::{Failure, Objects};
use super::place::ObjectName;

/// The metadata that tells our own object where an answer was lost.
pub(super) const WRITTEN_AS: &str = "recordkeeper-written-as";

/// S3 takes 5 MiB to 5 GiB a part, and 10,000 parts
/// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
const PART_BYTES_MIN: usize = 8 * 1024 * 1024;
const PARTS_OF_A_SIZE: usize = 1_000;
const PARTS_MAX: usize = 10_000;

/// The size of a part with so many before it: grows, so that 10,000 parts hold 430 GiB while small objects need little memory.
fn part_bytes(before: usize) -> usize {
    PART_BYTES_MIN * (1 + before / PARTS_OF_A_SIZE)
}

/// See the module. Blocks. One that is dropped unfinished leaves its parts with S3, as a killed process does; a lifecycle rule of the
/// bucket (AbortIncompleteMultipartUpload) removes these.
pub(super) struct Upload {
    objects: Objects,
    name: ObjectName,
    written_as: String,
    /// Less than a part.
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
        self.objects.call(name, |client| async move {
            let create = client.create_multipart_upload().bucket(&name.bucket).key(&name.key);
            let created = create.metadata(WRITTEN_AS, written_as).send().await?;
            let nameless = || Failure::Final(None, "S3 gave an upload no id".to_owned());
            created.upload_id().map(ToOwned::to_owned).ok_or_else(nameless)
        })
    }

    fn send_part(&mut self) -> io::Result<()> {
        if self.parts.len() == PARTS_MAX {
            return Err(io::Error::other(format!("more than {PARTS_MAX} parts: write a smaller range")));
        }
        let id = match self.id.take() {
            Some(id) => id,
            None => self.begin().map_err(|failure| io::Error::other(failure.to_string()))?,
        };
        let (name, number) = (&self.name, self.parts.len() as i32 + 1);
        let body = Bytes::from(std::mem::take(&mut self.buffer));
        let sent = self.objects.call(name, |client| {
            let upload = client.upload_part().bucket(&name.bucket).key(&name.key).upload_id(&id).part_number(number);
            let upload = upload.body(ByteStream::from(body.clone()));
            async move { Ok(upload.send().await?) }
        });
        self.id = Some(id);
        let sent = sent.map_err(|failure| io::Error::other(failure.to_string()))?;
        self.parts.push(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build());
        Ok(())
    }

    async fn put(&self, client: Client) -> Result<(), Failure> {
        let put = client.put_object().bucket(&self.name.bucket).key(&self.name.key).if_none_match("*");
        let put = put.metadata(WRITTEN_AS, &self.written_as).body(ByteStream::from(self.buffer.clone()));
        put.send().await?;
        Ok(())
    }

    async fn complete(&self, client: Client, id: &str) -> Result<(), Failure> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
        let complete = client.complete_multipart_upload().bucket(&self.name.bucket).key(&self.name.key);
        complete.upload_id(id).multipart_upload(parts).if_none_match("*").send().await?;
        Ok(())
    }

    /// The object is there from now on.
    ///
    /// # Errors
    ///
    /// Where S3 refuses it, also because there is such an object.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.id.is_some() && !self.buffer.is_empty() {
            self.send_part()?;
        }
        let done = match &self.id {
            Some(id) => self.objects.call(&self.name, |client| self.complete(client, id)),
            None => self.objects.call(&self.name, |client| self.put(client)),
        };
        let Err(failure) = done else { return Ok(()) };
        // The answer of an earlier attempt may have been lost, and this one met its object.
        if self.objects.find(&self.name)?.is_some_and(|found| found.written_as.as_ref() == Some(&self.written_as)) {
            return Ok(());
        }
        Err(io::Error::other(match failure {
            Failure::Final(Some(412), _) => "it exists already".to_owned(),
            failure => failure.to_string(),
        }))
    }

    /// Nothing is left of it, unless S3 does not answer.
    pub fn abandon(&mut self) {
        self.abandoned = true;
        let Some(id) = self.id.take() else { return };
        let name = &self.name;
        let aborted = self.objects.call(name, |client| {
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
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= part_bytes(self.parts.len()) {
            self.send_part()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_what_s3_takes_and_hold_an_archive() {
        let all: usize = (0..PARTS_MAX).map(part_bytes).sum();
        assert!(part_bytes(0) >= 5 << 20 && part_bytes(PARTS_MAX - 1) <= 5 << 30);
        assert!(all > 400 << 30, "{all}");
    }
}
