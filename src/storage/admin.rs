//! What the operator does through the admin socket, and the log of it.

use async_trait::async_trait;

use super::StorageError;
use crate::domain::{
    AccountGlance, Aci, AdminOutcome, AdminRecord, Erased, Invite, InviteHash, InviteId, LogPage, MailboxId, Pseudonym,
    Sums,
};

/// The operator's acts. Each that is about one thing is written down in the same transaction, whether there is such a thing
/// or not, so that none takes place unrecorded. Nothing here reads a queue, a key or a credential, or writes one.
#[async_trait]
pub trait AdminStore: Send + Sync {
    /// Writes down an act that changes nothing here.
    async fn record(&self, record: &AdminRecord, outcome: AdminOutcome) -> Result<(), StorageError>;

    /// What the operator may see of an account; `None` if there is none.
    async fn glance(&self, account: Aci, record: &AdminRecord) -> Result<Option<AccountGlance>, StorageError>;

    /// Suspends or resumes an account, and returns the mailboxes of its devices; `None` if there is none. After that the
    /// number is not registered over a suspended account.
    async fn set_suspended(
        &self,
        account: Aci,
        suspended: bool,
        record: &AdminRecord,
    ) -> Result<Option<Vec<MailboxId>>, StorageError>;

    /// Removes an account as its owner's own deletion does; nothing is erased if there is none.
    async fn erase(&self, account: Aci, record: &AdminRecord) -> Result<Erased, StorageError>;

    /// Keeps a new invite; `false` if there are [`MAX_INVITES`](crate::domain::MAX_INVITES) already.
    async fn create_invite(
        &self,
        code: &InviteHash,
        invite: &Invite,
        record: &AdminRecord,
    ) -> Result<bool, StorageError>;

    /// Drops an invite; `false` if there is none of that name.
    async fn revoke_invite(&self, id: &InviteId, record: &AdminRecord) -> Result<bool, StorageError>;

    /// Sums over all accounts.
    async fn sums(&self) -> Result<Sums, StorageError>;

    /// At most `limit` entries of the log behind that place; if `about` names something, of those about it.
    async fn log(&self, after: i64, limit: u32, about: Option<&Pseudonym>) -> Result<LogPage, StorageError>;

    /// Drops at most `limit` of the oldest entries, as far as they are from before that minute, remembers where the chain goes
    /// on, and says how many.
    async fn expire_log(&self, before: i64, limit: u32) -> Result<u64, StorageError>;
}
