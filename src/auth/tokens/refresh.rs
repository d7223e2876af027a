//! Refresh tokens: bytes that only this server can have made.
//!
//! Base64 of `nonce ‖ sealed (session 16 ‖ ACI 16 ‖ device 1 ‖ mailbox 8 ‖ salt 16 ‖ keys 64)`. That it opens says that it is
//! one of ours and of which session, so that what was made up ends nobody's session; whether it is the latest of the
//! session, storage says by its hash. The tokens of a session differ in their nonce alone, which is random, or for who asks
//! under a name derived from the token before and the name: the same question has the same answer, and nothing is kept for
//! it.

use base64::Engine;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::auth::secrets::keyed_hash;
use crate::domain::{Aci, DeviceId, MailboxId, ProtocolAddress, RefreshHash, TokenSessionId};
use crate::encoding::BASE64_URL;
use crate::sealing::{NONCE_BYTES, SealingKey};

use super::carried::{self, Carried};

/// What a refresh token says to the server that made it.
pub(super) struct RefreshToken {
    pub(super) session: TokenSessionId,
    pub(super) address: ProtocolAddress,
    pub(super) mailbox: MailboxId,
    /// Of the password with which the session was opened.
    pub(super) salt: [u8; 16],
    pub(super) carried: Carried,
}

impl RefreshToken {
    /// What the keys in an access token are bound to.
    pub(super) fn context(&self) -> [u8; 41] {
        carried::context(self.address, self.mailbox, &self.salt)
    }

    /// The token. No two tokens of one key that say different things have the same nonce.
    pub(super) fn seal(&self, key: &SealingKey, nonce: &[u8; NONCE_BYTES]) -> String {
        let mut plain = Zeroizing::new(Vec::with_capacity(PLAIN));
        plain.extend_from_slice(&self.session.0);
        plain.extend_from_slice(&self.context());
        plain.extend_from_slice(self.carried.as_bytes());
        BASE64_URL.encode(&key.seal_with(nonce, CONTEXT, &plain).0)
    }

    /// Reads a token of ours.
    pub(super) fn open(key: &SealingKey, token: &str) -> Option<Self> {
        if token.len() != LENGTH {
            return None;
        }
        let plain = key.open(CONTEXT, &BASE64_URL.decode(token).ok()?)?;
        let (session, rest) = plain.split_first_chunk::<16>()?;
        let (aci, rest) = rest.split_first_chunk::<16>()?;
        let (device, rest) = rest.split_first()?;
        let (mailbox, rest) = rest.split_first_chunk::<8>()?;
        let (salt, carried) = rest.split_first_chunk::<16>()?;
        Some(Self {
            session: TokenSessionId(*session),
            address: ProtocolAddress {
                aci: Aci::new(Uuid::from_bytes(*aci)),
                device_id: DeviceId::new(u64::from(*device)).ok()?,
            },
            mailbox: MailboxId(i64::from_be_bytes(*mailbox)),
            salt: *salt,
            carried: Carried::from_bytes(carried)?,
        })
    }
}

/// How storage knows a token.
pub(super) fn hash(token: &str) -> RefreshHash {
    RefreshHash(Sha256::digest(token).into())
}

/// The nonce of the token that follows the one that was shown, for who asks under that name.
pub(super) fn nonce_again(key: &[u8; 32], shown: &str, again: &[u8]) -> [u8; NONCE_BYTES] {
    // All tokens are of one length, so that nothing need part the two.
    let derived = keyed_hash(key, &Zeroizing::new([shown.as_bytes(), again].concat()));
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&derived[..NONCE_BYTES]);
    nonce
}

const PLAIN: usize = 16 + 41 + Carried::BYTES;
/// In base64, without padding.
const LENGTH: usize = ((NONCE_BYTES + PLAIN + TAG) * 4).div_ceil(3);
const TAG: usize = 16;
const CONTEXT: &[u8] = b"refresh token";
