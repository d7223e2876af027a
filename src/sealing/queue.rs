//! Seals envelopes for the queue (`keys_schema::sealed_queue`), with one agreement per device and epoch.
//!
//! An epoch lasts an hour at most, and all of a node's devices share its end: then every epoch key is wiped. Whoever
//! takes a node's memory finds keys to rows of the running epoch, and to none before it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use keys_schema::sealed_queue::{Bucket, EpochKey, QueueKey, QueuePublicKey};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::domain::{MailboxId, Sealed, SealedEnvelope};

use super::{SealingKey, random};

/// Nothing can be sealed: the key is no key, or the envelope is larger than any bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an envelope cannot be sealed")]
pub struct Unsealable;

/// The epoch keys of one node.
pub struct QueueSeals {
    shards: Vec<Shard>,
}

type Shard = Mutex<Epoch>;

struct Epoch {
    ends: Instant,
    keys: HashMap<QueuePublicKey, Arc<EpochKey>>,
}

impl Default for QueueSeals {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Epoch::begin())).collect(),
        }
    }
}

impl QueueSeals {
    /// The envelope as it may be stored in that mailbox. `content` is the length of what is in it, in bytes.
    pub fn seal(
        &self,
        mailbox: MailboxId,
        to: &QueuePublicKey,
        content: usize,
        envelope: &[u8],
    ) -> Result<SealedEnvelope, Unsealable> {
        let bucket = Bucket::holding(content, envelope.len()).ok_or(Unsealable)?;
        let row = self.seal_again(mailbox, to, bucket, envelope)?;
        Ok(SealedEnvelope { bucket, row })
    }

    /// As [`Self::seal`], into the bucket that the envelope had.
    pub fn seal_again(
        &self,
        mailbox: MailboxId,
        to: &QueuePublicKey,
        bucket: Bucket,
        envelope: &[u8],
    ) -> Result<Bytes, Unsealable> {
        // Others may have used a key up since it was looked at.
        for _ in 0..TRIES {
            if let Some(row) = self.epoch_key(to)?.seal(mailbox.0, bucket, &random(), envelope) {
                return Ok(row.into());
            }
        }
        Err(Unsealable)
    }

    /// Wipes every epoch key that nobody is sealing with at this moment.
    pub fn end_epoch(&self) {
        for shard in &self.shards {
            *lock(shard) = Epoch::begin();
        }
    }

    fn epoch_key(&self, to: &QueuePublicKey) -> Result<Arc<EpochKey>, Unsealable> {
        // The bytes of a public key are spread evenly.
        let shard = &self.shards[usize::from(to.as_bytes()[0]) % SHARDS];
        if let Some(known) = lock(shard).current().get(to).filter(|known| !known.is_spent()) {
            return Ok(Arc::clone(known));
        }
        // Outside the lock: agreeing takes as long as sealing a hundred envelopes. Of two that agree at once both are good.
        let ephemeral = Zeroizing::new(random());
        let agreed = Arc::new(EpochKey::new(to, &ephemeral).map_err(|_| Unsealable)?);
        let mut shard = lock(shard);
        let keys = shard.current();
        if keys.len() >= KEYS_PER_SHARD {
            keys.clear();
        }
        keys.insert(*to, Arc::clone(&agreed));
        Ok(agreed)
    }
}

impl Epoch {
    fn begin() -> Self {
        Self {
            ends: Instant::now() + EPOCH,
            keys: HashMap::new(),
        }
    }

    /// The keys of now, also when nobody came by at the end of an epoch.
    fn current(&mut self) -> &mut HashMap<QueuePublicKey, Arc<EpochKey>> {
        if Instant::now() >= self.ends {
            *self = Self::begin();
        }
        &mut self.keys
    }
}

/// Ends an epoch after the other until `stop`, and the last with it.
pub async fn run_epochs(seals: Arc<QueueSeals>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EPOCH)).await.is_some() {
        seals.end_epoch();
    }
    seals.end_epoch();
}

/// Keys of mailboxes whose device has not brought one of its own yet: it is from before queues were sealed. The server
/// makes such a pair and keeps the private half under a key outside the database, until the device connects.
#[derive(Clone)]
pub struct InterimKeys(SealingKey);

impl InterimKeys {
    /// Keeps private halves under this key.
    pub fn new(key: SealingKey) -> Self {
        Self(key)
    }

    /// A new pair: its public half, and the private half as it is stored.
    pub fn make(&self, mailbox: MailboxId) -> (QueuePublicKey, Sealed) {
        let key = QueueKey::from_bytes(random());
        (key.public_key(), self.0.seal(&mailbox.0.to_be_bytes(), key.as_bytes()))
    }

    /// The private half that [`Self::make`] sealed for the same mailbox.
    pub fn open(&self, mailbox: MailboxId, sealed: &Sealed) -> Option<QueueKey> {
        let bytes = self.0.open(&mailbox.0.to_be_bytes(), &sealed.0)?;
        Some(QueueKey::from_bytes(bytes.as_slice().try_into().ok()?))
    }
}

fn lock(shard: &Shard) -> MutexGuard<'_, Epoch> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

const EPOCH: Duration = Duration::from_secs(3600);
const TRIES: usize = 3;
const SHARDS: usize = 64;
/// With all shards 65,536 devices. A full shard starts over, which costs its devices one agreement more.
const KEYS_PER_SHARD: usize = 1024;

#[cfg(test)]
mod tests {
    use keys_schema::sealed_queue::Opener;

    use super::*;

    const BOB: MailboxId = MailboxId(7);

    fn key(seed: u8) -> QueueKey {
        QueueKey::from_bytes([seed; 32])
    }

    fn seal(seals: &QueueSeals, seed: u8) -> SealedEnvelope {
        seals.seal(BOB, &key(seed).public_key(), 11, b"an envelope").unwrap()
    }

    /// What the rows of one epoch have in common.
    fn encapsulated(sealed: &SealedEnvelope) -> &[u8] {
        &sealed.row[..32]
    }

    #[test]
    fn what_is_sealed_opens_with_the_devices_key() {
        let seals = QueueSeals::default();
        let sealed = seal(&seals, 1);
        let mut opener = Opener::new(&key(1));
        let opened = opener.open(BOB.0, sealed.bucket, sealed.row.clone());
        assert_eq!(opened.as_deref(), Some(&b"an envelope"[..]));
        let again = seals
            .seal_again(BOB, &key(2).public_key(), sealed.bucket, b"x")
            .unwrap();
        assert_eq!(again.len(), sealed.row.len());
    }

    #[test]
    fn one_agreement_serves_a_device_for_an_epoch_and_no_row_equals_another() {
        let seals = QueueSeals::default();
        let (one, two, other) = (seal(&seals, 1), seal(&seals, 1), seal(&seals, 2));
        assert_eq!(encapsulated(&one), encapsulated(&two));
        assert_ne!(encapsulated(&one), encapsulated(&other));
        assert_ne!(one.row[32..], two.row[32..]);
    }

    #[tokio::test(start_paused = true)]
    async fn b10_epoch_keys_are_gone_with_their_epoch() {
        let seals = Arc::new(QueueSeals::default());
        let epochs = tokio::spawn(run_epochs(Arc::clone(&seals), CancellationToken::new()));
        let first = seal(&seals, 1);
        let weak = Arc::downgrade(&seals.epoch_key(&key(1).public_key()).unwrap());
        tokio::time::sleep(EPOCH - Duration::from_secs(1)).await;
        assert!(weak.upgrade().is_some());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(weak.upgrade().is_none(), "the key is dropped, and wiped by that");
        assert_ne!(encapsulated(&first), encapsulated(&seal(&seals, 1)));
        epochs.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn b10_an_epoch_ends_also_when_nobody_ends_it() {
        let seals = QueueSeals::default();
        let first = seal(&seals, 1);
        tokio::time::advance(EPOCH).await;
        assert_ne!(encapsulated(&first), encapsulated(&seal(&seals, 1)));
    }

    #[test]
    fn a_full_shard_starts_over() {
        let seals = QueueSeals::default();
        let agreed = seals.epoch_key(&key(1).public_key()).unwrap();
        let shard = &seals.shards[usize::from(key(1).public_key().as_bytes()[0]) % SHARDS];
        for n in 1..KEYS_PER_SHARD {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            let other = QueuePublicKey::from_bytes(bytes);
            lock(shard).current().insert(other, Arc::clone(&agreed));
        }
        lock(shard).current().remove(&key(1).public_key());
        lock(shard)
            .current()
            .insert(QueuePublicKey::from_bytes([9; 32]), agreed);
        seals.epoch_key(&key(1).public_key()).unwrap();
        assert_eq!(lock(shard).current().len(), 1);
    }

    #[test]
    fn nothing_is_sealed_to_no_key() {
        let seals = QueueSeals::default();
        let nobody = QueuePublicKey::from_bytes([0; 32]);
        assert_eq!(seals.seal(BOB, &nobody, 1, b"x").unwrap_err(), Unsealable);
    }

    #[test]
    fn an_interim_key_opens_for_its_mailbox_only() {
        let keys = InterimKeys::new(SealingKey::derive(b"pepper", b"", "test"));
        let (public, sealed) = keys.make(BOB);
        assert_eq!(keys.open(BOB, &sealed).unwrap().public_key(), public);
        assert!(keys.open(MailboxId(8), &sealed).is_none());
        let other = InterimKeys::new(SealingKey::derive(b"other", b"", "test"));
        assert!(other.open(BOB, &sealed).is_none());
    }
}
