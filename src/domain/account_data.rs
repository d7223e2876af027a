//! What an account keeps for its own devices: opaque values under opaque names, each with a version.

use std::fmt;

use bytes::Bytes;

/// The name of an entry: 32 bytes that the client derives from what it calls the entry and a key of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataKey(pub [u8; 32]);

/// A place in the history of one account's entries. Every write draws the next number, so none is ever drawn twice, and
/// an entry that was deleted and made anew has another version than before. 0 is before the first write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataEntry {
    /// The write that it comes from.
    pub version: Revision,
    /// As the client wrote it.
    pub value: Bytes,
}

/// One write of a batch: takes place only if the entry has the expected version.
#[derive(Clone)]
pub struct DataWrite {
    /// The entry.
    pub key: DataKey,
    /// Its version as the writer knows it; 0 if there is no such entry.
    pub expected: Revision,
    /// The new value; `None` deletes.
    pub value: Option<Bytes>,
}

/// How much one account may keep.
#[derive(Clone, Copy, Debug)]
pub struct DataLimits {
    /// Entries.
    pub keys: u32,
    /// Bytes of all values together.
    pub total_bytes: u64,
}

/// What became of a batch of writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// All took place. One version per write, in their order; the last is the account's revision.
    At(Vec<Revision>),
    /// Nothing took place: these entries have these other versions, 0 for none.
    Conflicts(Vec<(DataKey, Revision)>),
    /// Nothing took place: the account would have more entries or bytes than it may.
    QuotaExceeded,
    /// The account, or the device that asks, is gone.
    UnknownAccount,
}

/// From where to list changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataCursor {
    /// Changes above this revision are listed.
    pub after: Revision,
    /// Deletions up to this revision are of no interest to whoever asks: it never heard of those entries, or knows.
    pub since: Revision,
}

/// A part of the list of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataPage {
    /// The account's revision.
    pub revision: Revision,
    /// The list starts over: deletions that the asker had to hear of are forgotten, or it has seen a revision that this
    /// account never had. What is not listed from here on does not exist.
    pub reset: bool,
    /// By version.
    pub changes: Vec<DataChange>,
    /// Where the next part begins; `None` if this is the last.
    pub next: Option<DataCursor>,
}

/// The latest that happened to one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataChange {
    /// The entry.
    pub key: DataKey,
    /// The write.
    pub version: Revision,
    /// Bytes of its value; `None` if it was deleted.
    pub size: Option<u32>,
}

/// Deletions that are remembered per account. Those before are forgotten, and who asks for changes since then is given
/// the whole list.
pub const MAX_REMEMBERED_DELETIONS: i64 = 1_000;

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey")
    }
}

impl fmt::Debug for DataWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataWrite")
    }
}
