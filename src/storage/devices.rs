//! What is kept of an account's devices after its registration: offers to link one, names, capabilities, removal.

use async_trait::async_trait;

use crate::domain::{
    Aci, Actor, BlockChange, BlocksChanged, Capabilities, Day, DeviceId, DeviceLink, DeviceName, LinkOffer,
    LinkTokenHash, Linked, MailboxId, SecretVerifier, Timestamp,
};

use super::StorageError;

/// Linked devices, and what a device changes about its account.
///
/// Changes name the device that asks, with its mailbox: if it has been replaced since it proved itself, nothing happens.
#[async_trait]
pub trait DeviceStore: Send + Sync {
    /// Stores an offer, and drops the account's oldest open ones beyond [`OPEN_OFFERS`]; `false` if the device that asks
    /// is gone.
    async fn offer(&self, offer: &LinkOffer, by: &Actor) -> Result<bool, StorageError>;

    /// The offer, unless it was taken up or has expired by `now`.
    async fn find_offer(&self, key: &LinkTokenHash, now: Timestamp) -> Result<Option<LinkOffer>, StorageError>;

    /// Takes the device in and uses the offer up; all of it or nothing, however many try at once.
    async fn link(&self, link: &DeviceLink, now: Timestamp) -> Result<Linked, StorageError>;

    /// The device of this account that took up the offer, if one has and that is still remembered at `now`.
    async fn linked_with(
        &self,
        key: &LinkTokenHash,
        aci: Aci,
        now: Timestamp,
    ) -> Result<Option<DeviceId>, StorageError>;

    /// Removes a linked device with its keys and queue, and returns the mailboxes that are gone: none if there is no such
    /// device, if it is the primary, or if the one that asks is gone.
    async fn remove(&self, device: DeviceId, by: &Actor) -> Result<Vec<MailboxId>, StorageError>;

    /// Gives a device of the account a name; `false` if it or the one that asks is gone.
    async fn rename(&self, device: DeviceId, name: &DeviceName, by: &Actor) -> Result<bool, StorageError>;

    /// Replaces the capabilities of the device that asks; `false` if it is gone.
    async fn set_capabilities(&self, capabilities: Capabilities, by: &Actor) -> Result<bool, StorageError>;

    /// Sets or clears the account's registration lock; `false` if the device that asks is gone.
    async fn set_lock(&self, lock: Option<&SecretVerifier>, by: &Actor) -> Result<bool, StorageError>;

    /// Sets whether the account's number may be found; `false` if the device that asks is gone.
    async fn set_discoverable(&self, discoverable: bool, by: &Actor) -> Result<bool, StorageError>;

    /// Changes whom the account has blocked. Of changes at once none is lost.
    async fn change_blocks(&self, change: BlockChange, by: &Actor) -> Result<BlocksChanged, StorageError>;

    /// Remembers that the devices of these mailboxes were seen on this day.
    async fn seen(&self, mailboxes: &[MailboxId], today: Day) -> Result<(), StorageError>;

    /// Those of the mailboxes whose account the operator has suspended, in any order.
    async fn suspended(&self, mailboxes: &[MailboxId]) -> Result<Vec<MailboxId>, StorageError>;

    /// Removes at most `limit` linked devices that were last seen before that day, with their keys and queues, and
    /// returns their accounts and mailboxes.
    async fn remove_idle(&self, before: Day, limit: u32) -> Result<Vec<(Aci, MailboxId)>, StorageError>;

    /// Drops expired offers and says how many.
    async fn expire_offers(&self, now: Timestamp) -> Result<u64, StorageError>;
}

/// Open offers that an account may have at a time.
pub const OPEN_OFFERS: u32 = 10;

/// Whether a device may be taken in beside those that there are; `None` if so.
pub(super) fn refused(taken: &[i16], link: &DeviceLink) -> Option<Linked> {
    if taken.len() >= usize::from(link.max_devices) {
        return Some(Linked::Full(u8::try_from(taken.len()).unwrap_or(u8::MAX)));
    }
    let id = i16::from(link.device.id.get());
    taken.contains(&id).then_some(Linked::IdTaken)
}
