//! Whether bytes have the outer form of the ciphertext that their sender says they are.
//!
//! Of each type the version byte, the fields that every reader needs, their kinds and the lengths of public keys are looked
//! at; fields that are not known here may follow, because clients change sooner than servers. Nothing is decrypted, no
//! authentication code is checked, and nothing is copied or allocated.
//!
//! ```text
//! Ciphertext           version, protobuf (1 ratchet key, 2 counter, 4 ciphertext), 8 bytes of authentication code
//! PrekeyBundle         version, protobuf (2 base key, 3 identity key, 4 a Ciphertext, 6 id of the signed prekey,
//!                      7 and 8 id and ciphertext of the Kyber prekey, which version 4 must have)
//! UnidentifiedSender   0x11, protobuf (1 ephemeral key, 2 sealed identity, 3 sealed message); or 0x22 or 0x23,
//!                      48 bytes of key material, 32 bytes of ephemeral key, ciphertext
//! PlaintextContent     0xc0, protobuf (8 a plea to send again: 2 timestamp, and maybe 1 ratchet key, 3 device), 0x80, zeros
//! ```
//!
//! A version byte has the message's version in its upper half and the newest one that its writer knows in the lower.
//!
//! This finds clients that forgot to encrypt, not those that want to send something readable: bytes that look like a
//! ciphertext are made easily. `vectors/framing.json` holds what the official library writes, and its verdict on changes
//! of it. What passes here it reads, as far as that can be told without keys; we refuse more in
//! four things: an empty ciphertext, protobuf groups, a version byte that names a newest version below its own, and
//! whatever comes with a plea.

use std::str;

use crate::DecodeError;
use crate::proto::envelope::Type;

/// Checks that `content` is framed as a message of the type `kind`. What says no type must be framed as one of those that
/// can be sent.
///
/// # Errors
///
/// [`DecodeError::Malformed`] if it is not, and for the types that nobody sends by themselves.
pub fn check(kind: Type, content: &[u8]) -> Result<(), DecodeError> {
    let framed = match kind {
        Type::Ciphertext => signal_message(content),
        Type::PrekeyBundle => pre_key_signal_message(content),
        Type::UnidentifiedSender => sealed(content),
        Type::PlaintextContent => plaintext_content(content),
        Type::Unknown => signal_message(content)
            .or_else(|| pre_key_signal_message(content))
            .or_else(|| sealed(content))
            .or_else(|| plaintext_content(content)),
        Type::ServerDeliveryReceipt | Type::SenderkeyMessage => None,
    };
    framed.ok_or(DecodeError::Malformed { what: "ciphertext" })
}

/// Whether a message of sealed sender's second version can begin so. Its keys are evenly distributed, so that they are
/// text once in 10^20 times; text that begins with a quotation mark or a number sign has the version byte.
pub(crate) fn begins_received(head: &[u8; RECEIVED_HEAD]) -> bool {
    RECEIVED_VERSIONS.contains(&head[0]) && !is_text(head)
}

/// Version, key material and ephemeral key of sealed sender's second version.
pub(crate) const RECEIVED_HEAD: usize = 1 + 48 + 32;

const RECEIVED_VERSIONS: [u8; 2] = [0x22, 0x23];
const SEALED_VERSION: u8 = 0x11;
const PLAINTEXT_MARK: u8 = 0xc0;
const PADDING_MARK: u8 = 0x80;
const EC_KEY: usize = 33;
const EC_KEY_TYPE: u8 = 0x05;
const MESSAGE_CODE: usize = 8;
/// At the end of each sealed part.
const SEALED_CODE: usize = 10;
/// From this version on a first message is to a Kyber prekey too.
const KYBER_VERSION: u8 = 4;

fn signal_message(content: &[u8]) -> Option<()> {
    let (_, rest) = versioned(content)?;
    let (body, _) = rest.split_last_chunk::<MESSAGE_CODE>()?;
    let (mut ratchet_key, mut counter, mut ciphertext) = (false, false, false);
    for field in Fields(body) {
        match field? {
            (1, Value::Bytes(key)) => ratchet_key = is_ec_key(key),
            (2, Value::Number) => counter = true,
            (4, Value::Bytes(bytes)) => ciphertext = !bytes.is_empty(),
            (3, Value::Number) | (5.., _) => {}
            _ => return None,
        }
    }
    (ratchet_key && counter && ciphertext).then_some(())
}

fn pre_key_signal_message(content: &[u8]) -> Option<()> {
    let (version, body) = versioned(content)?;
    let (mut base_key, mut identity_key, mut message, mut signed_id) = (false, false, false, false);
    let (mut kyber_id, mut kyber_ciphertext) = (false, false);
    for field in Fields(body) {
        match field? {
            (2, Value::Bytes(key)) => base_key = is_ec_key(key),
            (3, Value::Bytes(key)) => identity_key = is_ec_key(key),
            (4, Value::Bytes(bytes)) => message = signal_message(bytes).is_some(),
            (6, Value::Number) => signed_id = true,
            (7, Value::Number) => kyber_id = true,
            (8, Value::Bytes(bytes)) => kyber_ciphertext = !bytes.is_empty(),
            (1 | 5, Value::Number) | (9.., _) => {}
            _ => return None,
        }
    }
    let kyber = kyber_id == kyber_ciphertext && (kyber_id || version < KYBER_VERSION);
    (base_key && identity_key && message && signed_id && kyber).then_some(())
}

fn sealed(content: &[u8]) -> Option<()> {
    let Some(body) = content.strip_prefix(&[SEALED_VERSION]) else {
        let (head, ciphertext) = content.split_first_chunk()?;
        return (begins_received(head) && !ciphertext.is_empty()).then_some(());
    };
    let (mut ephemeral_key, mut identity, mut message) = (false, false, false);
    for field in Fields(body) {
        match field? {
            (1, Value::Bytes(key)) => ephemeral_key = is_ec_key(key),
            (2, Value::Bytes(bytes)) => identity = bytes.len() > SEALED_CODE,
            (3, Value::Bytes(bytes)) => message = bytes.len() > SEALED_CODE,
            (4.., _) => {}
            _ => return None,
        }
    }
    (ephemeral_key && identity && message).then_some(())
}

/// The one type that a server can read. So nothing but a plea to send again may be in it: the same protobuf message has
/// fields for all that people write to each other.
fn plaintext_content(content: &[u8]) -> Option<()> {
    let padded = content.strip_prefix(&[PLAINTEXT_MARK])?;
    let end = padded.iter().rposition(|byte| *byte != 0)?;
    let (body, padding) = padded.split_at(end);
    if padding.first() != Some(&PADDING_MARK) {
        return None;
    }
    let mut fields = Fields(body);
    let Some(Some((8, Value::Bytes(plea)))) = fields.next() else {
        return None;
    };
    if fields.next().is_some() {
        return None;
    }
    let (mut ratchet_key, mut timestamp) = (true, false);
    for field in Fields(plea) {
        match field? {
            (1, Value::Bytes(key)) => ratchet_key = is_ec_key(key),
            (2, Value::Number) => timestamp = true,
            (3, Value::Number) | (4.., _) => {}
            _ => return None,
        }
    }
    (ratchet_key && timestamp).then_some(())
}

/// The version of a message, and what follows its byte.
fn versioned(content: &[u8]) -> Option<(u8, &[u8])> {
    let (first, rest) = content.split_first()?;
    let (version, newest) = (first >> 4, first & 0x0f);
    (matches!(version, 3 | 4) && newest >= version).then_some((version, rest))
}

fn is_ec_key(bytes: &[u8]) -> bool {
    bytes.len() == EC_KEY && bytes.first() == Some(&EC_KEY_TYPE)
}

/// Whether text begins so; its last character may be cut off.
fn is_text(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true)
}

/// The fields of a protobuf message, `None` for what is not one. Where a field is there twice, readers take the last.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number,
    Fixed,
    Bytes(&'a [u8]),
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u32, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let tag = u32::try_from(self.varint()?).ok()?;
        let value = match tag & 7 {
            0 => self.varint().map(|_| Value::Number),
            1 => self.bytes(8).map(|_| Value::Fixed),
            2 => {
                let length = self.varint()?;
                self.bytes(usize::try_from(length).ok()?).map(Value::Bytes)
            }
            5 => self.bytes(4).map(|_| Value::Fixed),
            _ => None,
        }?;
        (tag >> 3 != 0).then_some((tag >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                // Of the tenth byte one bit is left.
                return (shift < 63 || *byte < 2).then_some(value);
            }
        }
        None
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: [Type; 5] = [
        Type::Unknown,
        Type::Ciphertext,
        Type::PrekeyBundle,
        Type::UnidentifiedSender,
        Type::PlaintextContent,
    ];

    fn key() -> Vec<u8> {
        [&[EC_KEY_TYPE][..], &[0xaa; 32]].concat()
    }

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).unwrap();
        assert!(length < 0x80);
        [&[number << 3 | 2, length], bytes].concat()
    }

    fn sealed_message(parts: [Vec<u8>; 3]) -> Vec<u8> {
        [vec![SEALED_VERSION], parts.concat()].concat()
    }

    fn passes(kind: Type, content: &[u8]) -> bool {
        check(kind, content).is_ok()
    }

    #[test]
    fn a_sealed_message_of_the_first_version_has_three_parts_of_bytes() {
        let parts = || [field(1, &key()), field(2, &[1; 43]), field(3, &[2; 60])];
        assert!(passes(Type::UnidentifiedSender, &sealed_message(parts())));
        let more = [&sealed_message(parts())[..], b"\x22\x01x\x28\x05"].concat();
        assert!(passes(Type::UnidentifiedSender, &more), "unknown fields");
        for missing in 0..3 {
            let mut parts = parts();
            parts[missing].clear();
            assert!(!passes(Type::UnidentifiedSender, &sealed_message(parts)), "{missing}");
        }
        for (part, bytes) in [
            (0, field(1, &key()[..32])),
            (0, field(1, &[4; 33])),
            (0, vec![0x08, 1]),
            (1, field(2, &[1; 10])),
            (2, field(3, &[2; 10])),
            (2, vec![0x18, 1]),
        ] {
            let mut parts = parts();
            parts[part] = bytes;
            assert!(!passes(Type::UnidentifiedSender, &sealed_message(parts)), "{part}");
        }
    }

    #[test]
    fn a_sealed_message_of_the_second_version_is_keys_and_a_ciphertext() {
        for version in RECEIVED_VERSIONS {
            let whole = [&[version][..], &[0xee; 80], &[0]].concat();
            assert!(passes(Type::UnidentifiedSender, &whole));
            assert!(!passes(Type::UnidentifiedSender, &whole[..81]), "no ciphertext");
        }
        for version in [0x00, 0x01, 0x10, 0x12, 0x20, 0x21, 0x24, 0x33] {
            assert!(!passes(
                Type::UnidentifiedSender,
                &[&[version][..], &[0xee; 80], &[0]].concat()
            ));
        }
    }

    /// The quotation mark and the number sign are the version bytes.
    #[test]
    fn text_is_no_sealed_message_even_where_it_begins_with_its_version() {
        let cyrillic = format!("# {}", "Привет, мир. ".repeat(20));
        let cut_character = format!("#{}", "é".repeat(200));
        assert!(!cut_character.is_char_boundary(RECEIVED_HEAD + 1));
        for text in [
            "# Notes\n".repeat(40),
            "\"quoted\", ".repeat(40),
            "#!/bin/sh\n".repeat(40),
            cyrillic,
            cut_character,
            format!("# {}", "é".repeat(200)),
        ] {
            assert!(!passes(Type::UnidentifiedSender, text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn with_a_plea_comes_nothing_that_could_be_read() {
        let plea = field(8, b"\x10\x05\x18\x01");
        let padded = |body: &[u8], padding: &[u8]| [&[PLAINTEXT_MARK], body, padding].concat();
        assert!(passes(Type::PlaintextContent, &padded(&plea, &[0x80])));
        assert!(passes(Type::PlaintextContent, &padded(&plea, b"\x80\0\0\0\0\0")));
        for (what, content) in [
            ("no padding", padded(&plea, &[])),
            ("other padding", padded(&plea, &[0x80, 1])),
            ("nothing at all", vec![PLAINTEXT_MARK]),
            ("only padding", padded(&[], &[0x80])),
            ("only zeros", padded(&[], &[0, 0])),
            ("a message of a person", padded(&field(1, &field(1, b"hello")), &[0x80])),
            (
                "one before it",
                padded(&[field(1, b"hello"), plea.clone()].concat(), &[0x80]),
            ),
            (
                "one behind it",
                padded(&[plea.clone(), field(1, b"hello")].concat(), &[0x80]),
            ),
            ("no timestamp", padded(&field(8, b"\x18\x01"), &[0x80])),
            ("half a key", padded(&field(8, b"\x0a\x01\x05\x10\x05"), &[0x80])),
            ("other bytes before it", padded(&plea, &[0x80])[1..].to_vec()),
        ] {
            assert!(!passes(Type::PlaintextContent, &content), "{what}");
        }
    }

    #[test]
    fn nobody_sends_receipts_and_group_messages_by_themselves() {
        let sealed = sealed_message([field(1, &key()), field(2, &[1; 43]), field(3, &[2; 60])]);
        assert!(passes(Type::Unknown, &sealed));
        for kind in [Type::ServerDeliveryReceipt, Type::SenderkeyMessage] {
            assert!(!passes(kind, &sealed));
            assert!(!passes(kind, &[]));
        }
    }

    #[test]
    fn nothing_of_a_few_bytes_passes() {
        for kind in SENT {
            assert!(!passes(kind, &[]));
            for first in 0..=u8::MAX {
                assert!(!passes(kind, &[first]));
                for second in 0..=u8::MAX {
                    assert!(!passes(kind, &[first, second]));
                }
            }
        }
    }

    /// Of random bytes the second version of sealed sender cannot be told apart, but for its first byte.
    #[test]
    fn random_bytes_pass_only_where_a_sealed_message_looks_random() {
        let mut state: u64 = 1;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..200).map(|_| random()).collect();
            for kind in SENT {
                let sealed = matches!(kind, Type::UnidentifiedSender | Type::Unknown);
                let looks_sealed = sealed && RECEIVED_VERSIONS.contains(&bytes[0]);
                assert_eq!(passes(kind, &bytes), looks_sealed, "{kind:?}");
            }
        }
    }
}
