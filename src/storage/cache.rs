//! Accounts in memory, for the hot path: every request needs its caller's account, every send its recipient's.
//!
//! An entry is believed for [`LEASE`] at most, so a change made on another node is seen after that even if no hint of it
//! arrives. A change made on this node is seen at once: whoever writes calls [`AccountCache::forget`] after the write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::domain::{Account, Aci, Pni, ServiceId};

use super::{AccountStore, StorageError};

/// How long an entry may be out of date.
pub(super) const LEASE: Duration = Duration::from_secs(2);

/// A bounded cache in front of [`AccountStore::find`].
pub struct AccountCache {
    store: Arc<dyn AccountStore>,
    entries: Cache<Aci, Arc<Account>>,
    /// A PNI never moves to another account, so this needs no lease.
    pnis: Cache<Pni, Aci>,
    /// Raised by every [`Self::forget`]. A read that began before must not be kept after.
    forgotten: AtomicU64,
}

impl AccountCache {
    /// Holds at most `capacity` accounts.
    pub fn new(store: Arc<dyn AccountStore>, capacity: u64) -> Self {
        let entries = Cache::builder().max_capacity(capacity).time_to_live(LEASE).build();
        let pnis = Cache::new(capacity);
        Self {
            store,
            entries,
            pnis,
            forgotten: AtomicU64::new(0),
        }
    }

    /// The account, at most [`LEASE`] old.
    pub async fn find(&self, id: &ServiceId) -> Result<Option<Arc<Account>>, StorageError> {
        let aci = match id {
            ServiceId::Aci(aci) => Some(*aci),
            ServiceId::Pni(pni) => self.pnis.get(pni),
        };
        match aci.and_then(|aci| self.entries.get(&aci)) {
            Some(account) => Ok(Some(account)),
            None => self.find_fresh(id).await,
        }
    }

    /// The account as it is in storage now.
    pub async fn find_fresh(&self, id: &ServiceId) -> Result<Option<Arc<Account>>, StorageError> {
        let before = self.forgotten.load(Ordering::Acquire);
        let account = self.store.find(id).await?.map(Arc::new);
        match (&account, id) {
            (Some(account), _) => {
                self.pnis.insert(account.pni, account.aci);
                self.entries.insert(account.aci, Arc::clone(account));
                // Insert, then look: a write that finished in between has either raised the number by now or will
                // remove the entry itself.
                if self.forgotten.load(Ordering::Acquire) != before {
                    self.entries.invalidate(&account.aci);
                }
            }
            (None, ServiceId::Aci(aci)) => self.entries.invalidate(aci),
            (None, ServiceId::Pni(pni)) => self.pnis.invalidate(pni),
        }
        Ok(account)
    }

    /// Drops what is remembered of an account. To be called after every write to it.
    pub fn forget(&self, aci: Aci) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        self.entries.invalidate(&aci);
    }

    /// Drops everything: hints may have been missed.
    pub fn forget_all(&self) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        self.entries.invalidate_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance::fixtures::{aci, pni, primary, register, registration};
    use crate::storage::testing::{ROOMY, TestDatabase, sqlite};

    async fn cache(database: &TestDatabase) -> AccountCache {
        register(database, 1, 10).await;
        AccountCache::new(database.storage().accounts, 100)
    }

    async fn change(database: &TestDatabase) {
        let access = registration(1, 10).access;
        let update = crate::domain::AttributesUpdate {
            name: None,
            fetches_messages: false,
            capabilities: crate::domain::Capabilities::default(),
            access,
            discoverable: false,
            recovery: None,
        };
        assert!(
            database
                .storage()
                .accounts
                .update_attributes(primary(1), &update)
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn both_ids_find_the_same_remembered_account() {
        let database = sqlite(ROOMY).await.unwrap();
        let cache = cache(&database).await;
        let by_pni = cache.find(&ServiceId::Pni(pni(1))).await.unwrap().unwrap();
        let by_aci = cache.find(&ServiceId::Aci(aci(1))).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&by_pni, &by_aci));
    }

    #[tokio::test]
    async fn a_change_is_seen_once_it_is_forgotten() {
        let database = sqlite(ROOMY).await.unwrap();
        let cache = cache(&database).await;
        let id = ServiceId::Pni(pni(1));
        assert!(cache.find(&id).await.unwrap().unwrap().discoverable);
        change(&database).await;
        cache.forget(aci(1));
        assert!(!cache.find(&id).await.unwrap().unwrap().discoverable);
    }

    #[tokio::test]
    async fn a_deleted_account_is_gone_under_both_ids() {
        let database = sqlite(ROOMY).await.unwrap();
        let cache = cache(&database).await;
        cache.find(&ServiceId::Pni(pni(1))).await.unwrap().unwrap();
        database.storage().accounts.delete(aci(1)).await.unwrap();
        cache.forget(aci(1));
        assert!(cache.find(&ServiceId::Pni(pni(1))).await.unwrap().is_none());
        assert!(cache.find(&ServiceId::Aci(aci(1))).await.unwrap().is_none());
    }
}
