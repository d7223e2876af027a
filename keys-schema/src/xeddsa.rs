//! XEdDSA signatures over Curve25519, as clients make them and as the server signs certificates.
//!
//! The scheme is Trevor Perrin's "The XEdDSA and VXEdDSA Signature Schemes", with the difference all clients share: the
//! signer does not force its Edwards key to sign 0, and carries the sign in the top bit of the signature's last byte.
//! A signature made to the letter of the paper has that bit clear and verifies as well.

use curve25519_dalek::{EdwardsPoint, MontgomeryPoint, Scalar};
use sha2::{Digest, Sha512};
use zeroize::{Zeroize, Zeroizing};

use crate::{IdentityKey, PrivateKey, Signature};

/// Signs `message` with `private`.
///
/// `random` must be fresh for each call. If it is not, the signature is as good as one without it: the nonce also
/// depends on the key and the message, and the random bytes are there against faults and leaks of the computation.
/// Constant-time in the key.
#[must_use]
pub fn sign(private: &PrivateKey, message: &[u8], random: &[u8; 64]) -> Signature {
    let mut a = private.scalar();
    let public = EdwardsPoint::mul_base(&a).compress().to_bytes();
    let nonce: Zeroizing<[u8; 64]> = Zeroizing::new(
        Sha512::new()
            .chain_update(NONCE_PREFIX)
            .chain_update(private.as_bytes())
            .chain_update(message)
            .chain_update(random)
            .finalize()
            .into(),
    );
    let mut r = Scalar::from_bytes_mod_order_wide(&nonce);
    let commitment = EdwardsPoint::mul_base(&r).compress().to_bytes();
    let challenge = Sha512::new()
        .chain_update(commitment)
        .chain_update(public)
        .chain_update(message)
        .finalize();
    let s = r + Scalar::from_bytes_mod_order_wide(&challenge.into()) * a;
    a.zeroize();
    r.zeroize();
    let mut signature = [0; Signature::LENGTH];
    signature[..32].copy_from_slice(&commitment);
    signature[32..].copy_from_slice(&s.to_bytes());
    signature[63] |= public[31] & SIGN_BIT;
    Signature::from(signature)
}

/// Whether `signature` is one of `message` by `key`.
///
/// Agrees with the official library's verdict, also on keys that nobody generates: a coordinate is taken modulo
/// 2^255 - 19 and without its top bit, one that is on the twist alone verifies nothing, and one of low order may verify
/// anything. Whoever lets strangers choose `key` refuses [weak](crate::EcPublicKey::is_weak) ones first.
///
/// Not constant-time: all three arguments are public.
#[must_use]
pub fn verify(key: &IdentityKey, message: &[u8], signature: &Signature) -> bool {
    let (r, mut s) = split(signature.as_bytes());
    let sign = s[31] >> 7;
    s[31] &= !SIGN_BIT;
    if s[31] & UNUSED_BITS != 0 {
        return false;
    }
    let Some(a) = MontgomeryPoint(key.as_ec().u_coordinate()).to_edwards(sign) else {
        return false;
    };
    let challenge = Sha512::new()
        .chain_update(r)
        .chain_update(a.compress().as_bytes())
        .chain_update(message)
        .finalize();
    let h = Scalar::from_bytes_mod_order_wide(&challenge.into());
    // The point is negated and not the scalar: with a component of low order in `a` the two differ.
    let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&h, &-a, &Scalar::from_bytes_mod_order(s));
    expected.compress().to_bytes() == r
}

/// Of the hash that makes nonces: 2^256 - 2, little-endian, which no encoding of a point is.
const NONCE_PREFIX: [u8; 32] = {
    let mut prefix = [0xff; 32];
    prefix[0] = 0xfe;
    prefix
};
/// The top bit of the last byte: the sign of the signer's Edwards key.
const SIGN_BIT: u8 = 0x80;
/// The bits of the last byte that no scalar below the group's order of 2^252 and a little has set.
const UNUSED_BITS: u8 = 0xe0;

fn split(signature: &[u8; 64]) -> ([u8; 32], [u8; 32]) {
    let (mut r, mut s) = ([0; 32], [0; 32]);
    r.copy_from_slice(&signature[..32]);
    s.copy_from_slice(&signature[32..]);
    (r, s)
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;
    use curve25519_dalek::traits::Identity;

    use super::*;

    const MESSAGE: &[u8] = b"a serialised prekey";
    /// The group's order, little-endian.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];

    struct Signed {
        key: IdentityKey,
        signature: [u8; 64],
        challenge: Scalar,
    }

    /// Signs [`MESSAGE`] with `private`, under the public key displaced by `torsion`.
    fn sign(private: u64, torsion: EdwardsPoint, nonce: u64) -> Signed {
        let (private, nonce) = (Scalar::from(private), Scalar::from(nonce));
        let public = EdwardsPoint::mul_base(&private) + torsion;
        let encoded = public.compress().to_bytes();
        let r = EdwardsPoint::mul_base(&nonce).compress().to_bytes();
        let hash = Sha512::new()
            .chain_update(r)
            .chain_update(encoded)
            .chain_update(MESSAGE)
            .finalize();
        let challenge = Scalar::from_bytes_mod_order_wide(&hash.into());
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(&(nonce + challenge * private).to_bytes());
        signature[63] |= encoded[31] & SIGN_BIT;
        Signed {
            key: identity(public.to_montgomery().to_bytes()),
            signature,
            challenge,
        }
    }

    fn identity(u: [u8; 32]) -> IdentityKey {
        let mut bytes = vec![0x05];
        bytes.extend_from_slice(&u);
        IdentityKey::parse(&bytes).expect("any coordinate parses")
    }

    fn accepts(key: &IdentityKey, signature: &[u8; 64]) -> bool {
        verify(key, MESSAGE, &Signature::parse(signature).expect("64 bytes"))
    }

    #[test]
    fn accepts_either_sign_of_the_signers_key() {
        let mut signs = [0, 0];
        for private in 1..40 {
            let signed = sign(private, EdwardsPoint::identity(), 1000 + private);
            assert!(accepts(&signed.key, &signed.signature));
            signs[usize::from(signed.signature[63] >> 7)] += 1;
        }
        assert!(signs[0] > 0 && signs[1] > 0, "both signs occur: {signs:?}");
    }

    #[test]
    fn refuses_another_message_key_or_sign() {
        let mut signed = sign(3, EdwardsPoint::identity(), 5);
        let other = sign(4, EdwardsPoint::identity(), 5);
        assert!(!accepts(&other.key, &signed.signature));
        let signature = Signature::parse(&signed.signature).expect("64 bytes");
        assert!(!verify(&signed.key, b"another", &signature));
        signed.signature[63] ^= SIGN_BIT;
        assert!(!accepts(&signed.key, &signed.signature));
    }

    #[test]
    fn what_is_signed_here_verifies_whatever_the_sign_of_the_key() {
        let mut signs = [0, 0];
        for seed in 0..40 {
            let private = PrivateKey::from_bytes(&[seed; 32]);
            let key = IdentityKey::from(private.public_key());
            let signature = super::sign(&private, MESSAGE, &[seed ^ 0x55; 64]);
            assert!(verify(&key, MESSAGE, &signature));
            assert!(!verify(&key, b"another", &signature));
            signs[usize::from(signature.as_bytes()[63] >> 7)] += 1;
        }
        assert!(signs[0] > 0 && signs[1] > 0, "both signs occur: {signs:?}");
    }

    #[test]
    fn nonces_differ_by_key_message_and_random_bytes() {
        let nonce = |seed: u8, message: &[u8], random: u8| {
            let signature = super::sign(&PrivateKey::from_bytes(&[seed; 32]), message, &[random; 64]);
            signature.as_bytes()[..32].to_vec()
        };
        let first = nonce(9, MESSAGE, 1);
        assert_eq!(first, nonce(9, MESSAGE, 1));
        assert_ne!(first, nonce(17, MESSAGE, 1));
        assert_ne!(first, nonce(9, b"another", 1));
        assert_ne!(first, nonce(9, MESSAGE, 2));
    }

    /// The paper bounds s by its bits and not by the order, and the clients follow it: a signature is not unique, but
    /// has two forms and not eight.
    #[test]
    fn accepts_s_above_the_order_but_not_above_253_bits() {
        let Signed { key, signature, .. } = sign(1, EdwardsPoint::identity(), 5);
        let one_above = add_order(signature);
        let two_above = add_order(one_above);
        let four_above = add_order(add_order(two_above));
        assert_eq!(
            two_above[63] & (UNUSED_BITS | SIGN_BIT),
            0x20 | signature[63] & SIGN_BIT
        );
        assert_eq!(
            four_above[63] & (UNUSED_BITS | SIGN_BIT),
            0x40 | signature[63] & SIGN_BIT
        );
        assert!(accepts(&key, &one_above));
        assert!(!accepts(&key, &two_above));
        assert!(!accepts(&key, &four_above));
    }

    fn add_order(mut signature: [u8; 64]) -> [u8; 64] {
        let mut carry = 0;
        for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            [*byte, _] = sum.to_le_bytes();
            carry = sum >> 8;
        }
        signature
    }

    /// With the scalar negated instead of the point, other challenges than the multiples of 8 would pass.
    #[test]
    fn a_component_of_low_order_fails_unless_the_challenge_clears_it() {
        let mut passed = 0;
        for nonce in 1..=64 {
            let signed = sign(3, EIGHT_TORSION[1], nonce);
            let cleared = signed.challenge.to_bytes()[0].is_multiple_of(8);
            assert_eq!(accepts(&signed.key, &signed.signature), cleared);
            passed += u32::from(cleared);
        }
        assert!(passed > 0, "some challenge is a multiple of 8");
    }

    #[test]
    fn a_coordinate_counts_modulo_the_field_and_without_its_top_bit() {
        // The base point's coordinate is 9, and one that small has a second encoding: 9 + 2^255 - 19.
        let signed = sign(1, EdwardsPoint::identity(), 5);
        let mut canonical = [0; 32];
        canonical[0] = 9;
        assert_eq!(signed.key, identity(canonical));
        let mut second = [0xff; 32];
        second[0] = 0xf6;
        second[31] = 0x7f;
        for mut u in [canonical, second] {
            assert!(accepts(&identity(u), &signed.signature));
            u[31] |= 0x80;
            assert!(accepts(&identity(u), &signed.signature));
        }
    }

    #[test]
    fn a_coordinate_of_the_twist_verifies_nothing() {
        let mut twist = [0; 32];
        twist[0] = 2;
        let signed = sign(1, EdwardsPoint::identity(), 5);
        assert!(!accepts(&identity(twist), &signed.signature));
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        assert!(!accepts(&identity(minus_one), &signed.signature));
    }

    /// Why the directory refuses weak identity keys: under one of order 4, any s with R = s·B passes for one challenge in
    /// four, whatever the message.
    #[test]
    fn a_key_of_low_order_verifies_a_signature_nobody_made() {
        let mut order_4 = [0; 32];
        order_4[0] = 1;
        let forged = (1..=64).any(|nonce: u64| {
            let mut signature = [0; 64];
            let s = Scalar::from(nonce);
            signature[..32].copy_from_slice(&EdwardsPoint::mul_base(&s).compress().to_bytes());
            signature[32..].copy_from_slice(&s.to_bytes());
            accepts(&identity(order_4), &signature)
        });
        assert!(forged);
        assert!(identity(order_4).is_weak());
    }
}
