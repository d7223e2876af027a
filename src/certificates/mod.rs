//! The server's keys for sealed sender, and what they issue: a device's proof of who it is, for its correspondents.
//!
//! The **trust root** is what clients pin; its private half is needed only to certify a server key and may be kept
//! elsewhere. The **server key** signs sender certificates, and carries its own certificate into each of them: when it is
//! replaced, what was issued before stays valid until it expires. The parts are described in
//! [`keys_schema::certificate`].

mod files;

use std::time::Duration;

use bytes::Bytes;
use keys_schema::certificate::{Sender, Signer};

use crate::domain::Timestamp;
use crate::sealing::random;

pub use files::{KeyFileError, KeyFiles, ServerKey};

/// Issues sender certificates.
pub struct Issuer {
    signer: Signer,
    lifetime: Duration,
}

impl Issuer {
    /// Signs with that key; what is issued is valid for `lifetime`.
    pub fn new(key: ServerKey, lifetime: Duration) -> Self {
        Self {
            signer: key.into_signer(),
            lifetime,
        }
    }

    /// A certificate for the sender, as clients read it.
    pub fn issue(&self, sender: Sender, now: Timestamp) -> Bytes {
        let lifetime = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        let expires = u64::try_from(now.0).unwrap_or(0).saturating_add(lifetime);
        self.signer.issue(sender, expires, &random()).serialized()
    }
}

#[cfg(test)]
mod tests {
    use keys_schema::certificate::SenderCertificate;
    use keys_schema::{Aci, PrivateKey};

    use super::*;

    #[test]
    fn what_is_issued_is_valid_for_the_lifetime() {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyFiles::new(dir.path().join("trust-root"), dir.path().join("server-key"))
            .read_or_create()
            .unwrap();
        let root = *key.trust_root();
        let issuer = Issuer::new(key, Duration::from_secs(60));
        let sender = Sender {
            aci: Aci::new(uuid::Uuid::from_bytes([7; 16])),
            device_id: 3,
            identity_key: PrivateKey::from_bytes(&[8; 32]).public_key().into(),
            e164: None,
        };
        let issued = issuer.issue(sender.clone(), Timestamp(1_000_000));
        let read = SenderCertificate::parse(issued).unwrap();
        assert!(*read.sender() == sender);
        assert!(read.is_valid(&root, 1_060_000));
        assert!(!read.is_valid(&root, 1_060_001));
    }
}
