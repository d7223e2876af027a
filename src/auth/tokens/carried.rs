//! What a token carries for its device: the keys that the device's password would open.
//!
//! Sealed under a key that comes from the pepper, and bound to the device as it is: its address, its mailbox and the salt of
//! its password, none of which a token needs to say. So a token whose device has another password does not open.

use keys_schema::sealed_queue::QueueKey;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::auth::DeviceSecret;
use crate::domain::{MailboxId, ProtocolAddress, Sealed};
use crate::sealing::SealingKey;

/// The keys.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Carried([u8; Self::BYTES]);

impl Carried {
    /// Of the queue's key and the number's.
    pub(super) const BYTES: usize = 64;

    pub(super) fn new(queue_key: &QueueKey, secret: &DeviceSecret) -> Self {
        let mut bytes = [0; Self::BYTES];
        bytes[..32].copy_from_slice(queue_key.as_bytes());
        bytes[32..].copy_from_slice(secret.as_bytes());
        Self(bytes)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(super) fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    pub(super) fn seal(&self, key: &SealingKey, context: &[u8]) -> Sealed {
        key.seal(context, &self.0)
    }

    pub(super) fn open(key: &SealingKey, context: &[u8], sealed: &[u8]) -> Option<Self> {
        Self::from_bytes(&key.open(context, sealed)?)
    }

    pub(super) fn queue_key(&self) -> QueueKey {
        let mut half = [0; 32];
        half.copy_from_slice(&self.0[..32]);
        QueueKey::from_bytes(half)
    }

    pub(super) fn secret(&self) -> DeviceSecret {
        let mut half = [0; 32];
        half.copy_from_slice(&self.0[32..]);
        DeviceSecret::from_bytes(half)
    }
}

/// For which device, and which of its passwords.
pub(super) fn context(address: ProtocolAddress, mailbox: MailboxId, salt: &[u8; 16]) -> [u8; 41] {
    let mut context = [0; 41];
    context[..16].copy_from_slice(address.aci.as_bytes());
    context[16] = address.device_id.get();
    context[17..25].copy_from_slice(&mailbox.0.to_be_bytes());
    context[25..].copy_from_slice(salt);
    context
}
