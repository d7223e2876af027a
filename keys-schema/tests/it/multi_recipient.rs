//! Multi-recipient messages of the official library, and its verdicts on malformed ones.

use bytes::Bytes;
use keys_schema::multi_recipient::{MultiRecipientMessage, Undeliverable};
use serde_json::{Value, json};

use crate::vectors::{bytes, flag, list, load, text};

#[test]
fn official_messages_are_read_as_the_library_reads_them_and_delivered_byte_for_byte() {
    let vectors = load();
    let messages = [
        &vectors["multiRecipient"]["oneRecipient"],
        &vectors["multiRecipient"]["threeRecipients"],
        &vectors["multiRecipient"]["threeRecipientsFourDevicesOneExcluded"],
        &vectors["multiRecipientWithPni"],
        &vectors["multiRecipient22"],
    ];
    let mut delivered = 0;
    for entry in messages {
        let read = parse(entry).expect("parses");
        assert_eq!(read.check_for_delivery(), Ok(()));
        let official = &entry["parsed"];
        assert_eq!(described(&read), without_contents(official));
        for recipient in read.recipients() {
            let recipients = list(&official["recipients"]).iter();
            let same = |entry: &&Value| text(&entry["serviceId"]) == recipient.service_id.to_string();
            let expected = bytes(&recipients.clone().find(same).expect("it is there")["perRecipientMessage"]);
            assert_eq!(read.content_for(recipient), expected);
            assert_eq!(read.content_length(), expected.len());
            assert_eq!(
                [&recipient.content_head()[..], read.shared()].concat(),
                expected,
                "in two parts"
            );
            delivered += 1;
        }
    }
    assert!(delivered >= 10, "{delivered}");
}

#[test]
fn every_malformed_message_has_the_official_verdict() {
    let vectors = load();
    let cases = vectors["multiRecipientMalformed"].as_object().expect("cases by name");
    assert_eq!(cases.len(), 26);
    for (name, case) in cases {
        let official = &case["official"];
        match parse(case) {
            Ok(read) => {
                assert!(flag(&official["ok"]), "{name}: more lenient than the official library");
                assert_eq!(described(&read), without_contents(&official["parsed"]), "{name}");
            }
            Err(_) => assert!(!flag(&official["ok"]), "{name}: refused by us alone"),
        }
    }
}

/// What the library leaves to the server.
#[test]
fn of_the_malformed_messages_that_parse_those_without_recipients_cut_off_or_with_duplicates_are_not_delivered() {
    let vectors = load();
    let cases = vectors["multiRecipientMalformed"].as_object().expect("cases by name");
    let refused = |why| {
        let of = |case| parse(case).is_ok_and(|read| read.check_for_delivery() == Err(why));
        let mut names: Vec<&str> = Vec::new();
        names.extend(cases.iter().filter(|(_, case)| of(case)).map(|(name, _)| name.as_str()));
        names.sort_unstable();
        names
    };
    assert_eq!(refused(Undeliverable::NoRecipients), ["count-0", "only-excluded"]);
    assert_eq!(refused(Undeliverable::Truncated), ["shared-payload-32-bytes"]);
    assert_eq!(
        refused(Undeliverable::DuplicateDevice),
        [
            "duplicate-recipient",
            "duplicate-recipient-nonadjacent",
            "same-device-id-twice-in-one-recipient"
        ]
    );
}

fn parse(entry: &Value) -> Result<MultiRecipientMessage, keys_schema::DecodeError> {
    MultiRecipientMessage::parse(Bytes::from(bytes(&entry["message"])))
}

/// In the form of the vectors.
fn described(read: &MultiRecipientMessage) -> Value {
    let recipients = read.recipients().iter().map(|recipient| {
        let devices = recipient.devices.iter();
        let devices = devices.map(|device| json!({"deviceId": device.id, "registrationId": device.registration_id}));
        json!({"serviceId": recipient.service_id.to_string(), "devices": devices.collect::<Vec<_>>()})
    });
    let excluded = read.excluded().iter().map(ToString::to_string);
    json!({"recipients": recipients.collect::<Vec<_>>(), "excluded": excluded.collect::<Vec<_>>()})
}

fn without_contents(parsed: &Value) -> Value {
    let mut parsed = parsed.clone();
    for recipient in parsed["recipients"].as_array_mut().expect("a list") {
        recipient
            .as_object_mut()
            .expect("an object")
            .remove("perRecipientMessage");
    }
    parsed
}
