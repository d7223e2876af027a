//! Content that passes for a message of the Signal protocol, around a marker that a test knows again.
//!
//! Whoever sends names a type and a marker, and what is sent is framed as that type; whoever receives checks the framing byte
//! by byte and gets the marker. The marker, which is never empty, is in it as it is, so that a test can look for it anywhere.

use bytes::Bytes;
use keys_schema::proto::Envelope;

/// Content of this type with the marker inside. Types that nobody sends get the framing of a message of a session.
pub(crate) fn framed(kind: u8, marker: &[u8]) -> Vec<u8> {
    let (head, tail) = around(kind, marker.len());
    [&head[..], marker, &tail].concat()
}

/// A message of a running session with the marker inside.
pub(crate) fn ciphertext(marker: &[u8]) -> Vec<u8> {
    framed(1, marker)
}

/// A marker with which content of this type has this length.
pub(crate) fn marker_for(kind: u8, length: usize) -> Vec<u8> {
    let (head, tail) = around(kind, length);
    let marker = vec![0x6d; length - head.len() - tail.len()];
    assert_eq!(framed(kind, &marker).len(), length);
    marker
}

/// The marker in an envelope's content. A message to many has none: of that, all.
pub(crate) fn marker(envelope: &Envelope) -> Bytes {
    let content = envelope.content.clone().unwrap();
    if content.starts_with(&[0x22]) {
        return content;
    }
    opened(u8::try_from(i32::from(envelope.r#type())).unwrap(), &content)
}

/// The marker in content of this type. Fails if anything around it is not as it was sent.
pub(crate) fn opened(kind: u8, content: &[u8]) -> Bytes {
    let least = around(kind, 0);
    // Lengths before the marker take more bytes the longer it is.
    (least.0.len() + least.1.len()..)
        .take(8)
        .filter(|spare| *spare <= content.len())
        .map(|spare| around(kind, content.len() - spare))
        .find_map(|(head, tail)| content.strip_prefix(&head[..])?.strip_suffix(&tail[..]))
        .map_or_else(
            || panic!("the framing of type {kind} came as it was sent"),
            Bytes::copy_from_slice,
        )
}

/// What comes before and behind a marker of that length.
fn around(kind: u8, length: usize) -> (Vec<u8>, Vec<u8>) {
    match kind {
        3 => {
            let (head, tail) = message(length);
            let inner = head.len() + length + tail.len();
            let numbers = [0x28, 0xe7, 0x24, 0x08, 0x80, 0x01, 0x30, 0x02];
            let keys = [field(2, KEY), field(3, KEY)].concat();
            ([&[0x34], &numbers[..], &keys, &opening(4, inner), &head].concat(), tail)
        }
        6 => {
            let keys = [field(1, KEY), field(2, &[0x1d; 43])].concat();
            let tail = vec![0xac; 10];
            let head = [&[0x11], &keys[..], &opening(3, length + tail.len())].concat();
            (head, tail)
        }
        8 => {
            let own = [&[0x10, 0x05, 0x18, 0x01][..], &opening(15, length)].concat();
            (
                [&[0xc0], &opening(8, own.len() + length)[..], &own].concat(),
                vec![0x80],
            )
        }
        _ => message(length),
    }
}

/// The same for a message of a running session.
fn message(length: usize) -> (Vec<u8>, Vec<u8>) {
    let counters = [0x10, 0x03, 0x18, 0x02];
    (
        [&[0x34], &field(1, KEY)[..], &counters, &opening(4, length)].concat(),
        vec![0xac; 8],
    )
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&opening(number, bytes.len())[..], bytes].concat()
}

/// Tag and length of a protobuf field of bytes.
fn opening(number: u8, mut length: usize) -> Vec<u8> {
    let mut opening = vec![number << 3 | 2];
    while length >= 0x80 {
        opening.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    opening.push(u8::try_from(length).unwrap());
    opening
}

/// With the form of a public key.
const KEY: &[u8] = b"\x05a public key of thirty-two byte\xee";
