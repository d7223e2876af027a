//! When a device came to be, for its account's eyes only.

use keys_schema::IdentityKey;

use crate::domain::{CreatedAt, DeviceId, RegistrationId, Timestamp};
use crate::sealing::random;

/// Seals the time to the account's ACI identity key; `None` if that is a key with which nothing can be sealed, which
/// registration does not take.
pub fn created_at(
    identity: &IdentityKey,
    device: DeviceId,
    registration_id: RegistrationId,
    at: Timestamp,
) -> Option<CreatedAt> {
    keys_schema::created_at::seal(identity, device.get(), registration_id.get(), at.0, &random())
        .ok()
        .map(CreatedAt)
}
