//! What is kept of sessions with tokens, and of the keys that sign their tokens.

use async_trait::async_trait;

use crate::domain::{
    Actor, Day, MailboxId, NewTokenSession, Rotated, Rotation, Timestamp, TokenKey, TokenSession, TokenSessionId,
};

use super::StorageError;

/// Sessions with tokens.
///
/// Changes name the device that asks, with its mailbox: if it has been replaced since it proved itself, nothing happens.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// Stores a session of the device that asks, and drops those of its sessions beyond [`SESSIONS_PER_DEVICE`] whose end
    /// is nearest; returns which. `None` if the device is gone or has another password.
    async fn open(&self, session: &NewTokenSession, by: &Actor) -> Result<Option<Vec<TokenSessionId>>, StorageError>;

    /// The mailbox of the device whose session it is, unless the session is over by `today`.
    async fn find(&self, id: TokenSessionId, today: Day) -> Result<Option<MailboxId>, StorageError>;

    /// Those of the sessions that are not over by `today`, in any order.
    async fn alive(&self, ids: &[TokenSessionId], today: Day) -> Result<Vec<TokenSessionId>, StorageError>;

    /// Puts the next refresh token in the place of the one that was shown, once, however many show it at the same time. A
    /// session of which a used token is shown is dropped.
    async fn rotate(&self, rotation: &Rotation) -> Result<Rotated, StorageError>;

    /// The sessions of the device that asks, or of the whole account if that is the primary; by device and day.
    async fn sessions(&self, by: &Actor, today: Day) -> Result<Vec<TokenSession>, StorageError>;

    /// Drops one of those sessions, or all, and returns which.
    async fn revoke(&self, by: &Actor, id: Option<TokenSessionId>) -> Result<Vec<TokenSessionId>, StorageError>;

    /// Drops a session, and says whether it was there.
    async fn end(&self, id: TokenSessionId) -> Result<bool, StorageError>;

    /// Drops sessions that are over by `today`, and says how many.
    async fn expire(&self, today: Day) -> Result<u64, StorageError>;

    /// The keys that have not been dropped by `now`, the latest first.
    async fn keys(&self, now: Timestamp) -> Result<Vec<TokenKey>, StorageError>;

    /// Stores the key if there is none that signs, however many try at once.
    async fn first_key(&self, key: &TokenKey) -> Result<(), StorageError>;

    /// Has this key sign from now on. The others are dropped at that time, or now.
    async fn rotate_key(&self, key: &TokenKey, others_until: Option<Timestamp>) -> Result<(), StorageError>;

    /// Drops keys whose time has come, and says how many.
    async fn expire_keys(&self, now: Timestamp) -> Result<u64, StorageError>;
}

/// Sessions that a device may have at a time.
pub const SESSIONS_PER_DEVICE: u32 = 16;
