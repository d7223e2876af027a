//! Which keys the directory takes in.
//!
//! Every signature is checked, and every EC key must be one that a key generator can have made. Clients check again; the
//! server's check keeps a broken or hostile client from being handed out to others.

use keys_schema::IdentityKey;

use crate::domain::{KeyUpload, SignedKeys};

/// The most keys of one kind in one upload.
pub const MAX_KEYS_PER_LIST: usize = 100;

/// Why keys were refused. Nothing of the upload is stored then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysRefused {
    /// More keys of one kind than [`MAX_KEYS_PER_LIST`].
    #[error("at most 100 one-time keys of a kind per upload")]
    TooMany,
    /// Two keys of one list have the same id.
    #[error("two keys of one kind have the same id")]
    DuplicateId,
    /// A signature is not by the account's identity key.
    #[error("a key's signature is not by the account's identity key")]
    Signature,
    /// An EC key with which every agreement is predictable, or that is not in canonical form.
    #[error("an EC key is not one that a key generator makes")]
    WeakKey,
}

/// Checks an upload against the identity key of its namespace.
pub fn check_upload(identity: &IdentityKey, upload: &KeyUpload) -> Result<(), KeysRefused> {
    if upload.one_time.len() > MAX_KEYS_PER_LIST || upload.one_time_kyber.len() > MAX_KEYS_PER_LIST {
        return Err(KeysRefused::TooMany);
    }
    let ec_ids = upload.one_time.iter().map(|key| key.id.get());
    let kyber_ids = upload.one_time_kyber.iter().map(|key| key.id.get());
    if has_duplicate(ec_ids) || has_duplicate(kyber_ids) {
        return Err(KeysRefused::DuplicateId);
    }
    if upload.one_time.iter().any(|key| key.key.is_weak()) {
        return Err(KeysRefused::WeakKey);
    }
    if let Some(signed) = &upload.signed {
        if signed.key.is_weak() {
            return Err(KeysRefused::WeakKey);
        }
        if !signed.is_signed_by(identity) {
            return Err(KeysRefused::Signature);
        }
    }
    let mut kyber = upload.one_time_kyber.iter().chain(&upload.last_resort);
    if kyber.all(|key| key.is_signed_by(identity)) {
        Ok(())
    } else {
        Err(KeysRefused::Signature)
    }
}

/// Checks the keys of a registration, the identity key included.
pub fn check_signed(identity: &IdentityKey, keys: &SignedKeys) -> Result<(), KeysRefused> {
    if identity.is_weak() || keys.signed.key.is_weak() {
        return Err(KeysRefused::WeakKey);
    }
    let signed = keys.signed.is_signed_by(identity) && keys.last_resort.is_signed_by(identity);
    if signed { Ok(()) } else { Err(KeysRefused::Signature) }
}

fn has_duplicate(ids: impl Iterator<Item = u32>) -> bool {
    let mut ids: Vec<u32> = ids.collect();
    ids.sort_unstable();
    ids.windows(2).any(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests {
    use keys_schema::{EcPreKey, EcPublicKey, KeyId, KyberPreKey, KyberPublicKey, Signature, SignedEcPreKey};
    use serde_json::Value;

    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../keys-schema/vectors/libsignal-vectors.json")).unwrap()
    }

    fn bytes(hex: &Value) -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn id(key: &Value) -> KeyId {
        KeyId::new(key["keyId"].as_u64().unwrap()).unwrap()
    }

    fn signed(key: &Value) -> SignedEcPreKey {
        SignedEcPreKey {
            id: id(key),
            key: EcPublicKey::parse(&bytes(&key["publicKey"])).unwrap(),
            signature: Signature::parse(&bytes(&key["signature"])).unwrap(),
        }
    }

    fn kyber(key: &Value) -> KyberPreKey {
        KyberPreKey {
            id: id(key),
            key: KyberPublicKey::parse(&bytes(&key["publicKey"])).unwrap(),
            signature: Signature::parse(&bytes(&key["signature"])).unwrap(),
        }
    }

    /// An identity of the official library with everything it signed.
    fn person(index: usize) -> (IdentityKey, KeyUpload) {
        let person = &vectors()["identities"][index];
        let all = |list: &str| person[list].as_array().unwrap().clone();
        let upload = KeyUpload {
            one_time: all("oneTimeEcPreKeys")
                .iter()
                .map(|key| EcPreKey {
                    id: id(key),
                    key: EcPublicKey::parse(&bytes(&key["publicKey"])).unwrap(),
                })
                .collect(),
            one_time_kyber: all("kyberPreKeys").iter().map(kyber).collect(),
            signed: Some(signed(&person["signedPreKeys"][0])),
            last_resort: Some(kyber(&person["kyberPreKeys"][0])),
        };
        (IdentityKey::parse(&bytes(&person["publicKey"])).unwrap(), upload)
    }

    #[test]
    fn takes_what_the_identity_key_signed_and_nothing_that_another_signed() {
        let (alice, upload) = person(0);
        let (bob, _) = person(1);
        assert_eq!(check_upload(&alice, &upload), Ok(()));
        assert_eq!(check_upload(&bob, &upload), Err(KeysRefused::Signature));
        let keys = SignedKeys {
            signed: upload.signed.unwrap(),
            last_resort: upload.last_resort.unwrap(),
        };
        assert_eq!(check_signed(&alice, &keys), Ok(()));
        assert_eq!(check_signed(&bob, &keys), Err(KeysRefused::Signature));
    }

    #[test]
    fn one_bad_signature_spoils_the_batch() {
        let (alice, good) = person(0);
        let (_, other) = person(1);
        for spoil in [
            (|upload, other| upload.signed = other.signed) as fn(&mut KeyUpload, KeyUpload),
            |upload, other| upload.last_resort = other.last_resort,
            |upload, other| upload.one_time_kyber.push(other.one_time_kyber[0].clone()),
        ] {
            let mut upload = good.clone();
            spoil(&mut upload, other.clone());
            assert_eq!(check_upload(&alice, &upload), Err(KeysRefused::Signature));
        }
    }

    #[test]
    fn weak_keys_doubled_ids_and_long_lists_are_refused() {
        let (alice, good) = person(0);
        let mut zero = [0; 33];
        zero[0] = 5;
        let mut weak = good.clone();
        weak.one_time[0].key = EcPublicKey::parse(&zero).unwrap();
        assert_eq!(check_upload(&alice, &weak), Err(KeysRefused::WeakKey));

        let mut doubled = good.clone();
        doubled.one_time.push(doubled.one_time[0].clone());
        assert_eq!(check_upload(&alice, &doubled), Err(KeysRefused::DuplicateId));

        let mut long = good;
        long.one_time = vec![long.one_time[0].clone(); MAX_KEYS_PER_LIST + 1];
        assert_eq!(check_upload(&alice, &long), Err(KeysRefused::TooMany));
    }

    #[test]
    fn a_weak_identity_key_is_refused_at_registration() {
        let (_, upload) = person(0);
        let mut zero = [0; 33];
        zero[0] = 5;
        let keys = SignedKeys {
            signed: upload.signed.unwrap(),
            last_resort: upload.last_resort.unwrap(),
        };
        assert_eq!(
            check_signed(&IdentityKey::parse(&zero).unwrap(), &keys),
            Err(KeysRefused::WeakKey)
        );
    }
}
