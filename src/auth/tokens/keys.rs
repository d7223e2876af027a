//! The keys that sign access tokens.
//!
//! They are in the database, so that all nodes have the same, and their private halves are sealed under a key that comes
//! from the pepper, so that whoever has the database signs nothing. Every node reads them again every [`RELOAD`], and sooner
//! when it meets a key that it does not know. The latest key signs; when there is a later one, an older verifies what it
//! signed until that is over.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine;
use ed25519_dalek::SigningKey;
use jsonwebtoken::{DecodingKey, EncodingKey};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::domain::{Clock, Timestamp, TokenKey};
use crate::encoding::BASE64_URL;
use crate::sealing::{SealingKey, random};
use crate::storage::{StorageError, TokenStore};

use super::TokenSecrets;

/// The keys of a node.
pub struct TokenKeys {
    sealing: SealingKey,
    store: Arc<dyn TokenStore>,
    clock: Arc<dyn Clock>,
    /// The latest first.
    ring: RwLock<Vec<Arc<OpenedKey>>>,
    /// When they were read last. Whoever reads them holds it.
    read: Mutex<Option<Instant>>,
}

/// One key, ready for use.
pub struct OpenedKey {
    kid: String,
    /// The public half in base64.
    x: String,
    pub(super) signing: EncodingKey,
    pub(super) verifying: DecodingKey,
    created: Timestamp,
    until: Option<Timestamp>,
}

/// A key as everyone may see it.
pub struct PublishedKey {
    /// Its name: the thumbprint of RFC 7638.
    pub kid: String,
    /// The public half, in base64.
    pub x: String,
}

/// There is no key that signs, and none could be made.
#[derive(Debug, thiserror::Error)]
#[error("the keys of tokens in the database do not open: they were sealed with another pepper")]
pub struct NoTokenKey;

impl OpenedKey {
    /// Its name.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// When it was made.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// When it is dropped, if another signs in its place.
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }

    pub(super) fn is_good_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn open(sealing: &SealingKey, stored: &TokenKey) -> Option<Arc<Self>> {
        let seed = sealing.open(&stored.public, &stored.sealed.0)?;
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(seed.as_slice().try_into().ok()?);
        if SigningKey::from_bytes(&seed).verifying_key().to_bytes() != stored.public {
            return None;
        }
        let x = BASE64_URL.encode(stored.public);
        Some(Arc::new(Self {
            kid: thumbprint(&x),
            x,
            signing: EncodingKey::from_ed_der(&pkcs8(&seed)),
            verifying: DecodingKey::from_ed_der(&stored.public),
            created: stored.created,
            until: stored.until,
        }))
    }
}

impl TokenKeys {
    pub(super) fn new(sealing: SealingKey, store: Arc<dyn TokenStore>, clock: Arc<dyn Clock>) -> Self {
        Self {
            sealing,
            store,
            clock,
            ring: RwLock::default(),
            read: Mutex::default(),
        }
    }

    /// Reads the keys, and makes the first one if there is none.
    pub async fn load(&self) -> Result<Result<(), NoTokenKey>, StorageError> {
        self.reload().await?;
        if self.signer().is_none() {
            let first = sealed_key(&self.sealing, self.clock.now());
            self.store.first_key(&first).await?;
            self.reload().await?;
        }
        Ok(if self.signer().is_some() {
            Ok(())
        } else {
            Err(NoTokenKey)
        })
    }

    /// Reads them again and again, until the token is cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(RELOAD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.reload().await {
                tracing::warn!(cause = error.log_safe_cause(), "the keys of tokens could not be read");
            }
        }
    }

    /// The key of that name. One that is not known is looked for in storage, if that was not done a moment ago.
    pub(super) async fn key(&self, kid: &str) -> Option<Arc<OpenedKey>> {
        if let Some(key) = self.known(kid) {
            return Some(key);
        }
        let mut read = self.read.lock().await;
        if read.is_none_or(|read| read.elapsed() >= AGAIN) {
            // What cannot be read is not known.
            let _ = self.read(&mut read).await;
        }
        drop(read);
        self.known(kid)
    }

    /// The key that signs. One that was just made waits until every node has had the time to learn of it, unless there is
    /// no other.
    pub(super) fn signer(&self) -> Option<Arc<OpenedKey>> {
        let now = self.clock.now();
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let mut good = ring.iter().filter(|key| key.is_good_at(now));
        let latest = good.clone().next();
        let settled = good.find(|key| key.created.plus_millis(SETTLE_MILLIS) <= now);
        settled.or(latest).cloned()
    }

    /// The keys that verify now, for everyone to see.
    pub fn published(&self) -> Vec<PublishedKey> {
        let now = self.clock.now();
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let good = ring.iter().filter(|key| key.is_good_at(now));
        let published = good.map(|key| PublishedKey {
            kid: key.kid.clone(),
            x: key.x.clone(),
        });
        published.collect()
    }

    fn known(&self, kid: &str) -> Option<Arc<OpenedKey>> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.iter().find(|key| key.kid == kid).cloned()
    }

    async fn reload(&self) -> Result<(), StorageError> {
        let mut read = self.read.lock().await;
        self.read(&mut read).await
    }

    async fn read(&self, read: &mut Option<Instant>) -> Result<(), StorageError> {
        *read = Some(Instant::now());
        let keys = open_all(&self.sealing, &self.store.keys(self.clock.now()).await?);
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }
}

impl TokenSecrets {
    /// Those of the keys that open, the latest first.
    pub fn open_keys(&self, stored: &[TokenKey]) -> Vec<Arc<OpenedKey>> {
        open_all(&self.signing, stored)
    }
}

/// A new key, ready to be stored.
pub fn new_token_key(secrets: &TokenSecrets, now: Timestamp) -> TokenKey {
    sealed_key(&secrets.signing, now)
}

fn open_all(sealing: &SealingKey, stored: &[TokenKey]) -> Vec<Arc<OpenedKey>> {
    stored.iter().filter_map(|key| OpenedKey::open(sealing, key)).collect()
}

fn sealed_key(sealing: &SealingKey, now: Timestamp) -> TokenKey {
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(random());
    let public = SigningKey::from_bytes(&seed).verifying_key().to_bytes();
    TokenKey {
        public,
        sealed: sealing.seal(&public, seed.as_slice()),
        created: now,
        until: None,
    }
}

/// RFC 7638: the SHA-256 of the key's required members, in their order.
fn thumbprint(x: &str) -> String {
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    BASE64_URL.encode(Sha256::digest(members))
}

/// RFC 8410: a private key as PKCS #8 has it.
fn pkcs8(seed: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_HEAD.len() + seed.len()));
    der.extend_from_slice(&PKCS8_HEAD);
    der.extend_from_slice(seed);
    der
}

/// Version 0, the algorithm Ed25519, and a string of 32 bytes in another.
const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// Between looks into storage.
const RELOAD: Duration = Duration::from_secs(2);
/// What makes up names of keys has storage asked no more often than this.
const AGAIN: Duration = Duration::from_millis(500);
/// After which every node knows a new key.
const SETTLE_MILLIS: i64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_thumbprint_of_the_standard() {
        // The key of RFC 8037, appendix A.3.
        let name = thumbprint("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(name, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
