//! The nouns of the relay. No I/O, no runtime, no clock of its own: what happens is told to these types.

mod account;
mod address;
mod clock;
mod envelope;
mod pre_keys;
mod secret;
mod verification;

pub use account::{
    AccessKey, Account, AttributesUpdate, Capabilities, Device, DeviceName, Registered, Registration,
    UnidentifiedAccess,
};
pub use address::{DeviceId, IdentityKind, InvalidAddress, ProtocolAddress, RegistrationId};
pub use clock::{Clock, Day, SystemClock, Timestamp};
pub use envelope::{
    Acknowledgement, Batch, Copy, Delivery, Enqueued, Head, MailboxId, PageLimit, QueueLimits, Queued, Seq,
};
pub use pre_keys::{BundleSelector, KeyCount, KeyUpload, KyberSource, PreKeyBundle, SignedKeys, TakenBundles};
pub use secret::{NumberHash, Sealed, SecretVerifier, SessionKey};
pub use verification::{MAX_ATTEMPTS, VerificationSession};

pub use keys_schema::{Aci, Pni, ServiceId};
