//! The body of `PUT /v1/messages/multi_recipient`. What is read, written again by hand, is read as the same.

#![no_main]

use keys_schema::multi_recipient::MultiRecipientMessage;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = MultiRecipientMessage::parse(bytes.to_vec().into()) else {
        return;
    };
    for recipient in read.recipients() {
        let content = read.content_for(recipient);
        assert_eq!(content.len(), read.content_length());
        assert_eq!(content, [&recipient.content_head()[..], read.shared()].concat());
        assert_eq!(content[0], 0x22);
        assert!(bytes.ends_with(&content[49..]));
    }
    let again = MultiRecipientMessage::parse(written(&read).into());
    assert!(again.is_ok_and(|again| again == read));
});

/// The message in version 0x23 with one entry for each account.
fn written(read: &MultiRecipientMessage) -> Vec<u8> {
    let mut message = vec![0x23];
    let mut count = read.recipients().len() + read.excluded().len();
    while count >= 0x80 {
        message.push(count as u8 | 0x80);
        count >>= 7;
    }
    message.push(count as u8);
    for recipient in read.recipients() {
        message.extend(recipient.service_id.to_fixed_width());
        for (index, device) in recipient.devices.iter().enumerate() {
            let more = u16::from(index + 1 < recipient.devices.len()) << 15;
            message.push(device.id);
            message.extend((device.registration_id | more).to_be_bytes());
        }
        message.extend(&recipient.content_head()[1..]);
    }
    for service_id in read.excluded() {
        message.extend(service_id.to_fixed_width());
        message.push(0);
    }
    message.extend(read.shared());
    message
}
