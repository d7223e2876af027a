//! What is swept: uploads that nobody finished, attachments whose days are over, rows that are of no more use, objects
//! that belong to nothing.

use futures_util::TryStreamExt;

use super::{Attachments, Refused};
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
    /// Drops everything whose time has come, in batches. What was interrupted in between is finished by the next sweep.
    pub async fn sweep(&self) -> Result<Swept, Refused> {
        let mut swept = Swept::default();
        loop {
            let expired = self.store.expire(self.clock.now(), BATCH).await?;
            swept.expired += expired;
            let cleared = self.clear_removed().await?;
            swept.cleared += cleared;
            if expired < u64::from(BATCH) && cleared < u64::from(BATCH) {
                break;
            }
        }
        loop {
            let forgotten = self.store.forget(self.clock.now().day(), BATCH).await?;
            swept.forgotten += forgotten;
            if forgotten < u64::from(BATCH) {
                return Ok(swept);
            }
        }
    }

    /// Deletes objects that belong to nothing that is known: a crash between an object and its row leaves such. Looks at
    /// every object of the store.
    pub async fn sweep_orphans(&self) -> Result<u64, Refused> {
        let mut names = self.blobs.names().await?;
        let (mut batch, mut dropped) = (Vec::new(), 0);
        loop {
            let name = names.try_next().await?;
            let last = name.is_none();
            batch.extend(name.filter(|name| batch.last() != Some(name)));
            if last || batch.len() >= BATCH as usize {
                dropped += self.drop_unknown(&mut batch).await?;
            }
            if last {
                return Ok(dropped);
            }
        }
    }

    async fn clear_removed(&self) -> Result<u64, Refused> {
        let removed = self.store.uncleared(BATCH).await?;
        if removed.is_empty() {
            return Ok(0);
        }
        for name in &removed {
            self.blobs.clear(name).await?;
        }
        self.store.cleared(&removed).await?;
        Ok(removed.len() as u64)
    }

    async fn drop_unknown(&self, batch: &mut Vec<AttachmentName>) -> Result<u64, Refused> {
        batch.sort_unstable();
        batch.dedup();
        let mut known = self.store.known(batch).await?;
        known.sort_unstable();
        batch.retain(|name| known.binary_search(name).is_err());
        for name in &*batch {
            self.blobs.clear(name).await?;
        }
        let dropped = batch.len() as u64;
        batch.clear();
        Ok(dropped)
    }
}

/// Of one statement, and of one look into the store.
const BATCH: u32 = 500;
