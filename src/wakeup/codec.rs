//! Hints as bytes: `node (8) ‖ hint…`, all numbers big-endian.
//!
//! | kind | fields |
//! |---|---|
//! | 1 arrived | mailbox i64, seq i64 |
//! | 2 connected | mailbox i64, since i64 (ms), nonce u64 |
//! | 3 gone | mailbox i64 |
//! | 4 changed | aci 16 bytes |
//! | 5 online | mailbox i64, length u32, envelope |
//! | 6 provisioning message | address 16 bytes, request u64, length u32, message |
//! | 7 provisioning taken | request u64 |
//! | 8 keys low | mailbox i64, identity u8 (0 ACI, 1 PNI), left EC u32, left Kyber u32 |
//! | 9 session revoked | mailbox i64 |
//! | 10 session over | session 16 bytes |
//!
//! A reader stops at the first kind it does not know: nodes of two versions may run side by side during an upgrade.

use bytes::{Buf, BufMut, Bytes};
use uuid::Uuid;

use crate::domain::{
    Aci, IdentityKind, KeyCount, MailboxId, Notice, ProvisioningAddress, Seq, Timestamp, TokenSessionId,
};

use super::{ConnectionId, Hint};

/// Appends a hint. [`Hint::Missed`] is never sent and appends nothing.
pub(super) fn encode(hint: &Hint, out: &mut Vec<u8>) {
    match hint {
        Hint::Arrived(mailbox, seq) => {
            out.put_u8(ARRIVED);
            out.put_i64(mailbox.0);
            out.put_i64(seq.0);
        }
        Hint::Connected(mailbox, connection) => {
            out.put_u8(CONNECTED);
            out.put_i64(mailbox.0);
            out.put_i64(connection.since.0);
            out.put_u64(connection.nonce);
        }
        Hint::Gone(mailbox) => {
            out.put_u8(GONE);
            out.put_i64(mailbox.0);
        }
        Hint::Changed(aci) => {
            out.put_u8(CHANGED);
            out.put_slice(aci.as_bytes());
        }
        Hint::SessionOver(id) => {
            out.put_u8(SESSION_OVER);
            out.put_slice(&id.0);
        }
        Hint::Online(mailbox, envelope) => {
            let Ok(length) = u32::try_from(envelope.len()) else {
                return;
            };
            out.put_u8(ONLINE);
            out.put_i64(mailbox.0);
            out.put_u32(length);
            out.put_slice(envelope);
        }
        Hint::ProvisioningMessage {
            address,
            request,
            message,
        } => {
            let Ok(length) = u32::try_from(message.len()) else {
                return;
            };
            out.put_u8(PROVISIONING_MESSAGE);
            out.put_slice(&address.0);
            out.put_u64(*request);
            out.put_u32(length);
            out.put_slice(message);
        }
        Hint::ProvisioningTaken { request } => {
            out.put_u8(PROVISIONING_TAKEN);
            out.put_u64(*request);
        }
        Hint::Notice(mailbox, Notice::PreKeysLow { kind, left }) => {
            out.put_u8(KEYS_LOW);
            out.put_i64(mailbox.0);
            out.put_u8(match kind {
                IdentityKind::Aci => 0,
                IdentityKind::Pni => 1,
            });
            out.put_u32(left.ec);
            out.put_u32(left.kyber);
        }
        Hint::Notice(mailbox, Notice::SessionRevoked) => {
            out.put_u8(SESSION_REVOKED);
            out.put_i64(mailbox.0);
        }
        Hint::Missed => {}
    }
}

/// Reads the sender and its hints. What cannot be read is left out.
pub fn decode(message: &[u8]) -> Option<(u64, Vec<Hint>)> {
    let mut rest = message;
    let node = rest.try_get_u64().ok()?;
    let mut hints = Vec::new();
    while let Some(hint) = decode_one(&mut rest) {
        hints.push(hint);
    }
    Some((node, hints))
}

fn decode_one(rest: &mut &[u8]) -> Option<Hint> {
    match rest.try_get_u8().ok()? {
        ARRIVED => Some(Hint::Arrived(mailbox(rest)?, Seq(rest.try_get_i64().ok()?))),
        CONNECTED => {
            let mailbox = mailbox(rest)?;
            let since = Timestamp(rest.try_get_i64().ok()?);
            Some(Hint::Connected(
                mailbox,
                ConnectionId {
                    since,
                    nonce: rest.try_get_u64().ok()?,
                },
            ))
        }
        GONE => Some(Hint::Gone(mailbox(rest)?)),
        CHANGED => {
            let aci = Uuid::from_bytes(sixteen(rest)?);
            Some(Hint::Changed(Aci::new(aci)))
        }
        SESSION_OVER => Some(Hint::SessionOver(TokenSessionId(sixteen(rest)?))),
        ONLINE => Some(Hint::Online(mailbox(rest)?, bytes(rest)?)),
        PROVISIONING_MESSAGE => Some(Hint::ProvisioningMessage {
            address: Box::new(ProvisioningAddress(sixteen(rest)?)),
            request: rest.try_get_u64().ok()?,
            message: bytes(rest)?,
        }),
        PROVISIONING_TAKEN => Some(Hint::ProvisioningTaken {
            request: rest.try_get_u64().ok()?,
        }),
        KEYS_LOW => {
            let mailbox = mailbox(rest)?;
            let kind = match rest.try_get_u8().ok()? {
                0 => IdentityKind::Aci,
                1 => IdentityKind::Pni,
                _ => return None,
            };
            let left = KeyCount {
                ec: rest.try_get_u32().ok()?,
                kyber: rest.try_get_u32().ok()?,
            };
            Some(Hint::Notice(mailbox, Notice::PreKeysLow { kind, left }))
        }
        SESSION_REVOKED => Some(Hint::Notice(mailbox(rest)?, Notice::SessionRevoked)),
        _ => None,
    }
}

fn mailbox(rest: &mut &[u8]) -> Option<MailboxId> {
    rest.try_get_i64().ok().map(MailboxId)
}

fn sixteen(rest: &mut &[u8]) -> Option<[u8; 16]> {
    let (sixteen, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*sixteen)
}

/// Bytes behind their length.
fn bytes(rest: &mut &[u8]) -> Option<Bytes> {
    let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(Bytes::copy_from_slice(bytes))
}

const ARRIVED: u8 = 1;
const CONNECTED: u8 = 2;
const GONE: u8 = 3;
const CHANGED: u8 = 4;
const ONLINE: u8 = 5;
const PROVISIONING_MESSAGE: u8 = 6;
const PROVISIONING_TAKEN: u8 = 7;
const KEYS_LOW: u8 = 8;
const SESSION_REVOKED: u8 = 9;
const SESSION_OVER: u8 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn hints() -> Vec<Hint> {
        vec![
            Hint::Arrived(MailboxId(1), Seq(2)),
            Hint::Connected(
                MailboxId(-3),
                ConnectionId {
                    since: Timestamp(5),
                    nonce: u64::MAX,
                },
            ),
            Hint::Gone(MailboxId(4)),
            Hint::Changed(Aci::new(Uuid::from_bytes([5; 16]))),
            Hint::SessionOver(TokenSessionId([11; 16])),
            Hint::Online(MailboxId(6), Bytes::from(vec![7; 300])),
            Hint::ProvisioningMessage {
                address: Box::new(ProvisioningAddress([8; 16])),
                request: u64::MAX,
                message: Bytes::from(vec![9; 300]),
            },
            Hint::ProvisioningTaken { request: 10 },
            Hint::Notice(
                MailboxId(11),
                Notice::PreKeysLow {
                    kind: IdentityKind::Pni,
                    left: KeyCount { ec: 12, kyber: 0 },
                },
            ),
            Hint::Notice(MailboxId(-12), Notice::SessionRevoked),
        ]
    }

    fn encoded() -> Vec<u8> {
        let mut bytes = 9u64.to_be_bytes().to_vec();
        hints().iter().for_each(|hint| encode(hint, &mut bytes));
        bytes
    }

    #[test]
    fn hints_read_as_written() {
        assert_eq!(decode(&encoded()), Some((9, hints())));
    }

    #[test]
    fn a_cut_or_unknown_message_gives_the_hints_before() {
        let whole = encoded();
        for length in 0..whole.len() {
            match decode(&whole[..length]) {
                None => assert!(length < 8),
                Some((node, read)) => {
                    assert_eq!(node, 9);
                    assert_eq!(read, hints()[..read.len()]);
                }
            }
        }
        let mut newer = whole.clone();
        newer.push(200);
        newer.extend_from_slice(&[1; 17]);
        assert_eq!(decode(&newer), Some((9, hints())));
    }
}
