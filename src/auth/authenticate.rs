//! Proves that a request comes from a device.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use keys_schema::sealed_queue::QueueKey;
use moka::sync::Cache;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::domain::{Account, Actor, Day, MailboxId, ProtocolAddress, SecretVerifier, ServiceId, TokenSessionId};
use crate::sealing::random;
use crate::storage::{AccountCache, StorageError};

use super::credential::{DeviceSecret, Password, queue_key};
use super::tokens::Tokens;
use super::{BasicUser, Credentials};

/// A device that has proved itself.
#[derive(Clone)]
pub struct Authenticated {
    /// Who it is.
    pub address: ProtocolAddress,
    /// Its queue, by which a later request can tell whether the device has been replaced meanwhile.
    pub mailbox: MailboxId,
    /// The last day on which it was seen before this.
    pub last_seen: Day,
    /// What its password opens.
    pub secret: Arc<DeviceSecret>,
    /// Of the verifier that knows its password.
    pub salt: [u8; 16],
    /// The session on which this rests, if it was a token that was shown.
    pub session: Option<TokenSessionId>,
}

impl Authenticated {
    /// The key of its queue, from the password that it has just proved itself with.
    pub fn queue_key(&self, password: &Password) -> QueueKey {
        queue_key(password, &self.salt)
    }

    /// The device as storage checks it before a change.
    pub fn actor(&self) -> Actor {
        Actor {
            address: self.address,
            mailbox: self.mailbox,
        }
    }
}

/// A device that has proved itself, and what its queue is opened with.
pub struct Proven {
    /// The device.
    pub device: Authenticated,
    shown: Shown,
}

enum Shown {
    Password(Password),
    /// What its token carried.
    QueueKey(QueueKey),
}

impl Proven {
    /// The key of its queue.
    pub fn queue_key(&self) -> QueueKey {
        match &self.shown {
            Shown::Password(password) => self.device.queue_key(password),
            Shown::QueueKey(key) => QueueKey::from_bytes(*key.as_bytes()),
        }
    }
}

/// Checks passwords and tokens, and remembers for a while which passwords were right.
///
/// A remembered password is only believed while the account's record still holds the verifier it was checked against,
/// so it can not outlive a changed credential or a removed device by more than the lease of [`AccountCache`].
pub struct Authenticator {
    accounts: Arc<AccountCache>,
    tokens: Arc<Tokens>,
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
    pub fn new(accounts: Arc<AccountCache>, tokens: Arc<Tokens>, remembered: u64) -> Self {
        let verified = Cache::builder()
            .max_capacity(remembered)
            .time_to_idle(REMEMBERED_FOR)
            .build();
        Self {
            accounts,
            tokens,
            verified,
            tag_key: random(),
        }
    }

    /// The device that these credentials prove, or `None` if they prove none.
    pub async fn prove_device(&self, credentials: Credentials) -> Result<Option<Proven>, StorageError> {
        match credentials {
            Credentials::Basic(basic) => {
                let BasicUser::Device(address) = basic.user else {
                    return Ok(None);
                };
                let device = self.authenticate(address, &basic.password).await?;
                Ok(device.map(|device| Proven {
                    device,
                    shown: Shown::Password(basic.password),
                }))
            }
            Credentials::Bearer(token) => {
                let bearer = self.tokens.prove(&token).await?;
                Ok(bearer.map(|bearer| Proven {
                    device: bearer.device,
                    shown: Shown::QueueKey(bearer.queue_key),
                }))
            }
        }
    }

    /// The proven device, or `None` if the account, the device or the password is not right.
    pub async fn authenticate(
        &self,
        address: ProtocolAddress,
        password: &Password,
    ) -> Result<Option<Authenticated>, StorageError> {
        let id = ServiceId::Aci(address.aci);
        let remembered = self.accounts.find(&id).await?;
        if let Some(proven) = self.prove(remembered.as_deref(), address, password) {
            return Ok(Some(proven));
        }
        // The device may have registered anew on another node a moment ago. Who is refused here believes it is gone for
        // good, so a refusal never rests on what is remembered.
        let account = self.accounts.find_fresh(&id).await?;
        Ok(self.prove(account.as_deref(), address, password))
    }

    /// Whether a device that proved itself earlier is still the one that its address names, and its session stands.
    pub async fn still_valid(&self, who: &Authenticated) -> Result<bool, StorageError> {
        Ok(self.standing(who).await?.is_some())
    }

    /// The account of a device that is [still valid](Self::still_valid).
    pub async fn standing(&self, who: &Authenticated) -> Result<Option<Arc<Account>>, StorageError> {
        let account = self.accounts.find(&ServiceId::Aci(who.address.aci)).await?;
        let Some(account) = account.filter(|account| is_still(account, who)) else {
            return self.confirmed(who).await;
        };
        let stands = match who.session {
            // That it is over is never only remembered, so this is asked once.
            Some(session) => self.tokens.sessions.mailbox(session).await? == Some(who.mailbox),
            None => true,
        };
        Ok(stands.then_some(account))
    }

    /// As [`Self::still_valid`], from storage. To be asked before a change, when the request's body has arrived: a slow
    /// body must not let a device act that has been replaced meanwhile.
    pub async fn confirm(&self, who: &Authenticated) -> Result<bool, StorageError> {
        Ok(self.confirmed(who).await?.is_some())
    }

    async fn confirmed(&self, who: &Authenticated) -> Result<Option<Arc<Account>>, StorageError> {
        let account = self.accounts.find_fresh(&ServiceId::Aci(who.address.aci)).await?;
        let Some(account) = account.filter(|account| is_still(account, who)) else {
            return Ok(None);
        };
        let stands = match who.session {
            Some(session) => self.tokens.sessions.mailbox_fresh(session).await? == Some(who.mailbox),
            None => true,
        };
        Ok(stands.then_some(account))
    }

    /// Drops what has not been used for long. To be called every few seconds: by itself the cache drops it late.
    pub fn tidy(&self) {
        self.verified.run_pending_tasks();
        self.tokens.sessions.tidy();
    }

    fn prove(&self, account: Option<&Account>, address: ProtocolAddress, password: &Password) -> Option<Authenticated> {
        let Some(device) = account.and_then(|account| account.acting_device(address.device_id)) else {
            // The same work as for a wrong password, so that time does not tell whether the account exists.
            let _ = password.matches(&SecretVerifier {
                salt: [0; 16],
                hash: [0; 32],
            });
            return None;
        };
        let secret = match self.recall(address, password, &device.credential) {
            Some(secret) => secret,
            None if password.matches(&device.credential) => self.remember(address, password, &device.credential),
            None => return None,
        };
        Some(Authenticated {
            address,
            mailbox: device.mailbox,
            last_seen: device.last_seen,
            secret,
            salt: device.credential.salt,
            session: None,
        })
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

/// Whether the device is the one that proved itself, by the password that it has now: salts are fresh whenever one is set.
fn is_still(account: &Account, who: &Authenticated) -> bool {
    let device = account.acting_device(who.address.device_id);
    device.is_some_and(|device| device.mailbox == who.mailbox && device.credential.salt == who.salt)
}

/// Short, because it is in memory what a device is known by: a removed one is forgotten within a minute.
const REMEMBERED_FOR: Duration = Duration::from_secs(45);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tokens::tests::tokens;
    use crate::domain::{Account, DeviceId, Registration};
    use crate::storage::conformance::fixtures::{actor, primary, registration, start_over};
    use crate::storage::testing::{ROOMY, TestDatabase, sqlite};

    fn password(text: &str) -> Password {
        Password::new(text.as_bytes()).unwrap()
    }

    async fn register(database: &TestDatabase, mailbox: i64, text: &str) {
        let mut registration: Registration = registration(1, mailbox);
        registration.device.credential = password(text).verifier();
        start_over(&*database.storage().accounts, registration).await;
    }

    async fn authenticator(database: &TestDatabase) -> (Authenticator, Arc<AccountCache>) {
        register(database, 10, "correct horse").await;
        let accounts = Arc::new(AccountCache::new(database.storage().accounts, 100));
        let tokens = Arc::new(tokens(database, &accounts));
        (Authenticator::new(Arc::clone(&accounts), tokens, 100), accounts)
    }

    async fn proves(authenticator: &Authenticator, text: &str) -> bool {
        authenticator
            .authenticate(primary(1), &password(text))
            .await
            .unwrap()
            .is_some()
    }

    #[tokio::test]
    async fn only_the_right_password_proves_a_device_remembered_or_not() {
        let database = sqlite(ROOMY).await.unwrap();
        let (authenticator, _) = authenticator(&database).await;
        for _ in 0..2 {
            assert!(!proves(&authenticator, "wrong horse").await);
            assert!(proves(&authenticator, "correct horse").await);
        }
        assert!(
            authenticator
                .authenticate(primary(2), &password("correct horse"))
                .await
                .unwrap()
                .is_none()
        );
    }

    #[tokio::test]
    async fn a_remembered_password_dies_with_its_verifier_and_so_does_who_proved_it() {
        let database = sqlite(ROOMY).await.unwrap();
        let (authenticator, accounts) = authenticator(&database).await;
        let before = authenticator
            .authenticate(primary(1), &password("correct horse"))
            .await
            .unwrap()
            .unwrap();
        assert!(authenticator.still_valid(&before).await.unwrap());
        register(&database, 11, "another horse").await;
        accounts.forget(primary(1).aci);
        assert!(!proves(&authenticator, "correct horse").await);
        assert!(proves(&authenticator, "another horse").await);
        assert!(!authenticator.still_valid(&before).await.unwrap());
    }

    #[tokio::test]
    async fn a_deleted_account_proves_nothing() {
        let database = sqlite(ROOMY).await.unwrap();
        let (authenticator, accounts) = authenticator(&database).await;
        assert!(proves(&authenticator, "correct horse").await);
        database.storage().accounts.delete(&actor(1, 10)).await.unwrap();
        accounts.forget(primary(1).aci);
        assert!(!proves(&authenticator, "correct horse").await);
    }

    #[tokio::test]
    async fn who_proved_itself_with_an_older_password_is_not_valid_any_more() {
        let database = sqlite(ROOMY).await.unwrap();
        let (authenticator, accounts) = authenticator(&database).await;
        let before = authenticator.authenticate(primary(1), &password("correct horse")).await;
        let before = before.unwrap().unwrap();
        let set = "UPDATE devices SET credential_salt = zeroblob(16), credential_hash = zeroblob(32)";
        database.execute(set).await;
        accounts.forget(primary(1).aci);
        assert!(!authenticator.still_valid(&before).await.unwrap());
        assert!(!authenticator.confirm(&before).await.unwrap());
    }

    #[test]
    fn a_device_that_is_not_there_is_nobody() {
        let account: Account = crate::storage::conformance::fixtures::account(1, 10);
        let who = |device_id, mailbox| Authenticated {
            address: ProtocolAddress {
                aci: account.aci,
                device_id,
            },
            mailbox: MailboxId(mailbox),
            last_seen: Day(0),
            secret: Arc::new(DeviceSecret::derive(&password("correct horse"), &[0; 16])),
            salt: account.devices[0].credential.salt,
            session: None,
        };
        assert!(is_still(&account, &who(DeviceId::PRIMARY, 10)));
        assert!(!is_still(&account, &who(DeviceId::PRIMARY, 11)));
        assert!(!is_still(&account, &who(DeviceId::new(2).unwrap(), 10)));
    }
}
