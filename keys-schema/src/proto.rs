//! The protobuf messages clients exchange with the relay.
//!
//! Generated from `proto/*.proto` and checked in, so that builds need no protobuf compiler; `tests/it/generated.rs`
//! keeps the two equal. All files hold proto2: every field is an `Option` and its absence means something. Unknown
//! fields are dropped on decoding, and an unknown value of an enum stays the number it was.

use crate::opaque_debug::opaque_debug;

use sender_certificate::Certificate as SenderCertificateContent;
use server_certificate::Certificate as ServerCertificateContent;

include!("proto/blind_relay.v1.rs");

opaque_debug!(
    Envelope,
    ProvisionEnvelope,
    ProvisioningAddress,
    SenderCertificate,
    SenderCertificateContent,
    ServerCertificate,
    ServerCertificateContent,
    WebSocketMessage,
    WebSocketRequestMessage,
    WebSocketResponseMessage
);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;

    /// Every field of an envelope but `ephemeral`, in the order of their numbers. A tag is number × 8 + wire type (0 for
    /// numbers, 2 for strings and bytes), as a varint.
    const ENVELOPE: &[u8] = b"\x08\x01\
        \x28\xac\x02\
        \x38\x7f\
        \x42\x03\x00\xff\x80\
        \x4a\x01g\
        \x50\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\
        \x5a\x01s\
        \x6a\x01d\
        \x70\x00\
        \x7a\x01u\
        \x80\x01\x01\
        \x8a\x01\x01r\
        \x9a\x01\x01S\
        \xa2\x01\x01D\
        \xaa\x01\x01G\
        \xb2\x01\x01U";

    const REQUEST: &[u8] = b"\x08\x01\
        \x12\x1f\
        \x0a\x03PUT\
        \x12\x05/path\
        \x1a\x02{}\
        \x20\x00\
        \x2a\x03a:b\
        \x2a\x06c: d\xc3\xa9";

    const RESPONSE: &[u8] = b"\x08\x02\
        \x1a\x1b\
        \x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\
        \x10\xc8\x01\
        \x1a\x02OK\
        \x22\x00\
        \x2a\x05a:b c";

    fn envelope() -> Envelope {
        Envelope {
            r#type: Some(envelope::Type::Ciphertext.into()),
            timestamp: Some(300),
            source_device: Some(127),
            content: Some(Bytes::from_static(b"\x00\xff\x80")),
            server_guid: Some("g".to_owned()),
            server_timestamp: Some(1 << 63),
            source_service_id: Some("s".to_owned()),
            ephemeral: None,
            destination_service_id: Some("d".to_owned()),
            urgent: Some(false),
            updated_pni: Some("u".to_owned()),
            story: Some(true),
            report_spam_token: Some(Bytes::from_static(b"r")),
            source_service_id_binary: Some(Bytes::from_static(b"S")),
            destination_service_id_binary: Some(Bytes::from_static(b"D")),
            server_guid_binary: Some(Bytes::from_static(b"G")),
            updated_pni_binary: Some(Bytes::from_static(b"U")),
        }
    }

    fn request() -> WebSocketMessage {
        WebSocketMessage {
            r#type: Some(web_socket_message::Type::Request.into()),
            request: Some(WebSocketRequestMessage {
                verb: Some("PUT".to_owned()),
                path: Some("/path".to_owned()),
                body: Some(Bytes::from_static(b"{}")),
                id: Some(0),
                headers: vec!["a:b".to_owned(), "c: d\u{e9}".to_owned()],
            }),
            response: None,
        }
    }

    fn response() -> WebSocketMessage {
        WebSocketMessage {
            r#type: Some(web_socket_message::Type::Response.into()),
            request: None,
            response: Some(WebSocketResponseMessage {
                id: Some(u64::MAX),
                status: Some(200),
                message: Some("OK".to_owned()),
                body: Some(Bytes::new()),
                headers: vec!["a:b c".to_owned()],
            }),
        }
    }

    #[test]
    fn envelopes_have_their_golden_bytes() {
        assert_eq!(envelope().encode_to_vec(), ENVELOPE);
        assert!(Envelope::decode(ENVELOPE) == Ok(envelope()));
    }

    #[test]
    fn requests_have_their_golden_bytes() {
        assert_eq!(request().encode_to_vec(), REQUEST);
        assert!(WebSocketMessage::decode(REQUEST) == Ok(request()));
    }

    #[test]
    fn responses_have_their_golden_bytes() {
        assert_eq!(response().encode_to_vec(), RESPONSE);
        assert!(WebSocketMessage::decode(RESPONSE) == Ok(response()));
    }

    #[test]
    fn provisioning_messages_have_their_golden_bytes() {
        let address = ProvisioningAddress {
            address: Some("a==".to_owned()),
        };
        assert_eq!(address.encode_to_vec(), b"\x0a\x03a==");
        let envelope = ProvisionEnvelope {
            public_key: Some(Bytes::from_static(b"\x05k")),
            body: Some(Bytes::from_static(b"\x01")),
        };
        assert_eq!(envelope.encode_to_vec(), b"\x0a\x02\x05k\x12\x01\x01");
        assert!(ProvisionEnvelope::decode(b"\x0a\x02\x05k\x12\x01\x01".as_slice()) == Ok(envelope));
    }

    #[test]
    fn ephemeral_is_field_12() {
        let ephemeral = Envelope {
            ephemeral: Some(true),
            ..Envelope::default()
        };
        assert_eq!(ephemeral.encode_to_vec(), b"\x60\x01");
    }

    #[test]
    fn types_have_their_numbers() {
        use envelope::Type;
        for (number, expected) in [
            (0, Some(Type::Unknown)),
            (1, Some(Type::Ciphertext)),
            (2, None),
            (3, Some(Type::PrekeyBundle)),
            (4, None),
            (5, Some(Type::ServerDeliveryReceipt)),
            (6, Some(Type::UnidentifiedSender)),
            (7, Some(Type::SenderkeyMessage)),
            (8, Some(Type::PlaintextContent)),
            (9, None),
        ] {
            assert_eq!(Type::try_from(number).ok(), expected);
        }
    }

    #[test]
    fn zero_and_empty_are_not_absent() {
        let empty = WebSocketMessage::decode(b"\x12\x00".as_slice()).expect("decodes");
        let request = empty.request.expect("present though empty");
        assert_eq!(request.id, None);
        assert_eq!(empty.response, None);
        let zero = WebSocketRequestMessage::decode(b"\x20\x00\x1a\x00".as_slice()).expect("decodes");
        assert_eq!(zero.id, Some(0));
        assert_eq!(zero.body, Some(Bytes::new()));
        assert_eq!(zero.encode_to_vec(), b"\x1a\x00\x20\x00");
    }

    #[test]
    fn an_envelope_is_urgent_unless_it_says_otherwise() {
        let silent = Envelope::default();
        assert_eq!(silent.urgent, None);
        assert!(silent.urgent());
        let calm = Envelope::decode(b"\x70\x00".as_slice()).expect("decodes");
        assert!(!calm.urgent());
    }

    #[test]
    fn retired_internal_and_unknown_fields_are_dropped() {
        // Fields 2, 3, 6, 18 and 100 as strings, then a type.
        let bytes = b"\x12\x01x\x1a\x01x\x32\x01x\x92\x01\x01x\xa2\x06\x01x\x08\x06";
        let read = Envelope::decode(bytes.as_slice()).expect("decodes");
        assert_eq!(read.encode_to_vec(), b"\x08\x06");
    }

    #[test]
    fn unknown_types_keep_their_number() {
        let read = Envelope::decode(b"\x08\x63".as_slice()).expect("decodes");
        assert_eq!(read.r#type, Some(99));
        assert_eq!(read.r#type(), envelope::Type::Unknown);
    }

    #[test]
    fn malformed_bytes_are_errors() {
        for bytes in [
            b"\x08".as_slice(),      // a tag without a value
            b"\x12\x05\x0a",         // a length beyond the end
            b"\x12\x03\x0a\x01\xff", // a string that is not UTF-8
            b"\x0a\x00",             // a type that is not a number
            b"\x07",                 // no such wire type
        ] {
            assert!(WebSocketMessage::decode(bytes).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn debug_shows_no_field() {
        assert_eq!(format!("{:?}", envelope()), "Envelope");
        assert_eq!(format!("{:?}", request()), "WebSocketMessage");
        assert_eq!(format!("{:?}", request().request), "Some(WebSocketRequestMessage)");
        assert_eq!(format!("{:?}", response().response), "Some(WebSocketResponseMessage)");
    }
}
