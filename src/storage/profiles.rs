//! What is promised about profiles.

use async_trait::async_trait;

use super::StorageError;
use crate::domain::{Aci, Actor, Avatar, AvatarChange, Profile, ProfileVersion};

/// Profiles as their owners' clients encrypted them.
#[async_trait]
pub trait ProfileStore: Send + Sync {
    /// Writes one version, all of it or nothing, and drops the one that was written longest ago if there are now more
    /// than [`MAX_PROFILE_VERSIONS`](crate::domain::MAX_PROFILE_VERSIONS). What the picture becomes is said by `avatar`,
    /// not by the profile. Returns the pictures that no version has any more; `None` if the device is gone.
    async fn publish(
        &self,
        by: &Actor,
        version: &ProfileVersion,
        profile: &Profile,
        avatar: &AvatarChange,
    ) -> Result<Option<Vec<Avatar>>, StorageError>;

    /// The pictures that the account's versions have.
    async fn avatars(&self, aci: Aci) -> Result<Vec<Avatar>, StorageError>;

    /// What was written under that version, if it is still kept.
    async fn find(&self, aci: Aci, version: &ProfileVersion) -> Result<Option<Profile>, StorageError>;
}

/// Those that were there before and are not after.
pub(super) fn without(mut before: Vec<Avatar>, after: &[Avatar]) -> Vec<Avatar> {
    before.retain(|avatar| !after.contains(avatar));
    before
}
