//! Proof that a client may use a number, before there is an account.

use super::{NumberHash, Sealed, SessionKey, Timestamp};

/// Codes that may be tried in one session.
pub const MAX_ATTEMPTS: u16 = 5;

/// One attempt to verify a number. Found again by the hash of an id that only the client has.
#[derive(Clone, Debug)]
pub struct VerificationSession {
    /// How it is found.
    pub key: SessionKey,
    /// The number it verifies.
    pub number: NumberHash,
    /// The number itself, sealed to a key derived from the session's id: needed while a code is sent.
    pub sealed_number: Sealed,
    /// Whether the right code was given.
    pub verified: bool,
    /// Codes tried so far.
    pub attempts: u16,
    /// When it is dropped.
    pub expires: Timestamp,
}
