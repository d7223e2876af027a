//! Sessions with tokens in memory: which of them stand, and which open sockets rest on them.
//!
//! As with accounts, what is remembered is believed for [`LEASE`] at most, and what this node or a hint ends is forgotten
//! at once. Sockets are not asked for: whoever has one watches its session, and one statement every [`LOOK`] asks for all
//! that are watched. So a session that was ended anywhere is without sockets a few seconds later, with hints and without.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::domain::{Clock, MailboxId, TokenSessionId};

use super::cache::QUICK;
use super::{StorageError, TokenStore};

/// A bounded cache in front of [`TokenStore::find`], and the sockets of this node that rest on sessions.
pub struct TokenSessions {
    store: Arc<dyn TokenStore>,
    clock: Arc<dyn Clock>,
    stand: Cache<TokenSessionId, MailboxId>,
    /// Raised whenever something is forgotten. A read that began before must not be kept after.
    forgotten: AtomicU64,
    /// Held while what was read is judged and kept: whoever forgets waits for that, so that nobody is ever shown what was
    /// read too early.
    keeping: Mutex<()>,
    watched: Mutex<HashMap<TokenSessionId, Vec<(u64, CancellationToken)>>>,
    places: AtomicU64,
}

impl TokenSessions {
    /// Holds at most `capacity` sessions.
    pub fn new(store: Arc<dyn TokenStore>, clock: Arc<dyn Clock>, capacity: u64) -> Self {
        Self {
            store,
            clock,
            stand: Cache::builder().max_capacity(capacity).time_to_live(LEASE).build(),
            forgotten: AtomicU64::new(0),
            keeping: Mutex::default(),
            watched: Mutex::default(),
            places: AtomicU64::new(0),
        }
    }

    /// The mailbox of the device whose session it is, at most [`LEASE`] old; `None` if the session is over, which is never
    /// only remembered.
    pub async fn mailbox(&self, id: TokenSessionId) -> Result<Option<MailboxId>, StorageError> {
        match self.stand.get(&id) {
            Some(mailbox) => Ok(Some(mailbox)),
            None => self.mailbox_fresh(id).await,
        }
    }

    /// The same as it is in storage now.
    pub async fn mailbox_fresh(&self, id: TokenSessionId) -> Result<Option<MailboxId>, StorageError> {
        let (before, began) = (self.forgotten.load(Ordering::Acquire), Instant::now());
        let found = self.store.find(id, self.clock.now().day()).await?;
        match found {
            Some(mailbox) => self.keep(id, mailbox, before, began),
            None => self.stand.invalidate(&id),
        }
        Ok(found)
    }

    /// Keeps what was read from `began` on, unless something was forgotten since.
    fn keep(&self, id: TokenSessionId, mailbox: MailboxId, before: u64, began: Instant) {
        let _keeping = self.keeping();
        if self.forgotten.load(Ordering::Acquire) == before && began.elapsed() <= QUICK {
            self.stand.insert(id, mailbox);
        }
    }

    /// The session is over: nothing of it is remembered, and its sockets on this node end.
    pub fn over(&self, id: TokenSessionId) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        drop(self.keeping());
        self.stand.invalidate(&id);
        for (_, over) in self.watched().get(&id).into_iter().flatten() {
            over.cancel();
        }
    }

    /// Hints may have been missed: nothing is believed without a look.
    pub fn forget_all(&self) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        drop(self.keeping());
        self.stand.invalidate_all();
    }

    /// Watches a session for a socket, until what is returned is dropped.
    pub fn watch(self: &Arc<Self>, id: TokenSessionId) -> Watched {
        let (place, over) = (self.places.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        self.watched().entry(id).or_default().push((place, over.clone()));
        Watched {
            sessions: Arc::clone(self),
            id,
            place,
            over: Box::pin(over.cancelled_owned()),
        }
    }

    /// Looks every [`LOOK`] whether the sessions that are watched still stand, until the token is cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.look().await {
                tracing::warn!(cause = error.log_safe_cause(), "sessions could not be looked at");
            }
        }
    }

    /// Ends the sockets of sessions that are over.
    pub async fn look(&self) -> Result<(), StorageError> {
        let watched: Vec<TokenSessionId> = self.watched().keys().copied().collect();
        for asked in watched.chunks(SESSIONS_PER_STATEMENT) {
            let alive = self.store.alive(asked, self.clock.now().day()).await?;
            let alive: std::collections::HashSet<_> = alive.into_iter().collect();
            for id in asked.iter().filter(|id| !alive.contains(id)) {
                self.over(*id);
            }
        }
        Ok(())
    }

    /// Frees the memory of what is out of date. To be called now and then.
    pub fn tidy(&self) {
        self.stand.run_pending_tasks();
    }

    fn keeping(&self) -> MutexGuard<'_, ()> {
        self.keeping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<TokenSessionId, Vec<(u64, CancellationToken)>>> {
        // What is behind the lock is valid at every moment, so a panic elsewhere does not spoil it.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session on which a socket rests.
pub struct Watched {
    sessions: Arc<TokenSessions>,
    id: TokenSessionId,
    place: u64,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Watched {
    /// Ready once the session is over.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.over.as_mut().poll(cx)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.sessions.watched().entry(self.id) {
            entry.get_mut().retain(|(place, _)| *place != self.place);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }
}

/// How long it is believed that a session stands. With as much for its device it leaves room within the five seconds that
/// are promised.
const LEASE: Duration = Duration::from_secs(2);
/// Between looks at the sessions that sockets rest on.
const LOOK: Duration = Duration::from_secs(2);
const SESSIONS_PER_STATEMENT: usize = 1000;

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::domain::{Day, NewTokenSession, RefreshHash, SystemClock, Timestamp};
    use crate::storage::conformance::fixtures::{actor, register};
    use crate::storage::testing::{ROOMY, TestDatabase, sqlite};

    const ID: TokenSessionId = TokenSessionId([1; 16]);

    async fn sessions(database: &TestDatabase, expires: Day, clock: Arc<dyn Clock>) -> Arc<TokenSessions> {
        register(database, 1, 10).await;
        let session = NewTokenSession {
            id: ID,
            refresh: RefreshHash([1; 32]),
            salt: [1; 16],
            created: Day(0),
            expires,
        };
        let store = database.storage().tokens;
        store.open(&session, &actor(1, 10)).await.unwrap().unwrap();
        Arc::new(TokenSessions::new(store, clock, 100))
    }

    fn is_over(watched: &mut Watched) -> bool {
        watched.poll_over(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn t08_a_session_that_is_over_is_forgotten_and_its_sockets_end() {
        let database = sqlite(ROOMY).await.unwrap();
        let sessions = sessions(&database, Day(i32::MAX), Arc::new(SystemClock)).await;
        let (mut one, mut other) = (sessions.watch(ID), sessions.watch(TokenSessionId([2; 16])));
        assert_eq!(sessions.mailbox(ID).await.unwrap(), Some(MailboxId(10)));
        database.storage().tokens.end(ID).await.unwrap();
        assert!(!is_over(&mut one));
        sessions.over(ID);
        assert_eq!(sessions.mailbox(ID).await.unwrap(), None);
        assert!(is_over(&mut one) && !is_over(&mut other));
    }

    #[tokio::test]
    async fn t08_without_a_hint_a_look_ends_the_sockets_and_what_is_remembered() {
        let database = sqlite(ROOMY).await.unwrap();
        let sessions = sessions(&database, Day(i32::MAX), Arc::new(SystemClock)).await;
        let mut watched = sessions.watch(ID);
        sessions.mailbox(ID).await.unwrap();
        sessions.look().await.unwrap();
        assert!(!is_over(&mut watched));
        database.storage().tokens.end(ID).await.unwrap();
        sessions.look().await.unwrap();
        assert!(is_over(&mut watched));
        assert_eq!(sessions.mailbox(ID).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_session_is_over_on_its_day_and_what_is_not_watched_is_not_kept() {
        struct Midnight;
        impl Clock for Midnight {
            fn now(&self) -> Timestamp {
                Day(20_000).midnight()
            }
        }
        let database = sqlite(ROOMY).await.unwrap();
        let sessions = sessions(&database, Day(20_000), Arc::new(Midnight)).await;
        let mut watched = sessions.watch(ID);
        sessions.look().await.unwrap();
        assert!(is_over(&mut watched));
        assert_eq!(sessions.mailbox(ID).await.unwrap(), None);
        drop(watched);
        assert!(sessions.watched().is_empty());
    }

    #[tokio::test]
    async fn no_more_sessions_are_remembered_than_there_is_room_for() {
        let database = sqlite(ROOMY).await.unwrap();
        let store = database.storage().tokens;
        for n in 1..=20 {
            register(&database, n, i64::from(n)).await;
            let session = NewTokenSession {
                id: TokenSessionId([n; 16]),
                refresh: RefreshHash([n; 32]),
                salt: [n; 16],
                created: Day(0),
                expires: Day(i32::MAX),
            };
            store.open(&session, &actor(n, i64::from(n))).await.unwrap().unwrap();
        }
        let sessions = TokenSessions::new(store, Arc::new(SystemClock), 5);
        for n in 1..=20 {
            let found = sessions.mailbox(TokenSessionId([n; 16])).await.unwrap();
            assert_eq!(found, Some(MailboxId(i64::from(n))));
        }
        sessions.tidy();
        assert!((1..=5).contains(&sessions.stand.entry_count()));
    }

    /// As with accounts: a look that began before the end must not put the session back.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_session_that_is_over_is_never_put_back_by_a_look_that_began_before() {
        let database = sqlite(ROOMY).await.unwrap();
        let sessions = sessions(&database, Day(i32::MAX), Arc::new(SystemClock)).await;
        let store = database.storage().tokens;
        for round in 0..60_u8 {
            let id = TokenSessionId([100 + round; 16]);
            let session = NewTokenSession {
                id,
                refresh: RefreshHash([round; 32]),
                salt: [1; 16],
                created: Day(0),
                expires: Day(i32::MAX),
            };
            store.open(&session, &actor(1, 10)).await.unwrap().unwrap();
            let others: Vec<_> = (0..6)
                .map(|_| {
                    let sessions = Arc::clone(&sessions);
                    tokio::spawn(async move { while sessions.mailbox_fresh(id).await.unwrap().is_some() {} })
                })
                .collect();
            assert!(sessions.mailbox(id).await.unwrap().is_some());
            store.end(id).await.unwrap();
            sessions.over(id);
            for _ in 0..100 {
                assert_eq!(sessions.mailbox(id).await.unwrap(), None, "round {round}");
                tokio::task::yield_now().await;
            }
            for other in others {
                other.await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn what_was_read_before_it_was_over_or_slowly_is_not_kept() {
        let database = sqlite(ROOMY).await.unwrap();
        let sessions = sessions(&database, Day(i32::MAX), Arc::new(SystemClock)).await;
        let (before, began) = (sessions.forgotten.load(Ordering::Acquire), Instant::now());
        // The end comes between the read and what is made of it.
        database.storage().tokens.end(ID).await.unwrap();
        sessions.over(ID);
        sessions.keep(ID, MailboxId(10), before, began);
        assert_eq!(sessions.mailbox(ID).await.unwrap(), None);
        sessions.forget_all();
        sessions.keep(ID, MailboxId(10), before + 1, Instant::now());
        assert!(!sessions.stand.contains_key(&ID));

        let before = sessions.forgotten.load(Ordering::Acquire);
        let long_ago = Instant::now().checked_sub(QUICK + Duration::from_millis(1)).unwrap();
        sessions.keep(ID, MailboxId(10), before, long_ago);
        assert!(!sessions.stand.contains_key(&ID));
        sessions.keep(ID, MailboxId(10), before, Instant::now());
        assert!(sessions.stand.contains_key(&ID));
    }
}
