//! The envelope that a recipient gets, and the name under which it can delete it.
//!
//! What is queued is the serialised envelope without its guid. The guid is a function of mailbox and number, so it needs
//! no column, is the same at every delivery, and leads back to the number. Protobuf lets fields be appended, so the
//! guid is added at delivery without decoding what is queued.

use bytes::Bytes;
use keys_schema::proto::envelope;
use prost::Message;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::{MailboxId, ProtocolAddress, Seq, ServiceId, Timestamp};
use crate::relay::offers::OfferId;
use crate::sealing::random;
use crate::wakeup::ConnectionId;

use super::protobuf::{begin_bytes, bytes, number};
use super::wire::content::Content;
use super::wire::messages::MessageKind;

/// What all copies of one send have in common.
pub(super) struct EnvelopeHead {
    /// Who sent it; `None` if the sender is sealed inside.
    pub(super) source: Option<ProtocolAddress>,
    /// The id to which it was sent.
    pub(super) destination: ServiceId,
    /// The sender's time.
    pub(super) client_millis: u64,
    /// The time of acceptance.
    pub(super) accepted: Timestamp,
    /// Worth waking the recipient for.
    pub(super) urgent: bool,
    /// Sent to a story.
    pub(super) story: bool,
}

impl EnvelopeHead {
    /// The envelope of one copy, serialised, without guid.
    pub(super) fn with_content(&self, kind: MessageKind, content: Content) -> Bytes {
        let source = self.source.filter(|_| kind != MessageKind::UnidentifiedSender);
        let source_id = source.map(|source| ServiceId::Aci(source.aci));
        let mut before = [0; LONGEST_BEFORE];
        let mut room = &mut before[..];
        number(
            &mut room,
            1,
            u64::try_from(i32::from(envelope::Type::from(kind))).unwrap_or(0),
        );
        number(&mut room, 5, self.client_millis);
        if let Some(source) = source {
            number(&mut room, 7, u64::from(source.device_id.get()));
        }
        begin_bytes(&mut room, 8, content.len());
        let left = room.len();
        content.between(&before[..LONGEST_BEFORE - left], |out| {
            number(out, 10, u64::try_from(self.accepted.0).unwrap_or(0));
            // Both forms of every id: of the client stacks in use, some read only one of them.
            if let Some(id) = source_id {
                text_of(out, 11, &id);
            }
            text_of(out, 13, &self.destination);
            number(out, 14, u64::from(self.urgent));
            if self.story {
                number(out, 16, 1);
            }
            if let Some(id) = source_id {
                bytes(out, 19, &[id.to_compact().as_bytes()]);
            }
            bytes(out, 20, &[self.destination.to_compact().as_bytes()]);
        })
    }
}

fn text_of(out: &mut Vec<u8>, field: u8, id: &ServiceId) {
    let mut uuid = Uuid::encode_buffer();
    let uuid = id.as_uuid().hyphenated().encode_lower(&mut uuid).as_bytes();
    let kind: &[u8] = if id.is_pni() { b"PNI:" } else { b"" };
    bytes(out, field, &[kind, uuid]);
}

/// What is appended to a queued envelope when it is delivered: its guid.
pub(super) struct Named([u8; NAMED]);

impl Named {
    pub(super) fn new(guid: Uuid) -> Self {
        let mut text = Uuid::encode_buffer();
        let text = guid.hyphenated().encode_lower(&mut text).as_bytes();
        let mut named = [0; NAMED];
        let mut room = &mut named[..];
        bytes(&mut room, 9, &[text]);
        bytes(&mut room, 21, &[guid.as_bytes()]);
        Self(named)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether a queued envelope was sent to a story.
pub(super) fn is_story(queued: &[u8]) -> bool {
    #[derive(Clone, PartialEq, Eq, Message)]
    struct StoryFlag {
        #[prost(bool, optional, tag = "16")]
        story: Option<bool>,
    }
    StoryFlag::decode(queued).is_ok_and(|envelope| envelope.story == Some(true))
}

/// The guid of an envelope: a version 8 UUID (RFC 9562), 58 bits of SHA-256 over mailbox and number, then the number.
pub(super) fn guid(mailbox: MailboxId, seq: Seq) -> Uuid {
    named(
        b"blind-relay envelope guid v1",
        mailbox.0.cast_unsigned(),
        seq.0.cast_unsigned(),
    )
}

fn named(what: &[u8], owner: u64, number: u64) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(what);
    hash.update(owner.to_be_bytes());
    hash.update(number.to_be_bytes());
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&hash.finalize()[..8]);
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    // Sets 4 bits of the hash and the two highest bits of the number, which no number has.
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The guid of an envelope that a connection was offered before it had a number: like [`guid`], of the connection in the
/// place of the mailbox. Should the envelope be stored, it has another one from its next connection on.
pub(super) fn offered_guid(connection: ConnectionId, id: OfferId) -> Uuid {
    named(b"blind-relay offered envelope guid v1", connection.nonce, id.0)
}

/// The offer to a connection that a guid leads to; `None` if it is no guid of an offer of this connection.
pub(super) fn offer_of(connection: ConnectionId, candidate: Uuid) -> Option<OfferId> {
    let (_, low) = candidate.as_u64_pair();
    let id = OfferId(low & (u64::MAX >> 2));
    (offered_guid(connection, id) == candidate).then_some(id)
}

/// The guid of an envelope that has no number, because it is never stored.
pub(super) fn random_guid() -> Uuid {
    uuid::Builder::from_random_bytes(random()).into_uuid()
}

/// The number that a guid of this mailbox leads to; `None` if it is no guid of this mailbox.
pub(super) fn seq_of(mailbox: MailboxId, candidate: Uuid) -> Option<Seq> {
    let (_, low) = candidate.as_u64_pair();
    let seq = Seq(i64::try_from(low & (u64::MAX >> 2)).ok()?);
    (guid(mailbox, seq) == candidate).then_some(seq)
}

/// Type, time, and the sender's device, the longest there are, and the length of the content.
const LONGEST_BEFORE: usize = 2 + 11 + 3 + 6;
/// The guid as text and as bytes.
const NAMED: usize = 2 + 36 + 3 + 16;

#[cfg(test)]
mod tests {
    use keys_schema::proto::Envelope;

    use super::*;
    use crate::domain::DeviceId;

    /// As it is delivered.
    fn with_guid(queued: &[u8], guid: Uuid) -> Bytes {
        [queued, Named::new(guid).as_bytes()].concat().into()
    }

    const MAILBOX: MailboxId = MailboxId(0x0123_4567_89ab_cdef);

    fn head(source: bool) -> EnvelopeHead {
        let aci = keys_schema::Aci::new(Uuid::from_bytes([1; 16]));
        EnvelopeHead {
            source: source.then_some(ProtocolAddress {
                aci,
                device_id: DeviceId::PRIMARY,
            }),
            destination: ServiceId::Pni(keys_schema::Pni::new(Uuid::from_bytes([2; 16]))),
            client_millis: 1000,
            accepted: Timestamp(2000),
            urgent: true,
            story: false,
        }
    }

    #[test]
    fn a_guid_leads_back_to_its_number_in_its_own_mailbox_only() {
        for seq in [1, 2, 5000, i64::MAX >> 2] {
            let guid = guid(MAILBOX, Seq(seq));
            assert_eq!(seq_of(MAILBOX, guid), Some(Seq(seq)));
            assert_eq!(seq_of(MailboxId(MAILBOX.0 + 1), guid), None);
            assert_eq!(
                (guid.get_version_num(), guid.get_variant()),
                (8, uuid::Variant::RFC4122)
            );
        }
        assert_eq!(seq_of(MAILBOX, Uuid::from_bytes([9; 16])), None);
    }

    #[test]
    fn the_guid_of_an_offer_leads_back_to_it_on_its_own_connection_only() {
        let connection = |nonce| ConnectionId {
            since: Timestamp(0),
            nonce,
        };
        for id in [0, 1, u64::MAX >> 2] {
            let guid = offered_guid(connection(7), OfferId(id));
            assert_eq!(offer_of(connection(7), guid), Some(OfferId(id)));
            assert_eq!(offer_of(connection(8), guid), None);
            assert_eq!(seq_of(MailboxId(7), guid), None);
        }
    }

    #[test]
    fn ids_are_sent_in_both_forms_and_the_guid_is_appended() {
        let queued = head(true).with_content(MessageKind::Ciphertext, Content::of(&[&[7; 40]]));
        let delivered = with_guid(&queued, guid(MAILBOX, Seq(1)));
        let envelope = Envelope::decode(delivered).unwrap();
        assert_eq!(
            envelope.source_service_id.as_deref(),
            Some("01010101-0101-0101-0101-010101010101")
        );
        assert_eq!(envelope.source_service_id_binary.as_deref(), Some(&[1; 16][..]));
        assert_eq!(
            envelope.destination_service_id.as_deref(),
            Some("PNI:02020202-0202-0202-0202-020202020202")
        );
        assert_eq!(
            envelope.destination_service_id_binary.map(|id| (id[0], id.len())),
            Some((1, 17))
        );
        assert_eq!(envelope.server_guid, Some(guid(MAILBOX, Seq(1)).to_string()));
        assert_eq!(
            envelope.server_guid_binary.as_deref(),
            Some(&guid(MAILBOX, Seq(1)).as_bytes()[..])
        );
        assert_eq!(
            (envelope.urgent, envelope.story, envelope.ephemeral),
            (Some(true), None, None)
        );
    }

    #[test]
    fn an_envelope_is_the_message_that_the_schema_says() {
        let aci = keys_schema::Aci::new(Uuid::from_u128(u128::MAX));
        let far = ProtocolAddress {
            aci,
            device_id: DeviceId::new(127).unwrap(),
        };
        for (kind, source, destination, millis, story) in [
            (
                MessageKind::Ciphertext,
                Some(far),
                ServiceId::Aci(aci),
                1_700_000_000_000,
                false,
            ),
            (MessageKind::Unknown, Some(far), ServiceId::Aci(aci), 0, true),
            (
                MessageKind::UnidentifiedSender,
                None,
                ServiceId::Pni(keys_schema::Pni::new(Uuid::from_bytes([2; 16]))),
                u64::MAX,
                true,
            ),
            (MessageKind::PlaintextContent, Some(far), ServiceId::Aci(aci), 1, false),
        ] {
            let head = EnvelopeHead {
                source,
                destination,
                client_millis: millis,
                accepted: Timestamp(i64::MAX),
                urgent: !story,
                story,
            };
            let content = vec![7; 70_000];
            let source_id = source.map(|source| ServiceId::Aci(source.aci));
            let schema = Envelope {
                r#type: Some(envelope::Type::from(kind).into()),
                timestamp: Some(millis),
                source_device: source.map(|source| source.device_id.get().into()),
                content: Some(content.clone().into()),
                server_timestamp: Some(i64::MAX.cast_unsigned()),
                source_service_id: source_id.map(|id| id.to_string()),
                source_service_id_binary: source_id.map(|id| id.to_compact().into()),
                destination_service_id: Some(destination.to_string()),
                destination_service_id_binary: Some(destination.to_compact().into()),
                urgent: Some(!story),
                story: story.then_some(true),
                ..Envelope::default()
            };
            let queued = head.with_content(kind, Content::of(&[&content]));
            assert_eq!(queued, schema.encode_to_vec());
            let guid = guid(MAILBOX, Seq(1));
            let name = Envelope {
                server_guid: Some(guid.to_string()),
                server_guid_binary: Some(Bytes::copy_from_slice(guid.as_bytes())),
                ..Envelope::default()
            };
            assert_eq!(with_guid(&queued, guid), [&queued[..], &name.encode_to_vec()].concat());
        }
    }

    #[test]
    fn b4_a_sealed_sender_has_no_source_even_when_it_is_known() {
        for source in [true, false] {
            let queued = head(source).with_content(MessageKind::UnidentifiedSender, Content::of(&[&[7; 40]]));
            let envelope = Envelope::decode(queued).unwrap();
            assert_eq!((envelope.source_device, envelope.source_service_id), (None, None));
            assert_eq!(envelope.source_service_id_binary, None);
        }
    }

    #[test]
    fn the_story_flag_is_found_without_reading_the_rest() {
        let plain = head(true).with_content(MessageKind::Ciphertext, Content::of(&[&[7; 40]]));
        let story = EnvelopeHead {
            story: true,
            ..head(false)
        }
        .with_content(MessageKind::UnidentifiedSender, Content::of(&[&[7]]));
        assert!(!is_story(&plain));
        assert!(is_story(&story));
        assert!(!is_story(b"\xff\xff"));
    }
}
