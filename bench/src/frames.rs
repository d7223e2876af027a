//! Frames of a load: made once, stamped for each send.
//!
//! The load generator must not cost more than what it measures, so a request is encoded once for each target and copied for each
//! send, with the time of the send in it twice: as the request's id, by which its answer is known, and as the message's timestamp, by
//! which its arrival is. Times are microseconds of one clock, moved so far that they always have as many digits and bytes.

use std::sync::OnceLock;
use std::time::Instant;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keys_schema::proto::{WebSocketMessage, WebSocketRequestMessage, web_socket_message::Type};
use prost::Message as _;

use crate::content::{Kind, body, path};
use crate::people::{ACCESS_KEY, Person};

/// When something was sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Stamp(pub(crate) u64);

impl Stamp {
    /// Now, and later than `last`: no two sends of a sender have the same.
    pub(crate) fn after(last: Self) -> Self {
        Self(Self::now().0.max(last.0 + 1))
    }

    /// Now.
    pub(crate) fn now() -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        let micros = START.get_or_init(Instant::now).elapsed().as_micros();
        Self(EARLIEST + u64::try_from(micros).unwrap_or(0))
    }

    /// Microseconds until now.
    pub(crate) fn age(self) -> u64 {
        Self::now().0.saturating_sub(self.0)
    }
}

/// A request that is the same each time but for its stamp.
pub(crate) struct Stamped {
    bytes: Vec<u8>,
    /// Where the id is, as bytes of a varint.
    id: Option<usize>,
    /// Where the timestamp is, as digits.
    digits: Option<usize>,
    /// Where the stamp is as eight bytes.
    raw: Option<usize>,
}

impl Stamped {
    /// A send of 1 KiB through a socket.
    pub(crate) fn send(kind: Kind, to: &Person) -> anyhow::Result<Self> {
        let mut headers = vec!["content-type:application/json".to_owned()];
        if kind == Kind::Sealed {
            headers.push(format!("Unidentified-Access-Key:{}", STANDARD.encode(ACCESS_KEY)));
        }
        Self::request("PUT", path(to), Some(body(kind, PLACE).into()), headers)
    }

    /// A request through a socket.
    pub(crate) fn request(verb: &str, path: String, body: Option<Bytes>, headers: Vec<String>) -> anyhow::Result<Self> {
        let message = WebSocketMessage {
            r#type: Some(Type::Request.into()),
            request: Some(WebSocketRequestMessage {
                verb: Some(verb.to_owned()),
                path: Some(path),
                body,
                id: Some(PLACE),
                headers,
            }),
            ..WebSocketMessage::default()
        };
        let bytes = message.encode_to_vec();
        Ok(Self {
            id: Some(find(&bytes, &varint(PLACE)).context("a request has an id")?),
            digits: find(&bytes, PLACE.to_string().as_bytes()),
            raw: None,
            bytes,
        })
    }

    /// A send of 1 KiB over HTTP.
    pub(crate) fn http(kind: Kind, from: &Person, to: &Person) -> anyhow::Result<Self> {
        let body = body(kind, PLACE);
        let allowed = match kind {
            Kind::Unsealed => format!("authorization: {}", from.authorization),
            Kind::Sealed => format!("unidentified-access-key: {}", STANDARD.encode(ACCESS_KEY)),
        };
        let head = format!(
            "PUT {} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{allowed}\r\n\r\n",
            path(to),
            body.len(),
        );
        let bytes = [head.as_bytes(), body.as_bytes()].concat();
        Ok(Self {
            id: None,
            digits: Some(find(&bytes, PLACE.to_string().as_bytes()).context("a send has a timestamp")?),
            raw: None,
            bytes,
        })
    }

    /// As many bytes as another, for a relay that does not look into them: the stamp is the first eight.
    pub(crate) fn bare(like: &Self) -> Self {
        Self {
            bytes: vec![0x5a; like.bytes.len()],
            id: None,
            digits: None,
            raw: Some(0),
        }
    }

    /// With a stamp.
    pub(crate) fn at(&self, stamp: Stamp) -> Bytes {
        let mut bytes = self.bytes.clone();
        if let Some(id) = self.id {
            bytes[id..id + VARINT].copy_from_slice(&varint(stamp.0));
        }
        if let Some(digits) = self.digits {
            let mut rest = stamp.0;
            for digit in bytes[digits..digits + DIGITS].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        if let Some(raw) = self.raw {
            bytes[raw..raw + 8].copy_from_slice(&stamp.0.to_le_bytes());
        }
        bytes.into()
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Eight bytes, as all stamps have.
fn varint(mut value: u64) -> [u8; VARINT] {
    let mut bytes = [0; VARINT];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (value & 0x7f) as u8 | if at + 1 < VARINT { 0x80 } else { 0 };
        value >>= 7;
    }
    bytes
}

/// The first stamp: sixteen digits, and a varint of eight bytes, for the next two hundred years.
const EARLIEST: u64 = 1_000_000_000_000_000;
/// Of a stamp that is not there yet.
const PLACE: u64 = 1_234_567_898_765_432;
const DIGITS: usize = 16;
const VARINT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn bob() -> Person {
        Person {
            aci: "9d0652a3-dcc3-4d11-975f-74d61598733f".to_owned(),
            authorization: "Basic Ym9i".to_owned(),
        }
    }

    #[test]
    fn a_stamp_is_the_id_of_its_request_and_the_timestamp_of_its_message() {
        let frame = Stamped::send(Kind::Sealed, &bob()).unwrap().at(Stamp(EARLIEST + 77));
        let request = WebSocketMessage::decode(frame).unwrap().request.unwrap();
        assert_eq!(request.id, Some(EARLIEST + 77));
        assert_eq!(request.path(), "/v1/messages/9d0652a3-dcc3-4d11-975f-74d61598733f");
        let body: serde_json::Value = serde_json::from_slice(&request.body.unwrap()).unwrap();
        assert_eq!(body["timestamp"], EARLIEST + 77);
        assert_eq!(body["messages"][0]["type"], 6);
    }

    #[test]
    fn a_request_over_http_says_how_long_it_is() {
        let bytes = Stamped::http(Kind::Unsealed, &bob(), &bob())
            .unwrap()
            .at(Stamp(EARLIEST));
        let text = std::str::from_utf8(&bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert!(head.contains("authorization: Basic Ym9i"), "{head}");
        assert!(body.contains(&EARLIEST.to_string()));
    }

    #[test]
    fn stamps_of_a_sender_differ_and_keep_their_length() {
        let first = Stamp::now();
        let second = Stamp::after(first);
        assert!(second > first);
        assert_eq!(
            Stamp::after(Stamp(second.0 + 1_000_000_000)).0,
            second.0 + 1_000_000_001
        );
        assert_eq!(second.0.to_string().len(), DIGITS);
        assert_eq!(varint(8_640_000_000_000_000)[VARINT - 1] & 0x80, 0);
    }
}
