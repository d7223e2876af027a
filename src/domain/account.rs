//! Accounts and their devices.

use std::fmt;

use bytes::Bytes;
use keys_schema::sealed_queue::QueuePublicKey;
use keys_schema::{Aci, IdentityKey, Pni, ServiceId, created_at};

use super::{
    Avatar, Blocks, Day, DeviceId, IdentityKind, MailboxId, NumberHash, RegistrationId, Sealed, SecretVerifier,
    SessionKey, SignedKeys,
};

/// A registered identity.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its random id.
    pub aci: Aci,
    /// The second id under which its number is known.
    pub pni: Pni,
    /// Long-term public key under the ACI.
    pub aci_identity: IdentityKey,
    /// Long-term public key under the PNI.
    pub pni_identity: IdentityKey,
    /// Who may write to it and fetch its keys without saying who they are.
    pub access: UnidentifiedAccess,
    /// Whether its number may be found by others. Kept for clients; there is no lookup yet.
    pub discoverable: bool,
    /// Recognises the password that lets the owner register again without a code.
    pub recovery: Option<SecretVerifier>,
    /// Recognises the registration lock, without which a number in use is not registered anew.
    pub lock: Option<SecretVerifier>,
    /// Whom it does not want to hear from.
    pub blocks: Blocks,
    /// Whether the operator has suspended it: its devices prove nothing, and its number is not registered anew.
    pub suspended: bool,
    /// By device id; the primary is always there.
    pub devices: Vec<Device>,
}

impl Account {
    /// The device of that number, if it may act for the account: whoever proves that it is this device is let in.
    pub fn acting_device(&self, id: DeviceId) -> Option<&Device> {
        if self.suspended { None } else { self.device(id) }
    }

    /// The device of that number.
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// What a registration that starts this account over was checked against.
    pub fn checked(&self) -> Option<CheckedAccount> {
        let primary = self.device(DeviceId::PRIMARY)?;
        Some(CheckedAccount {
            primary: primary.mailbox,
            capabilities: primary.capabilities,
            recovery_salt: self.recovery.as_ref().map(|recovery| recovery.salt),
            lock_salt: self.lock.as_ref().map(|lock| lock.salt),
        })
    }

    /// The identity key of a namespace.
    pub fn identity(&self, kind: IdentityKind) -> &IdentityKey {
        match kind {
            IdentityKind::Aci => &self.aci_identity,
            IdentityKind::Pni => &self.pni_identity,
        }
    }

    /// The id of this account in a namespace.
    pub fn service_id(&self, kind: IdentityKind) -> ServiceId {
        match kind {
            IdentityKind::Aci => ServiceId::Aci(self.aci),
            IdentityKind::Pni => ServiceId::Pni(self.pni),
        }
    }
}

/// One client of an account.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its number.
    pub id: DeviceId,
    /// Its queue.
    pub mailbox: MailboxId,
    /// The public half of a key pair derived from its password: what waits in its queue is sealed to it.
    pub queue_key: QueuePublicKey,
    /// Of the ACI namespace.
    pub registration_id: RegistrationId,
    /// Of the PNI namespace.
    pub pni_registration_id: RegistrationId,
    /// What the owner calls it, encrypted by the client.
    pub name: Option<DeviceName>,
    /// Recognises its password.
    pub credential: SecretVerifier,
    /// The account's number, sealed to a key derived from this device's password.
    pub sealed_number: Sealed,
    /// Whether it keeps a connection instead of being woken by push.
    pub fetches_messages: bool,
    /// What the client says it can do.
    pub capabilities: Capabilities,
    /// The last day on which it authenticated.
    pub last_seen: Day,
    /// When it came to be, readable by its account alone. Absent for devices from before this was kept.
    pub created_at: Option<CreatedAt>,
}

impl Device {
    /// The registration id of a namespace.
    pub fn registration_id(&self, kind: IdentityKind) -> RegistrationId {
        match kind {
            IdentityKind::Aci => self.registration_id,
            IdentityKind::Pni => self.pni_registration_id,
        }
    }
}

/// The time of a device's creation, sealed to its account's identity key (`keys_schema::created_at`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CreatedAt(pub [u8; created_at::LENGTH]);

impl fmt::Debug for CreatedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CreatedAt")
    }
}

/// Who may reach an account anonymously.
#[derive(Clone, Debug)]
pub struct UnidentifiedAccess {
    /// The access key, sealed under a key outside the database. Opening it is `auth`'s business.
    pub sealed_key: Option<Sealed>,
    /// Anyone may, whatever key they show.
    pub unrestricted: bool,
}

/// The 16 bytes that a client derives from its profile key and gives to those who may reach it anonymously.
#[derive(Clone, Copy, PartialEq, Eq, zeroize::Zeroize)]
pub struct AccessKey(pub [u8; 16]);

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessKey")
    }
}

/// A device name as the client encrypted it, at most 225 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceName(Bytes);

impl DeviceName {
    /// The longest name that is stored.
    pub const MAX_BYTES: usize = 225;

    /// `None` if it is longer than [`Self::MAX_BYTES`].
    pub fn new(encrypted: impl Into<Bytes>) -> Option<Self> {
        let encrypted = encrypted.into();
        (encrypted.len() <= Self::MAX_BYTES).then_some(Self(encrypted))
    }

    /// The encrypted bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceName")
    }
}

/// Capabilities from a closed set, as bits. Names that are not in the set are not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u32);

impl Capabilities {
    /// The names of the wire, in the order of their bits. Only ever appended to: the bits are stored.
    pub const NAMES: [&'static str; 10] = [
        "storage",
        "transfer",
        "attachmentBackfill",
        "spqr",
        "profiles_v2",
        "usernameChangeSyncMessage",
        "optionalPhoneNumber",
        "deleteSync",
        "versionedExpirationTimer",
        "ssre2",
    ];

    /// Keeps the known names that are `true`.
    pub fn from_names<'a>(names: impl IntoIterator<Item = (&'a str, bool)>) -> Self {
        names
            .into_iter()
            .filter(|(_, on)| *on)
            .fold(Self::default(), |set, (name, _)| {
                Self(
                    set.0
                        | Self::NAMES
                            .iter()
                            .position(|known| *known == name)
                            .map_or(0, |bit| 1 << bit),
                )
            })
    }

    /// Reads what [`Self::bits`] wrote; unknown bits are dropped.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << Self::NAMES.len()) - 1))
    }

    /// The set as bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether the named capability is in the set.
    pub fn has(self, name: &str) -> bool {
        Self::NAMES
            .iter()
            .position(|known| *known == name)
            .is_some_and(|bit| self.0 & (1 << bit) != 0)
    }
}

/// What of an account decides who may start it over. Salts are fresh whenever a secret is set, so they stand for it.
#[derive(Clone, PartialEq, Eq)]
pub struct CheckedAccount {
    /// The primary's queue, new at each registration.
    pub primary: MailboxId,
    /// What the primary can do, such as move its data to the new device.
    pub capabilities: Capabilities,
    /// Of the recovery password.
    pub recovery_salt: Option<[u8; 16]>,
    /// Of the registration lock.
    pub lock_salt: Option<[u8; 16]>,
}

impl fmt::Debug for CheckedAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckedAccount")
    }
}

/// A new account, or an old number that starts over.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The verified session that proves the number, if one does. It is used up.
    pub session: Option<SessionKey>,
    /// The account that starts over, as it was when it was checked; `None` if the number had none.
    pub replaces: Option<CheckedAccount>,
    /// The number that was verified.
    pub number: NumberHash,
    /// The account's id: fresh, or the one that the number already has.
    pub aci: Aci,
    /// Used only if the number is new; a known number keeps its PNI.
    pub pni: Pni,
    /// Long-term public key under the ACI.
    pub aci_identity: IdentityKey,
    /// Long-term public key under the PNI.
    pub pni_identity: IdentityKey,
    /// Signed and last-resort keys of the ACI namespace.
    pub aci_keys: SignedKeys,
    /// Signed and last-resort keys of the PNI namespace.
    pub pni_keys: SignedKeys,
    /// Anonymous access.
    pub access: UnidentifiedAccess,
    /// See [`Account::discoverable`].
    pub discoverable: bool,
    /// See [`Account::recovery`].
    pub recovery: Option<SecretVerifier>,
    /// See [`Account::lock`].
    pub lock: Option<SecretVerifier>,
    /// Device 1, with a fresh mailbox.
    pub device: Device,
}

/// What became of a [`Registration`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The number had no account.
    New,
    /// The account started over: keys and device 1 replaced, other devices, one-time keys and queues dropped.
    Again {
        /// The PNI it keeps.
        pni: Pni,
        /// Mailboxes that no longer exist: their connections must end.
        dropped: Vec<MailboxId>,
        /// Pictures of profiles that no longer exist.
        avatars: Vec<Avatar>,
    },
    /// The number's account is not, or no longer, what was checked. Nothing was changed; look and check again.
    Changed,
    /// The session is gone, used up, expired, or never proved this number. Nothing was changed.
    NotVerified,
}

/// What an account that was removed leaves behind outside the rows that named it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// The mailboxes that are gone: their connections must end. An account that was there had one for each device.
    pub mailboxes: Vec<MailboxId>,
    /// Pictures of profiles that no longer exist.
    pub avatars: Vec<Avatar>,
}

/// What a device may change about itself and its account after registration.
#[derive(Clone, Debug)]
pub struct AttributesUpdate {
    /// The calling device's name.
    pub name: Option<DeviceName>,
    /// The calling device's way to be reached.
    pub fetches_messages: bool,
    /// The calling device's capabilities.
    pub capabilities: Capabilities,
    /// The account's anonymous access.
    pub access: UnidentifiedAccess,
    /// See [`Account::discoverable`].
    pub discoverable: bool,
    /// Replaces the recovery verifier if present.
    pub recovery: Option<SecretVerifier>,
    /// The account's registration lock.
    pub lock: LockUpdate,
}

/// What becomes of a registration lock.
#[derive(Clone, Debug)]
pub enum LockUpdate {
    /// It stays as it is.
    Keep,
    /// This one from now on, or none.
    Set(Option<SecretVerifier>),
}
