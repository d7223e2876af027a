//! The nouns of the relay. No I/O, no runtime, no clock of its own: what happens is told to these types.

/// Has these types print their name and nothing else.
macro_rules! opaque_debug {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}

mod account;
mod account_data;
mod address;
mod admin;
mod age;
mod attachment;
mod blocks;
mod calendar;
mod clock;
mod envelope;
mod invite;
mod linking;
mod mailbox;
mod notice;
mod pre_keys;
mod profile;
mod provisioning;
mod secret;
mod token;
mod username;
mod verification;

pub use account::{
    AccessKey, Account, AttributesUpdate, Capabilities, CheckedAccount, CreatedAt, Device, DeviceName, Erased,
    LockUpdate, Registered, Registration, UnidentifiedAccess,
};
pub use account_data::{
    DataChange, DataCursor, DataEntry, DataKey, DataLimits, DataPage, DataWrite, MAX_REMEMBERED_DELETIONS, Revision,
    Written,
};
pub use address::{DeviceId, IdentityKind, InvalidAddress, ProtocolAddress, RegistrationId};
pub use admin::{
    AccountGlance, AdminAct, AdminEntry, AdminOutcome, AdminRecord, ChainEnd, ChainEnds, ChainFault, ChainWalk,
    LogPage, Pseudonym, Sums,
};
pub use age::{Age, Aged, Invalidated, Restored};
pub use attachment::{
    Appended, Attachment, AttachmentName, Budget, MAX_SEGMENTS, NewUpload, Opened, QuotaBucket, REMOVED_DAYS, Segment,
    Turn, TurnTaken, Upload, UploadTimes,
};
pub use blocks::{BlockChange, BlockTag, Blocks, BlocksChanged};
pub use calendar::date;
pub use clock::{Clock, Day, SystemClock, Timestamp};
pub use envelope::{
    Acknowledgement, Batch, Copy, Delivery, Enqueued, Head, Held, MailboxId, PageLimit, Placed, Put, QueueLimits,
    Queued, SealedEnvelope, SenderTag, Seq, Share, Stored,
};
pub use invite::{Invite, InviteHash, InviteId, MAX_INVITES};
pub use linking::{Actor, DeviceLink, LinkOffer, Linked};
pub use mailbox::{Mailbox, NewCredential, Rekey};
pub use notice::Notice;
pub use pre_keys::{
    Allowance, BundleSelector, KeyCount, KeyUpload, KyberSource, PreKeyBundle, Published, SPENT_DAYS, SignedKeys,
    Stock, Take, TakenBundles,
};
pub use profile::{Avatar, AvatarChange, MAX_PROFILE_VERSIONS, Profile, ProfileVersion};
pub use provisioning::ProvisioningAddress;
pub use secret::{LinkTokenHash, NumberHash, Sealed, SecretVerifier, SessionKey};
pub use token::{NewTokenSession, RefreshHash, Rotated, Rotation, TokenKey, TokenSession, TokenSessionId};
pub use username::{
    Confirmed, EncryptedUsername, LinkHandle, MAX_GIVEN_UP, RESERVATION_MILLIS, Reserved, Username, UsernameHash,
    UsernameLink, held_until, reserved_until,
};
pub use verification::{Attempt, CodeHash, Done, MAX_ATTEMPTS, MAX_CODES, VerificationSession};

pub use keys_schema::{Aci, Pni, ServiceId};
