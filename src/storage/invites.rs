//! Invites: used up by whoever registers. The operator makes and revokes them, through [`AdminStore`](super::AdminStore).

use async_trait::async_trait;

use super::StorageError;
use crate::domain::{Day, Done, Invite, InviteHash, SessionKey, Timestamp};

/// Invites.
#[async_trait]
pub trait InviteStore: Send + Sync {
    /// Those that still let somebody in on that day, the oldest first.
    async fn list(&self, today: Day) -> Result<Vec<Invite>, StorageError>;

    /// Counts one tried code and, if it is that of an invite, uses the invite up once and marks the session as verified; all
    /// of it or nothing, however many try at once. An invite for so many verifies so many sessions, and is gone. `None` if
    /// the session is gone or expired by `now`.
    async fn verify(
        &self,
        session: &SessionKey,
        code: &InviteHash,
        now: Timestamp,
    ) -> Result<Option<Done>, StorageError>;

    /// Drops those whose last day was before `today`, and says how many.
    async fn expire(&self, today: Day) -> Result<u64, StorageError>;
}
