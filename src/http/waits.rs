//! Waits that a device makes, one at a time: a new one ends the one before.

use std::collections::hash_map::{Entry, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::domain::ProtocolAddress;

/// The waits of this node.
#[derive(Default)]
pub struct Waits(Mutex<HashMap<ProtocolAddress, Arc<CancellationToken>>>);

/// A wait that is going on, until dropped.
pub(super) struct Wait<'a> {
    waits: &'a Waits,
    who: ProtocolAddress,
    token: Arc<CancellationToken>,
}

impl Waits {
    /// Begins a wait, and ends the one that the device had on this node; `None` if too many others wait.
    pub(super) fn begin(&self, who: ProtocolAddress) -> Option<Wait<'_>> {
        let token = Arc::new(CancellationToken::new());
        let mut waits = self.lock();
        if waits.len() >= MAX_WAITS && !waits.contains_key(&who) {
            return None;
        }
        if let Some(older) = waits.insert(who, Arc::clone(&token)) {
            older.cancel();
        }
        Some(Wait {
            waits: self,
            who,
            token,
        })
    }

    /// Whether the device waits on this node.
    pub(super) fn waits(&self, who: &ProtocolAddress) -> bool {
        self.lock().contains_key(who)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ProtocolAddress, Arc<CancellationToken>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait<'_> {
    /// Returns once a newer wait has taken the place of this one.
    pub(super) async fn ended(&self) {
        self.token.cancelled().await;
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(entry) = self.waits.lock().entry(self.who)
            && Arc::ptr_eq(entry.get(), &self.token)
        {
            entry.remove();
        }
    }
}

/// Each looks into storage now and then.
const MAX_WAITS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance::fixtures::primary;

    #[tokio::test]
    async fn a_newer_wait_ends_the_older_and_leaves_with_its_own_end() {
        let waits = Waits::default();
        let first = waits.begin(primary(1)).unwrap();
        let other = waits.begin(primary(2)).unwrap();
        let second = waits.begin(primary(1)).unwrap();
        first.ended().await;
        drop(first);
        assert_eq!(waits.lock().len(), 2);
        assert!(!second.token.is_cancelled() && !other.token.is_cancelled());
        drop((second, other));
        assert!(waits.lock().is_empty());
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let waits = Waits::default();
        let who = |n: usize| ProtocolAddress {
            device_id: crate::domain::DeviceId::PRIMARY,
            aci: keys_schema::Aci::new(uuid::Uuid::from_u128(n as u128)),
        };
        let going_on: Vec<_> = (0..MAX_WAITS).map(|n| waits.begin(who(n)).unwrap()).collect();
        assert!(waits.begin(who(MAX_WAITS)).is_none());
        assert!(waits.begin(who(0)).is_some(), "in the place of its own");
        drop(going_on);
        assert!(waits.begin(who(MAX_WAITS)).is_some());
    }
}
