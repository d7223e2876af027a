//! What accounts keep for their own devices: who may write, what a write costs, and which changes are listed.
//!
//! The backend locks the account's counters, loads them and the entries that a batch names, lets [`decide`] have its
//! say, and writes back what it returns before it commits. Both backends therefore answer alike.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;

use super::StorageError;
use crate::domain::{
    Aci, Actor, DataChange, DataCursor, DataEntry, DataKey, DataLimits, DataPage, DataWrite, MAX_REMEMBERED_DELETIONS,
    Revision, Written,
};

/// Entries that an account keeps for its own devices.
#[async_trait]
pub trait AccountDataStore: Send + Sync {
    /// Carries out all of the writes or none. No two of them name the same entry.
    async fn write(&self, by: &Actor, writes: &[DataWrite], limits: DataLimits) -> Result<Written, StorageError>;

    /// The entry, if the account has it.
    async fn find(&self, aci: Aci, key: &DataKey) -> Result<Option<DataEntry>, StorageError>;

    /// At most `limit` changes as they stand at one moment, oldest first.
    async fn changes(&self, aci: Aci, from: DataCursor, limit: u32) -> Result<DataPage, StorageError>;
}

/// The columns `revision`, `entries`, `bytes`, `deletions`, `horizon` of `account_data_counters`.
pub(super) type CounterColumns = (i64, i64, i64, i64, i64);

/// What is counted per account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataCounter {
    pub(super) revision: i64,
    pub(super) entries: i64,
    pub(super) bytes: i64,
    pub(super) deletions: i64,
    pub(super) horizon: i64,
}

impl From<CounterColumns> for DataCounter {
    fn from((revision, entries, bytes, deletions, horizon): CounterColumns) -> Self {
        Self {
            revision,
            entries,
            bytes,
            deletions,
            horizon,
        }
    }
}

impl DataCounter {
    /// How many deletions must be forgotten.
    pub(super) fn excess_deletions(&self) -> i64 {
        (self.deletions - MAX_REMEMBERED_DELETIONS).max(0)
    }

    /// Takes note that these deletions were forgotten.
    pub(super) fn forgot(&mut self, versions: &[i64]) {
        self.deletions -= i64::try_from(versions.len()).unwrap_or(i64::MAX);
        self.horizon = versions.iter().copied().fold(self.horizon, i64::max);
    }
}

/// The columns `key`, `version`, `size` of a row that is there; the size of a deletion is null.
pub(super) type KnownColumns = (Vec<u8>, i64, Option<i64>);

/// What a batch does, if it may.
pub(super) struct Decision<'batch> {
    /// The counters afterwards.
    pub(super) counter: DataCounter,
    /// A row for each write, in their order.
    pub(super) rows: Vec<NewEntry<'batch>>,
}

/// A row for `account_data`.
pub(super) struct NewEntry<'batch> {
    pub(super) key: &'batch [u8; 32],
    pub(super) version: i64,
    pub(super) value: Option<&'batch [u8]>,
}

impl Decision<'_> {
    /// The answer to the writer.
    pub(super) fn written(&self) -> Written {
        Written::At(self.rows.iter().map(|row| Revision(row.version)).collect())
    }
}

/// Compares every write with what is there, draws versions and counts. `Err` is the answer if nothing may happen.
pub(super) fn decide<'batch>(
    mut counter: DataCounter,
    known: &[KnownColumns],
    writes: &'batch [DataWrite],
    limits: DataLimits,
) -> Result<Decision<'batch>, Written> {
    let known: HashMap<&[u8], (i64, Option<i64>)> = known
        .iter()
        .map(|(key, version, size)| (key.as_slice(), (*version, *size)))
        .collect();
    let mut conflicts = Vec::new();
    let mut rows = Vec::with_capacity(writes.len());
    for write in writes {
        let row = known.get(write.key.0.as_slice());
        let entry = row.and_then(|(version, size)| Some((*version, (*size)?)));
        let version = Revision(entry.map_or(0, |(version, _)| version));
        if version != write.expected {
            conflicts.push((write.key, version));
            continue;
        }
        if let Some((_, size)) = entry {
            counter.entries -= 1;
            counter.bytes -= size;
        } else if row.is_some() {
            counter.deletions -= 1;
        }
        match &write.value {
            Some(value) => {
                counter.entries += 1;
                counter.bytes += i64::try_from(value.len()).unwrap_or(i64::MAX);
            }
            None => counter.deletions += 1,
        }
        counter.revision += 1;
        rows.push(NewEntry {
            key: &write.key.0,
            version: counter.revision,
            value: write.value.as_deref(),
        });
    }
    if !conflicts.is_empty() {
        return Err(Written::Conflicts(conflicts));
    }
    let over = counter.entries > i64::from(limits.keys)
        || counter.bytes > i64::try_from(limits.total_bytes).unwrap_or(i64::MAX);
    // Who is over the limit, because it was lowered, may still delete.
    if over && writes.iter().any(|write| write.value.is_some()) {
        return Err(Written::QuotaExceeded);
    }
    Ok(Decision { counter, rows })
}

/// The columns `revision`, `horizon` and those of one change, which are null if there is none.
pub(super) type ChangeColumns = (i64, i64, Option<Vec<u8>>, Option<i64>, Option<i64>);

/// Makes a page of the rows, of which one more than `limit` was asked for. No row at all: nothing was ever written.
pub(super) fn page(rows: Vec<ChangeColumns>, from: DataCursor, limit: u32) -> Result<DataPage, StorageError> {
    let (revision, horizon) = rows.first().map_or((0, 0), |row| (row.0, row.1));
    let reset = from.after.0 > 0 && (horizon > from.since.0 || from.since.0 > revision);
    let mut changes = Vec::with_capacity(rows.len());
    for (_, _, key, version, size) in rows {
        if let (Some(key), Some(version)) = (key, version) {
            let size = size.map(u32::try_from).transpose();
            changes.push(DataChange {
                key: DataKey(key.try_into().map_err(|_| corrupt("key"))?),
                version: Revision(version),
                size: size.map_err(|_| corrupt("value"))?,
            });
        }
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = changes.len() > limit;
    changes.truncate(limit);
    // Who begins with nothing has heard of no entry that was deleted before this moment.
    let since = if reset || from.after.0 == 0 {
        revision
    } else {
        from.since.0
    };
    let last = changes.last().map(|change| change.version.0).filter(|_| more);
    Ok(DataPage {
        revision: Revision(revision),
        reset,
        changes,
        next: last.map(|last| DataCursor {
            after: Revision(last),
            since: Revision(since.max(last)),
        }),
    })
}

/// A row with its value.
pub(super) fn entry((version, value): (i64, Vec<u8>)) -> DataEntry {
    DataEntry {
        version: Revision(version),
        value: Bytes::from(value),
    }
}

fn corrupt(column: &'static str) -> StorageError {
    StorageError::Corrupt {
        table: "account_data",
        column,
    }
}
