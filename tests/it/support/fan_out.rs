//! Multi-recipient messages, put together byte by byte.

use reqwest::RequestBuilder;

use super::{Person, Server};

/// The content type of such a message.
pub(crate) const CONTENT_TYPE: &str = "application/vnd.signal-messenger.mrm";

/// One entry: a service id and its devices, each with a registration id.
pub(crate) struct Entry {
    kind: u8,
    uuid: String,
    devices: Vec<(u8, u16)>,
    /// What the recipient's content begins with, after the version.
    pub(crate) key_material: [u8; 48],
}

impl Entry {
    /// For these devices of an ACI.
    pub(crate) fn new(aci: &str, devices: &[(u8, u16)]) -> Self {
        Self {
            kind: 0,
            uuid: aci.to_owned(),
            devices: devices.to_vec(),
            key_material: super::random(),
        }
    }

    /// For device 1 of someone.
    pub(crate) fn of(person: &Person) -> Self {
        Self::new(&person.aci, &[(1, person.registration_id)])
    }

    /// For device 1 of someone's PNI.
    pub(crate) fn of_pni(person: &Person) -> Self {
        Self {
            kind: 1,
            ..Self::new(&person.pni, &[(1, person.pni_registration_id)])
        }
    }

    /// What each device of this entry is to be given.
    pub(crate) fn content(&self, tail: &[u8]) -> Vec<u8> {
        [&[0x22], &self.key_material[..], tail].concat()
    }
}

/// The message with these entries and this end, which all recipients share.
pub(crate) fn message(entries: &[Entry], tail: &[u8]) -> Vec<u8> {
    let mut message = vec![0x23];
    let mut count = entries.len();
    loop {
        let low = u8::try_from(count & 0x7f).unwrap();
        count >>= 7;
        if count == 0 {
            message.push(low);
            break;
        }
        message.push(low | 0x80);
    }
    for entry in entries {
        message.push(entry.kind);
        message.extend(uuid::Uuid::parse_str(&entry.uuid).unwrap().as_bytes());
        if entry.devices.is_empty() {
            message.push(0);
            continue;
        }
        for (index, (id, registration_id)) in entry.devices.iter().enumerate() {
            let more = if index + 1 < entry.devices.len() { 0x8000 } else { 0 };
            message.push(*id);
            message.extend((registration_id | more).to_be_bytes());
        }
        message.extend(entry.key_material);
    }
    message.extend(tail);
    message
}

/// The combined access key of these people, as the header has it.
pub(crate) fn combined_key<'a>(people: impl IntoIterator<Item = &'a Person>) -> String {
    let mut sum = [0; 16];
    for person in people {
        for (byte, key) in sum.iter_mut().zip(person.access_key) {
            *byte ^= key;
        }
    }
    super::keys::base64(&sum)
}

/// A request that sends the message.
pub(crate) fn request(server: &Server, query: &str, message: Vec<u8>) -> RequestBuilder {
    server
        .request("PUT", &format!("/v1/messages/multi_recipient{query}"))
        .header("content-type", CONTENT_TYPE)
        .body(message)
}
