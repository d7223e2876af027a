//! Registration: a verified number becomes an account with one device.

use std::sync::Arc;

use keys_schema::{Aci, IdentityKey, Pni, ServiceId};

use crate::auth::{
    DeviceSecret, Number, Password, ServerSecrets, matches, queue_key, random_aci, random_pni, verifier,
};
use crate::domain::{
    Account, Avatar, Clock, Device, DeviceId, MailboxId, NumberHash, Registered, Registration, RegistrationId,
    SecretVerifier, SessionKey, SignedKeys, VerificationSession,
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
    /// Pictures that no profile has any more.
    pub avatars: Vec<Avatar>,
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
    /// The number has no account with this recovery password; or it has one, and an invite does not prove whose it is.
    #[error("the recovery password is wrong")]
    RecoveryPassword,
    /// The number's account has a registration lock, and the right one was not shown. It holds for so many milliseconds,
    /// unless the account is used in the meantime.
    #[error("the number's account has a registration lock")]
    Locked(i64),
    /// The number has an account whose data could be moved to the new device first.
    #[error("the old device can transfer its data")]
    TransferPossible,
    /// The number's account changed each time it had been checked.
    #[error("the number's account changes too quickly")]
    Busy,
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

    /// Registers, and uses the session up. What is checked here is compared again as the account is written, so nothing
    /// that its owner sets meanwhile is passed over.
    pub async fn register(&self, request: &RegistrationRequest) -> Result<RegisteredAccount, RegistrationRefused> {
        let number = self.secrets.hash_number(&request.number);
        // Before the number's account is looked for: who proves nothing learns nothing about it, not by the time either.
        let proven = self.session(&request.proof, &number).await?;
        for _ in 0..ROUNDS {
            let old = self.find(&number).await?;
            self.check(request, proven.as_ref(), old.as_ref())?;
            let session = proven.as_ref().map(|session| session.key);
            let registration = self.registration(request, number, session, old.as_ref());
            let (pni, again, dropped, avatars) = match self.store.register(&registration, self.clock.now()).await? {
                Registered::New => (registration.pni, false, vec![], vec![]),
                Registered::Again { pni, dropped, avatars } => (pni, true, dropped, avatars),
                Registered::NotVerified => return Err(RegistrationRefused::NotVerified),
                Registered::Changed => continue,
            };
            let storage_capable = old
                .as_ref()
                .is_some_and(|account| account.devices.iter().any(|device| device.capabilities.has("storage")));
            return Ok(RegisteredAccount {
                aci: registration.aci,
                pni,
                again,
                storage_capable,
                dropped,
                avatars,
            });
        }
        Err(RegistrationRefused::Busy)
    }

    /// The session that proves the number, if the proof is one.
    async fn session(
        &self,
        proof: &Proof,
        number: &NumberHash,
    ) -> Result<Option<VerificationSession>, RegistrationRefused> {
        let Proof::Session(id) = proof else {
            return Ok(None);
        };
        let session = self.verifier.find(id).await?.filter(|session| session.verified);
        let session = session.ok_or(RegistrationRefused::NotVerified)?;
        if session.number != *number {
            return Err(RegistrationRefused::OtherNumber);
        }
        Ok(Some(session))
    }

    /// The number's account. The same statements whether there is one or not.
    async fn find(&self, number: &NumberHash) -> Result<Option<Account>, StorageError> {
        let aci = self.store.find_by_number(number).await?.unwrap_or_else(random_aci);
        self.store.find(&ServiceId::Aci(aci)).await
    }

    /// Whether the account may be started over by this request.
    fn check(
        &self,
        request: &RegistrationRequest,
        proven: Option<&VerificationSession>,
        old: Option<&Account>,
    ) -> Result<(), RegistrationRefused> {
        if let Proof::RecoveryPassword(password) = &request.proof
            && !is_recovery_password(password, old)
        {
            return Err(RegistrationRefused::RecoveryPassword);
        }
        let Some(account) = old else {
            return Ok(());
        };
        // Whoever is let in may not take what is somebody else's. Before the lock: it is nobody's business here.
        if proven.is_some_and(|session| session.new_only) {
            return Err(RegistrationRefused::RecoveryPassword);
        }
        if account.suspended {
            // What the operator has closed is not opened by registering anew, with whatever secret.
            return Err(RegistrationRefused::Locked(lock::suspended_for(self.clock.now())));
        }
        if let Some(remaining) = lock::holds_for(account, request.attributes.lock.as_ref(), self.clock.now()) {
            return Err(RegistrationRefused::Locked(remaining));
        }
        if !request.skip_device_transfer && primary_has(account, "transfer") {
            return Err(RegistrationRefused::TransferPossible);
        }
        Ok(())
    }

    fn registration(
        &self,
        request: &RegistrationRequest,
        number: NumberHash,
        session: Option<SessionKey>,
        old: Option<&Account>,
    ) -> Registration {
        let aci = old.map_or_else(random_aci, |account| account.aci);
        let attributes = &request.attributes;
        let credential = request.password.verifier();
        let mailbox = random_mailbox();
        let secret = DeviceSecret::derive(&request.password, &credential.salt);
        let now = self.clock.now();
        let device = Device {
            queue_key: queue_key(&request.password, &credential.salt).public_key(),
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
            session,
            replaces: old.and_then(Account::checked),
            number,
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

/// In each of them the account was registered anew, or its owner changed it.
const ROUNDS: u8 = 32;
