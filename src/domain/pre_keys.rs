//! What the key directory takes in and hands out.

use keys_schema::{Aci, EcPreKey, IdentityKey, KyberPreKey, SignedEcPreKey};

use super::{DeviceId, IdentityKind, RegistrationId};

/// Keys that a device publishes. What is empty or absent leaves what is stored as it is.
#[derive(Clone, Debug, Default)]
pub struct KeyUpload {
    /// Replaces all one-time EC prekeys, unless empty.
    pub one_time: Vec<EcPreKey>,
    /// Replaces all one-time Kyber prekeys, unless empty.
    pub one_time_kyber: Vec<KyberPreKey>,
    /// Replaces the signed EC prekey.
    pub signed: Option<SignedEcPreKey>,
    /// Replaces the last-resort Kyber prekey.
    pub last_resort: Option<KyberPreKey>,
}

/// The two keys of a device that are handed out again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedKeys {
    /// The signed EC prekey.
    pub signed: SignedEcPreKey,
    /// The last-resort Kyber prekey.
    pub last_resort: KyberPreKey,
}

/// One-time keys left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCount {
    /// EC.
    pub ec: u32,
    /// Kyber, the last-resort key not counted.
    pub kyber: u32,
}

/// What became of an upload of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It was stored, but for so many one-time keys that had been handed out before.
    Done(u32),
    /// The device is gone. Nothing was stored.
    Gone,
    /// An id names another key than the one that was handed out under it. Nothing was stored.
    SpentId,
}

/// Days for which ids of one-time keys that were handed out are kept.
pub const SPENT_DAYS: i32 = 90;

/// Which devices of an account a bundle is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleSelector {
    /// Every device.
    All,
    /// This one.
    One(DeviceId),
}

/// A request for bundles.
#[derive(Clone, Debug)]
pub struct Take {
    /// Of which account.
    pub aci: Aci,
    /// Of which of its identities.
    pub kind: IdentityKind,
    /// Of which of its devices.
    pub selector: BundleSelector,
    /// Which one-time keys are in them.
    pub allowance: Allowance,
}

/// Whose one-time keys may be taken for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// The devices that may give one key of each kind; `None` for every device. The others answer as if they had none left.
    pub devices: Option<Vec<DeviceId>>,
    /// So many keys of a kind stay behind.
    pub reserve: u32,
}

impl Allowance {
    /// One of each kind from every device, as long as there are any.
    pub const EVERYTHING: Self = Self {
        devices: None,
        reserve: 0,
    };

    /// Whether the device may give its one-time keys.
    pub fn covers(&self, device: DeviceId) -> bool {
        self.devices.as_ref().is_none_or(|devices| devices.contains(&device))
    }
}

/// What became of a device's one-time keys of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stock {
    /// One was taken, and at most so many are left.
    Left(u32),
    /// There was none.
    Empty,
    /// There was none but those that had to stay behind.
    Reserved,
    /// The device was not to give any.
    Withheld,
}

/// Whether a bundle's Kyber key is gone now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KyberSource {
    /// It was a one-time key, and will not be handed out again.
    OneTime,
    /// It is the last-resort key.
    LastResort,
}

/// What a sender needs to start a session with one device.
#[derive(Clone, Debug)]
pub struct PreKeyBundle {
    /// The device.
    pub device_id: DeviceId,
    /// Its registration id, of the namespace asked for.
    pub registration_id: RegistrationId,
    /// Signed EC prekey.
    pub signed: SignedEcPreKey,
    /// One-time EC prekey, if one was left. It is consumed.
    pub one_time: Option<EcPreKey>,
    /// A one-time Kyber prekey, consumed, or else the last-resort key.
    pub kyber: KyberPreKey,
    /// Which of the two it is.
    pub kyber_source: KyberSource,
    /// What became of its EC keys.
    pub ec_stock: Stock,
    /// What became of its Kyber keys.
    pub kyber_stock: Stock,
}

/// The bundles taken for one request.
#[derive(Clone, Debug)]
pub struct TakenBundles {
    /// The account's identity key in the namespace asked for.
    pub identity: IdentityKey,
    /// By device id. A device without signed keys is left out, so this may be empty.
    pub devices: Vec<PreKeyBundle>,
}
