//! What is sent: 1 KiB with the form of a message of the Signal protocol, which the server checks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;

use crate::people::{Person, REGISTRATION_ID};

/// How a send shows that it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A message of a running session, from a device that says who it is.
    Unsealed,
    /// A message whose sender the server does not learn; the recipient's access key lets it in.
    Sealed,
}

impl Kind {
    /// `type` of the message.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Unsealed => 1,
            Self::Sealed => 6,
        }
    }

    /// Content of [`BYTES`] bytes.
    pub(crate) fn content(self) -> Vec<u8> {
        let key = [&[0x05][..], &[0x44; 32]].concat();
        match self {
            // Version, ratchet key, counter, ciphertext, authentication code.
            Self::Unsealed => {
                let head = [&[0x44, 0x0a, 33][..], &key, &[0x10, 0, 0x22]].concat();
                filled(head, 8)
            }
            // Version, ephemeral key, the encrypted sender's key, the encrypted message.
            Self::Sealed => {
                let head = [&[0x11, 0x0a, 33][..], &key, &[0x12, 43], &[0x1d; 43], &[0x1a]].concat();
                filled(head, 0)
            }
        }
    }
}

/// A message to a device: where to and what.
pub(crate) fn send_to(person: &Person) -> (String, Bytes) {
    (path(person), body(Kind::Unsealed, 1_700_000_000_000).into())
}

/// Where a send to an account goes.
pub(crate) fn path(to: &Person) -> String {
    format!("/v1/messages/{}", to.aci)
}

/// The body of a send to one device.
pub(crate) fn body(kind: Kind, timestamp: u64) -> String {
    json!({
        "messages": [{
            "type": kind.number(),
            "destinationDeviceId": 1,
            "destinationRegistrationId": REGISTRATION_ID,
            "content": STANDARD.encode(kind.content()),
        }],
        "online": false,
        "urgent": true,
        "timestamp": timestamp,
    })
    .to_string()
}

/// A length of two bytes, as much as fits, and a tail.
fn filled(mut head: Vec<u8>, tail: usize) -> Vec<u8> {
    let length = BYTES - head.len() - 2 - tail;
    // Seven bits, and the seven above them.
    head.extend([length % 128 + 128, length / 128].map(|byte| u8::try_from(byte).unwrap_or(0)));
    head.resize(BYTES, 0x5a);
    head
}

/// 1 KiB.
pub(crate) const BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_one_kib_and_its_last_length_leads_to_its_tail() {
        for (kind, at, tail) in [(Kind::Unsealed, 39, 8), (Kind::Sealed, 82, 0)] {
            let content = kind.content();
            assert_eq!(content.len(), BYTES);
            let length = usize::from(content[at] & 0x7f) | usize::from(content[at + 1]) << 7;
            assert_eq!(at + 2 + length + tail, BYTES, "{kind:?}");
        }
    }
}
