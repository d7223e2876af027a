//! Prekeys: the keys a device publishes so that sessions with it can start while it is away.

use sha2::{Digest, Sha256};

use crate::opaque_debug::opaque_debug;
use crate::{DecodeError, EcPublicKey, IdentityKey, KyberPublicKey, xeddsa};

/// The number by which a device finds the private half of a prekey again, 0 to 2^31 - 1.
///
/// Chosen by the device and meaningful only together with the device and the kind of prekey.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(u32);

impl KeyId {
    /// The largest key id.
    pub const MAX: Self = Self((1 << 31) - 1);

    /// Takes a number for a key id.
    ///
    /// # Errors
    ///
    /// [`DecodeError::KeyIdRange`] above [`KeyId::MAX`].
    pub fn new(id: u64) -> Result<Self, DecodeError> {
        match u32::try_from(id) {
            Ok(id) if id <= Self::MAX.0 => Ok(Self(id)),
            _ => Err(DecodeError::KeyIdRange),
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// An XEdDSA signature, 64 bytes, not yet verified.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature([u8; Self::LENGTH]);

impl Signature {
    /// Length of a signature in bytes.
    pub const LENGTH: usize = 64;

    /// Reads a signature; any 64 bytes are one.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Length`] unless there are exactly 64 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.try_into() {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(DecodeError::Length {
                what: "signature",
                expected: Self::LENGTH,
            }),
        }
    }

    /// The 64 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl From<[u8; Self::LENGTH]> for Signature {
    fn from(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }
}

/// A one-time Curve25519 prekey. Unsigned: the session's other keys vouch for it.
#[derive(Clone, PartialEq, Eq)]
pub struct EcPreKey {
    /// The device's number for it.
    pub id: KeyId,
    /// The public key.
    pub key: EcPublicKey,
}

/// A signed Curve25519 prekey, which many sessions may use until the device replaces it.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedEcPreKey {
    /// The device's number for it.
    pub id: KeyId,
    /// The public key.
    pub key: EcPublicKey,
    /// The account's signature of the serialised key.
    pub signature: Signature,
}

/// A signed Kyber1024 prekey, one-time or last-resort: the two look alike to everyone but their owner.
#[derive(Clone, PartialEq, Eq)]
pub struct KyberPreKey {
    /// The device's number for it.
    pub id: KeyId,
    /// The public key.
    pub key: KyberPublicKey,
    /// The account's signature of the serialised key.
    pub signature: Signature,
}

impl SignedEcPreKey {
    /// Whether `identity` signed the serialised key, type byte included.
    ///
    /// The key id is not signed.
    #[must_use]
    pub fn is_signed_by(&self, identity: &IdentityKey) -> bool {
        xeddsa::verify(identity, self.key.serialized(), &self.signature)
    }
}

impl KyberPreKey {
    /// Whether `identity` signed the serialised key, type byte included.
    ///
    /// The key id is not signed.
    #[must_use]
    pub fn is_signed_by(&self, identity: &IdentityKey) -> bool {
        xeddsa::verify(identity, self.key.serialized(), &self.signature)
    }
}

/// The digest by which a device checks that the directory still holds the keys it published for repeated use.
///
/// SHA-256 over the serialised identity key, then for the signed prekey and the last-resort prekey in this order the
/// key id as 8 big-endian bytes and the serialised key. The format is that of `POST /v2/keys/check`.
#[must_use]
pub fn repeated_use_digest(identity: &IdentityKey, signed: &SignedEcPreKey, last_resort: &KyberPreKey) -> [u8; 32] {
    Sha256::new()
        .chain_update(identity.serialized())
        .chain_update(u64::from(signed.id.get()).to_be_bytes())
        .chain_update(signed.key.serialized())
        .chain_update(u64::from(last_resort.id.get()).to_be_bytes())
        .chain_update(last_resort.key.serialized())
        .finalize()
        .into()
}

opaque_debug!(KeyId, Signature, EcPreKey, SignedEcPreKey, KyberPreKey);

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> SignedEcPreKey {
        let mut key = [0x22; 33];
        key[0] = 0x05;
        SignedEcPreKey {
            id: KeyId::new(7).expect("in range"),
            key: EcPublicKey::parse(&key).expect("parses"),
            signature: Signature([0x44; 64]),
        }
    }

    fn last_resort() -> KyberPreKey {
        let mut key = [0x33; 1569];
        key[0] = 0x08;
        KyberPreKey {
            id: KeyId::MAX,
            key: KyberPublicKey::parse(&key).expect("parses"),
            signature: Signature([0x55; 64]),
        }
    }

    fn identity() -> IdentityKey {
        let mut key = [0x11; 33];
        key[0] = 0x05;
        IdentityKey::parse(&key).expect("parses")
    }

    #[test]
    fn key_ids_have_31_bits() {
        for id in [0, 1, 0x00ff_ffff, 0x7fff_ffff] {
            assert_eq!(KeyId::new(id).map(|id| u64::from(id.get())), Ok(id));
        }
        for id in [0x8000_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            assert_eq!(KeyId::new(id), Err(DecodeError::KeyIdRange));
        }
        assert_eq!(KeyId::MAX.get(), 2_147_483_647);
    }

    #[test]
    fn signatures_have_64_bytes() {
        let bytes = [0xab; 64];
        assert_eq!(Signature::parse(&bytes).expect("parses").as_bytes(), &bytes);
        for length in (0..130).filter(|length| *length != 64) {
            let expected = DecodeError::Length {
                what: "signature",
                expected: 64,
            };
            assert_eq!(Signature::parse(&vec![0; length]), Err(expected));
        }
    }

    /// Computed apart from this code: SHA-256 over 05 11×32, 0000000000000007, 05 22×32, 000000007fffffff, 08 33×1568.
    #[test]
    fn repeated_use_digest_has_its_golden_value() {
        let expected = [
            0xcd, 0x17, 0x08, 0x1e, 0x68, 0x44, 0xbb, 0xa8, 0x90, 0xb3, 0x65, 0x58, 0xce, 0x86, 0x54, 0x49, 0x61, 0x55,
            0x63, 0xc7, 0xa7, 0x92, 0x35, 0xe2, 0xdd, 0x35, 0x6c, 0xf7, 0x4e, 0xea, 0x0b, 0x10,
        ];
        assert_eq!(repeated_use_digest(&identity(), &signed(), &last_resort()), expected);
    }

    #[test]
    fn repeated_use_digest_ignores_signatures_only() {
        let digest = repeated_use_digest(&identity(), &signed(), &last_resort());
        let mut other = signed();
        other.signature = Signature([0; 64]);
        assert_eq!(repeated_use_digest(&identity(), &other, &last_resort()), digest);
        other.id = KeyId::new(8).expect("in range");
        assert_ne!(repeated_use_digest(&identity(), &other, &last_resort()), digest);
    }

    #[test]
    fn made_up_signatures_are_nobodys() {
        assert!(!signed().is_signed_by(&identity()));
        assert!(!last_resort().is_signed_by(&identity()));
    }

    #[test]
    fn debug_shows_neither_id_nor_key_nor_signature() {
        let one_time = EcPreKey {
            id: KeyId::MAX,
            key: signed().key,
        };
        assert_eq!(format!("{one_time:?}"), "EcPreKey");
        assert_eq!(format!("{:?}", signed()), "SignedEcPreKey");
        assert_eq!(format!("{:?}", last_resort()), "KyberPreKey");
        assert_eq!(format!("{:?}", KeyId::MAX), "KeyId");
        assert_eq!(format!("{:?}", signed().signature), "Signature");
    }
}
