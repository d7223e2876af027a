//! What an account and its device say about themselves.

use crate::auth::{ServerSecrets, verifier};
use crate::domain::{
    AccessKey, Aci, AttributesUpdate, Capabilities, DeviceId, DeviceName, LockUpdate, ProtocolAddress,
    UnidentifiedAccess,
};

use super::lock::RegistrationLock;

/// Attributes as a client gave them, checked for form.
#[derive(Clone)]
pub struct Attributes {
    /// Keeps a connection instead of being woken by push.
    pub fetches_messages: bool,
    /// Encrypted device name.
    pub name: Option<DeviceName>,
    /// What the client can do.
    pub capabilities: Capabilities,
    /// Lets those who have it reach the account anonymously.
    pub access_key: Option<AccessKey>,
    /// Lets everyone do so.
    pub unrestricted: bool,
    /// May be found by number.
    pub discoverable: bool,
    /// Lets the owner register again without a code.
    pub recovery_password: Option<[u8; 32]>,
    /// Keeps others from registering the number while it is in use.
    pub lock: Option<RegistrationLock>,
}

impl Attributes {
    /// Anonymous access in the form in which it is stored.
    pub fn access(&self, secrets: &ServerSecrets, aci: Aci) -> UnidentifiedAccess {
        UnidentifiedAccess {
            sealed_key: self.access_key.map(|key| secrets.seal_access_key(aci, &key)),
            unrestricted: self.unrestricted,
        }
    }

    /// The change that these attributes make to the existing account of a device. Without a registration lock in them, a
    /// primary clears the account's; a linked device does not know it, and leaves it as it is.
    pub fn update(&self, secrets: &ServerSecrets, by: ProtocolAddress) -> AttributesUpdate {
        let lock = match &self.lock {
            None if by.device_id != DeviceId::PRIMARY => LockUpdate::Keep,
            lock => LockUpdate::Set(lock.as_ref().map(RegistrationLock::verifier)),
        };
        AttributesUpdate {
            name: self.name.clone(),
            fetches_messages: self.fetches_messages,
            capabilities: self.capabilities,
            access: self.access(secrets, by.aci),
            discoverable: self.discoverable,
            recovery: self.recovery_password.map(|password| verifier(&password)),
            lock,
        }
    }
}
