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

    /// The change that these attributes make to the existing account of a device. Registration lock and recovery password
    /// are the primary's to change: they decide who gets the account, and a linked device that is removed must not be able
    /// to come back as its primary. Without a lock in them, a primary clears the account's.
    pub fn update(&self, secrets: &ServerSecrets, by: ProtocolAddress) -> AttributesUpdate {
        let primary = by.device_id == DeviceId::PRIMARY;
        let recovery = self.recovery_password.filter(|_| primary);
        let lock = if primary {
            LockUpdate::Set(self.lock.as_ref().map(RegistrationLock::verifier))
        } else {
            LockUpdate::Keep
        };
        AttributesUpdate {
            name: self.name.clone(),
            fetches_messages: self.fetches_messages,
            capabilities: self.capabilities,
            access: self.access(secrets, by.aci),
            discoverable: self.discoverable,
            recovery: recovery.map(|password| verifier(&password)),
            lock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::random_aci;

    #[test]
    fn a_linked_device_changes_nothing_that_decides_who_gets_the_account() {
        let attributes = Attributes {
            fetches_messages: true,
            name: None,
            capabilities: Capabilities::default(),
            access_key: None,
            unrestricted: true,
            discoverable: true,
            recovery_password: Some([1; 32]),
            lock: RegistrationLock::parse(&"ab".repeat(32)),
        };
        let update = |device| {
            let by = ProtocolAddress {
                aci: random_aci(),
                device_id: DeviceId::new(device).unwrap(),
            };
            attributes.update(&ServerSecrets::from_pepper(&[1; 32]), by)
        };
        let linked = update(2);
        assert!(linked.recovery.is_none() && matches!(linked.lock, LockUpdate::Keep));
        let primary = update(1);
        assert!(primary.recovery.is_some() && matches!(primary.lock, LockUpdate::Set(Some(_))));
    }
}
