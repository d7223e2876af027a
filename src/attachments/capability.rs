//! What proves that something may be uploaded: an authenticated text that the client carries, so that no node keeps a
//! list of forms. It says what it allows, and where its bytes are counted; it does not say whose it is.

use base64::Engine;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::key::AttachmentKey;
use crate::domain::{Aci, Day, QuotaBucket, Timestamp};
use crate::encoding::BASE64_URL;
use crate::sealing::derive_bytes;

/// How long an attachment is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// As the settings say.
    Attachment,
    /// The picture of a profile, which is looked at for much longer.
    Avatar,
}

/// What one form allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Under which key.
    pub key: AttachmentKey,
    /// For how long it is kept.
    pub class: Class,
    /// At most so many bytes.
    pub max_bytes: u64,
    /// So many bytes were taken from the budget when the form was made.
    pub paid: u64,
    /// Where the others are counted.
    pub bucket: QuotaBucket,
    /// Of which day.
    pub day: Day,
    /// When it can no longer be used.
    pub expires: Timestamp,
}

/// Makes and checks capabilities. All nodes of one database have the same.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct CapabilityKey {
    signing: [u8; 32],
    buckets: [u8; 32],
}

impl CapabilityKey {
    /// Derives it from a secret of its own.
    pub fn derive(secret: &[u8; 32]) -> Self {
        Self {
            signing: *derive_bytes(secret, b"", "blind-relay attachment capabilities v1"),
            buckets: *derive_bytes(secret, b"", "blind-relay attachment budgets v1"),
        }
    }

    /// Where the bytes of an account and day are counted.
    pub fn bucket(&self, owner: Aci, day: Day) -> QuotaBucket {
        let mut mac = mac(&self.buckets);
        mac.update(owner.as_bytes());
        mac.update(&day.0.to_be_bytes());
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        let mut bucket = [0; 16];
        bucket.copy_from_slice(&digest[..16]);
        QuotaBucket(bucket)
    }

    /// The capability as text.
    pub fn sign(&self, capability: &Capability) -> String {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(capability.key.as_bytes());
        bytes.push(match capability.class {
            Class::Attachment => 0,
            Class::Avatar => 1,
        });
        bytes.extend_from_slice(&capability.max_bytes.to_be_bytes());
        bytes.extend_from_slice(&capability.paid.to_be_bytes());
        bytes.extend_from_slice(&capability.bucket.0);
        bytes.extend_from_slice(&capability.day.0.to_be_bytes());
        bytes.extend_from_slice(&capability.expires.0.to_be_bytes());
        let mut mac = mac(&self.signing);
        mac.update(&bytes);
        bytes.extend_from_slice(&mac.finalize().into_bytes());
        BASE64_URL.encode(bytes)
    }

    /// What [`Self::sign`] made.
    pub fn verify(&self, text: &str) -> Option<Capability> {
        if text.len() != TEXT_LENGTH {
            return None;
        }
        let bytes = BASE64_URL.decode(text).ok()?;
        let (signed, tag) = bytes.split_at_checked(LENGTH - TAG)?;
        let mut mac = mac(&self.signing);
        mac.update(signed);
        mac.verify_slice(tag).ok()?;
        let mut rest = signed;
        Some(Capability {
            key: AttachmentKey::from_bytes(take(&mut rest)?),
            class: match take(&mut rest)? {
                [0] => Class::Attachment,
                [1] => Class::Avatar,
                _ => return None,
            },
            max_bytes: u64::from_be_bytes(take(&mut rest)?),
            paid: u64::from_be_bytes(take(&mut rest)?),
            bucket: QuotaBucket(take(&mut rest)?),
            day: Day(i32::from_be_bytes(take(&mut rest)?)),
            expires: Timestamp(i64::from_be_bytes(take(&mut rest)?)),
        })
    }
}

fn mac(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

const TAG: usize = 32;
const LENGTH: usize = AttachmentKey::BYTES + 1 + 8 + 8 + 16 + 4 + 8 + TAG;
const TEXT_LENGTH: usize = (LENGTH * 4).div_ceil(3);

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn capability() -> Capability {
        Capability {
            key: AttachmentKey::random(),
            class: Class::Avatar,
            max_bytes: 1_000,
            paid: 7,
            bucket: QuotaBucket([3; 16]),
            day: Day(20_000),
            expires: Timestamp(1_700_000_000_123),
        }
    }

    #[test]
    fn what_was_signed_is_read_and_a_changed_character_is_not() {
        let key = CapabilityKey::derive(&[1; 32]);
        let text = key.sign(&capability());
        let signed = capability();
        let text_of_it = key.sign(&signed);
        assert_eq!(key.verify(&text_of_it), Some(signed));
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(
                key.verify(std::str::from_utf8(&changed).unwrap()),
                None,
                "character {at}"
            );
            assert_eq!(key.verify(&text[..at]), None, "first {at}");
        }
        assert_eq!(CapabilityKey::derive(&[2; 32]).verify(&text), None);
        for other in ["", "ä", "====", &"A".repeat(135), &"A".repeat(100_000)] {
            assert_eq!(key.verify(other), None);
        }
    }

    #[test]
    fn an_account_has_another_bucket_every_day_and_a_capability_does_not_hold_the_account() {
        let key = CapabilityKey::derive(&[1; 32]);
        let (alice, bob) = (Aci::new(Uuid::from_bytes([1; 16])), Aci::new(Uuid::from_bytes([2; 16])));
        let buckets = [
            key.bucket(alice, Day(1)),
            key.bucket(alice, Day(2)),
            key.bucket(bob, Day(1)),
            CapabilityKey::derive(&[2; 32]).bucket(alice, Day(1)),
        ];
        for (at, one) in buckets.iter().enumerate() {
            assert!(buckets.iter().skip(at + 1).all(|other| one != other));
        }
        assert_eq!(key.bucket(alice, Day(1)), buckets[0]);
    }
}
