//! What the server itself tells a connected device.

use super::{IdentityKind, KeyCount};

/// Something that a device is told while it is connected, and not at all otherwise: a client finds out by itself when it
/// asks. Nothing of another account is ever in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Few of its one-time keys are left, so that it should publish more.
    PreKeysLow {
        /// Of which identity.
        kind: IdentityKind,
        /// What is left.
        left: KeyCount,
    },
    /// A refresh token of its account was used twice, so that the session it came from was ended.
    SessionRevoked,
}

impl Notice {
    /// Whether the other one says the same of another moment, so that the newer of the two is enough.
    pub fn replaces(&self, older: &Self) -> bool {
        match (self, older) {
            (Self::PreKeysLow { kind, .. }, Self::PreKeysLow { kind: before, .. }) => kind == before,
            (Self::SessionRevoked, Self::SessionRevoked) => true,
            (Self::PreKeysLow { .. }, Self::SessionRevoked) | (Self::SessionRevoked, Self::PreKeysLow { .. }) => false,
        }
    }
}
