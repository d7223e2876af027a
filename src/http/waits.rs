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
    /// Begins a wait, and ends the one that the device had on this node.
    pub(super) fn begin(&self, who: ProtocolAddress) -> Wait<'_> {
        let token = Arc::new(CancellationToken::new());
        if let Some(older) = self.lock().insert(who, Arc::clone(&token)) {
            older.cancel();
        }
        Wait {
            waits: self,
            who,
            token,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance::fixtures::primary;

    #[tokio::test]
    async fn a_newer_wait_ends_the_older_and_leaves_with_its_own_end() {
        let waits = Waits::default();
        let first = waits.begin(primary(1));
        let other = waits.begin(primary(2));
        let second = waits.begin(primary(1));
        first.ended().await;
        drop(first);
        assert_eq!(waits.lock().len(), 2);
        assert!(!second.token.is_cancelled() && !other.token.is_cancelled());
        drop((second, other));
        assert!(waits.lock().is_empty());
    }
}
