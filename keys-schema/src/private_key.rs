//! The private half of a Curve25519 key, as the server signs certificates with it.

use curve25519_dalek::scalar::clamp_integer;
use curve25519_dalek::{EdwardsPoint, Scalar};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::EcPublicKey;
use crate::opaque_debug::opaque_debug;

/// A Curve25519 private key: 32 bytes, little-endian. Wiped when dropped.
///
/// The bytes are clamped as X25519 does it (RFC 7748), so that each key has one form. Neither cloned, compared nor
/// printed; who must store it takes [`as_bytes`](Self::as_bytes) into a buffer that is wiped too.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; Self::LENGTH]);

impl PrivateKey {
    /// Length of the key in bytes.
    pub const LENGTH: usize = 32;

    /// Takes 32 bytes for a key. Random ones make a new key.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::LENGTH]) -> Self {
        Self(clamp_integer(*bytes))
    }

    /// The 32 bytes, clamped.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> EcPublicKey {
        let mut scalar = self.scalar();
        let point = EdwardsPoint::mul_base(&scalar);
        scalar.zeroize();
        EcPublicKey::from_u_coordinate(point.to_montgomery().to_bytes())
    }

    pub(crate) fn scalar(&self) -> Scalar {
        Scalar::from_bytes_mod_order(self.0)
    }
}

opaque_debug!(PrivateKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_form_and_its_public_half() {
        let mut low_bits = [0; 32];
        low_bits[0] = 7;
        low_bits[31] = 0xc0;
        let mut clamped = [0; 32];
        clamped[31] = 0x40;
        let (one, other) = (PrivateKey::from_bytes(&low_bits), PrivateKey::from_bytes(&clamped));
        assert_eq!(one.as_bytes(), &clamped);
        assert_eq!(one.public_key(), other.public_key());
        assert!(!one.public_key().is_weak());
        assert_ne!(one.public_key(), PrivateKey::from_bytes(&[9; 32]).public_key());
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", PrivateKey::from_bytes(&[1; 32])), "PrivateKey");
    }
}
