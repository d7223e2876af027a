//! The envelope that a recipient gets, and the name under which it can delete it.
//!
//! What is queued is the serialised envelope without its guid. The guid is a function of mailbox and number, so it needs
//! no column, is the same at every delivery, and leads back to the number. Protobuf lets fields be appended, so the
//! guid is added at delivery without decoding what is queued.

use bytes::{BufMut, Bytes, BytesMut};
use keys_schema::proto::{Envelope, envelope};
use prost::Message;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::{MailboxId, ProtocolAddress, Seq, ServiceId, Timestamp};

use crate::sealing::random;

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
    pub(super) fn with_content(&self, kind: MessageKind, content: Vec<u8>) -> Bytes {
        let source = self.source.filter(|_| kind != MessageKind::UnidentifiedSender);
        let source_id = source.map(|source| ServiceId::Aci(source.aci));
        let envelope = Envelope {
            r#type: Some(envelope::Type::from(kind).into()),
            timestamp: Some(self.client_millis),
            source_device: source.map(|source| u32::from(source.device_id.get())),
            content: Some(content.into()),
            server_timestamp: Some(u64::try_from(self.accepted.0).unwrap_or(0)),
            // Both forms of every id: of the client stacks in use, some read only one of them.
            source_service_id: source_id.map(|id| id.to_string()),
            source_service_id_binary: source_id.map(|id| id.to_compact().into()),
            destination_service_id: Some(self.destination.to_string()),
            destination_service_id_binary: Some(self.destination.to_compact().into()),
            urgent: Some(self.urgent),
            story: self.story.then_some(true),
            ..Envelope::default()
        };
        envelope.encode_to_vec().into()
    }
}

/// The envelope as it is delivered.
pub(super) fn with_guid(queued: &[u8], guid: Uuid) -> Bytes {
    let name = Envelope {
        server_guid: Some(guid.to_string()),
        server_guid_binary: Some(Bytes::copy_from_slice(guid.as_bytes())),
        ..Envelope::default()
    };
    let mut whole = BytesMut::with_capacity(queued.len() + name.encoded_len());
    whole.put_slice(queued);
    // A buffer of that capacity cannot be too small, and this is the only way in which encoding fails.
    let _ = name.encode(&mut whole);
    whole.freeze()
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
    let mut hash = Sha256::new();
    hash.update(b"blind-relay envelope guid v1");
    hash.update(mailbox.0.to_be_bytes());
    hash.update(seq.0.to_be_bytes());
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&hash.finalize()[..8]);
    bytes[8..].copy_from_slice(&seq.0.to_be_bytes());
    // Sets 4 bits of the hash and the two highest bits of the number, which no number has.
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DeviceId;

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
    fn ids_are_sent_in_both_forms_and_the_guid_is_appended() {
        let queued = head(true).with_content(MessageKind::Ciphertext, vec![7; 40]);
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
    fn b4_a_sealed_sender_has_no_source_even_when_it_is_known() {
        for source in [true, false] {
            let queued = head(source).with_content(MessageKind::UnidentifiedSender, vec![7; 40]);
            let envelope = Envelope::decode(queued).unwrap();
            assert_eq!((envelope.source_device, envelope.source_service_id), (None, None));
            assert_eq!(envelope.source_service_id_binary, None);
        }
    }

    #[test]
    fn the_story_flag_is_found_without_reading_the_rest() {
        let plain = head(true).with_content(MessageKind::Ciphertext, vec![7; 40]);
        let story = EnvelopeHead {
            story: true,
            ..head(false)
        }
        .with_content(MessageKind::UnidentifiedSender, vec![7]);
        assert!(!is_story(&plain));
        assert!(is_story(&story));
        assert!(!is_story(b"\xff\xff"));
    }
}
