//! What is promised of attachments: which uploads there are, how far they are, and what a day's budget has left. Their
//! bytes are elsewhere.

use async_trait::async_trait;

use super::StorageError;
use super::rows::UploadRow;
use crate::domain::{
    Appended, Attachment, AttachmentName, Budget, Day, MAX_SEGMENTS, NewUpload, Opened, QuotaBucket, Segment,
    Timestamp, Turn, TurnTaken, Upload, UploadTimes,
};

/// Uploads and attachments. Only the bytes of a segment that [`append`](Self::append) has taken are part of anything.
#[async_trait]
pub trait AttachmentStore: Send + Sync {
    /// Remembers the first realm it is ever given, and returns the one it has: the objects of this database, of which
    /// another one with the same pepper knows nothing, are told apart by it.
    async fn realm(&self, proposed: [u8; 16]) -> Result<[u8; 16], StorageError>;

    /// Takes bytes from a budget; `false`, and nothing taken, if that many are not left.
    async fn reserve(&self, budget: &Budget, bytes: u64) -> Result<bool, StorageError>;

    /// Opens an upload, and takes from the budget what it costs and was not paid. One that is there already stays as it is.
    async fn open(&self, upload: &NewUpload) -> Result<Opened, StorageError>;

    /// The upload as it stands by `now`, open or complete.
    async fn find_upload(&self, name: &AttachmentName, now: Timestamp) -> Result<Option<Upload>, StorageError>;

    /// Lets a request write at the end of what there is, and no earlier one any more. A length that becomes known is
    /// kept, and taken from the budget as far as it was not before. An upload that has all its bytes thereby is complete.
    async fn take_turn(&self, name: &AttachmentName, turn: &Turn) -> Result<TurnTaken, StorageError>;

    /// Adds segments at the end, all of them or none, if it is still that turn's. With its last byte the upload is
    /// complete.
    async fn append(
        &self,
        name: &AttachmentName,
        turn: i64,
        segments: &[Segment],
        budget: &Budget,
        times: &UploadTimes,
    ) -> Result<Appended, StorageError>;

    /// The attachment of that name, if it is complete and not gone by `today`.
    async fn find_attachment(&self, name: &AttachmentName, today: Day) -> Result<Option<Attachment>, StorageError>;

    /// Removes an upload or attachment; `false` if there was none by `now`.
    async fn remove(&self, name: &AttachmentName, now: Timestamp) -> Result<bool, StorageError>;

    /// Removes what there is under these names. A name under which nothing was uploaded yet is used up.
    async fn retire(&self, names: &[AttachmentName], now: Timestamp) -> Result<(), StorageError>;

    /// Drops budgets, of whatever day.
    async fn drop_budgets(&self, buckets: &[QuotaBucket]) -> Result<(), StorageError>;

    /// Removes at most `limit` open uploads and attachments whose time has come by `now`, and says how many.
    async fn expire(&self, now: Timestamp, limit: u32) -> Result<u64, StorageError>;

    /// At most `limit` removed names whose objects may still be there, by name, after `after`.
    async fn uncleared(&self, after: Option<AttachmentName>, limit: u32) -> Result<Vec<AttachmentName>, StorageError>;

    /// Notes that the objects of these removed names are gone.
    async fn cleared(&self, names: &[AttachmentName]) -> Result<(), StorageError>;

    /// Drops at most `limit` rows of removed names, and as many of budgets, that are of no more use by `today`. Says how
    /// many of both.
    async fn forget(&self, today: Day, limit: u32) -> Result<u64, StorageError>;

    /// Those of the names whose objects are wanted, or will be cleared in time.
    async fn known(&self, names: &[AttachmentName]) -> Result<Vec<AttachmentName>, StorageError>;
}

/// What is to be written after a rule was applied.
pub(super) struct Change {
    pub(super) row: UploadRow,
    /// Bytes to take from the budget first.
    pub(super) charge: i64,
}

/// The rules by which the one row of an upload changes: the same on both databases, each of which holds the row while
/// they are applied.
impl UploadRow {
    /// The row of a new upload.
    pub(super) fn open(upload: &NewUpload) -> Change {
        let cost = signed(upload.length.unwrap_or(0).max(upload.budget.least));
        let paid = signed(upload.paid);
        let row = Self {
            state: OPEN,
            length: upload.length.map(signed),
            stored: 0,
            charged: cost.max(paid),
            turn: 0,
            drop_at: Some(upload.times.drop_at.0),
            expires: None,
        };
        Change {
            row: row.completed(&upload.times),
            charge: (cost - paid).max(0),
        }
    }

    /// The upload, if there is one by `now`.
    pub(super) fn upload(&self, now: Timestamp) -> Option<Upload> {
        let there = match self.state {
            OPEN => self.drop_at.is_some_and(|drop_at| drop_at > now.0),
            COMPLETE => self.expires.is_some_and(|expires| expires > now.day().0),
            _ => false,
        };
        there.then(|| Upload {
            length: self.length.map(unsigned),
            stored: unsigned(self.stored),
            drop_at: self.drop_at.map(Timestamp),
        })
    }

    /// Applies a turn; what the request is told, and what is to be written if it may write.
    pub(super) fn take_turn(self, turn: &Turn) -> (TurnTaken, Option<Change>) {
        let Some(upload) = self.upload(turn.times.now) else {
            return (TurnTaken::Gone, None);
        };
        if turn.length.is_some_and(|length| length < upload.stored)
            || matches!((turn.length, upload.length), (Some(one), Some(other)) if one != other)
        {
            return (TurnTaken::OtherLength, None);
        }
        if turn.at != upload.stored {
            return (TurnTaken::Elsewhere(upload), None);
        }
        if self.state == COMPLETE {
            return (TurnTaken::Complete, None);
        }
        let length = self.length.or(turn.length.map(signed));
        let charged = self.charged.max(length.unwrap_or(0));
        let charge = charged - self.charged;
        let row = Self {
            length,
            charged,
            turn: self.turn.wrapping_add(1),
            drop_at: Some(turn.times.drop_at.0),
            ..self
        }
        .completed(&turn.times);
        let taken = if row.state == COMPLETE {
            TurnTaken::Complete
        } else {
            TurnTaken::Writing {
                turn: row.turn,
                length: length.map(unsigned),
            }
        };
        (taken, Some(Change { row, charge }))
    }

    /// Adds segments to the `before` that there are, if they fit where the upload stands and no other request writes.
    pub(super) fn append(
        self,
        before: i64,
        turn: i64,
        segments: &[Segment],
        budget: &Budget,
        times: &UploadTimes,
    ) -> Result<Change, Appended> {
        if self.upload(times.now).is_none() || self.state != OPEN || self.turn != turn {
            return Err(Appended::Overtaken);
        }
        let mut stored = unsigned(self.stored);
        for segment in segments {
            if segment.start != stored {
                return Err(Appended::Overtaken);
            }
            stored = stored.checked_add(segment.length).ok_or(Appended::Overtaken)?;
        }
        if self.length.is_some_and(|length| unsigned(length) < stored) {
            return Err(Appended::Overtaken);
        }
        let count = before.saturating_add(i64::try_from(segments.len()).unwrap_or(i64::MAX));
        if count > MAX_SEGMENTS {
            return Err(Appended::TooMany);
        }
        // However small its parts are, each is a row and an object.
        let parts = count.saturating_mul(signed(budget.least));
        let charged = self.charged.max(signed(stored)).max(parts);
        let charge = charged - self.charged;
        let row = Self {
            stored: signed(stored),
            charged,
            drop_at: Some(times.drop_at.0),
            ..self
        };
        Ok(Change {
            row: row.completed(times),
            charge,
        })
    }

    /// The row as it is now that its bytes were counted.
    fn completed(self, times: &UploadTimes) -> Self {
        if self.length != Some(self.stored) {
            return self;
        }
        Self {
            state: COMPLETE,
            drop_at: None,
            expires: Some(times.expires.0),
            ..self
        }
    }
}

/// A size as the databases keep it. What is larger than they know is larger than any limit.
pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A size as the databases kept it.
pub(super) fn unsigned(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

const OPEN: i16 = 0;
const COMPLETE: i16 = 1;
