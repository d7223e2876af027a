//! Which owners were told just now that they have few keys, so that keys are not counted for each request. That a connection hears of
//! it once an hour is its own matter.
//!
//! Devices are found by a hash under a key of this process, so that a deleted one leaves nothing behind.

use std::time::Duration;

use moka::sync::Cache;
use zeroize::Zeroizing;

use crate::domain::{IdentityKind, MailboxId};
use crate::sealing::{derive_bytes, random};

/// Who has been told by this node.
pub(super) struct LowStock {
    key: Zeroizing<[u8; 32]>,
    told: Cache<[u8; 16], ()>,
}

impl Default for LowStock {
    fn default() -> Self {
        Self {
            key: Zeroizing::new(random()),
            told: Cache::builder().max_capacity(MAX_TOLD).time_to_live(AGAIN).build(),
        }
    }
}

impl LowStock {
    /// Whether the device is to be told, which it counts as from now on.
    pub(super) fn is_news(&self, mailbox: MailboxId, kind: IdentityKind) -> bool {
        let mut subject = [0; 9];
        subject[..8].copy_from_slice(&mailbox.0.to_be_bytes());
        subject[8] = match kind {
            IdentityKind::Aci => 0,
            IdentityKind::Pni => 1,
        };
        let mut tag = [0; 16];
        tag.copy_from_slice(&derive_bytes(&subject, &*self.key, "blind-relay low stock v1")[..16]);
        self.told.entry(tag).or_insert(()).is_fresh()
    }

    pub(super) fn tidy(&self) {
        self.told.run_pending_tasks();
    }
}

const AGAIN: Duration = Duration::from_secs(60);
/// With more devices than these in a minute, the keys of some are counted more often.
const MAX_TOLD: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_is_told_once_for_each_identity() {
        let low = LowStock::default();
        let both = [IdentityKind::Aci, IdentityKind::Pni];
        let tell = || {
            let devices = [MailboxId(1), MailboxId(2)];
            devices.map(|mailbox| both.map(|kind| low.is_news(mailbox, kind)))
        };
        assert_eq!(tell(), [[true; 2]; 2]);
        assert_eq!(tell(), [[false; 2]; 2]);
    }
}
