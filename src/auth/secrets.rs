//! Keys derived from the server's one secret, the pepper, which lives in a file outside the database.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::domain::{
    AccessKey, Aci, BlockTag, CodeHash, InviteHash, InviteId, LinkHandle, LinkTokenHash, NumberHash, Pni, Sealed,
    ServiceId, SessionKey,
};
use crate::sealing::queue::InterimKeys;
use crate::sealing::{SealingKey, derive_bytes, random};
use crate::storage::migrate::Upgrade;

use super::{Contact, EmailAddress, Number, TokenSecrets};

/// What the pepper is good for, one key per purpose. All nodes of one database share it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ServerSecrets {
    number_key: [u8; 32],
    check: [u8; 32],
    access_keys: SealingKey,
    bus: SealingKey,
    interim: SealingKey,
    attachments: [u8; 32],
    tokens: TokenSecrets,
    invites: [u8; 32],
    codes: [u8; 32],
    emails: [u8; 32],
    limits: [u8; 32],
    pseudonyms: [u8; 32],
    blocks: [u8; 32],
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
            tokens: TokenSecrets::from_pepper(pepper),
            invites: *derive_bytes(pepper, b"", "blind-relay invites v1"),
            codes: *derive_bytes(pepper, b"", "blind-relay verification codes v1"),
            emails: *derive_bytes(pepper, b"", "blind-relay e-mail numbers v1"),
            limits: *derive_bytes(pepper, b"", "blind-relay limits v1"),
            pseudonyms: *derive_bytes(pepper, b"", "blind-relay admin log v1"),
            blocks: *derive_bytes(pepper, b"", "blind-relay blocks v1"),
        }
    }

    /// A value that tells two peppers apart and tells nothing about them. Kept in the database, so that a node with
    /// another pepper is refused instead of filing every number twice.
    pub fn check_value(&self) -> [u8; 32] {
        self.check
    }

    /// HMAC-SHA-256 of the number under a key that is not in the database.
    pub fn hash_number(&self, number: &Number) -> NumberHash {
        NumberHash(keyed_hash(&self.number_key, number.as_str().as_bytes()))
    }

    /// HMAC-SHA-256 of an invite's code under a key that is not in the database.
    pub fn hash_invite(&self, code: &[u8]) -> InviteHash {
        InviteHash(keyed_hash(&self.invites, code))
    }

    /// HMAC-SHA-256 of a code that was sent, under a key for which it takes the session's id, which only the client has, and
    /// the pepper: six digits are tried out by nobody who lacks one of the two.
    pub fn hash_code(&self, session: &[u8], code: &[u8]) -> CodeHash {
        let key = derive_bytes(session, &self.codes, "blind-relay verification code v1");
        CodeHash(keyed_hash(&key, code))
    }

    /// The number under which an e-mail address registers: the same for the same address, and told by nobody without the key.
    pub fn number_of_email(&self, email: &EmailAddress) -> Number {
        let hash = keyed_hash(&self.emails, email.as_str().as_bytes());
        let (high, _) = hash.split_at(16);
        let drawn = u128::from_be_bytes(high.try_into().expect("sixteen of 32 bytes"));
        Number::of_email(u64::try_from(drawn % EMAIL_NUMBERS).expect("it has twelve digits"))
    }

    /// Seals an account's access key. It cannot be a hash: a multi-recipient send shows the XOR of several keys.
    pub fn seal_access_key(&self, aci: Aci, key: &AccessKey) -> Sealed {
        self.access_keys.seal(aci.as_bytes(), &key.0)
    }

    /// Opens what [`Self::seal_access_key`] made for the same account.
    pub fn open_access_key(&self, aci: Aci, sealed: &Sealed) -> Option<Zeroizing<AccessKey>> {
        let key = self.access_keys.open(aci.as_bytes(), &sealed.0)?;
        Some(Zeroizing::new(AccessKey(key.as_slice().try_into().ok()?)))
    }

    /// What an account's list has of an id that it has blocked: a hash under a key of that account, so that no two lists
    /// have anything in common.
    pub fn block_tag(&self, blocker: Aci, blocked: &ServiceId) -> BlockTag {
        let key = derive_bytes(&self.blocks, blocker.as_bytes(), "blind-relay blocks of an account v1");
        let mut tag = [0; BlockTag::BYTES];
        tag.copy_from_slice(&keyed_hash(&key, &blocked.to_fixed_width())[..BlockTag::BYTES]);
        BlockTag(tag)
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

    /// The key under which the subjects of rate limits are hashed.
    pub fn limits_key(&self) -> [u8; 32] {
        self.limits
    }

    /// Keys of the tokens that devices show in place of their passwords.
    pub fn tokens(&self) -> &TokenSecrets {
        &self.tokens
    }

    /// The key of the names that accounts have in the operator's log.
    pub fn pseudonym_key(&self) -> [u8; 32] {
        self.pseudonyms
    }

    /// The key under which hints cross from node to node.
    pub fn bus_key(&self) -> SealingKey {
        self.bus.clone()
    }
}

/// HMAC-SHA-256.
pub(super) fn keyed_hash(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// The name under which a verification session is stored: SHA-256 of its id.
pub fn session_key(id: &[u8]) -> SessionKey {
    SessionKey(Sha256::digest(id).into())
}

/// Seals where the codes of a verification session go, so that only who has the session's id can open it.
pub fn seal_session_contact(id: &[u8], contact: &Contact) -> Sealed {
    SealingKey::derive(id, b"", SESSION_NUMBER).seal(b"", &contact.to_bytes())
}

/// Opens what [`seal_session_contact`] made.
pub fn open_session_contact(id: &[u8], sealed: &Sealed) -> Option<Contact> {
    Contact::from_bytes(&SealingKey::derive(id, b"", SESSION_NUMBER).open(b"", &sealed.0)?)
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

/// A random name for an invite.
pub fn random_invite_id() -> InviteId {
    InviteId(random_uuid())
}

/// A random name for a link to a user name.
pub fn random_link_handle() -> LinkHandle {
    LinkHandle(random_uuid())
}

fn random_uuid() -> Uuid {
    uuid::Builder::from_random_bytes(random()).into_uuid()
}

/// E-mail addresses register under +999 and twelve digits.
const EMAIL_NUMBERS: u128 = 1_000_000_000_000;
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
        assert!(secrets.open_access_key(alice, &sealed) == Some(Zeroizing::new(AccessKey([7; 16]))));
        assert!(secrets.open_access_key(bob, &sealed).is_none());
    }

    #[test]
    fn a_block_is_another_in_every_list_and_under_every_id() {
        let secrets = ServerSecrets::from_pepper(&[1; 32]);
        let (alice, bob, blocked) = (random_aci(), random_aci(), random_uuid());
        let (aci, pni) = (ServiceId::Aci(Aci::new(blocked)), ServiceId::Pni(Pni::new(blocked)));
        let tag = secrets.block_tag(alice, &aci);
        assert!(tag == ServerSecrets::from_pepper(&[1; 32]).block_tag(alice, &aci));
        for other in [
            secrets.block_tag(bob, &aci),
            secrets.block_tag(alice, &pni),
            ServerSecrets::from_pepper(&[2; 32]).block_tag(alice, &aci),
        ] {
            assert!(tag != other);
        }
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
        let number = Contact::Number(Number::parse("+15550100001").unwrap());
        let email = Contact::Email(EmailAddress::parse("alice@example.org").unwrap());
        for contact in [number, email] {
            let sealed = seal_session_contact(b"id", &contact);
            assert!(open_session_contact(b"id", &sealed) == Some(contact));
            assert!(open_session_contact(b"other", &sealed).is_none());
        }
    }

    #[test]
    fn a_code_is_hashed_for_its_session_and_under_the_pepper() {
        let (one, other) = (
            ServerSecrets::from_pepper(&[1; 32]),
            ServerSecrets::from_pepper(&[2; 32]),
        );
        let hash = one.hash_code(b"id", b"123456");
        assert!(hash == one.hash_code(b"id", b"123456"));
        for another in [
            one.hash_code(b"id", b"123457"),
            one.hash_code(b"other", b"123456"),
            other.hash_code(b"id", b"123456"),
        ] {
            assert!(hash != another);
        }
    }

    #[test]
    fn an_address_has_one_number_under_each_pepper() {
        let (one, other) = (
            ServerSecrets::from_pepper(&[1; 32]),
            ServerSecrets::from_pepper(&[2; 32]),
        );
        let email = |text| EmailAddress::parse(text).unwrap();
        let number = one.number_of_email(&email("alice@example.org"));
        assert!(number.as_str().starts_with("+999") && number.as_str().len() == 16 && number.is_of_email());
        assert_eq!(number, one.number_of_email(&email("Alice@Example.ORG")));
        assert_ne!(number, one.number_of_email(&email("bob@example.org")));
        assert_ne!(number, other.number_of_email(&email("alice@example.org")));
    }
}
