//! Keys as clients make them. The private halves exist in tests only.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use curve25519_dalek::scalar::clamp_integer;
use curve25519_dalek::{EdwardsPoint, Scalar};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, single_shot_open};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

use super::random;

/// An identity key with its private half.
#[derive(Clone)]
pub(crate) struct Identity {
    private: Scalar,
    /// The private half as key agreement takes it.
    clamped: [u8; 32],
    pub(crate) public: [u8; 33],
}

impl Identity {
    pub(crate) fn new() -> Self {
        let clamped = clamp_integer(random());
        let private = Scalar::from_bytes_mod_order(clamped);
        Self {
            private,
            clamped,
            public: serialized(&EdwardsPoint::mul_base(&private)),
        }
    }

    /// An XEdDSA signature with the sign of the key in the last byte's top bit, as all clients make it.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let key = EdwardsPoint::mul_base(&self.private).compress().to_bytes();
        let nonce = Scalar::from_bytes_mod_order_wide(&random());
        let r = EdwardsPoint::mul_base(&nonce).compress().to_bytes();
        let challenge = Sha512::new()
            .chain_update(r)
            .chain_update(key)
            .chain_update(message)
            .finalize();
        let h = Scalar::from_bytes_mod_order_wide(&challenge.into());
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(&(nonce + h * self.private).to_bytes());
        signature[63] |= key[31] & 0x80;
        signature
    }

    pub(crate) fn base64(&self) -> String {
        base64(&self.public)
    }

    /// Opens the `createdAtCiphertext` of a device, in unpadded base64, as clients do.
    pub(crate) fn open_created_at(&self, device_id: u8, registration_id: u16, sealed: &str) -> Option<i64> {
        let sealed = STANDARD_NO_PAD.decode(sealed).ok()?;
        let [1, rest @ ..] = sealed.as_slice() else {
            return None;
        };
        let (encapsulated, ciphertext) = rest.split_at_checked(32)?;
        let mut aad = vec![device_id];
        aad.extend_from_slice(&i32::from(registration_id).to_be_bytes());
        let time = single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &<X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&self.clamped).ok()?,
            &<X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?,
            b"deviceCreatedAt",
            ciphertext,
            &aad,
        );
        Some(i64::from_be_bytes(time.ok()?.try_into().ok()?))
    }
}

/// A public EC prekey.
pub(crate) fn ec_key() -> [u8; 33] {
    serialized(&EdwardsPoint::mul_base(&Scalar::from_bytes_mod_order_wide(&random())))
}

/// A public Kyber prekey. Nobody but its owner can tell it from random bytes.
pub(crate) fn kyber_key() -> Vec<u8> {
    let mut key = vec![0; 1569];
    getrandom::fill(&mut key).unwrap();
    key[0] = 8;
    key
}

/// A one-time EC prekey as uploads carry it.
pub(crate) fn one_time(id: u32) -> Value {
    json!({ "keyId": id, "publicKey": base64(&ec_key()) })
}

/// Any prekey with a signature, as uploads carry it.
pub(crate) fn signed(identity: &Identity, id: u32, key: &[u8]) -> Value {
    json!({ "keyId": id, "publicKey": base64(key), "signature": base64(&identity.sign(key)) })
}

/// A signed EC prekey as uploads carry it.
pub(crate) fn signed_ec(identity: &Identity, id: u32) -> Value {
    signed(identity, id, &ec_key())
}

/// A Kyber prekey as uploads carry it.
pub(crate) fn kyber(identity: &Identity, id: u32) -> Value {
    signed(identity, id, &kyber_key())
}

/// `count` one-time keys of either kind, with ids from `first`.
pub(crate) fn one_time_keys(identity: &Identity, first: u32, count: u32) -> Value {
    json!({
        "preKeys": (first..first + count).map(one_time).collect::<Vec<_>>(),
        "pqPreKeys": (first..first + count).map(|id| kyber(identity, id)).collect::<Vec<_>>(),
    })
}

/// The digest of `POST /v2/keys/check`, in base64.
pub(crate) fn digest(identity: &Identity, signed: &Value, last_resort: &Value) -> String {
    let id = |key: &Value| key["keyId"].as_u64().unwrap().to_be_bytes();
    let public = |key: &Value| STANDARD.decode(key["publicKey"].as_str().unwrap()).unwrap();
    let hash = Sha256::new()
        .chain_update(identity.public)
        .chain_update(id(signed))
        .chain_update(public(signed))
        .chain_update(id(last_resort))
        .chain_update(public(last_resort))
        .finalize();
    base64(&hash)
}

/// Padded base64 in the standard alphabet.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn serialized(point: &EdwardsPoint) -> [u8; 33] {
    let mut key = [5; 33];
    key[1..].copy_from_slice(&point.to_montgomery().to_bytes());
    key
}
