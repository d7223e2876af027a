//! Sessions that a device opens beside its password, and the keys that sign their access tokens.

use super::{Day, DeviceId, MailboxId, Sealed, Timestamp};

/// The random name of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenSessionId(pub [u8; 16]);

/// SHA-256 of a refresh token. The token itself is known to the client alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RefreshHash(pub [u8; 32]);

/// A session that a device is about to open.
#[derive(Clone)]
pub struct NewTokenSession {
    /// Its name.
    pub id: TokenSessionId,
    /// Its first refresh token.
    pub refresh: RefreshHash,
    /// Of the verifier that knows the password which was shown: with another password there is no session.
    pub salt: [u8; 16],
    /// Today.
    pub created: Day,
    /// The first day on which it is over.
    pub expires: Day,
}

/// A session as it is stored.
#[derive(Clone, Copy)]
pub struct TokenSession {
    /// Its name.
    pub id: TokenSessionId,
    /// Of the device whose it is.
    pub mailbox: MailboxId,
    /// The number of that device.
    pub device: DeviceId,
    /// The day on which it was opened.
    pub created: Day,
    /// The first day on which it is over.
    pub expires: Day,
}

/// One refresh token for another.
#[derive(Clone, Copy)]
pub struct Rotation {
    /// Of which session.
    pub id: TokenSessionId,
    /// Of its device.
    pub mailbox: MailboxId,
    /// The token that was shown.
    pub shown: RefreshHash,
    /// The one that takes its place. Whoever asks again in the same words brings the same.
    pub next: RefreshHash,
    /// Today.
    pub today: Day,
    /// The first day on which the session is over, from now on.
    pub expires: Day,
}

/// What became of a [`Rotation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// The next token is the good one.
    Done,
    /// It was that already, and the session lasts until that day.
    Again(Day),
    /// The token was used before. The session is over: one of the two who had it was a thief.
    Reused,
    /// There is no such session.
    Gone,
}

/// A key that signs access tokens.
#[derive(Clone)]
pub struct TokenKey {
    /// The public half.
    pub public: [u8; 32],
    /// The private half, sealed under a key outside the database.
    pub sealed: Sealed,
    /// When it was made. The latest signs.
    pub created: Timestamp,
    /// When it is dropped, if another signs in its place.
    pub until: Option<Timestamp>,
}

opaque_debug!(
    TokenSessionId,
    RefreshHash,
    NewTokenSession,
    TokenSession,
    Rotation,
    TokenKey
);
