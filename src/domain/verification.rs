//! Proof that a client may use a number, before there is an account.

use std::fmt;

use super::{NumberHash, Sealed, SessionKey, Timestamp};

/// Codes that may be tried in one session.
pub const MAX_ATTEMPTS: u16 = 5;

/// Codes that may be sent in one session.
pub const MAX_CODES: u16 = 5;

/// One attempt to verify a number. Found again by the hash of an id that only the client has.
#[derive(Clone, Debug)]
pub struct VerificationSession {
    /// How it is found.
    pub key: SessionKey,
    /// The number it verifies.
    pub number: NumberHash,
    /// Where codes go, the number itself or an e-mail address, sealed to a key derived from the session's id: needed while a
    /// code is sent.
    pub sealed_number: Sealed,
    /// Whether the right code was given.
    pub verified: bool,
    /// Whether that was the code of an invite that starts no account over: it says nothing about the number.
    pub new_only: bool,
    /// Codes tried so far.
    pub attempts: u16,
    /// Codes sent so far.
    pub codes_sent: u16,
    /// Whether there is a code that would be right.
    pub has_code: bool,
    /// From when on another code may be sent.
    pub next_code: Option<Timestamp>,
    /// Whether the client has done the work that was asked for.
    pub worked: bool,
    /// When it is dropped.
    pub expires: Timestamp,
}

impl VerificationSession {
    /// Whether too many wrong codes were tried.
    pub fn is_locked(&self) -> bool {
        !self.verified && self.attempts >= MAX_ATTEMPTS
    }
}

/// A code that was sent, hashed under a key that is derived from what only the client and the pepper have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CodeHash(pub [u8; 32]);

impl fmt::Debug for CodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeHash")
    }
}

/// A code as a client tries it.
#[derive(Clone, Copy, Debug)]
pub enum Attempt {
    /// It was judged already.
    Judged(bool),
    /// It is right if it is the one that was sent last.
    Code(CodeHash),
}

/// What became of something that a client did to its session.
#[derive(Clone, Debug)]
pub struct Done {
    /// Whether it counted. Only what an open session allows does.
    pub counted: bool,
    /// The session as it is afterwards.
    pub session: VerificationSession,
}
