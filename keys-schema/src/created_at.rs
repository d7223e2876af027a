//! When a device was linked, readable by its account alone: the `createdAtCiphertext` of device lists.
//!
//! HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM, to the account's ACI
//! identity key. The ciphertext is bound to the device and its registration id. It is made once, when the device comes
//! to be, so that the time need not be kept; clients open every one of a list and refuse the list if one fails.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeS, Serializable, single_shot_seal_with_rng};

use crate::given::Given;
use crate::{DecodeError, IdentityKey};

/// Length of what [`seal`] makes, in bytes: a version, the encapsulated key, 8 bytes of ciphertext and the tag.
pub const LENGTH: usize = 1 + 32 + 8 + 16;

/// Seals the time, in milliseconds since the Unix epoch, for the holder of `identity`.
///
/// `random` must be fresh for each call: the ephemeral key is derived from it, and equal bytes give equal ciphertexts.
///
/// # Errors
///
/// [`DecodeError::Malformed`] if the identity key is of low order, with which no secret can be agreed.
pub fn seal(
    identity: &IdentityKey,
    device_id: u8,
    registration_id: u16,
    created_ms: i64,
    random: &[u8; 32],
) -> Result<[u8; LENGTH], DecodeError> {
    const UNUSABLE: DecodeError = DecodeError::Malformed {
        what: "Curve25519 public key",
    };
    let recipient = identity.as_ec().u_coordinate();
    let recipient = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&recipient).map_err(|_| UNUSABLE)?;
    let (encapsulated, ciphertext) = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &recipient,
        INFO,
        &created_ms.to_be_bytes(),
        &bound_to(device_id, registration_id),
        &mut Given(random),
    )
    .map_err(|_| UNUSABLE)?;
    let mut sealed = [VERSION; LENGTH];
    sealed[1..33].copy_from_slice(&encapsulated.to_bytes());
    sealed[33..].copy_from_slice(&ciphertext);
    Ok(sealed)
}

/// The data that is authenticated with the time: the registration id counts as a signed number of 32 bits.
fn bound_to(device_id: u8, registration_id: u16) -> [u8; 5] {
    let [a, b, c, d] = u32::from(registration_id).to_be_bytes();
    [device_id, a, b, c, d]
}

const VERSION: u8 = 0x01;
const INFO: &[u8] = b"deviceCreatedAt";

#[cfg(test)]
mod tests {
    use hpke::{OpModeR, single_shot_open};

    use super::*;

    type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
    type EncappedKey = <X25519HkdfSha256 as Kem>::EncappedKey;

    const CREATED: i64 = 1_785_000_000_123;

    fn keys(seed: u8) -> (PrivateKey, IdentityKey) {
        let (private, public) = X25519HkdfSha256::derive_keypair(&[seed; 32]);
        let mut serialized = vec![0x05];
        serialized.extend_from_slice(&public.to_bytes());
        (private, IdentityKey::parse(&serialized).expect("a key"))
    }

    /// Opens as a client does, which knows the device from the list's entry.
    fn open(private: &PrivateKey, device_id: u8, registration_id: i32, sealed: &[u8]) -> Option<i64> {
        assert_eq!(sealed[0], 0x01);
        let encapsulated = EncappedKey::from_bytes(&sealed[1..33]).expect("32 bytes");
        let mut aad = vec![device_id];
        aad.extend_from_slice(&registration_id.to_be_bytes());
        let plain = single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            private,
            &encapsulated,
            b"deviceCreatedAt",
            &sealed[33..],
            &aad,
        );
        Some(i64::from_be_bytes(plain.ok()?.try_into().expect("8 bytes")))
    }

    #[test]
    fn the_account_reads_the_time_of_its_device() {
        let (private, identity) = keys(1);
        for (device, registration, created) in [(1, 1, 0), (127, 16_383, i64::MAX), (2, 300, CREATED), (3, 1, -1)] {
            let sealed = seal(&identity, device, registration, created, &[7; 32]).expect("seals");
            assert_eq!(sealed.len(), 57);
            assert_eq!(open(&private, device, registration.into(), &sealed), Some(created));
        }
    }

    #[test]
    fn nobody_else_does_and_not_for_another_device() {
        let (private, identity) = keys(1);
        let sealed = seal(&identity, 2, 300, CREATED, &[7; 32]).expect("seals");
        assert_eq!(open(&keys(2).0, 2, 300, &sealed), None);
        assert_eq!(open(&private, 3, 300, &sealed), None);
        assert_eq!(open(&private, 2, 301, &sealed), None);
        let mut changed = sealed;
        changed[56] ^= 1;
        assert_eq!(open(&private, 2, 300, &changed), None);
    }

    #[test]
    fn other_randomness_gives_another_ciphertext() {
        let (_, identity) = keys(1);
        let seal = |random| seal(&identity, 2, 300, CREATED, &[random; 32]).expect("seals");
        assert_eq!(seal(7), seal(7));
        assert_ne!(seal(7)[1..33], seal(8)[1..33]);
        assert_ne!(seal(7)[33..], seal(8)[33..]);
    }

    #[test]
    fn refuses_keys_that_agree_on_nothing() {
        let mut low_order = [0; 33];
        low_order[0] = 0x05;
        for u in [0, 1] {
            low_order[1] = u;
            let identity = IdentityKey::parse(&low_order).expect("parses");
            assert!(seal(&identity, 1, 1, CREATED, &[7; 32]).is_err());
        }
    }
}
