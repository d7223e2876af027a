//! A device's queue and the key to which it is sealed.

use std::fmt;

use bytes::Bytes;
use keys_schema::sealed_queue::QueuePublicKey;

use super::{Sealed, SealedEnvelope, SecretVerifier, Seq};

/// A mailbox as its device finds it.
#[derive(Clone)]
pub struct Mailbox {
    /// The number given out last.
    pub last: Seq,
    /// The key to which its envelopes are sealed.
    pub key: QueuePublicKey,
    /// The private half of that key, sealed under a key outside the database, if the server made the pair: for a device
    /// from before queues were sealed, until it connects.
    pub interim: Option<Sealed>,
}

/// Another key for a mailbox, and the envelopes in it sealed anew.
pub struct Rekey<'a> {
    /// The key that it has; with another one nothing happens.
    pub from: QueuePublicKey,
    /// The key that it gets.
    pub to: QueuePublicKey,
    /// Seals a row anew, into the same bucket. A row that it cannot open stays as it is.
    pub reseal: &'a (dyn Fn(&SealedEnvelope) -> Option<Bytes> + Send + Sync),
    /// The device's new password, if that is why.
    pub credential: Option<NewCredential>,
}

/// What is stored of a device's new password.
#[derive(Clone)]
pub struct NewCredential {
    /// Recognises it.
    pub verifier: SecretVerifier,
    /// The account's number, sealed to a key derived from it.
    pub sealed_number: Sealed,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mailbox")
    }
}
