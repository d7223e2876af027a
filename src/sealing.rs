//! Authenticated encryption and key derivation for what must be stored but not read.
//!
//! Sealed bytes are `nonce (24) ‖ XChaCha20-Poly1305 ciphertext and tag`. Nonces are random: 192 bits are enough for any
//! number of messages under one key. The context string is authenticated with the bytes, so that a sealed value moved to
//! another row, column or message does not open.

pub mod queue;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::domain::Sealed;

/// A key that seals and opens. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SealingKey([u8; 32]);

impl SealingKey {
    /// Derives the key of one purpose from a secret with HKDF-SHA-256 (RFC 5869). `purpose` names what the key is for;
    /// equal inputs give equal keys.
    pub fn derive(secret: &[u8], salt: &[u8], purpose: &str) -> Self {
        Self(*derive_bytes(secret, salt, purpose))
    }

    /// A key that was made elsewhere.
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for what carries it.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Seals `plaintext` for the given context.
    pub fn seal(&self, context: &[u8], plaintext: &[u8]) -> Sealed {
        self.seal_with(&random(), context, plaintext)
    }

    /// As [`Self::seal`], with a nonce of the caller's: for what must come out the same again. Two texts never have one.
    pub(crate) fn seal_with(&self, nonce_bytes: &[u8; NONCE_BYTES], context: &[u8], plaintext: &[u8]) -> Sealed {
        let mut sealed = nonce_bytes.to_vec();
        let nonce = nonce(&sealed);
        let ciphertext = XChaCha20Poly1305::new(&self.0.into())
            .encrypt(
                &nonce,
                Payload {
                    msg: plaintext,
                    aad: context,
                },
            )
            .expect("XChaCha20-Poly1305 only refuses messages of 256 GiB and more");
        sealed.extend_from_slice(&ciphertext);
        Sealed(sealed)
    }

    /// The plaintext, or `None` if it was not sealed with this key for this context.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce_bytes, ciphertext) = sealed.split_at_checked(NONCE_BYTES)?;
        XChaCha20Poly1305::new(&self.0.into())
            .decrypt(
                &nonce(nonce_bytes),
                Payload {
                    msg: ciphertext,
                    aad: context,
                },
            )
            .ok()
            .map(Zeroizing::new)
    }
}

/// 32 bytes for one purpose, derived from a secret with HKDF-SHA-256 (RFC 5869).
pub fn derive_bytes(secret: &[u8], salt: &[u8], purpose: &str) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand(purpose.as_bytes(), bytes.as_mut_slice())
        .expect("HKDF-SHA-256 gives up to 8160 bytes");
    bytes
}

/// Fills the buffer from the operating system's generator.
///
/// # Panics
/// If the operating system has no randomness to give: nothing secure can be done then.
pub fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system provides randomness");
}

/// Fresh random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

fn nonce(bytes: &[u8]) -> XNonce {
    let mut nonce = XNonce::default();
    nonce.copy_from_slice(&bytes[..NONCE_BYTES]);
    nonce
}

pub(crate) const NONCE_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SealingKey {
        SealingKey::derive(b"secret", b"salt", "test")
    }

    #[test]
    fn opens_what_it_sealed() {
        let sealed = key().seal(b"context", b"+15550100");
        assert_eq!(key().open(b"context", &sealed.0).unwrap().as_slice(), b"+15550100");
    }

    #[test]
    fn another_key_context_or_byte_does_not_open() {
        let sealed = key().seal(b"context", b"text").0;
        assert!(
            SealingKey::derive(b"secret", b"salt", "other")
                .open(b"context", &sealed)
                .is_none()
        );
        assert!(key().open(b"other", &sealed).is_none());
        for i in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[i] ^= 1;
            assert!(key().open(b"context", &changed).is_none(), "byte {i}");
            assert!(key().open(b"context", &sealed[..i]).is_none(), "first {i} bytes");
        }
    }

    #[test]
    fn the_same_text_is_never_sealed_to_the_same_bytes() {
        assert_ne!(key().seal(b"", b"text"), key().seal(b"", b"text"));
    }
}
