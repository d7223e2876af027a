//! How an account gets further devices.

use super::{Aci, Device, LinkTokenHash, MailboxId, ProtocolAddress, Sealed, SignedKeys, Timestamp};

/// A primary's offer to take in one more device. Found again by the hash of a token that only the primary, and whom it
/// gives it to, have.
#[derive(Clone, Debug)]
pub struct LinkOffer {
    /// How it is found.
    pub key: LinkTokenHash,
    /// The account that offers.
    pub aci: Aci,
    /// The account's number, sealed to a key derived from the token.
    pub sealed_number: Sealed,
    /// When it is dropped.
    pub expires: Timestamp,
}

/// A device that takes up an offer.
#[derive(Clone, Debug)]
pub struct DeviceLink {
    /// The offer, which is used up.
    pub offer: LinkTokenHash,
    /// The account that made it.
    pub aci: Aci,
    /// The device, with a fresh mailbox, under an id that was free when it was made.
    pub device: Device,
    /// Signed and last-resort keys of the ACI namespace.
    pub aci_keys: SignedKeys,
    /// Signed and last-resort keys of the PNI namespace.
    pub pni_keys: SignedKeys,
    /// The most devices that an account has, the primary included.
    pub max_devices: u8,
    /// Until when it is remembered which device took up the offer.
    pub remembered_until: Timestamp,
}

/// What became of a [`DeviceLink`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// The device exists.
    Done,
    /// The offer is gone: used up, expired, or withdrawn with its account's registration.
    NoOffer,
    /// The account has this many devices already, and may have no more. The offer stands.
    Full(u8),
    /// The device's id was taken meanwhile. The offer stands.
    IdTaken,
}

/// A device that asks for a change, as it proved itself. A change is refused if the device has been replaced since.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    /// Who it is.
    pub address: ProtocolAddress,
    /// Its queue, new at each registration.
    pub mailbox: MailboxId,
}

impl std::fmt::Debug for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Actor")
    }
}
