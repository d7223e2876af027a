//! What is swept: uploads that nobody finished, attachments whose days are over, rows that are of no more use, objects
//! that belong to nothing.

use futures_util::TryStreamExt;

use super::{Attachments, BlobError, Refused};
use crate::domain::AttachmentName;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Uploads and attachments whose time had come.
    pub expired: u64,
    /// Those whose objects were deleted.
    pub cleared: u64,
    /// Rows that were dropped.
    pub forgotten: u64,
}

impl Attachments {
    /// Drops everything whose time has come, in batches. What was interrupted in between, or could not be deleted, is
    /// finished by the next sweep; nothing else waits for it.
    pub async fn sweep(&self) -> Result<Swept, Refused> {
        let mut swept = Swept::default();
        loop {
            let expired = self.store.expire(self.clock.now(), BATCH).await?;
            swept.expired += expired;
            if expired < u64::from(BATCH) {
                break;
            }
        }
        let cleared = self.clear_removed(&mut swept).await;
        loop {
            let forgotten = self.store.forget(self.clock.now().day(), BATCH).await?;
            swept.forgotten += forgotten;
            if forgotten < u64::from(BATCH) {
                return cleared.map(|()| swept);
            }
        }
    }

    /// Deletes objects that belong to nothing that is known: a crash between an object and its row leaves such. Looks at
    /// every object of the store.
    pub async fn sweep_orphans(&self) -> Result<u64, Refused> {
        let mut names = self.blobs.names().await?;
        let (mut batch, mut dropped, mut failed) = (Vec::new(), 0, None);
        loop {
            let name = names.try_next().await?;
            let last = name.is_none();
            batch.extend(name.filter(|name| batch.last() != Some(name)));
            if last || batch.len() >= BATCH as usize {
                dropped += self.drop_unknown(&mut batch, &mut failed).await?;
            }
            if last {
                return failed.map_or(Ok(dropped), |error: BlobError| Err(error.into()));
            }
        }
    }

    async fn clear_removed(&self, swept: &mut Swept) -> Result<(), Refused> {
        let (mut after, mut failed) = (None, None);
        loop {
            let removed = self.store.uncleared(after, BATCH).await?;
            let cleared = self.clear(&removed, &mut failed).await;
            if !cleared.is_empty() {
                self.store.cleared(&cleared).await?;
            }
            swept.cleared += cleared.len() as u64;
            after = removed.last().copied();
            if removed.len() < BATCH as usize {
                return failed.map_or(Ok(()), |error| Err(error.into()));
            }
        }
    }

    /// Deletes the objects of each, and says of which they are gone. One that cannot be deleted keeps no other one.
    async fn clear(&self, names: &[AttachmentName], failed: &mut Option<BlobError>) -> Vec<AttachmentName> {
        let mut cleared = Vec::with_capacity(names.len());
        for name in names {
            match self.blobs.clear(name).await {
                Ok(()) => cleared.push(*name),
                Err(error) => *failed = Some(error),
            }
        }
        cleared
    }

    async fn drop_unknown(
        &self,
        batch: &mut Vec<AttachmentName>,
        failed: &mut Option<BlobError>,
    ) -> Result<u64, Refused> {
        batch.sort_unstable();
        batch.dedup();
        let mut known = self.store.known(batch).await?;
        known.sort_unstable();
        batch.retain(|name| known.binary_search(name).is_err());
        let dropped = self.clear(batch, failed).await;
        batch.clear();
        Ok(dropped.len() as u64)
    }
}

/// Of one statement, and of one look into the store.
const BATCH: u32 = 500;
