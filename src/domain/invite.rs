//! Invites: an operator lets in whoever has the code of one.

use std::fmt;

use uuid::Uuid;

use super::Day;

/// Invites that may be open at a time, so that a list of them has an end.
pub const MAX_INVITES: u32 = 10_000;

/// The keyed hash of an invite's code. The code itself is told once, to the operator.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InviteHash(pub [u8; 32]);

impl fmt::Debug for InviteHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteHash")
    }
}

/// The random name of an invite, by which the operator revokes it. It lets nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InviteId(pub Uuid);

impl InviteId {
    /// Parses the form that is shown.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An invite that lets somebody in yet. Who used it is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Its name.
    pub id: InviteId,
    /// How many numbers it still lets in.
    pub uses_left: u32,
    /// Whether it also starts a number over that has an account.
    pub recovers: bool,
    /// The last day on which it is good.
    pub expires: Day,
    /// The day on which it was made.
    pub created: Day,
}
