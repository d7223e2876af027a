//! Proves that a request comes from a device.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use moka::sync::Cache;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::domain::{Account, DeviceId, MailboxId, ProtocolAddress, SecretVerifier, ServiceId};
use crate::sealing::random;
use crate::storage::{AccountCache, StorageError};

use super::credential::{DeviceSecret, Password};

/// A device that has proved itself.
#[derive(Clone)]
pub struct Authenticated {
    /// Who it is.
    pub address: ProtocolAddress,
    /// Its queue, by which a later request can tell whether the device has been replaced meanwhile.
    pub mailbox: MailboxId,
    /// What its password opens.
    pub secret: Arc<DeviceSecret>,
}

/// Checks passwords, and remembers for a while which were right.
///
/// A remembered password is only believed while the account's record still holds the verifier it was checked against,
/// so it can not outlive a changed credential or a removed device by more than the lease of [`AccountCache`].
pub struct Authenticator {
    accounts: Arc<AccountCache>,
    verified: Cache<ProtocolAddress, Verified>,
    /// Known to this process only: what is remembered is useless outside it.
    tag_key: [u8; 32],
}

#[derive(Clone)]
struct Verified {
    tag: [u8; 32],
    verifier: SecretVerifier,
    secret: Arc<DeviceSecret>,
}

impl Authenticator {
    /// Remembers at most `remembered` devices.
    pub fn new(accounts: Arc<AccountCache>, remembered: u64) -> Self {
        let verified = Cache::builder()
            .max_capacity(remembered)
            .time_to_idle(REMEMBERED_FOR)
            .build();
        Self {
            accounts,
            verified,
            tag_key: random(),
        }
    }

    /// The proven device, or `None` if the account, the device or the password is not right.
    pub async fn authenticate(
        &self,
        address: ProtocolAddress,
        password: &Password,
    ) -> Result<Option<Authenticated>, StorageError> {
        let account = self.accounts.find(&ServiceId::Aci(address.aci)).await?;
        let Some(device) = account.as_deref().and_then(|account| account.device(address.device_id)) else {
            // The same work as for a wrong password, so that time does not tell whether the account exists.
            let _ = password.matches(&SecretVerifier {
                salt: [0; 16],
                hash: [0; 32],
            });
            return Ok(None);
        };
        let secret = match self.recall(address, password, &device.credential) {
            Some(secret) => secret,
            None if password.matches(&device.credential) => self.remember(address, password, &device.credential),
            None => return Ok(None),
        };
        Ok(Some(Authenticated {
            address,
            mailbox: device.mailbox,
            secret,
        }))
    }

    /// Whether a device that proved itself earlier is still the one that its address names.
    pub async fn still_valid(&self, who: &Authenticated) -> Result<bool, StorageError> {
        let account = self.accounts.find(&ServiceId::Aci(who.address.aci)).await?;
        Ok(account.is_some_and(|account| mailbox_of(&account, who.address.device_id) == Some(who.mailbox)))
    }

    fn recall(
        &self,
        address: ProtocolAddress,
        password: &Password,
        verifier: &SecretVerifier,
    ) -> Option<Arc<DeviceSecret>> {
        let verified = self.verified.get(&address)?;
        let same = verified.verifier == *verifier && bool::from(verified.tag.ct_eq(&self.tag(password)));
        same.then_some(verified.secret)
    }

    fn remember(&self, address: ProtocolAddress, password: &Password, verifier: &SecretVerifier) -> Arc<DeviceSecret> {
        let secret = Arc::new(DeviceSecret::derive(password, &verifier.salt));
        let verified = Verified {
            tag: self.tag(password),
            verifier: verifier.clone(),
            secret: Arc::clone(&secret),
        };
        self.verified.insert(address, verified);
        secret
    }

    fn tag(&self, password: &Password) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.tag_key).expect("HMAC takes keys of any length");
        mac.update(password.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

fn mailbox_of(account: &Account, device_id: DeviceId) -> Option<MailboxId> {
    account.device(device_id).map(|device| device.mailbox)
}

const REMEMBERED_FOR: Duration = Duration::from_secs(600);
