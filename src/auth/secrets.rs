//! Keys derived from the server's one secret, the pepper, which lives in a file outside the database.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::domain::{AccessKey, Aci, LinkHandle, LinkTokenHash, NumberHash, Pni, Sealed, SessionKey};
use crate::sealing::queue::InterimKeys;
use crate::sealing::{SealingKey, derive_bytes, random};
use crate::storage::migrate::Upgrade;

use super::Number;

/// What the pepper is good for, one key per purpose. All nodes of one database share it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ServerSecrets {
    number_key: [u8; 32],
    check: [u8; 32],
    access_keys: SealingKey,
    bus: SealingKey,
    interim: SealingKey,
    attachments: [u8; 32],
}

impl ServerSecrets {
    /// Derives the keys.
    pub fn from_pepper(pepper: &[u8; 32]) -> Self {
        Self {
            number_key: *derive_bytes(pepper, b"", "blind-relay number hash v1"),
            check: *derive_bytes(pepper, b"", "blind-relay pepper check v1"),
            access_keys: SealingKey::derive(pepper, b"", "blind-relay access keys v1"),
            bus: SealingKey::derive(pepper, b"", "blind-relay hints v1"),
            interim: SealingKey::derive(pepper, b"", "blind-relay interim queue keys v1"),
            attachments: *derive_bytes(pepper, b"", "blind-relay attachments v1"),
        }
    }

    /// A value that tells two peppers apart and tells nothing about them. Kept in the database, so that a node with
    /// another pepper is refused instead of filing every number twice.
    pub fn check_value(&self) -> [u8; 32] {
        self.check
    }

    /// HMAC-SHA-256 of the number under a key that is not in the database.
    pub fn hash_number(&self, number: &Number) -> NumberHash {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.number_key).expect("HMAC takes keys of any length");
        mac.update(number.as_str().as_bytes());
        NumberHash(mac.finalize().into_bytes().into())
    }

    /// Seals an account's access key. It cannot be a hash: a multi-recipient send shows the XOR of several keys.
    pub fn seal_access_key(&self, aci: Aci, key: &AccessKey) -> Sealed {
        self.access_keys.seal(aci.as_bytes(), &key.0)
    }

    /// Opens what [`Self::seal_access_key`] made for the same account.
    pub fn open_access_key(&self, aci: Aci, sealed: &Sealed) -> Option<AccessKey> {
        let key = self.access_keys.open(aci.as_bytes(), &sealed.0)?;
        Some(AccessKey(key.as_slice().try_into().ok()?))
    }

    /// Keys of mailboxes whose device has not brought its own yet.
    pub fn interim_keys(&self) -> InterimKeys {
        InterimKeys::new(self.interim.clone())
    }

    /// What a database of an older release needs.
    pub fn upgrade(&self) -> Upgrade {
        Upgrade {
            interim: self.interim_keys(),
            pepper_check: self.check,
        }
    }

    /// From which the keys of attachments are derived.
    pub fn attachment_secret(&self) -> &[u8; 32] {
        &self.attachments
    }

    /// The key under which hints cross from node to node.
    pub fn bus_key(&self) -> SealingKey {
        self.bus.clone()
    }
}

/// The name under which a verification session is stored: SHA-256 of its id.
pub fn session_key(id: &[u8]) -> SessionKey {
    SessionKey(Sha256::digest(id).into())
}

/// Seals the number of a verification session so that only who has the session's id can open it.
pub fn seal_session_number(id: &[u8], number: &Number) -> Sealed {
    SealingKey::derive(id, b"", SESSION_NUMBER).seal(b"", number.as_str().as_bytes())
}

/// Opens what [`seal_session_number`] made.
pub fn open_session_number(id: &[u8], sealed: &Sealed) -> Option<Number> {
    let text: Zeroizing<Vec<u8>> = SealingKey::derive(id, b"", SESSION_NUMBER).open(b"", &sealed.0)?;
    Number::parse(std::str::from_utf8(&text).ok()?).ok()
}

/// The name under which an offer to link a device is stored: SHA-256 of its token.
pub fn link_token_hash(token: &[u8]) -> LinkTokenHash {
    LinkTokenHash(Sha256::digest(token).into())
}

/// Seals an account's number so that only who has the link token can open it, for that account.
pub fn seal_link_number(token: &[u8], aci: Aci, number: &Number) -> Sealed {
    SealingKey::derive(token, b"", LINK_NUMBER).seal(aci.as_bytes(), number.as_str().as_bytes())
}

/// Opens what [`seal_link_number`] made.
pub fn open_link_number(token: &[u8], aci: Aci, sealed: &Sealed) -> Option<Number> {
    let text: Zeroizing<Vec<u8>> = SealingKey::derive(token, b"", LINK_NUMBER).open(aci.as_bytes(), &sealed.0)?;
    Number::parse(std::str::from_utf8(&text).ok()?).ok()
}

/// A random account id.
pub fn random_aci() -> Aci {
    Aci::new(random_uuid())
}

/// A random phone-number identity.
pub fn random_pni() -> Pni {
    Pni::new(random_uuid())
}

/// A random name for a link to a user name.
pub fn random_link_handle() -> LinkHandle {
    LinkHandle(random_uuid())
}

fn random_uuid() -> Uuid {
    uuid::Builder::from_random_bytes(random()).into_uuid()
}

const SESSION_NUMBER: &str = "blind-relay verification session number v1";
const LINK_NUMBER: &str = "blind-relay link token number v1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_pepper_gives_other_hashes() {
        let number = Number::parse("+15550100001").unwrap();
        let (one, other) = (
            ServerSecrets::from_pepper(&[1; 32]),
            ServerSecrets::from_pepper(&[2; 32]),
        );
        assert!(one.hash_number(&number) == ServerSecrets::from_pepper(&[1; 32]).hash_number(&number));
        assert!(one.hash_number(&number) != other.hash_number(&number));
        assert_ne!(one.check_value(), other.check_value());
    }

    #[test]
    fn an_access_key_opens_for_its_own_account_only() {
        let secrets = ServerSecrets::from_pepper(&[1; 32]);
        let (alice, bob) = (random_aci(), random_aci());
        let sealed = secrets.seal_access_key(alice, &AccessKey([7; 16]));
        assert!(secrets.open_access_key(alice, &sealed) == Some(AccessKey([7; 16])));
        assert!(secrets.open_access_key(bob, &sealed).is_none());
    }

    #[test]
    fn a_link_number_opens_with_its_token_and_for_its_account_only() {
        let number = Number::parse("+15550100001").unwrap();
        let (alice, bob) = (random_aci(), random_aci());
        let sealed = seal_link_number(b"token", alice, &number);
        assert_eq!(open_link_number(b"token", alice, &sealed), Some(number));
        assert_eq!(open_link_number(b"other", alice, &sealed), None);
        assert_eq!(open_link_number(b"token", bob, &sealed), None);
    }

    #[test]
    fn a_session_number_opens_with_its_id_only() {
        let number = Number::parse("+15550100001").unwrap();
        let sealed = seal_session_number(b"id", &number);
        assert_eq!(open_session_number(b"id", &sealed), Some(number));
        assert_eq!(open_session_number(b"other", &sealed), None);
    }
}
