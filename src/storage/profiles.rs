//! What is promised about profiles.

use async_trait::async_trait;

use super::StorageError;
use crate::domain::{Aci, AvatarChange, Profile, ProfileVersion, ProtocolAddress};

/// Profiles as their owners' clients encrypted them.
#[async_trait]
pub trait ProfileStore: Send + Sync {
    /// Writes one version, all of it or nothing, and drops the one that was written longest ago if there are now more
    /// than [`MAX_PROFILE_VERSIONS`](crate::domain::MAX_PROFILE_VERSIONS). What the picture becomes is said by `avatar`,
    /// not by the profile. `false` if the device is gone.
    async fn publish(
        &self,
        address: ProtocolAddress,
        version: &ProfileVersion,
        profile: &Profile,
        avatar: &AvatarChange,
    ) -> Result<bool, StorageError>;

    /// What was written under that version, if it is still kept.
    async fn find(&self, aci: Aci, version: &ProfileVersion) -> Result<Option<Profile>, StorageError>;
}
