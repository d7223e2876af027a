//! Secrets in the forms in which they may be stored. Making and checking them is `auth`'s business.

/// A salted hash by which a high-entropy secret is recognised.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretVerifier {
    /// Random, per secret.
    pub salt: [u8; 16],
    /// HKDF-SHA-256 of the secret under that salt.
    pub hash: [u8; 32],
}

/// A phone number's keyed hash. The key (pepper) is not in the database.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NumberHash(pub [u8; 32]);

/// SHA-256 of a verification session's id. The id itself is known to the client alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey(pub [u8; 32]);

/// SHA-256 of a link token. The token itself is known to the primary, and to whom it gives it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkTokenHash(pub [u8; 32]);

/// Bytes encrypted and authenticated under a key that is not in the database.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

opaque_debug!(SecretVerifier, NumberHash, SessionKey, LinkTokenHash, Sealed);
