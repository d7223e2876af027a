//! Registration: a verified number becomes an account with one device.

use std::sync::Arc;

use keys_schema::{Aci, IdentityKey, Pni, ServiceId};

use crate::auth::{DeviceSecret, Number, Password, ServerSecrets, matches, random_aci, random_pni, verifier};
use crate::domain::{
    Account, Clock, Device, DeviceId, MailboxId, Registered, Registration, RegistrationId, SecretVerifier, SignedKeys,
};
use crate::sealing::random;
use crate::storage::{AccountStore, StorageError};

use super::attributes::Attributes;
use super::created_at::created_at;
use super::lock::{self, RegistrationLock};
use super::verification::{SessionId, Verifier};

/// How a client shows that the number is its own.
#[derive(Clone)]
pub enum Proof {
    /// A verified session.
    Session(SessionId),
    /// The recovery password stored with the number's account.
    RecoveryPassword([u8; 32]),
}

/// A registration as a client asks for it, checked for form.
#[derive(Clone)]
pub struct RegistrationRequest {
    /// The number.
    pub number: Number,
    /// The password of device 1.
    pub password: Password,
    /// How the number is proven.
    pub proof: Proof,
    /// Of the ACI namespace.
    pub registration_id: RegistrationId,
    /// Of the PNI namespace.
    pub pni_registration_id: RegistrationId,
    /// Everything else about account and device.
    pub attributes: Attributes,
    /// The client will not move data over from an old device.
    pub skip_device_transfer: bool,
    /// Long-term public key under the ACI.
    pub aci_identity: IdentityKey,
    /// Long-term public key under the PNI.
    pub pni_identity: IdentityKey,
    /// Signed by the ACI identity key; checked by the caller.
    pub aci_keys: SignedKeys,
    /// Signed by the PNI identity key; checked by the caller.
    pub pni_keys: SignedKeys,
}

/// A registered account.
#[derive(Clone, Debug)]
pub struct RegisteredAccount {
    /// Its id.
    pub aci: Aci,
    /// Its second id.
    pub pni: Pni,
    /// Whether the number had an account before.
    pub again: bool,
    /// Whether the account before could store data.
    pub storage_capable: bool,
    /// Mailboxes that are gone: their connections must end.
    pub dropped: Vec<MailboxId>,
}

/// Why a registration was refused.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationRefused {
    /// The session does not exist, has expired or is not verified.
    #[error("the verification session is unknown or not verified")]
    NotVerified,
    /// The session is for another number.
    #[error("the verification session is for another number")]
    OtherNumber,
    /// The number has no account with this recovery password.
    #[error("the recovery password is wrong")]
    RecoveryPassword,
    /// The number's account has a registration lock, and the right one was not shown. It holds for so many milliseconds,
    /// unless the account is used in the meantime.
    #[error("the number's account has a registration lock")]
    Locked(i64),
    /// The number has an account whose data could be moved to the new device first.
    #[error("the old device can transfer its data")]
    TransferPossible,
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Turns verified numbers into accounts.
pub struct Registrar {
    store: Arc<dyn AccountStore>,
    secrets: Arc<ServerSecrets>,
    verifier: Arc<Verifier>,
    clock: Arc<dyn Clock>,
}

impl Registrar {
    /// A registrar that believes the given verifier.
    pub fn new(
        store: Arc<dyn AccountStore>,
        secrets: Arc<ServerSecrets>,
        verifier: Arc<Verifier>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            store,
            secrets,
            verifier,
            clock,
        }
    }

    /// Registers, and uses the session up.
    pub async fn register(&self, request: &RegistrationRequest) -> Result<RegisteredAccount, RegistrationRefused> {
        let number = self.secrets.hash_number(&request.number);
        let mut aci = self.store.find_by_number(&number).await?;
        let mut old = self.find(aci).await?;
        let session = match &request.proof {
            Proof::Session(id) => {
                let session = self.verifier.find(id).await?.filter(|session| session.verified);
                let session = session.ok_or(RegistrationRefused::NotVerified)?;
                if session.number != number {
                    return Err(RegistrationRefused::OtherNumber);
                }
                Some(session.key)
            }
            Proof::RecoveryPassword(_) => None,
        };
        loop {
            // Against the account as it is now: in another round it is another one.
            if let Proof::RecoveryPassword(password) = &request.proof
                && !is_recovery_password(password, old.as_ref())
            {
                return Err(RegistrationRefused::RecoveryPassword);
            }
            if let Some(remaining) = old
                .as_ref()
                .and_then(|account| lock::holds_for(account, request.attributes.lock.as_ref(), self.clock.now()))
            {
                return Err(RegistrationRefused::Locked(remaining));
            }
            if !request.skip_device_transfer && old.as_ref().is_some_and(|account| primary_has(account, "transfer")) {
                return Err(RegistrationRefused::TransferPossible);
            }
            let registration = self.registration(request, aci.unwrap_or_else(random_aci));
            let (pni, again, dropped) = match self.store.register(&registration).await? {
                Registered::New => (registration.pni, false, vec![]),
                Registered::Again { pni, dropped } => (pni, true, dropped),
                Registered::NumberTaken(by) => {
                    // Someone registered the same number in between. This registration starts that account over.
                    aci = Some(by);
                    old = self.find(aci).await?;
                    continue;
                }
            };
            if let Some(key) = session {
                self.store.close_session(&key).await?;
            }
            let storage_capable = old
                .as_ref()
                .is_some_and(|account| account.devices.iter().any(|device| device.capabilities.has("storage")));
            return Ok(RegisteredAccount {
                aci: registration.aci,
                pni,
                again,
                storage_capable,
                dropped,
            });
        }
    }

    async fn find(&self, aci: Option<Aci>) -> Result<Option<Account>, StorageError> {
        match aci {
            Some(aci) => self.store.find(&ServiceId::Aci(aci)).await,
            None => Ok(None),
        }
    }

    fn registration(&self, request: &RegistrationRequest, aci: Aci) -> Registration {
        let attributes = &request.attributes;
        let credential = request.password.verifier();
        let mailbox = random_mailbox();
        let secret = DeviceSecret::derive(&request.password, &credential.salt);
        let now = self.clock.now();
        let device = Device {
            id: DeviceId::PRIMARY,
            mailbox,
            registration_id: request.registration_id,
            pni_registration_id: request.pni_registration_id,
            name: attributes.name.clone(),
            sealed_number: secret.seal_number(mailbox, &request.number),
            credential,
            fetches_messages: attributes.fetches_messages,
            capabilities: attributes.capabilities,
            last_seen: now.day(),
            created_at: created_at(&request.aci_identity, DeviceId::PRIMARY, request.registration_id, now),
        };
        Registration {
            number: self.secrets.hash_number(&request.number),
            aci,
            pni: random_pni(),
            aci_identity: request.aci_identity,
            pni_identity: request.pni_identity,
            aci_keys: request.aci_keys.clone(),
            pni_keys: request.pni_keys.clone(),
            access: attributes.access(&self.secrets, aci),
            discoverable: attributes.discoverable,
            recovery: attributes.recovery_password.map(|password| verifier(&password)),
            lock: attributes.lock.as_ref().map(RegistrationLock::verifier),
            device,
        }
    }
}

/// A name for a queue. Never negative, so that it reads the same in every log of a database.
pub(super) fn random_mailbox() -> MailboxId {
    MailboxId(i64::from_be_bytes(random()) & i64::MAX)
}

/// Takes the same time whether the account exists or not.
fn is_recovery_password(password: &[u8; 32], account: Option<&Account>) -> bool {
    let none = SecretVerifier {
        salt: [0; 16],
        hash: [0; 32],
    };
    let recovery = account.and_then(|account| account.recovery.as_ref());
    matches(password, recovery.unwrap_or(&none)) && recovery.is_some()
}

fn primary_has(account: &Account, capability: &str) -> bool {
    account
        .device(DeviceId::PRIMARY)
        .is_some_and(|device| device.capabilities.has(capability))
}
