//! Tokens: what a device may show in place of its password.
//!
//! With its password a device opens a session, and is given two tokens. The access token (a JWT, [`access`]) lives for
//! minutes and is accepted wherever the password is; the refresh token ([`refresh`]) is exchanged for the next pair once,
//! and whoever shows a used one ends the session: there are two who have it, and one of them is a thief.
//!
//! Both carry what the device's password would open, the keys of its queue and of its number, sealed under keys that come
//! from the pepper ([`carried`]). They are nowhere else: the database has of a session its name, its device, a hash and two
//! days. A token is good as long as its session stands *and* its device has the mailbox and the password that it was made
//! for, so that a removed device, a new registration and another password end it like everything else of the device.

mod access;
mod bearer;
mod carried;
mod keys;
mod refresh;

use std::sync::Arc;
use std::time::Duration;

use keys_schema::ServiceId;
use keys_schema::sealed_queue::QueueKey;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::domain::{
    Account, Aci, Actor, Clock, Day, Device, NewTokenSession, ProtocolAddress, Rotated, Rotation, TokenSession,
    TokenSessionId,
};
use crate::sealing::{SealingKey, derive_bytes, random};
use crate::storage::{AccountCache, StorageError, TokenSessions, TokenStore};

use super::Authenticated;

pub use bearer::BearerToken;
pub use keys::{NoTokenKey, OpenedKey, PublishedKey, TokenKeys, new_token_key};

use carried::Carried;
use refresh::RefreshToken;

/// Keys of tokens, one per purpose. All nodes of one database share them.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TokenSecrets {
    carried: SealingKey,
    refresh: SealingKey,
    again: [u8; 32],
    signing: SealingKey,
}

impl TokenSecrets {
    pub(super) fn from_pepper(pepper: &[u8; 32]) -> Self {
        Self {
            carried: SealingKey::derive(pepper, b"", "blind-relay access tokens v1"),
            refresh: SealingKey::derive(pepper, b"", "blind-relay refresh tokens v1"),
            again: *derive_bytes(pepper, b"", "blind-relay repeated refresh v1"),
            signing: SealingKey::derive(pepper, b"", "blind-relay token keys v1"),
        }
    }
}

/// How long tokens are good.
#[derive(Clone, Copy, Debug)]
pub struct TokenTimes {
    /// An access token.
    pub access: Duration,
    /// Whole days after the present one that a session lasts without a refresh.
    pub refresh_days: u16,
}

/// Tokens of a node.
pub struct Tokens {
    secrets: TokenSecrets,
    times: TokenTimes,
    store: Arc<dyn TokenStore>,
    accounts: Arc<AccountCache>,
    clock: Arc<dyn Clock>,
    /// Which sessions stand.
    pub sessions: Arc<TokenSessions>,
    /// What signs.
    pub keys: Arc<TokenKeys>,
}

/// A pair of tokens, as its device is told of it.
pub struct Issued {
    /// Of the session.
    pub session: TokenSessionId,
    /// The access token.
    pub access: String,
    /// For how many seconds it is good.
    pub access_secs: u64,
    /// The refresh token.
    pub refresh: String,
    /// For how many seconds it is good, if it is not used.
    pub refresh_secs: u64,
}

/// A session that was opened, and those that had to make room.
pub struct OpenedSession {
    /// Its first tokens.
    pub issued: Issued,
    /// They are over.
    pub dropped: Vec<TokenSessionId>,
}

/// What became of a refresh token that was shown.
pub enum Refreshed {
    /// The next pair; the same again for who asked in the same words.
    Done(Issued),
    /// It had been used: its session is over.
    Reused {
        /// The session.
        session: TokenSessionId,
        /// Whose it was.
        account: Aci,
    },
    /// It is none of ours, or its session is over.
    Refused,
}

/// A device that showed an access token, and the key of its queue.
pub struct Bearer {
    /// The device.
    pub device: Authenticated,
    /// Of its queue.
    pub queue_key: QueueKey,
}

impl Tokens {
    /// The keys that sign are those of [`TokenKeys::load`].
    pub fn new(
        secrets: TokenSecrets,
        times: TokenTimes,
        store: Arc<dyn TokenStore>,
        accounts: Arc<AccountCache>,
        clock: Arc<dyn Clock>,
        remembered: u64,
    ) -> Self {
        let sessions = TokenSessions::new(Arc::clone(&store), Arc::clone(&clock), remembered);
        let keys = TokenKeys::new(secrets.signing.clone(), Arc::clone(&store), Arc::clone(&clock));
        Self {
            secrets,
            times,
            store,
            accounts,
            clock,
            sessions: Arc::new(sessions),
            keys: Arc::new(keys),
        }
    }

    /// Opens a session for a device that has shown its password; `None` if it is gone or has another one by now.
    pub async fn open(
        &self,
        device: &Authenticated,
        queue_key: &QueueKey,
    ) -> Result<Option<OpenedSession>, TokenError> {
        let session = TokenSessionId(random());
        let held = RefreshToken {
            session,
            address: device.address,
            mailbox: device.mailbox,
            salt: device.salt,
            carried: Carried::new(queue_key, &device.secret),
        };
        let refresh = held.seal(&self.secrets.refresh, &random());
        let (today, expires) = (self.clock.now().day(), self.expires());
        let opened = NewTokenSession {
            id: session,
            refresh: refresh::hash(&refresh),
            salt: device.salt,
            created: today,
            expires,
        };
        // Before anything is stored: without a key there is no session.
        let access = self.access(&held)?;
        let dropped = self.store.open(&opened, &device.actor()).await?;
        Ok(dropped.map(|dropped| OpenedSession {
            issued: self.issued(session, access, refresh, expires),
            dropped,
        }))
    }

    /// Exchanges a refresh token for the next pair. `again` is what the client calls this attempt: if it does not hear of
    /// the outcome, it asks again under the same name and is given the same refresh token.
    pub async fn refresh(&self, shown: &str, again: Option<&[u8]>) -> Result<Refreshed, TokenError> {
        let Some(held) = RefreshToken::open(&self.secrets.refresh, shown) else {
            return Ok(Refreshed::Refused);
        };
        let account = self.accounts.find_fresh(&ServiceId::Aci(held.address.aci)).await?;
        if !account.is_some_and(|account| is_device(&account, &held)) {
            return Ok(Refreshed::Refused);
        }
        let nonce = match again {
            Some(again) => refresh::nonce_again(&self.secrets.again, shown, again),
            None => random(),
        };
        let next = held.seal(&self.secrets.refresh, &nonce);
        let access = self.access(&held)?;
        let rotation = Rotation {
            id: held.session,
            mailbox: held.mailbox,
            shown: refresh::hash(shown),
            next: refresh::hash(&next),
            today: self.clock.now().day(),
            expires: self.expires(),
        };
        let expires = match self.store.rotate(&rotation).await? {
            Rotated::Done => rotation.expires,
            Rotated::Again(expires) => expires,
            Rotated::Reused => {
                return Ok(Refreshed::Reused {
                    session: held.session,
                    account: held.address.aci,
                });
            }
            Rotated::Gone => return Ok(Refreshed::Refused),
        };
        Ok(Refreshed::Done(self.issued(held.session, access, next, expires)))
    }

    /// Whose refresh token this is, if it is one of ours.
    pub fn device_of(&self, shown: &str) -> Option<ProtocolAddress> {
        RefreshToken::open(&self.secrets.refresh, shown).map(|held| held.address)
    }

    /// Ends the session of a refresh token of ours, whether it is the latest or not; `None` for what is none of ours.
    pub async fn end(&self, shown: &str) -> Result<Option<TokenSessionId>, StorageError> {
        let Some(held) = RefreshToken::open(&self.secrets.refresh, shown) else {
            return Ok(None);
        };
        self.store.end(held.session).await?;
        Ok(Some(held.session))
    }

    /// The device that an access token proves.
    pub async fn prove(&self, token: &BearerToken) -> Result<Option<Bearer>, StorageError> {
        let Some(key) = self.keys.key(token.kid()).await else {
            return Ok(None);
        };
        let Some(claimed) = access::verify(token, &key, self.clock.now()) else {
            return Ok(None);
        };
        let id = ServiceId::Aci(claimed.address.aci);
        let remembered = self.accounts.find(&id).await?;
        let mut proven = remembered.and_then(|account| self.bearer(&account, &claimed));
        if proven.is_none() {
            // As with passwords: a refusal never rests on what is remembered.
            let account = self.accounts.find_fresh(&id).await?;
            proven = account.and_then(|account| self.bearer(&account, &claimed));
        }
        let Some(bearer) = proven else { return Ok(None) };
        let stands = self.sessions.mailbox(claimed.session).await?;
        Ok((stands == Some(bearer.device.mailbox)).then_some(bearer))
    }

    /// The sessions that a device may see: its own, and as a primary those of its account.
    pub async fn list(&self, by: &Actor) -> Result<Vec<TokenSession>, StorageError> {
        self.store.sessions(by, self.clock.now().day()).await
    }

    /// Ends one of those, or all, and says which.
    pub async fn revoke(&self, by: &Actor, id: Option<TokenSessionId>) -> Result<Vec<TokenSessionId>, StorageError> {
        self.store.revoke(by, id).await
    }

    fn expires(&self) -> Day {
        // One more day, because a day is all that is kept of the time: nothing expires early.
        self.clock.now().day().plus(i32::from(self.times.refresh_days) + 1)
    }

    fn access(&self, held: &RefreshToken) -> Result<String, TokenError> {
        let carried = held.carried.seal(&self.secrets.carried, &held.context());
        let signer = self.keys.signer().ok_or(TokenError::NoKey)?;
        let lifetime = i64::try_from(self.times.access.as_secs()).unwrap_or(i64::MAX);
        access::sign(
            held.address,
            held.session,
            &carried,
            &signer,
            self.clock.now(),
            lifetime,
        )
        .ok_or(TokenError::NoKey)
    }

    fn issued(&self, session: TokenSessionId, access: String, refresh: String, expires: Day) -> Issued {
        let left = expires.midnight().0.saturating_sub(self.clock.now().0) / 1000;
        Issued {
            session,
            access,
            access_secs: self.times.access.as_secs(),
            refresh,
            refresh_secs: u64::try_from(left).unwrap_or(0),
        }
    }

    /// The device, if what the token carries opens for it as it is now.
    fn bearer(&self, account: &Account, claimed: &access::Claimed) -> Option<Bearer> {
        let device = account.acting_device(claimed.address.device_id)?;
        let context = carried::context(claimed.address, device.mailbox, &device.credential.salt);
        let carried = Carried::open(&self.secrets.carried, &context, &claimed.carried)?;
        Some(Bearer {
            device: Authenticated {
                address: claimed.address,
                mailbox: device.mailbox,
                last_seen: device.last_seen,
                secret: Arc::new(carried.secret()),
                salt: device.credential.salt,
                session: Some(claimed.session),
            },
            queue_key: carried.queue_key(),
        })
    }
}

fn is_device(account: &Account, held: &RefreshToken) -> bool {
    let device: Option<&Device> = account.acting_device(held.address.device_id);
    device.is_some_and(|device| device.mailbox == held.mailbox && device.credential.salt == held.salt)
}

/// Why tokens could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Storage did not do its work.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// This node has no key that signs.
    #[error("there is no key that signs tokens")]
    NoKey,
}

#[cfg(test)]
pub(super) mod tests;
