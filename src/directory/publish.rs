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
