//! Public keys as clients serialise them: a type byte, then the key.

use bytes::Bytes;
use curve25519_dalek::{MontgomeryPoint, Scalar};

use crate::DecodeError;
use crate::opaque_debug::opaque_debug;

/// A Curve25519 public key: 0x05, then the 32 bytes of its u coordinate, little-endian.
///
/// Stricter than the official library, which ignores bytes after the 33rd: those would be a place to hide data in the
/// directory, and would make two uploads of one key differ. Like the library it takes any 32 bytes for a coordinate;
/// [`is_weak`](Self::is_weak) tells which of them nobody generates.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EcPublicKey([u8; Self::LENGTH]);

impl EcPublicKey {
    /// Length of the serialised key in bytes, type byte included.
    pub const LENGTH: usize = 33;

    /// Reads a serialised key.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Length`] unless there are exactly 33 bytes, [`DecodeError::TypeByte`] unless the first is 0x05.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "Curve25519 public key";
        let key = <[u8; Self::LENGTH]>::try_from(bytes).map_err(|_| DecodeError::Length {
            what: WHAT,
            expected: Self::LENGTH,
        })?;
        if key[0] != EC_TYPE {
            return Err(DecodeError::TypeByte { what: WHAT });
        }
        Ok(Self(key))
    }

    /// The serialised key, as it was parsed: 33 bytes.
    #[must_use]
    pub const fn serialized(&self) -> &[u8] {
        &self.0
    }

    /// Whether no honest key pair has this public key, so that the directory may refuse it.
    ///
    /// True for the points of order 1, 2, 4 and 8 of the curve and of its twist, with which every agreement gives the
    /// same secret, and for every encoding of a coordinate that is not the canonical one: a number of at least
    /// 2^255 - 19, be it by the unused top bit, is a second name for a key. Not constant-time: the key is public.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        let u = self.u_coordinate();
        // The ladder works on u alone, thus on the twist too, and answers zero for the neutral element.
        let cleared = MontgomeryPoint(u) * Scalar::from(COFACTOR);
        !is_canonical(&u) || cleared.to_bytes() == [0; 32]
    }

    pub(crate) fn from_u_coordinate(u: [u8; 32]) -> Self {
        let mut key = [EC_TYPE; Self::LENGTH];
        key[1..].copy_from_slice(&u);
        Self(key)
    }

    /// The 32 bytes after the type byte, the top bit as it came.
    pub(crate) fn u_coordinate(&self) -> [u8; 32] {
        let [_, u @ ..] = self.0;
        u
    }
}

/// An account's long-term public key, which signs its prekeys. Serialised as an [`EcPublicKey`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdentityKey(EcPublicKey);

impl IdentityKey {
    /// Reads a serialised key.
    ///
    /// # Errors
    ///
    /// As [`EcPublicKey::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        EcPublicKey::parse(bytes).map(Self)
    }

    /// The serialised key, as it was parsed: 33 bytes.
    #[must_use]
    pub const fn serialized(&self) -> &[u8] {
        self.0.serialized()
    }

    /// The key without its role.
    #[must_use]
    pub const fn as_ec(&self) -> &EcPublicKey {
        &self.0
    }

    /// As [`EcPublicKey::is_weak`].
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.0.is_weak()
    }
}

impl From<EcPublicKey> for IdentityKey {
    fn from(key: EcPublicKey) -> Self {
        Self(key)
    }
}

/// A Kyber1024 public key: 0x08, then 1568 bytes.
///
/// The bytes after the type byte are not looked at, as in the official library: a malformed one costs its owner's
/// correspondents a session, and the owner signed it. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KyberPublicKey(Bytes);

impl KyberPublicKey {
    /// Length of the serialised key in bytes, type byte included.
    pub const LENGTH: usize = 1569;

    /// Reads a serialised key, copying it.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Length`] unless there are exactly 1569 bytes, [`DecodeError::TypeByte`] unless the first is 0x08:
    /// Kyber768 (0x07) and ML-KEM-1024 (0x0A) have type bytes, but no client takes them for prekeys.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "Kyber1024 public key";
        if bytes.len() != Self::LENGTH {
            return Err(DecodeError::Length {
                what: WHAT,
                expected: Self::LENGTH,
            });
        }
        if bytes.first() != Some(&KYBER1024_TYPE) {
            return Err(DecodeError::TypeByte { what: WHAT });
        }
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }

    /// The serialised key, as it was parsed: 1569 bytes.
    #[must_use]
    pub fn serialized(&self) -> &[u8] {
        &self.0
    }
}

opaque_debug!(EcPublicKey, IdentityKey, KyberPublicKey);

const EC_TYPE: u8 = 0x05;
const KYBER1024_TYPE: u8 = 0x08;
const COFACTOR: u64 = 8;

/// Whether the little-endian number is below 2^255 - 19 = 0x7fff…ffed.
fn is_canonical(u: &[u8; 32]) -> bool {
    let [first, middle @ .., last] = u;
    *last < 0x7f || (*last == 0x7f && (*first < 0xed || middle.iter().any(|byte| *byte != 0xff)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The coordinates of low order below 2^255 - 19, as Bernstein lists them (<https://cr.yp.to/ecdh.html>): 0, 1, the
    /// two of order 8, and -1, which is on the twist.
    const LOW_ORDER: [[u8; 32]; 5] = [
        [0; 32],
        little_endian(1, 0, 0),
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
            0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
            0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
        ],
        little_endian(0xec, 0xff, 0x7f),
    ];

    const fn little_endian(first: u8, middle: u8, last: u8) -> [u8; 32] {
        let mut u = [middle; 32];
        u[0] = first;
        u[31] = last;
        u
    }

    fn ec(u: [u8; 32]) -> EcPublicKey {
        let mut bytes = vec![0x05];
        bytes.extend_from_slice(&u);
        EcPublicKey::parse(&bytes).expect("any coordinate parses")
    }

    #[test]
    fn ec_keys_have_one_length_and_one_type_byte() {
        for length in (0..100).filter(|length| *length != 33) {
            let expected = DecodeError::Length {
                what: "Curve25519 public key",
                expected: 33,
            };
            assert_eq!(EcPublicKey::parse(&vec![0x05; length]), Err(expected));
            assert_eq!(IdentityKey::parse(&vec![0x05; length]), Err(expected));
        }
        for first in (0..=0xff).filter(|first| *first != 0x05) {
            let mut bytes = [0x09; 33];
            bytes[0] = first;
            let expected = DecodeError::TypeByte {
                what: "Curve25519 public key",
            };
            assert_eq!(EcPublicKey::parse(&bytes), Err(expected));
        }
    }

    #[test]
    fn kyber_keys_have_one_length_and_one_type_byte() {
        for length in [0, 1, 33, 1184, 1185, 1568, 1570, 4096] {
            let expected = DecodeError::Length {
                what: "Kyber1024 public key",
                expected: 1569,
            };
            assert_eq!(KyberPublicKey::parse(&vec![0x08; length]), Err(expected));
        }
        for first in (0..=0xff).filter(|first| *first != 0x08) {
            let mut bytes = vec![0xff; 1569];
            bytes[0] = first;
            let expected = DecodeError::TypeByte {
                what: "Kyber1024 public key",
            };
            assert_eq!(KyberPublicKey::parse(&bytes), Err(expected));
        }
    }

    #[test]
    fn keys_serialise_as_they_came() {
        let bytes = [0x05; 33];
        assert_eq!(EcPublicKey::parse(&bytes).expect("parses").serialized(), bytes);
        assert_eq!(IdentityKey::parse(&bytes).expect("parses").serialized(), bytes);
        let bytes = [0x08; 1569];
        assert_eq!(KyberPublicKey::parse(&bytes).expect("parses").serialized(), bytes);
    }

    #[test]
    fn points_of_low_order_are_weak_with_and_without_the_top_bit() {
        for mut u in LOW_ORDER {
            assert!(ec(u).is_weak());
            assert!(is_canonical(&u));
            u[31] |= 0x80;
            assert!(ec(u).is_weak());
        }
    }

    #[test]
    fn every_non_canonical_coordinate_is_weak() {
        for first in 0xed..=0xff {
            assert!(!is_canonical(&little_endian(first, 0xff, 0x7f)));
            assert!(ec(little_endian(first, 0xff, 0x7f)).is_weak());
            assert!(ec(little_endian(first, 0xff, 0xff)).is_weak());
        }
        assert!(ec(little_endian(9, 0, 0x80)).is_weak());
    }

    #[test]
    fn canonical_coordinates_of_high_order_are_not_weak() {
        // The base point, others on the curve (4, 6) and on the twist (2, 3), and numbers just below 2^255 - 19.
        for first in [9, 4, 6, 2, 3] {
            assert!(!ec(little_endian(first, 0, 0)).is_weak(), "{first}");
        }
        assert!(!ec(little_endian(0xeb, 0xff, 0x7f)).is_weak());
        assert!(!ec(little_endian(0xff, 0xff, 0x7e)).is_weak());
        let mut nearly_p = little_endian(0xff, 0xff, 0x7f);
        nearly_p[15] = 0xfe;
        assert!(!ec(nearly_p).is_weak());
    }

    #[test]
    fn an_identity_key_is_as_weak_as_its_key() {
        assert!(IdentityKey::from(ec([0; 32])).is_weak());
        assert!(!IdentityKey::from(ec(little_endian(9, 0, 0))).is_weak());
    }

    #[test]
    fn debug_shows_no_key() {
        let key = ec([0; 32]);
        assert_eq!(format!("{key:?}"), "EcPublicKey");
        assert_eq!(format!("{:?}", IdentityKey::from(key)), "IdentityKey");
        let kyber = KyberPublicKey::parse(&[0x08; 1569]).expect("parses");
        assert_eq!(format!("{kyber:?}"), "KyberPublicKey");
    }
}
