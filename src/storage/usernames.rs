//! User names: who has which hash, and whose turn it is next.
//!
//! One row per hash decides, so that a name has one owner however many ask for it at once. What a row means to an
//! account that asks is said here, once for both backends.

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::StorageError;
use crate::domain::{
    Aci, Actor, Confirmed, Day, EncryptedUsername, LinkHandle, Reserved, Timestamp, Username, UsernameHash,
    UsernameLink,
};

/// User names and the links to them.
#[async_trait]
pub trait UsernameStore: Send + Sync {
    /// Reserves the first of the hashes that is to be had, in place of what the account had reserved before. Its own
    /// name and those it gave up count as to be had.
    async fn reserve(&self, by: &Actor, hashes: &[UsernameHash], now: Timestamp) -> Result<Reserved, StorageError>;

    /// Makes the reserved name the account's own, with that link or none, and gives up the one it had. What is the
    /// account's name already stays as it is, and keeps its link if the encrypted name is the same.
    async fn confirm(
        &self,
        by: &Actor,
        hash: &UsernameHash,
        link: Option<&UsernameLink>,
        now: Timestamp,
    ) -> Result<Confirmed, StorageError>;

    /// Gives up the account's name and drops its link, if it has one; `false` if the device that asks is gone.
    async fn release(&self, by: &Actor, today: Day) -> Result<bool, StorageError>;

    /// Replaces the account's link, under the old handle if there is one and it is to be kept. Returns the handle, or
    /// `None` if the account has no name or the device that asks is gone.
    async fn set_link(
        &self,
        by: &Actor,
        link: &UsernameLink,
        keep_handle: bool,
    ) -> Result<Option<LinkHandle>, StorageError>;

    /// Drops the account's link, if it has one; `false` if the device that asks is gone.
    async fn drop_link(&self, by: &Actor) -> Result<bool, StorageError>;

    /// The owner of the name.
    async fn find(&self, hash: &UsernameHash) -> Result<Option<Aci>, StorageError>;

    /// What is stored under the handle.
    async fn find_link(&self, handle: &LinkHandle) -> Result<Option<EncryptedUsername>, StorageError>;

    /// The name of the account.
    async fn of_account(&self, aci: Aci) -> Result<Option<Username>, StorageError>;

    /// Holds the names of accounts that were deleted, frees those whose time has come, and says how many are free now.
    async fn expire(&self, now: Timestamp) -> Result<u64, StorageError>;
}

/// The columns `aci`, `owned`, `reserved_until`, `held_until`.
pub(super) type NameColumns = (Option<Uuid>, bool, Option<i64>, Option<i32>);

/// The same behind the column `hash`.
pub(super) type NamedColumns = (Vec<u8>, Option<Uuid>, bool, Option<i64>, Option<i32>);

/// A name that is in the table.
pub(super) struct NameRow {
    aci: Option<Uuid>,
    owned: bool,
    reserved_until: Option<i64>,
    held_until: Option<i32>,
}

/// What a name is to an account.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its own.
    Own,
    /// Reserved for it.
    Reserved,
    /// Given up by it not long ago, or reserved for it until a moment ago.
    Former,
    /// Nobody's any more.
    Free,
    /// Someone else's.
    Taken,
}

impl NameRow {
    pub(super) fn new((aci, owned, reserved_until, held_until): NameColumns) -> Self {
        Self {
            aci,
            owned,
            reserved_until,
            held_until,
        }
    }

    pub(super) fn standing(&self, aci: Aci, now: Timestamp) -> Standing {
        let reserved = self.reserved_until.is_some_and(|until| until > now.0);
        let held = self.held_until.is_some_and(|until| until > now.day().0);
        let mine = self.aci == Some(*aci.as_uuid());
        match (mine, self.owned) {
            (true, true) => Standing::Own,
            (true, false) if reserved => Standing::Reserved,
            (true, false) => Standing::Former,
            (false, false) if !reserved && !held => Standing::Free,
            (false, _) => Standing::Taken,
        }
    }
}

/// The hashes that the account may try to reserve, in their order; `Err` if there are none. `known` says what the table
/// holds of them, and `full` that the account has given up as many names as it may.
pub(super) fn candidates(
    hashes: &[UsernameHash],
    known: impl Fn(&UsernameHash) -> Option<Standing>,
    full: bool,
) -> Result<Vec<(UsernameHash, Standing)>, Reserved> {
    let mut found: Vec<_> = hashes
        .iter()
        .map(|hash| (*hash, known(hash).unwrap_or(Standing::Free)))
        .filter(|(_, standing)| *standing != Standing::Taken)
        .collect();
    if found.is_empty() {
        return Err(Reserved::AllTaken);
    }
    if full {
        found.retain(|(_, standing)| *standing != Standing::Free);
    }
    if found.is_empty() {
        return Err(Reserved::TooManyGivenUp);
    }
    Ok(found)
}

/// The column `encrypted`.
pub(super) fn encrypted(bytes: Vec<u8>) -> Result<EncryptedUsername, StorageError> {
    EncryptedUsername::new(Bytes::from(bytes)).ok_or(StorageError::Corrupt {
        table: "username_links",
        column: "encrypted",
    })
}

/// The column `hash`.
pub(super) fn hash(bytes: &[u8]) -> Result<UsernameHash, StorageError> {
    bytes.try_into().map(UsernameHash).map_err(|_| StorageError::Corrupt {
        table: "usernames",
        column: "hash",
    })
}

/// An account's name from the columns `hash` and `handle`.
pub(super) fn username((bytes, handle): (Vec<u8>, Option<Uuid>)) -> Result<Username, StorageError> {
    Ok(Username {
        hash: hash(&bytes)?,
        link: handle.map(LinkHandle),
    })
}
