//! What a device reads of its queue: stored sealed, handed out open.
//!
//! The device's queue key is here only while it reads: the connection holds it, and nothing else does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use keys_schema::sealed_queue::{Opener, QueueKey, QueuePublicKey};

use crate::domain::{Actor, MailboxId, NewCredential, PageLimit, Queued, Rekey, SealedEnvelope, Seq};
use crate::storage::StorageError;
use crate::telemetry::metrics;

use super::accept::Relay;

/// Opens the rows of one device, for all that a connection of it is doing at a time.
#[derive(Clone)]
pub struct QueueOpener(Arc<Mutex<Opener>>);

impl QueueOpener {
    /// Opens with this key.
    pub fn new(key: &QueueKey) -> Self {
        Self(Arc::new(Mutex::new(Opener::new(key))))
    }

    /// Its key, for a token that carries it.
    pub fn key(&self) -> QueueKey {
        self.lock().key()
    }

    /// The public half of its key.
    pub fn public_key(&self) -> QueuePublicKey {
        *self.lock().public_key()
    }

    fn open(&self, mailbox: MailboxId, sealed: SealedEnvelope) -> Option<Bytes> {
        self.lock().open(mailbox.0, sealed.bucket, sealed.row)
    }

    fn lock(&self) -> MutexGuard<'_, Opener> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page of a queue.
#[derive(Debug)]
pub enum Page {
    /// The oldest envelopes after the one that was named. Empty means that there was none.
    Envelopes(Vec<Queued>),
    /// The mailbox has another key by now: the device has another password.
    OtherKey,
}

impl Relay {
    /// The head of the mailbox of a device that has shown its password. What the server sealed to a key of its own, before
    /// the device brought one, is sealed to the device's key on the way. `None` if the device is gone, or the key is another
    /// than that of the mailbox.
    pub async fn open_mailbox(&self, by: &Actor, opener: &QueueOpener) -> Result<Option<Seq>, StorageError> {
        let key = opener.public_key();
        for _ in 0..ROUNDS {
            let Some(mailbox) = self.queue.mailbox(by.mailbox).await? else {
                return Ok(None);
            };
            if mailbox.key == key {
                return Ok(Some(mailbox.last));
            }
            let interim = mailbox.interim.as_ref();
            let Some(interim) = interim.and_then(|sealed| self.interim.open(by.mailbox, sealed)) else {
                return Ok(None);
            };
            if self.rekey(by, &QueueOpener::new(&interim), &key, None).await? {
                // Other nodes learn of it when they meet the new key; this one need not.
                self.accounts.forget(by.address.aci);
            }
        }
        Ok(None)
    }

    /// Gives the mailbox of the device that asks another key, with another password if one is named, and seals anew what is
    /// in it; `false` if the device is gone or `old` is not its key.
    pub async fn rekey(
        &self,
        by: &Actor,
        old: &QueueOpener,
        new: &QueuePublicKey,
        credential: Option<NewCredential>,
    ) -> Result<bool, StorageError> {
        // Before anything of storage is held: whoever changes passwords in a loop waits for itself. It is never closed.
        let _turn = self.rekeying.acquire().await;
        let reseal = |sealed: &SealedEnvelope| {
            let Some(envelope) = old.open(by.mailbox, sealed.clone()) else {
                metrics::unopened(1);
                return None;
            };
            // Does not fail for a key that was derived from a secret.
            self.seals.seal_again(by.mailbox, new, sealed.bucket, &envelope).ok()
        };
        let rekey = Rekey {
            from: old.public_key(),
            to: *new,
            reseal: &reseal,
            credential,
        };
        self.queue.rekey(by, &rekey).await
    }

    /// A page of a queue. What cannot be opened is passed over, and goes when its day comes.
    pub async fn pending(
        &self,
        mailbox: MailboxId,
        opener: &QueueOpener,
        mut after: Seq,
        limit: PageLimit,
    ) -> Result<Page, StorageError> {
        loop {
            let stored = self.queue.pending(mailbox, after, limit).await?;
            let Some(last) = stored.last() else {
                return Ok(Page::Envelopes(vec![]));
            };
            after = last.seq;
            let rows = stored.len();
            let opened = stored.into_iter().filter_map(|stored| {
                Some(Queued {
                    seq: stored.seq,
                    content: opener.open(mailbox, stored.sealed)?,
                })
            });
            let opened: Vec<_> = opened.collect();
            if opened.len() < rows {
                let now = self.queue.mailbox(mailbox).await?;
                if now.is_none_or(|mailbox| mailbox.key != opener.public_key()) {
                    return Ok(Page::OtherKey);
                }
                metrics::unopened(rows - opened.len());
                tracing::error!(envelopes = rows - opened.len(), "queued envelopes could not be opened");
            }
            if !opened.is_empty() {
                return Ok(Page::Envelopes(opened));
            }
        }
    }
}

/// Another connection of the same device may be at it at the same time.
const ROUNDS: usize = 3;
