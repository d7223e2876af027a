//! Profiles: what owners tell their contacts about themselves. All of it is encrypted under a profile key that only the
//! owner and those whom it was given to have; here it is bytes.

use bytes::Bytes;

/// The name of a profile key, derived from it by the client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ProfileVersion(pub [u8; 32]);

/// What is stored under one version. Every field is ciphertext but the commitment and the avatar's name.
#[derive(Clone, PartialEq, Eq)]
pub struct Profile {
    /// The client's commitment to the profile key.
    pub commitment: [u8; 97],
    /// Name.
    pub name: Bytes,
    /// About.
    pub about: Option<Bytes>,
    /// The emoji of the about text.
    pub about_emoji: Option<Bytes>,
    /// Where to send money.
    pub payment_address: Option<Bytes>,
    /// Whether contacts may see the number.
    pub phone_number_sharing: Option<Bytes>,
    /// The picture.
    pub avatar: Option<Avatar>,
}

/// The unguessable name of an uploaded picture, which its owner's client has encrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct Avatar(pub String);

/// What a write does with the picture that the version has.
#[derive(Clone, PartialEq, Eq)]
pub enum AvatarChange {
    /// There is none from now on.
    Clear,
    /// It stays. A version that has none still has none.
    Keep,
    /// There is another one.
    Replace(Avatar),
}

/// How many versions of an account's profile are kept.
pub const MAX_PROFILE_VERSIONS: i16 = 5;

opaque_debug!(ProfileVersion, Profile, Avatar, AvatarChange);
