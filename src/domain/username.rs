//! User names as the server sees them: hashes, and the links under which clients publish a name in encrypted form.

use bytes::Bytes;
use uuid::Uuid;

use super::{Day, Timestamp};

/// The 32 bytes into which a client hashes a user name. The name itself never reaches the server.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UsernameHash(pub [u8; 32]);

/// The random name of a link to a user name. Whoever knows it may fetch what is stored under it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkHandle(pub Uuid);

/// A user name encrypted by its owner, for those who have the link.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptedUsername(Bytes);

impl EncryptedUsername {
    /// The longest that is stored.
    pub const MAX_BYTES: usize = 128;

    /// `None` if it is empty or longer than [`Self::MAX_BYTES`].
    pub fn new(encrypted: impl Into<Bytes>) -> Option<Self> {
        let encrypted = encrypted.into();
        (1..=Self::MAX_BYTES)
            .contains(&encrypted.len())
            .then_some(Self(encrypted))
    }

    /// The encrypted bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A link to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsernameLink {
    /// A fresh handle.
    pub handle: LinkHandle,
    /// What it leads to.
    pub encrypted: EncryptedUsername,
}

/// The user name of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Username {
    /// Its hash.
    pub hash: UsernameHash,
    /// The handle of its link, if it has one.
    pub link: Option<LinkHandle>,
}

/// What became of a request to reserve one of several names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// This one, the first that was to be had, is kept for the account.
    Name(UsernameHash),
    /// Others have them all. An earlier reservation of the account stands.
    AllTaken,
    /// The account has given up as many names as may be held for one. An earlier reservation stands.
    TooManyGivenUp,
    /// The account, or the device that asks, is gone.
    UnknownAccount,
}

/// What became of a request to take a reserved name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// The name is the account's, and with it this link, if there is one.
    Owned(Option<LinkHandle>),
    /// The account has no reservation of it, or had it too long ago.
    NotReserved,
    /// Another has it.
    Taken,
    /// The account, or the device that asks, is gone.
    UnknownAccount,
}

/// How long a reservation lives, in milliseconds. A client confirms at once; a person may look at the choice before.
pub const RESERVATION_MILLIS: i64 = 5 * 60 * 1000;
/// Names that one account may have given up and not had back at the time of a reservation: without an end to it one
/// account could keep any number of names from others by taking and leaving them.
pub const MAX_GIVEN_UP: i64 = 10;

/// When a reservation made now ends.
pub fn reserved_until(now: Timestamp) -> Timestamp {
    now.plus_millis(RESERVATION_MILLIS)
}

/// The first day on which someone else may have a name that is given up on `today`: seven whole days lie between.
pub fn held_until(today: Day) -> Day {
    today.plus(HOLD_DAYS + 1)
}

const HOLD_DAYS: i32 = 7;

opaque_debug!(UsernameHash, LinkHandle, EncryptedUsername);
