//! Keys of attachments: random, unguessable, and all that it takes to download.

use std::fmt;

use base64::Engine;
use sha2::{Digest, Sha256};

use crate::domain::AttachmentName;
use crate::encoding::BASE64_URL;
use crate::sealing::random;

/// The key of an attachment: 32 characters of URL-safe base64.
#[derive(Clone, PartialEq, Eq)]
pub struct AttachmentKey([u8; Self::BYTES]);

/// A text that no client of ours would take for a key: path tricks, control characters, far too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRefused;

impl AttachmentKey {
    /// 192 bits.
    pub const BYTES: usize = 24;

    /// A new key.
    pub fn random() -> Self {
        Self(random())
    }

    /// The key of these bytes.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The name that this key opens.
    pub fn name(&self) -> AttachmentName {
        name_of(&self.to_string())
    }

    /// The name that a text from a path would open. Every text that could be a key has one, also if no key looks like
    /// it: whoever asks for it is answered like anyone who asks for what is not there.
    pub fn name_in_path(text: &str) -> Result<AttachmentName, KeyRefused> {
        let plausible = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > MAX_TEXT || !text.bytes().all(plausible) {
            return Err(KeyRefused);
        }
        Ok(name_of(text))
    }
}

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL.encode(self.0))
    }
}

impl fmt::Debug for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttachmentKey")
    }
}

/// The entity tag of an attachment, in its quotes. It comes from the name, since the bytes under a name never change.
pub fn entity_tag(name: &AttachmentName) -> String {
    let digest = Sha256::new().chain_update(ETAG).chain_update(name.0).finalize();
    format!("\"{}\"", BASE64_URL.encode(&digest[..18]))
}

fn name_of(text: &str) -> AttachmentName {
    AttachmentName(Sha256::digest(text.as_bytes()).into())
}

const ETAG: &[u8] = b"blind-relay attachment entity tag v1";
/// Four times a key.
const MAX_TEXT: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_text() {
        let key = AttachmentKey::random();
        assert_eq!(key.to_string().len(), 32);
        assert_eq!(AttachmentKey::name_in_path(&key.to_string()), Ok(key.name()));
        assert_ne!(AttachmentKey::random().name(), key.name());
    }

    #[test]
    fn what_could_be_a_key_has_a_name_and_what_could_not_is_refused() {
        for text in ["x", "AAAA", &"a".repeat(128), "-_-"] {
            assert!(AttachmentKey::name_in_path(text).is_ok(), "{text}");
        }
        for text in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/etc/passwd",
            "http://x",
            "a\0b",
            "a%2f",
            "ä",
            "a b",
            "a=",
            &"a".repeat(129),
            &"a".repeat(10_240),
        ] {
            assert_eq!(AttachmentKey::name_in_path(text), Err(KeyRefused), "{text}");
        }
    }

    #[test]
    fn an_entity_tag_belongs_to_one_name_and_is_quoted() {
        let (one, other) = (AttachmentName([1; 32]), AttachmentName([2; 32]));
        assert_eq!(entity_tag(&one), entity_tag(&one));
        assert_ne!(entity_tag(&one), entity_tag(&other));
        assert!(entity_tag(&one).starts_with('"') && entity_tag(&one).ends_with('"'));
    }
}
