//! Attachments: ciphertext that clients put down for one another under unguessable names.
//!
//! An upload is open until all its bytes are there, then it is complete and never changes. A name is used once: what was
//! removed or dropped does not come back under the same name.

use std::fmt;

use super::{Day, Timestamp};

/// SHA-256 of an attachment's key. The key itself is known to clients alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttachmentName(pub [u8; 32]);

/// Where the bytes of one account and day are counted. Tells neither to who has no key for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuotaBucket(pub [u8; 16]);

impl fmt::Debug for AttachmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttachmentName")
    }
}

impl fmt::Debug for QuotaBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QuotaBucket")
    }
}

/// What an account may upload in a day.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Where it is counted.
    pub bucket: QuotaBucket,
    /// The day.
    pub day: Day,
    /// The most bytes.
    pub limit: u64,
    /// The fewest bytes that an upload costs, and that each of its segments does: rows and objects are not free.
    pub least: u64,
}

/// A part of an attachment, kept as one immutable object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The place of its first byte.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
    /// The random part of the object's name.
    pub tag: i64,
}

/// When an upload is what.
#[derive(Clone, Copy, Debug)]
pub struct UploadTimes {
    /// The present.
    pub now: Timestamp,
    /// When it is dropped if nothing more comes.
    pub drop_at: Timestamp,
    /// The day from which it is gone if it is complete now.
    pub expires: Day,
}

/// An upload that begins.
#[derive(Clone, Copy, Debug)]
pub struct NewUpload {
    /// Its name.
    pub name: AttachmentName,
    /// How many bytes it will have, if that is known yet.
    pub length: Option<u64>,
    /// Bytes that were taken from the budget before.
    pub paid: u64,
    /// What the rest is taken from.
    pub budget: Budget,
    /// Its times.
    pub times: UploadTimes,
}

/// An upload as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upload {
    /// How many bytes it will have, if that is known yet.
    pub length: Option<u64>,
    /// How many there are.
    pub stored: u64,
    /// When it is dropped if nothing more comes; `None` if it is complete.
    pub drop_at: Option<Timestamp>,
}

/// How an upload began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is there, new or from an earlier request.
    At(Upload),
    /// The name was used and is gone.
    Gone,
    /// The budget of the day does not allow it. Nothing was stored.
    OverBudget,
}

/// A request that wants to write.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Where it goes on.
    pub at: u64,
    /// How many bytes the upload will have, if the request says so.
    pub length: Option<u64>,
    /// What a length that becomes known is taken from.
    pub budget: Budget,
    /// The upload's times.
    pub times: UploadTimes,
}

/// Whether a request may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnTaken {
    /// It may, until another one does.
    Writing {
        /// Its number.
        turn: i64,
        /// How many bytes the upload will have, if that is known now.
        length: Option<u64>,
    },
    /// There is nothing to write: the upload is complete and ends where the request begins.
    Complete,
    /// It wants to go on elsewhere than the upload stands.
    Elsewhere(Upload),
    /// The upload has another length, or more bytes already.
    OtherLength,
    /// There is no such upload.
    Gone,
    /// The budget of the day does not allow that length.
    OverBudget,
}

/// What became of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// They are part of the upload.
    At(Upload),
    /// Another request writes now, or the upload is gone.
    Overtaken,
    /// The upload has too many segments.
    TooMany,
    /// The budget of the day does not allow them.
    OverBudget,
}

/// A complete attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its bytes.
    pub length: u64,
    /// Its parts, in order.
    pub segments: Vec<Segment>,
}

/// The most segments that an upload may have: many times what whole segments need, far fewer than single bytes would.
pub const MAX_SEGMENTS: i64 = 4096;
/// For how many days the row of a removed attachment stays, so that its name is not used again: longer than any form.
pub const REMOVED_DAYS: i32 = 2;
