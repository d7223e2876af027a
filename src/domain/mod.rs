//! The nouns of the relay. No I/O, no runtime, no clock of its own: what happens is told to these types.

mod account;
mod account_data;
mod address;
mod attachment;
mod clock;
mod envelope;
mod linking;
mod mailbox;
mod pre_keys;
mod profile;
mod provisioning;
mod secret;
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
pub use attachment::{
    Appended, Attachment, AttachmentName, Budget, MAX_SEGMENTS, NewUpload, Opened, QuotaBucket, REMOVED_DAYS, Segment,
    Turn, TurnTaken, Upload, UploadTimes,
};
pub use clock::{Clock, Day, SystemClock, Timestamp};
pub use envelope::{
    Acknowledgement, Batch, Copy, Delivery, Enqueued, Head, MailboxId, PageLimit, QueueLimits, Queued, SealedEnvelope,
    Seq, Stored,
};
pub use linking::{Actor, DeviceLink, LinkOffer, Linked};
pub use mailbox::{Mailbox, NewCredential, Rekey};
pub use pre_keys::{BundleSelector, KeyCount, KeyUpload, KyberSource, PreKeyBundle, SignedKeys, TakenBundles};
pub use profile::{Avatar, AvatarChange, MAX_PROFILE_VERSIONS, Profile, ProfileVersion};
pub use provisioning::ProvisioningAddress;
pub use secret::{LinkTokenHash, NumberHash, Sealed, SecretVerifier, SessionKey};
pub use username::{
    Confirmed, EncryptedUsername, LinkHandle, MAX_GIVEN_UP, RESERVATION_MILLIS, Reserved, Username, UsernameHash,
    UsernameLink, held_until, reserved_until,
};
pub use verification::{MAX_ATTEMPTS, VerificationSession};

pub use keys_schema::{Aci, Pni, ServiceId};
