//! What is kept, and the promises of keeping it: a trait for each subject, two backends.
//!
//! A method is one promise: it is atomic, durable when it returns `Ok`, and named for what it means. An outcome on which
//! the caller acts is a value; [`StorageError`] is for what is nobody's choice. Time is an argument.

pub mod export;
pub mod migrate;
pub mod postgres;
pub mod sqlite;

mod account_data;
mod admin;
mod age;
mod attachments;
mod cache;
#[cfg(test)]
pub(crate) mod conformance;
mod devices;
mod error;
mod gather;
mod invites;
mod ledger;
mod open;
#[cfg(test)]
mod plans;
mod profiles;
mod rows;
mod session_cache;
mod spent;
mod taking;
#[cfg(test)]
pub(crate) mod testing;
mod tokens;
mod usernames;

use std::sync::Arc;

use async_trait::async_trait;
use keys_schema::EcPublicKey;

use crate::domain::{
    Account, Aci, Actor, Attempt, AttributesUpdate, Batch, CodeHash, Day, Done, Enqueued, Erased, Head, IdentityKind,
    KeyCount, KeyUpload, Mailbox, MailboxId, NumberHash, PageLimit, ProtocolAddress, Published, Registered,
    Registration, Rekey, Seq, ServiceId, SessionKey, SignedKeys, Stored, Take, Timestamp, VerificationSession,
};

pub use account_data::AccountDataStore;
pub use admin::AdminStore;
pub use age::AgeStore;
pub(crate) use age::{MARKS, Marks};
pub use attachments::AttachmentStore;
pub use cache::{AccountCache, Changes};
pub use devices::{DeviceStore, OPEN_OFFERS};
pub use error::StorageError;
pub use export::ExportStore;
pub use invites::InviteStore;
pub use open::OpenError;
pub use profiles::ProfileStore;
pub use session_cache::{TokenSessions, Watched};
pub use taking::Takings;
pub use tokens::{SESSIONS_PER_DEVICE, TokenStore};
pub use usernames::UsernameStore;

/// One backend, as the rest of the server sees it.
#[derive(Clone)]
pub struct Storage {
    /// Accounts, devices, verification sessions.
    pub accounts: Arc<dyn AccountStore>,
    /// What the operator does to them, and the log of that.
    pub admin: Arc<dyn AdminStore>,
    /// Linked devices, and what devices change about their account.
    pub devices: Arc<dyn DeviceStore>,
    /// Prekeys.
    pub keys: Arc<dyn KeyStore>,
    /// Attachments.
    pub attachments: Arc<dyn AttachmentStore>,
    /// How old the database is.
    pub ages: Arc<dyn AgeStore>,
    /// Envelopes.
    pub queue: Arc<dyn EnvelopeQueue>,
    /// Invites.
    pub invites: Arc<dyn InviteStore>,
    /// User names.
    pub usernames: Arc<dyn UsernameStore>,
    /// What accounts keep for their own devices.
    pub account_data: Arc<dyn AccountDataStore>,
    /// Profiles.
    pub profiles: Arc<dyn ProfileStore>,
    /// Sessions with tokens.
    pub tokens: Arc<dyn TokenStore>,
    /// All of it, for its owner.
    pub export: Arc<dyn ExportStore>,
}

/// Accounts, devices and the verification sessions from which accounts come.
///
/// Changes name the device that asks, with its mailbox, here and in the other traits: if it has been replaced since it
/// proved itself, nothing happens.
#[async_trait]
pub trait AccountStore: Send + Sync {
    /// Returns once the database has answered a trivial statement.
    async fn ping(&self) -> Result<(), StorageError>;

    /// Leaves the database in order; the last call before the process ends, after which nothing works. On SQLite this
    /// moves what is in the write-ahead log into the file, so that the file alone is the whole database.
    async fn close(&self);

    /// Remembers the first value it is ever given, and says whether `check` equals it: a start with another pepper than
    /// the one whose numbers are stored is recognised by that.
    async fn pin_pepper(&self, check: [u8; 32]) -> Result<bool, StorageError>;

    /// The public trust root of sealed sender that was pinned, if one was.
    async fn trust_root(&self) -> Result<Option<EcPublicKey>, StorageError>;

    /// Remembers the first public trust root it is ever given, and says whether `key` equals it: clients pin one, so all
    /// nodes must have the same.
    async fn pin_trust_root(&self, key: &EcPublicKey) -> Result<bool, StorageError>;

    /// Creates the account, or starts the number's account over if it is still what was checked, and uses the session up;
    /// all of it or nothing, however many try at once.
    async fn register(&self, registration: &Registration, now: Timestamp) -> Result<Registered, StorageError>;

    /// The account of that id, with its devices by device id.
    async fn find(&self, id: &ServiceId) -> Result<Option<Account>, StorageError>;

    /// Those of the accounts that exist, in any order, each once.
    async fn find_all(&self, ids: &[ServiceId]) -> Result<Vec<Account>, StorageError>;

    /// The account of that number.
    async fn find_by_number(&self, number: &NumberHash) -> Result<Option<Aci>, StorageError>;

    /// Applies the update to the device that asks and its account; `false` if the device is gone.
    async fn update_attributes(&self, by: &Actor, update: &AttributesUpdate) -> Result<bool, StorageError>;

    /// Remembers the day on which a device was last seen. A device that is gone is no error.
    async fn touch(&self, address: ProtocolAddress, today: Day) -> Result<(), StorageError>;

    /// Removes the account with all that names it, its number's verification sessions too, and returns what is elsewhere:
    /// nothing if the device that asks is gone.
    async fn delete(&self, by: &Actor) -> Result<Erased, StorageError>;

    /// Stores a new verification session.
    async fn open_session(&self, session: &VerificationSession) -> Result<(), StorageError>;

    /// The session, unless it has expired by `now`.
    async fn find_session(&self, key: &SessionKey, now: Timestamp)
    -> Result<Option<VerificationSession>, StorageError>;

    /// Counts one tried code and, if it was right, marks the session as verified and forgets its code: once, however many
    /// are tried at once, and never after [`MAX_ATTEMPTS`](crate::domain::MAX_ATTEMPTS), with which the code goes too. `None`
    /// if the session is gone or expired by `now`.
    async fn try_session(
        &self,
        key: &SessionKey,
        attempt: &Attempt,
        now: Timestamp,
    ) -> Result<Option<Done>, StorageError>;

    /// Remembers a code that is about to be sent in place of the one before, and when the next may be, unless it is too soon
    /// or was done [`MAX_CODES`](crate::domain::MAX_CODES) times. `None` if the session is gone or expired by `now`.
    async fn send_code(
        &self,
        key: &SessionKey,
        code: &CodeHash,
        next: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Done>, StorageError>;

    /// Remembers that the client has done its work. `None` if the session is gone or expired by `now`.
    async fn session_worked(
        &self,
        key: &SessionKey,
        now: Timestamp,
    ) -> Result<Option<VerificationSession>, StorageError>;

    /// Drops expired sessions and says how many.
    async fn expire_sessions(&self, now: Timestamp) -> Result<u64, StorageError>;
}

/// The key directory.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// Publishes the upload, all of it or nothing, but for one-time keys that were handed out before. Keys were checked by the
    /// caller.
    async fn publish(&self, by: &Actor, kind: IdentityKind, upload: &KeyUpload) -> Result<Published, StorageError>;

    /// One-time keys left to a device.
    async fn count(&self, address: ProtocolAddress, kind: IdentityKind) -> Result<KeyCount, StorageError>;

    /// The signed and last-resort keys of a device, if it has both.
    async fn find_signed(
        &self,
        address: ProtocolAddress,
        kind: IdentityKind,
    ) -> Result<Option<SignedKeys>, StorageError>;

    /// Takes a bundle for each device that a request selects, with one-time keys as far as its allowance goes: all of the
    /// batch in one transaction, and as if the requests had come one after the other. A one-time key in an answer is gone
    /// from storage when this returns, and nobody else ever gets it. Its id is kept, with the day. If the transaction fails,
    /// nothing was handed out.
    async fn take_bundles(&self, takes: &[Take], today: Day) -> Result<Takings, StorageError>;

    /// Drops at most `limit` ids of keys that were handed out before that day, and says how many.
    async fn forget_spent(&self, before: Day, limit: u32) -> Result<u64, StorageError>;
}

/// The envelope queue.
#[async_trait]
pub trait EnvelopeQueue: Send + Sync {
    /// Commits the batch in one transaction and returns one outcome per delivery, in their order. Acknowledgements of
    /// envelopes that are not there do nothing.
    async fn commit(&self, batch: &Batch) -> Result<Vec<Enqueued>, StorageError>;

    /// The oldest envelopes with a number above `after`, in order. An empty answer means that there was none.
    async fn pending(&self, mailbox: MailboxId, after: Seq, limit: PageLimit) -> Result<Vec<Stored>, StorageError>;

    /// A mailbox as its device finds it.
    async fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, StorageError>;

    /// Gives the mailbox of the device that asks another key and seals anew what is in it, all of it or nothing; `false`
    /// if the device is gone or the key is not the one that was named. No delivery to the old key is stored after that.
    async fn rekey(&self, by: &Actor, rekey: &Rekey<'_>) -> Result<bool, StorageError>;

    /// The heads of those of the given mailboxes that exist, in any order.
    async fn heads(&self, mailboxes: &[MailboxId]) -> Result<Vec<Head>, StorageError>;

    /// Drops at most `limit` envelopes whose time has come by `today`, and says how many.
    async fn expire(&self, today: Day, limit: u32) -> Result<u64, StorageError>;
}
