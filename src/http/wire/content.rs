//! The ciphertext of one copy, in the buffer of its envelope.
//!
//! A content is decoded once, to where it stays: before it there is room for the fields of the envelope that come first,
//! and behind it for those that come last. What is made of it is then queued and delivered as it is.

use bytes::Bytes;

use base64::Engine;
use serde::{Deserialize, Deserializer, de};

use crate::encoding::BASE64;

/// The ciphertext for one device.
#[derive(Clone)]
pub struct Content(Vec<u8>);

impl Content {
    /// Of these parts, one after the other.
    pub fn of(parts: &[&[u8]]) -> Self {
        let bytes = parts.iter().map(|part| part.len()).sum();
        let mut content = Self::with_room(bytes);
        for part in parts {
            content.0.extend_from_slice(part);
        }
        content
    }

    fn with_room(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(ROOM_BEFORE + bytes + ROOM_BEHIND);
        buffer.resize(ROOM_BEFORE, 0);
        Self(buffer)
    }

    /// The ciphertext.
    pub fn as_slice(&self) -> &[u8] {
        &self.0[ROOM_BEFORE..]
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.0.len() - ROOM_BEFORE
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ciphertext between the given bytes. `behind` is handed the buffer to append to.
    pub fn between(mut self, before: &[u8], behind: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        behind(&mut self.0);
        match ROOM_BEFORE.checked_sub(before.len()) {
            Some(begin) => {
                self.0[begin..ROOM_BEFORE].copy_from_slice(before);
                Bytes::from(self.0).slice(begin..)
            }
            // No envelope of ours begins with that much.
            None => [before, self.as_slice()].concat().into(),
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Content;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a base64 string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
                let mut content = Content::with_room(base64::decoded_len_estimate(text.len()));
                // The decoder's error names a byte of the input, so it is not passed on.
                BASE64
                    .decode_vec(text, &mut content.0)
                    .map_err(|_| E::custom("not base64"))?;
                Ok(content)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// Type, time, and the sender's device, the longest there are, and the length of the content: 1 + 1, 1 + 10, 1 + 2, 1 + 5.
const ROOM_BEFORE: usize = 24;
/// The rest of an envelope, with the longest ids and times: 11 of the server's time, 38 and 42 of ids as texts, 5 of what it
/// is for, 19 and 20 of ids as bytes.
const ROOM_BEHIND: usize = 136;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<Content> {
        serde_json::from_str(json).ok()
    }

    #[test]
    fn padding_is_optional_and_the_alphabet_standard() {
        for (json, bytes) in [
            ("\"-w==\"", None),
            ("\"+w==\"", Some(&[0xfb][..])),
            ("\"+w\"", Some(&[0xfb][..])),
            ("\"\\u002bw\"", Some(&[0xfb][..])),
            ("\"\"", Some(&[][..])),
            ("[251]", None),
        ] {
            assert_eq!(read(json).as_ref().map(Content::as_slice), bytes, "{json}");
        }
    }

    #[test]
    fn what_is_put_around_it_does_not_move_it() {
        for before in [&[][..], &[1; ROOM_BEFORE]] {
            let content = Content::of(&[b"cipher", b"text"]);
            assert_eq!((content.len(), content.is_empty()), (10, false));
            let place = content.as_slice().as_ptr();
            let whole = content.between(before, |behind| behind.extend_from_slice(&[2; ROOM_BEHIND]));
            assert_eq!(whole, [before, b"ciphertext", &[2; ROOM_BEHIND]].concat());
            assert_eq!(whole[before.len()..].as_ptr(), place, "no byte was copied");
        }
        let before = [1; ROOM_BEFORE + 1];
        let whole = Content::of(&[b"x"]).between(&before, |behind| behind.push(2));
        assert_eq!(whole, [&before[..], b"x", &[2]].concat());
    }
}
