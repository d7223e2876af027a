//! A device's password: how it is recognised, and what is derived from it.
//!
//! Passwords are drawn by clients with at least 128 bits of entropy, so a salted HKDF is enough where a password chosen
//! by a person would need a slow hash (ADR 0004). One extraction serves every derived key, each with its own purpose.

use std::fmt;

use keys_schema::sealed_queue::QueueKey;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::domain::{MailboxId, Sealed, SecretVerifier};
use crate::sealing::{SealingKey, derive_bytes, random};

use super::Number;

/// A password as a client shows it: 8 to 256 bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Password(Vec<u8>);

impl Password {
    /// The shortest password accepted.
    pub const MIN_BYTES: usize = 8;
    /// The longest password accepted.
    pub const MAX_BYTES: usize = 256;

    /// `None` if it is too short or too long.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (Self::MIN_BYTES..=Self::MAX_BYTES)
            .contains(&bytes.len())
            .then(|| Self(bytes.to_vec()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A fresh verifier for this password.
    pub fn verifier(&self) -> SecretVerifier {
        verifier(&self.0)
    }

    /// Whether this is the password that the verifier was made for. Takes the same time for every wrong one.
    pub fn matches(&self, verifier: &SecretVerifier) -> bool {
        matches(&self.0, verifier)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// The key to which a device's queue is sealed, derived from its password under the salt of its verifier. It opens what
/// waits for the device, so it is for a connection to have, and for nobody to keep.
pub fn queue_key(password: &Password, salt: &[u8; 16]) -> QueueKey {
    QueueKey::from_bytes(*derive_bytes(&password.0, salt, "blind-relay queue key v1"))
}

/// What an authenticated device's password opens. In memory only while the device is at work.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DeviceSecret {
    number: SealingKey,
}

impl DeviceSecret {
    /// Derives it from the password under the salt of the device's verifier.
    pub fn derive(password: &Password, salt: &[u8; 16]) -> Self {
        Self {
            number: SealingKey::derive(&password.0, salt, "blind-relay device number v1"),
        }
    }

    /// As a token carries it.
    pub(super) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self {
            number: SealingKey::from_bytes(bytes),
        }
    }

    /// For a token that carries it.
    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        self.number.as_bytes()
    }

    /// Seals the account's number for this device. The mailbox is the context: it is the one name of a device that is
    /// never used again.
    pub fn seal_number(&self, mailbox: MailboxId, number: &Number) -> Sealed {
        self.number.seal(&mailbox.0.to_be_bytes(), number.as_str().as_bytes())
    }

    /// Opens what [`Self::seal_number`] made for the same device.
    pub fn open_number(&self, mailbox: MailboxId, sealed: &Sealed) -> Option<Number> {
        let text: Zeroizing<Vec<u8>> = self.number.open(&mailbox.0.to_be_bytes(), &sealed.0)?;
        Number::parse(std::str::from_utf8(&text).ok()?).ok()
    }
}

/// A fresh verifier for a high-entropy secret.
pub fn verifier(secret: &[u8]) -> SecretVerifier {
    let salt = random();
    SecretVerifier {
        salt,
        hash: *derive_bytes(secret, &salt, VERIFIER),
    }
}

/// Whether the verifier was made for this secret.
pub fn matches(secret: &[u8], verifier: &SecretVerifier) -> bool {
    derive_bytes(secret, &verifier.salt, VERIFIER)
        .ct_eq(&verifier.hash)
        .into()
}

const VERIFIER: &str = "blind-relay secret verifier v1";

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_verifier_knows_its_password_only() {
        let verifier = password("correct horse").verifier();
        assert!(password("correct horse").matches(&verifier));
        assert!(!password("correct horsf").matches(&verifier));
        assert!(!password("correct horse ").matches(&verifier));
    }

    #[test]
    fn equal_passwords_have_different_verifiers() {
        assert!(password("correct horse").verifier() != password("correct horse").verifier());
    }

    #[test]
    fn passwords_have_8_to_256_bytes() {
        assert!(Password::new(&[b'a'; 7]).is_none());
        assert!(Password::new(&[b'a'; 8]).is_some());
        assert!(Password::new(&[b'a'; 256]).is_some());
        assert!(Password::new(&[b'a'; 257]).is_none());
    }

    #[test]
    fn the_queue_key_is_derived_as_another_implementation_does_it() {
        let vectors = include_str!("../../keys-schema/vectors/sealed-queue.json");
        let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert!(cases.len() > 5);
        for case in cases {
            let bytes = |field: &str| {
                let text = case[field].as_str().unwrap();
                let mut bytes = vec![0; text.len() / 2];
                crate::encoding::read_hex(text, &mut bytes).unwrap();
                bytes
            };
            let password = Password::new(&bytes("password")).unwrap();
            let key = queue_key(&password, &bytes("salt").try_into().unwrap());
            assert_eq!(key.as_bytes().to_vec(), bytes("privateKey"));
        }
    }

    #[test]
    fn the_number_opens_with_the_password_of_its_device_only() {
        let number = Number::parse("+15550100001").unwrap();
        let sealed = DeviceSecret::derive(&password("correct horse"), &[1; 16]).seal_number(MailboxId(5), &number);
        let open =
            |text, salt, mailbox| DeviceSecret::derive(&password(text), &salt).open_number(MailboxId(mailbox), &sealed);
        assert_eq!(open("correct horse", [1; 16], 5), Some(number));
        assert_eq!(open("wrong password", [1; 16], 5), None);
        assert_eq!(open("correct horse", [2; 16], 5), None);
        assert_eq!(open("correct horse", [1; 16], 6), None);
    }
}
