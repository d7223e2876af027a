//! Accounts in memory, for the hot path: every request needs its caller's account, every send its recipient's.
//!
//! An entry is believed for [`LEASE`] at most, so a change made on another node is seen after that even if no hint of it
//! arrives. A change made on this node is seen at once: whoever writes calls [`AccountCache::forget`] after the write. What was
//! read slowly is not remembered: its lease would begin when it was old already.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::domain::{Account, Aci, Pni, ServiceId};

use super::{AccountStore, StorageError};

/// How long an entry may be out of date.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// How old what is remembered may be already. With its own lease, and that of a session, it leaves room within five seconds.
pub(super) const QUICK: Duration = Duration::from_millis(500);

/// A bounded cache in front of [`AccountStore::find`].
pub struct AccountCache {
    store: Arc<dyn AccountStore>,
    entries: Cache<Aci, Arc<Account>>,
    /// Is of use together with an entry only, and is dropped as early.
    pnis: Cache<Pni, Aci>,
    /// Raised by every [`Self::forget`]. A read that began before must not be kept after.
    forgotten: AtomicU64,
    /// Held while what was read is judged and kept, of an account always the same one: whoever forgets waits for that, so
    /// that nobody is ever shown what was read too early.
    keeping: [Mutex<()>; LOCKS],
    /// Whoever was forgotten last, or everyone.
    changes: broadcast::Sender<Option<Aci>>,
}

/// Changes of accounts from some moment on.
pub struct Changes(broadcast::Receiver<Option<Aci>>);

impl AccountCache {
    /// Holds at most `capacity` accounts.
    pub fn new(store: Arc<dyn AccountStore>, capacity: u64) -> Self {
        let entries = Cache::builder().max_capacity(capacity).time_to_live(LEASE).build();
        let pnis = Cache::builder().max_capacity(capacity).time_to_live(LEASE).build();
        Self {
            store,
            entries,
            pnis,
            forgotten: AtomicU64::new(0),
            keeping: std::array::from_fn(|_| Mutex::new(())),
            changes: broadcast::Sender::new(CHANGES),
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
        let (before, began) = (self.forgotten.load(Ordering::Acquire), Instant::now());
        let account = self.store.find(id).await?.map(Arc::new);
        match (&account, id) {
            (Some(account), _) => {
                self.keep(account, before, began);
            }
            (None, id) => self.forget_unfound(id),
        }
        Ok(account)
    }

    /// Those of the accounts that exist, at most [`LEASE`] old, in any order; the rest is read in one go.
    pub async fn find_all(&self, ids: &[ServiceId]) -> Result<Vec<Arc<Account>>, StorageError> {
        let mut found = Vec::with_capacity(ids.len());
        let mut unknown = Vec::new();
        for id in ids {
            let aci = match id {
                ServiceId::Aci(aci) => Some(*aci),
                ServiceId::Pni(pni) => self.pnis.get(pni),
            };
            match aci.and_then(|aci| self.entries.get(&aci)) {
                Some(account) => found.push(account),
                None => unknown.push(*id),
            }
        }
        if !unknown.is_empty() {
            found.extend(self.find_all_fresh(&unknown).await?);
        }
        Ok(found)
    }

    /// Those of the accounts that exist, as they are in storage now, in any order.
    pub async fn find_all_fresh(&self, ids: &[ServiceId]) -> Result<Vec<Arc<Account>>, StorageError> {
        let (before, began) = (self.forgotten.load(Ordering::Acquire), Instant::now());
        let accounts: Vec<_> = self.store.find_all(ids).await?.into_iter().map(Arc::new).collect();
        for account in &accounts {
            self.keep(account, before, began);
        }
        let found: HashSet<ServiceId> = accounts
            .iter()
            .flat_map(|account| [ServiceId::Aci(account.aci), ServiceId::Pni(account.pni)])
            .collect();
        for id in ids.iter().filter(|id| !found.contains(id)) {
            self.forget_unfound(id);
        }
        Ok(accounts)
    }

    /// Keeps what was read from `began` on, unless something was forgotten since.
    fn keep(&self, account: &Arc<Account>, before: u64, began: Instant) {
        let _keeping = self.keeping(account.aci);
        if self.forgotten.load(Ordering::Acquire) == before && began.elapsed() <= QUICK {
            self.pnis.insert(account.pni, account.aci);
            self.entries.insert(account.aci, Arc::clone(account));
        }
    }

    fn keeping(&self, aci: Aci) -> MutexGuard<'_, ()> {
        // Account ids are random, so any of their bytes spreads them evenly.
        let lock = &self.keeping[usize::from(aci.as_bytes()[15]) % LOCKS];
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_unfound(&self, id: &ServiceId) {
        match id {
            ServiceId::Aci(aci) => self.entries.invalidate(aci),
            ServiceId::Pni(pni) => self.pnis.invalidate(pni),
        }
    }

    /// Drops what is remembered of an account. To be called after every write to it.
    pub fn forget(&self, aci: Aci) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        let _keeping = self.keeping(aci);
        if let Some(account) = self.entries.remove(&aci) {
            self.pnis.invalidate(&account.pni);
        }
        // An error only says that nobody waits.
        let _ = self.changes.send(Some(aci));
    }

    /// Drops everything: hints may have been missed.
    pub fn forget_all(&self) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        for lock in &self.keeping {
            drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
        }
        self.entries.invalidate_all();
        self.pnis.invalidate_all();
        let _ = self.changes.send(None);
    }

    /// Whether the account is in memory now.
    pub fn remembers(&self, aci: Aci) -> bool {
        self.entries.contains_key(&aci)
    }

    /// Frees the memory of what is out of date or forgotten. To be called now and then: nothing else does on a node that
    /// nobody asks anything.
    pub fn tidy(&self) {
        self.entries.run_pending_tasks();
        self.pnis.run_pending_tasks();
    }

    /// The changes of which this node learns from now on, its own and those that others hint at.
    pub fn changes(&self) -> Changes {
        Changes(self.changes.subscribe())
    }
}

impl Changes {
    /// Returns once the account may have changed. A hint, not a promise: in a burst of changes one may be missed.
    pub async fn of(&mut self, aci: Aci) {
        loop {
            match self.0.recv().await {
                Ok(Some(other)) if other != aci => {}
                Ok(_) => return,
                // A look for each burst of others' changes would make the bursts worse.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// Changes that may wait for somebody who waits for one. Who is slower misses some.
const CHANGES: usize = 256;
const LOCKS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance::fixtures::{aci, actor, pni, register, registration};
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
            lock: crate::domain::LockUpdate::Keep,
        };
        assert!(
            database
                .storage()
                .accounts
                .update_attributes(&actor(1, 10), &update)
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
        database.storage().accounts.delete(&actor(1, 10)).await.unwrap();
        cache.forget(aci(1));
        assert!(cache.find(&ServiceId::Pni(pni(1))).await.unwrap().is_none());
        assert!(cache.find(&ServiceId::Aci(aci(1))).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn t38_of_a_deleted_account_nothing_stays_in_memory() {
        let database = sqlite(ROOMY).await.unwrap();
        let cache = cache(&database).await;
        cache.find(&ServiceId::Pni(pni(1))).await.unwrap().unwrap();
        cache.tidy();
        assert!(cache.remembers(aci(1)));
        assert_eq!((cache.entries.entry_count(), cache.pnis.entry_count()), (1, 1));
        database.storage().accounts.delete(&actor(1, 10)).await.unwrap();
        cache.forget(aci(1));
        cache.tidy();
        assert!(!cache.remembers(aci(1)));
        assert_eq!((cache.entries.entry_count(), cache.pnis.entry_count()), (0, 0));
    }

    #[tokio::test]
    async fn no_more_accounts_are_remembered_than_there_is_room_for() {
        let database = sqlite(ROOMY).await.unwrap();
        for n in 1..=30 {
            register(&database, n, i64::from(n)).await;
        }
        let cache = AccountCache::new(database.storage().accounts, 10);
        let ids: Vec<ServiceId> = (1..=30).map(|n| ServiceId::Pni(pni(n))).collect();
        for id in &ids {
            assert!(cache.find(id).await.unwrap().is_some());
        }
        assert_eq!(cache.find_all(&ids).await.unwrap().len(), 30);
        cache.tidy();
        let held = cache.entries.entry_count();
        assert!((1..=10).contains(&held) && cache.pnis.entry_count() <= 10, "{held}");
    }

    /// Lookups are under way all the time; each change must be seen by whoever asks after it was forgotten, and stay seen.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_lookup_that_began_before_a_change_never_puts_the_old_account_back() {
        let database = sqlite(ROOMY).await.unwrap();
        let cache = Arc::new(cache(&database).await);
        let others: Vec<_> = (0..6)
            .map(|n| {
                let cache = Arc::clone(&cache);
                tokio::spawn(async move {
                    loop {
                        // Some by one way, some by the other.
                        let id = [ServiceId::Aci(aci(1)), ServiceId::Pni(pni(1))][n % 2];
                        if n < 3 {
                            cache.find_fresh(&id).await.unwrap();
                        } else {
                            cache.find_all_fresh(&[id]).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for round in 0..150 {
            let discoverable = round % 2 == 0;
            let statement = if discoverable {
                "UPDATE accounts SET discoverable = 1"
            } else {
                "UPDATE accounts SET discoverable = 0"
            };
            database.execute(statement).await;
            cache.forget(aci(1));
            for _ in 0..200 {
                let account = cache.find(&ServiceId::Aci(aci(1))).await.unwrap().unwrap();
                assert_eq!(account.discoverable, discoverable, "round {round}");
                tokio::task::yield_now().await;
            }
        }
        others.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn what_was_read_before_it_was_forgotten_or_slowly_is_not_kept() {
        let database = sqlite(ROOMY).await.unwrap();
        let cache = cache(&database).await;
        let id = ServiceId::Aci(aci(1));
        let (before, began) = (cache.forgotten.load(Ordering::Acquire), Instant::now());
        let old = Arc::new(database.storage().accounts.find(&id).await.unwrap().unwrap());
        // The change comes between the read and what is made of it.
        change(&database).await;
        cache.forget(aci(1));
        cache.keep(&old, before, began);
        assert!(!cache.remembers(aci(1)));
        assert!(!cache.find(&id).await.unwrap().unwrap().discoverable);
        cache.forget_all();
        cache.keep(&old, before, Instant::now());
        assert!(!cache.remembers(aci(1)));

        let before = cache.forgotten.load(Ordering::Acquire);
        let long_ago = Instant::now().checked_sub(QUICK + Duration::from_millis(1)).unwrap();
        cache.keep(&old, before, long_ago);
        assert!(!cache.remembers(aci(1)));
        cache.keep(&old, before, Instant::now());
        assert!(cache.remembers(aci(1)));
    }
}
