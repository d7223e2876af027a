//! Where the bytes of attachments are: a directory, or a bucket of a service that speaks S3.
//!
//! An object is written once, whole, and never changed. Its name is `REALM/NAME/PLACE-TAG`: the realm belongs to the
//! pepper and the database, so that two servers may share a bucket; the name is the hash of a key; the place and a random tag tell the
//! objects of one attachment apart. A local object is synced to the disk before it counts as written. Nothing that a
//! store says in an error is passed on: it may quote names.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::{
    ClientOptions, Error, GetOptions, GetResultPayload, ObjectStore, ObjectStoreExt, RetryConfig, path,
};

use crate::domain::{AttachmentName, Segment};
use crate::encoding::{hex, read_hex};

/// A bucket, and what it takes to use it.
#[derive(Clone)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// The URL of the service; `None` for the one of Amazon's region.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// Whose it is.
    pub access_key_id: String,
    /// What proves that.
    pub secret_access_key: String,
    /// What the names of objects begin with.
    pub prefix: String,
}

/// A store that did not do its work.
#[derive(Debug, thiserror::Error)]
#[error("the attachment store: {0}")]
pub struct BlobError(
    /// The kind of failure, safe to log.
    pub &'static str,
);

impl BlobError {
    /// Whether it says that an object is not there.
    pub(super) fn is_missing(&self) -> bool {
        self.0 == NOT_THERE
    }
}

/// The objects of one realm.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    base: path::Path,
    /// The directory, if it is one.
    local: Option<PathBuf>,
}

impl Blobs {
    /// Objects in a directory, which must exist.
    pub fn local(directory: &Path, realm: &str) -> Result<Self, BlobError> {
        let store = LocalFileSystem::new_with_prefix(directory).map_err(|_| BlobError("no such directory"))?;
        Ok(Self {
            store: Arc::new(store.with_fsync(true)),
            base: path::Path::from(realm),
            local: Some(directory.join(realm)),
        })
    }

    /// Objects in a bucket, which must exist.
    pub fn s3(settings: &S3, realm: &str) -> Result<Self, BlobError> {
        let client = ClientOptions::new()
            .with_timeout_disabled()
            .with_read_timeout(ANSWER_TIMEOUT)
            .with_allow_http(
                settings
                    .endpoint
                    .as_ref()
                    .is_some_and(|endpoint| endpoint.starts_with("http://")),
            );
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_access_key_id(&settings.access_key_id)
            .with_secret_access_key(&settings.secret_access_key)
            .with_client_options(client)
            .with_retry(RetryConfig {
                max_retries: 3,
                retry_timeout: ANSWER_TIMEOUT,
                ..RetryConfig::default()
            });
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let store = builder.build().map_err(|_| BlobError("settings that do not fit"))?;
        let base = path::Path::from(format!("{}/{realm}", settings.prefix));
        Ok(Self::over(Arc::new(store), base))
    }

    fn over(store: Arc<dyn ObjectStore>, base: path::Path) -> Self {
        Self {
            store,
            base,
            local: None,
        }
    }

    /// Objects in memory, for tests.
    #[cfg(test)]
    pub(super) fn in_memory() -> Self {
        Self::over(
            Arc::new(object_store::memory::InMemory::new()),
            path::Path::from("realm"),
        )
    }

    /// Writes the bytes of a segment. When this returns they are there for every node.
    pub(super) async fn put(&self, name: &AttachmentName, segment: &Segment, bytes: Bytes) -> Result<(), BlobError> {
        let place = self.object(name, segment);
        let put = self.store.put(&place, bytes.into());
        tokio::time::timeout(PUT_TIMEOUT, put)
            .await
            .map_err(|_| BlobError("no answer in time"))?
            .map_err(|error| refused(&error))?;
        Ok(())
    }

    /// Reads a part of a segment in pieces.
    pub(super) async fn get(
        &self,
        name: &AttachmentName,
        segment: &Segment,
        part: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
        let place = self.object(name, segment);
        let options = GetOptions::new().with_range(Some(part));
        let found = self.store.get_opts(&place, options).await;
        let found = found.map_err(|error| refused(&error))?;
        let range = found.range.clone();
        Ok(match found.payload {
            GetResultPayload::File(file, _) => pieces_of(file, range),
            GetResultPayload::Stream(stream) => stream.map_err(|error| refused(&error)).boxed(),
        })
    }

    /// Deletes segments that became no part of anything. What fails here is swept later.
    pub(super) async fn discard(&self, name: &AttachmentName, segments: &[Segment]) {
        for segment in segments {
            let _ = self.store.delete(&self.object(name, segment)).await;
        }
    }

    /// Deletes every object of an attachment, also those of which no row tells.
    pub(super) async fn clear(&self, name: &AttachmentName) -> Result<(), BlobError> {
        if let Some(directory) = &self.local {
            // With what a crash left half-written, which the store itself does not list.
            let directory = directory.join(text(name));
            return match tokio::fs::remove_dir_all(directory).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(BlobError("a directory stays")),
                _ => Ok(()),
            };
        }
        let objects = self.store.list(Some(&self.base.clone().join(text(name))));
        let places = objects.map_ok(|object| object.location).boxed();
        let mut deleted = self.store.delete_stream(places);
        while let Some(outcome) = deleted.next().await {
            match outcome {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(refused(&error)),
            }
        }
        Ok(())
    }

    /// Every name that has objects, in any order; one may come more than once.
    pub(super) async fn names(&self) -> Result<BoxStream<'static, Result<AttachmentName, BlobError>>, BlobError> {
        if let Some(directory) = &self.local {
            let entries = match tokio::fs::read_dir(directory).await {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(stream::empty().boxed()),
                Err(_) => return Err(BlobError("the directory cannot be read")),
            };
            let names = stream::try_unfold(entries, async |mut entries: tokio::fs::ReadDir| {
                let entry = entries.next_entry().await;
                let entry = entry.map_err(|_| BlobError("the directory cannot be read"))?;
                Ok(entry.map(|entry| (parse_text(&entry.file_name().to_string_lossy()), entries)))
            });
            return Ok(names.try_filter_map(async |name| Ok(name)).boxed());
        }
        let base = self.base.clone();
        let objects = self.store.list(Some(&self.base)).map_err(|error| refused(&error));
        Ok(objects
            .try_filter_map(move |object| {
                let mut rest = object.location.prefix_match(&base).into_iter().flatten();
                std::future::ready(Ok(rest.next().and_then(|part| parse_text(part.as_ref()))))
            })
            .boxed())
    }

    /// Whether an object can be written and deleted. Leaves nothing behind.
    pub async fn probe(&self) -> Result<(), BlobError> {
        let place = self.base.clone().join("probe");
        let written = async {
            self.store.put(&place, Bytes::from_static(b"probe").into()).await?;
            self.store.delete(&place).await
        };
        tokio::time::timeout(PUT_TIMEOUT, written)
            .await
            .map_err(|_| BlobError("no answer in time"))?
            .map_err(|error| refused(&error))
    }

    fn object(&self, name: &AttachmentName, segment: &Segment) -> path::Path {
        let place = format!("{:016x}-{:016x}", segment.start, segment.tag);
        self.base.clone().join(text(name)).join(place)
    }
}

/// The pieces of a file, each read only when it is wanted.
fn pieces_of(file: std::fs::File, range: Range<u64>) -> BoxStream<'static, Result<Bytes, BlobError>> {
    let file = Arc::new(file);
    stream::try_unfold(range.start, move |at| {
        let file = Arc::clone(&file);
        let left = usize::try_from(range.end.saturating_sub(at)).unwrap_or(usize::MAX);
        async move {
            if left == 0 {
                return Ok(None);
            }
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; left.min(PIECE_BYTES)];
                file.read_exact_at(&mut bytes, at).map(|()| bytes)
            });
            let bytes = read
                .await
                .ok()
                .and_then(Result::ok)
                .ok_or(BlobError("a file cannot be read"))?;
            let next = at + bytes.len() as u64;
            Ok(Some((Bytes::from(bytes), next)))
        }
    })
    .boxed()
}

fn refused(error: &Error) -> BlobError {
    BlobError(match error {
        Error::NotFound { .. } => NOT_THERE,
        Error::PermissionDenied { .. } => "not allowed",
        Error::Unauthenticated { .. } => "credentials that are not valid",
        Error::AlreadyExists { .. } | Error::Precondition { .. } => "an object is there already",
        Error::InvalidPath { .. } => "a path that is not valid",
        Error::JoinError { .. } => "stopped in between",
        _ => "it did not do its work",
    })
}

/// The name that an object's path and a directory have for an attachment.
fn text(name: &AttachmentName) -> String {
    hex(&name.0)
}

fn parse_text(text: &str) -> Option<AttachmentName> {
    let mut name = AttachmentName([0; 32]);
    read_hex(text, &mut name.0)?;
    Some(name)
}

const NOT_THERE: &str = "an object is not there";
const PIECE_BYTES: usize = 64 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Less than a connection may stand still.
const PUT_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: AttachmentName = AttachmentName([0xab; 32]);
    const OTHER: AttachmentName = AttachmentName([0xcd; 32]);

    fn segment(start: u64, tag: i64) -> Segment {
        Segment { start, length: 5, tag }
    }

    async fn read(blobs: &Blobs, segment: &Segment, part: Range<u64>) -> Result<Vec<u8>, BlobError> {
        let pieces: Vec<Bytes> = blobs.get(&NAME, segment, part).await?.try_collect().await?;
        Ok(pieces.concat())
    }

    async fn names(blobs: &Blobs) -> Vec<AttachmentName> {
        let mut names: Vec<_> = blobs.names().await.unwrap().try_collect().await.unwrap();
        names.sort();
        names.dedup();
        names
    }

    async fn keeps_lists_and_clears(blobs: &Blobs) {
        assert!(names(blobs).await.is_empty());
        let (first, second) = (segment(0, 1), segment(5, -1));
        blobs.put(&NAME, &first, Bytes::from_static(b"hello")).await.unwrap();
        blobs.put(&NAME, &second, Bytes::from_static(b"world")).await.unwrap();
        blobs.put(&OTHER, &first, Bytes::from_static(b"other")).await.unwrap();
        assert_eq!(read(blobs, &first, 0..5).await.unwrap(), b"hello");
        assert_eq!(read(blobs, &second, 1..3).await.unwrap(), b"or");
        assert_eq!(names(blobs).await, [NAME, OTHER]);

        blobs.discard(&NAME, &[second]).await;
        assert!(read(blobs, &second, 0..5).await.is_err());
        blobs.clear(&NAME).await.unwrap();
        blobs.clear(&NAME).await.unwrap();
        assert!(read(blobs, &first, 0..5).await.is_err());
        assert_eq!(names(blobs).await, [OTHER]);
        blobs.probe().await.unwrap();
        assert_eq!(names(blobs).await, [OTHER]);
        blobs.clear(&OTHER).await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_and_memory_keep_list_and_clear() {
        let directory = tempfile::tempdir().unwrap();
        keeps_lists_and_clears(&Blobs::local(directory.path(), "0011").unwrap()).await;
        keeps_lists_and_clears(&Blobs::in_memory()).await;
    }

    #[tokio::test]
    async fn a_bucket_keeps_lists_and_clears() {
        let Some(settings) = crate::attachments::tests::bucket().await else {
            return;
        };
        keeps_lists_and_clears(&Blobs::s3(&settings, "0011").unwrap()).await;
        let wrong = S3 {
            bucket: "blind-relay-there-is-none".to_owned(),
            ..settings
        };
        assert!(Blobs::s3(&wrong, "0011").unwrap().probe().await.is_err());
    }

    #[tokio::test]
    async fn realms_do_not_see_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let one = Blobs::local(directory.path(), "0011").unwrap();
        let other = Blobs::local(directory.path(), "0022").unwrap();
        one.put(&NAME, &segment(0, 1), Bytes::from_static(b"hello"))
            .await
            .unwrap();
        assert!(names(&other).await.is_empty());
        assert!(read(&other, &segment(0, 1), 0..5).await.is_err());
    }

    #[tokio::test]
    async fn what_a_crash_left_half_written_goes_with_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::local(directory.path(), "0011").unwrap();
        blobs
            .put(&NAME, &segment(0, 1), Bytes::from_static(b"hello"))
            .await
            .unwrap();
        let inside = directory.path().join("0011").join(text(&NAME));
        std::fs::write(inside.join("0000000000000005-0000000000000001#1"), "half").unwrap();
        blobs.clear(&NAME).await.unwrap();
        assert!(!inside.exists());
    }

    #[test]
    fn hexadecimal_is_read_back_and_other_text_is_not() {
        assert_eq!(parse_text(&text(&NAME)), Some(NAME));
        for text in ["", "probe", &"zz".repeat(32), &"é".repeat(32)] {
            assert_eq!(parse_text(text), None);
        }
    }
}
