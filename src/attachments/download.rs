//! Downloads: by key, whole or a range, read from the store as fast as the client takes it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};

use super::{Attachments, BlobError, Refused};
use crate::domain::{Attachment, AttachmentName};

/// The bytes of a download, in pieces.
pub type Chunks = BoxStream<'static, Result<Bytes, BlobError>>;

/// An attachment that may be downloaded.
pub struct Download {
    name: AttachmentName,
    attachment: Attachment,
}

impl Download {
    /// Its bytes.
    pub fn length(&self) -> u64 {
        self.attachment.length
    }
}

impl Attachments {
    /// The complete attachment of that name. One that is unknown, not complete or gone is `None`, after the same work.
    pub async fn find(&self, name: &AttachmentName) -> Result<Option<Download>, Refused> {
        let found = self.store.find_attachment(name, self.clock.now().day()).await?;
        Ok(found.map(|attachment| Download {
            name: *name,
            attachment,
        }))
    }

    /// Reads a part. The first object has been found when this returns; the others are asked for when their turn comes.
    /// The chunks hold one of the places of downloads until they are dropped.
    pub async fn read(&self, download: &Download, part: Range<u64>) -> Result<Chunks, Refused> {
        let place = Arc::clone(&self.downloads).try_acquire_owned();
        let place = place.map_err(|_| Refused::DownloadsTaken)?;
        let mut pieces = Vec::new();
        for segment in &download.attachment.segments {
            let end = segment.start + segment.length;
            let (from, to) = (part.start.max(segment.start), part.end.min(end));
            if from < to {
                pieces.push((*segment, from - segment.start..to - segment.start));
            }
        }
        let mut pieces = pieces.into_iter();
        let Some((first, range)) = pieces.next() else {
            return Ok(stream::empty().boxed());
        };
        let (blobs, name) = (self.blobs.clone(), download.name);
        let first = match blobs.get(&name, &first, range).await {
            Err(error) if error.is_missing() => {
                if self.tells_of_missing() {
                    tracing::error!("objects of attachments are not in the attachment store");
                }
                return Err(Refused::Gone);
            }
            found => found?,
        };
        let others = stream::iter(pieces)
            .then(move |(segment, range)| {
                let blobs = blobs.clone();
                async move { blobs.get(&name, &segment, range).await }
            })
            .try_flatten();
        let chunks = first.chain(others).map(move |chunk| {
            let _held = &place;
            chunk
        });
        Ok(chunks.boxed())
    }
}
