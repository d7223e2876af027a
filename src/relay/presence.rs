//! Who is connected to this node, and who displaces whom.
//!
//! A device has one live connection; the newest wins. Each connection has a [`Bell`]: others ring it, the connection's
//! own task answers. A bell holds a bounded number of envelopes that just arrived, so that a session that has caught up
//! need not read them back from storage; when it overflows, the session reads them from storage instead.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::domain::{MailboxId, Queued, Seq};
use crate::wakeup::ConnectionId;

/// Why a connection is to end, as decided outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dismissal {
    /// A newer connection of the same device took over.
    Displaced,
    /// The device or its account is gone, or has registered anew.
    CredentialsDead,
}

/// What a session has been told since it last looked.
#[derive(Default)]
pub struct Rung {
    /// Envelopes that were just committed, in order. Without gaps among themselves.
    pub arrived: Vec<Queued>,
    /// The highest number known to exist, if any was named.
    pub head: Option<Seq>,
    /// Storage should be looked at although no number was named.
    pub look: bool,
    /// Online-only envelopes that are still fresh.
    pub online: Vec<Bytes>,
    /// The connection is to end.
    pub dismissed: Option<Dismissal>,
}

/// What others ring to tell a connection something.
#[derive(Default)]
pub struct Bell(Mutex<BellState>);

#[derive(Default)]
struct BellState {
    arrived: VecDeque<Queued>,
    arrived_bytes: usize,
    head: Option<Seq>,
    /// The highest number that was ever rung, so that the tick wakes nobody for what is old.
    known: Seq,
    look: bool,
    online: VecDeque<(Instant, Bytes)>,
    dismissed: Option<Dismissal>,
    waker: Option<Waker>,
}

impl Bell {
    /// Takes what has been rung; registers the waker if that is nothing.
    pub fn answer(&self, waker: &Waker, now: Instant) -> Option<Rung> {
        let mut state = self.lock();
        let fresh: Vec<Bytes> = state
            .online
            .drain(..)
            .filter(|(since, _)| now.saturating_duration_since(*since) < ONLINE_LIFETIME)
            .map(|(_, content)| content)
            .collect();
        let rung = Rung {
            arrived: state.arrived.drain(..).collect(),
            head: state.head.take(),
            look: std::mem::take(&mut state.look),
            online: fresh,
            dismissed: state.dismissed,
        };
        state.arrived_bytes = 0;
        let silent = rung.arrived.is_empty()
            && rung.head.is_none()
            && !rung.look
            && rung.online.is_empty()
            && rung.dismissed.is_none();
        if silent {
            if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                state.waker = Some(waker.clone());
            }
            return None;
        }
        Some(rung)
    }

    fn arrived(&self, seq: Seq, content: Bytes) {
        self.ring(|state| {
            state.head = state.head.max(Some(seq));
            state.known = state.known.max(seq);
            let follows = state.arrived.back().is_none_or(|last| last.seq.next() == seq);
            state.arrived_bytes += content.len();
            if follows && state.arrived.len() < ARRIVED_MAX && state.arrived_bytes <= ARRIVED_MAX_BYTES {
                state.arrived.push_back(Queued { seq, content });
            } else {
                // The session will find all of them in storage, up to `head`.
                state.arrived.clear();
                state.arrived.shrink_to(ARRIVED_KEPT);
                state.arrived_bytes = 0;
            }
        });
    }

    fn head(&self, seq: Seq) -> bool {
        self.ring_if(|state| {
            let news = seq > state.known;
            if news {
                state.known = seq;
                state.head = state.head.max(Some(seq));
            }
            news
        })
    }

    /// What another node says is no reason to believe in a number, only to look.
    fn hinted(&self, seq: Seq) -> bool {
        self.ring_if(|state| {
            let news = seq > state.known;
            state.look |= news;
            news
        })
    }

    fn look(&self) {
        self.ring(|state| state.look = true);
    }

    fn online(&self, content: Bytes, now: Instant) {
        self.ring(|state| {
            if state.online.len() < ONLINE_MAX {
                state.online.push_back((now, content));
            }
        });
    }

    fn dismiss(&self, why: Dismissal) {
        self.ring(|state| {
            state.dismissed.get_or_insert(why);
        });
    }

    fn ring(&self, change: impl FnOnce(&mut BellState)) {
        self.ring_if(|state| {
            change(state);
            true
        });
    }

    /// Wakes the session if the change was one; returns whether it was.
    fn ring_if(&self, change: impl FnOnce(&mut BellState) -> bool) -> bool {
        let (changed, waker) = {
            let mut state = self.lock();
            let changed = change(&mut state);
            (changed, if changed { state.waker.take() } else { None })
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, BellState> {
        // What is behind the lock is valid at every moment, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connections of this node.
pub struct Presence {
    shards: Vec<Shard>,
}

type Shard = Mutex<HashMap<MailboxId, Connected>>;

struct Connected {
    connection: ConnectionId,
    bell: Arc<Bell>,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Presence {
    /// Enters a connection, and dismisses the one that the device had on this node.
    pub fn enter(&self, mailbox: MailboxId, connection: ConnectionId) -> Arc<Bell> {
        let bell = Arc::new(Bell::default());
        let older = self.shard(mailbox).insert(
            mailbox,
            Connected {
                connection,
                bell: Arc::clone(&bell),
            },
        );
        if let Some(older) = older {
            older.bell.dismiss(Dismissal::Displaced);
        }
        bell
    }

    /// Removes a connection, unless a newer one has taken its place already.
    pub fn leave(&self, mailbox: MailboxId, connection: ConnectionId) {
        if let Entry::Occupied(entry) = self.shard(mailbox).entry(mailbox)
            && entry.get().connection == connection
        {
            entry.remove();
        }
    }

    /// Whether the device is connected to this node.
    pub fn is_here(&self, mailbox: MailboxId) -> bool {
        self.shard(mailbox).contains_key(&mailbox)
    }

    /// An envelope for this mailbox is durable. Must be called in the order of the numbers.
    pub fn arrived(&self, mailbox: MailboxId, seq: Seq, content: Bytes) {
        self.with(mailbox, |bell| bell.arrived(seq, content));
    }

    /// Storage has given out this number in the mailbox; returns whether that was news to someone here.
    pub fn head(&self, mailbox: MailboxId, seq: Seq) -> bool {
        self.with(mailbox, |bell| bell.head(seq)).unwrap_or(false)
    }

    /// Another node says that the mailbox has this number; returns whether that was news to someone here.
    pub fn hinted(&self, mailbox: MailboxId, seq: Seq) -> bool {
        self.with(mailbox, |bell| bell.hinted(seq)).unwrap_or(false)
    }

    /// An online-only envelope; returns whether it was for someone here.
    pub fn online(&self, mailbox: MailboxId, content: Bytes) -> bool {
        self.with(mailbox, |bell| bell.online(content, Instant::now()))
            .is_some()
    }

    /// The device connected elsewhere. If its connection here is the newer one, nothing happens to it, and its id is
    /// returned: the other node is to hear of it again.
    pub fn displaced(&self, mailbox: MailboxId, by: ConnectionId) -> Option<ConnectionId> {
        let mut shard = self.shard(mailbox);
        let here = shard.get(&mailbox)?.connection;
        if here > by {
            return Some(here);
        }
        if here < by
            && let Some(older) = shard.remove(&mailbox)
        {
            older.bell.dismiss(Dismissal::Displaced);
        }
        None
    }

    /// The mailbox is gone.
    pub fn gone(&self, mailbox: MailboxId) {
        if let Some(connected) = self.shard(mailbox).remove(&mailbox) {
            connected.bell.dismiss(Dismissal::CredentialsDead);
        }
    }

    /// The connections of this node.
    pub fn connections(&self) -> Vec<(MailboxId, ConnectionId)> {
        let all = |shard: &Shard| {
            lock(shard)
                .iter()
                .map(|(mailbox, here)| (*mailbox, here.connection))
                .collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(all).collect()
    }

    /// Every session is to look into storage.
    pub fn look_all(&self) {
        for shard in &self.shards {
            for connected in lock(shard).values() {
                connected.bell.look();
            }
        }
    }

    /// The mailboxes that are connected to this node now.
    pub fn mailboxes(&self) -> Vec<MailboxId> {
        self.shards
            .iter()
            .flat_map(|shard| lock(shard).keys().copied().collect::<Vec<_>>())
            .collect()
    }

    fn with<T>(&self, mailbox: MailboxId, tell: impl FnOnce(&Bell) -> T) -> Option<T> {
        let shard = self.shard(mailbox);
        shard.get(&mailbox).map(|connected| tell(&connected.bell))
    }

    fn shard(&self, mailbox: MailboxId) -> MutexGuard<'_, HashMap<MailboxId, Connected>> {
        let index = usize::try_from(mailbox.0.rem_euclid(SHARDS_I64)).unwrap_or(0);
        lock(&self.shards[index])
    }
}

fn lock(shard: &Shard) -> MutexGuard<'_, HashMap<MailboxId, Connected>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long an online-only envelope waits for a busy connection.
const ONLINE_LIFETIME: Duration = Duration::from_secs(10);
const ONLINE_MAX: usize = 64;
const ARRIVED_MAX: usize = 128;
const ARRIVED_MAX_BYTES: usize = 512 * 1024;
const ARRIVED_KEPT: usize = 8;
const SHARDS: usize = 64;
const SHARDS_I64: i64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    const BOB: MailboxId = MailboxId(7);
    const FIRST: ConnectionId = ConnectionId {
        since: Timestamp(1),
        nonce: 9,
    };
    const SECOND: ConnectionId = ConnectionId {
        since: Timestamp(2),
        nonce: 0,
    };

    fn answer(bell: &Bell) -> Option<Rung> {
        bell.answer(Waker::noop(), Instant::now())
    }

    fn content() -> Bytes {
        Bytes::from_static(b"ciphertext")
    }

    #[test]
    fn a_silent_bell_answers_nothing() {
        assert!(answer(&Presence::default().enter(BOB, FIRST)).is_none());
    }

    #[test]
    fn the_newest_connection_wins_and_the_older_may_still_leave() {
        let presence = Presence::default();
        let first = presence.enter(BOB, FIRST);
        let second = presence.enter(BOB, SECOND);
        assert_eq!(answer(&first).unwrap().dismissed, Some(Dismissal::Displaced));
        presence.leave(BOB, FIRST);
        presence.arrived(BOB, Seq(1), content());
        assert_eq!(answer(&second).unwrap().arrived.len(), 1);
        presence.leave(BOB, SECOND);
        assert!(!presence.is_here(BOB));
    }

    #[test]
    fn a_connection_is_displaced_by_a_newer_one_elsewhere_only() {
        let presence = Presence::default();
        let bell = presence.enter(BOB, FIRST);
        assert_eq!(presence.displaced(BOB, FIRST), None);
        assert!(answer(&bell).is_none());
        assert_eq!(presence.displaced(BOB, SECOND), None);
        assert_eq!(answer(&bell).unwrap().dismissed, Some(Dismissal::Displaced));
        assert!(!presence.is_here(BOB));
    }

    #[test]
    fn a_late_word_of_an_older_connection_is_answered_with_the_newer_one() {
        let presence = Presence::default();
        let bell = presence.enter(BOB, SECOND);
        assert_eq!(presence.displaced(BOB, FIRST), Some(SECOND));
        assert!(answer(&bell).is_none());
    }

    #[test]
    fn an_overflowing_bell_names_the_head_and_holds_nothing() {
        let presence = Presence::default();
        let bell = presence.enter(BOB, FIRST);
        let many = i64::try_from(ARRIVED_MAX).unwrap() + 1;
        for seq in 1..=many {
            presence.arrived(BOB, Seq(seq), content());
        }
        let rung = answer(&bell).unwrap();
        assert!(rung.arrived.is_empty());
        assert_eq!(rung.head, Some(Seq(many)));
    }

    #[test]
    fn what_is_handed_over_has_no_gap() {
        let presence = Presence::default();
        let bell = presence.enter(BOB, FIRST);
        for seq in [1, 2, 4, 5] {
            presence.arrived(BOB, Seq(seq), content());
        }
        let rung = answer(&bell).unwrap();
        assert!(rung.arrived.windows(2).all(|pair| pair[0].seq.next() == pair[1].seq));
        assert_eq!(rung.head, Some(Seq(5)));
    }

    #[test]
    fn what_is_known_wakes_nobody_and_a_hint_only_makes_it_look() {
        let presence = Presence::default();
        let bell = presence.enter(BOB, FIRST);
        assert!(presence.head(BOB, Seq(5)));
        assert_eq!(answer(&bell).unwrap().head, Some(Seq(5)));
        assert!(!presence.head(BOB, Seq(5)));
        assert!(!presence.hinted(BOB, Seq(5)));
        assert!(answer(&bell).is_none());
        assert!(presence.hinted(BOB, Seq(i64::MAX)));
        let rung = answer(&bell).unwrap();
        assert_eq!((rung.head, rung.look), (None, true));
        assert!(presence.head(BOB, Seq(6)), "a hint is not believed");
    }

    #[test]
    fn a_stale_online_envelope_is_dropped() {
        let presence = Presence::default();
        let bell = presence.enter(BOB, FIRST);
        assert!(presence.online(BOB, content()));
        let later = Instant::now() + ONLINE_LIFETIME;
        assert!(bell.answer(Waker::noop(), later).is_none());
    }

    #[test]
    fn online_envelopes_are_bounded() {
        let presence = Presence::default();
        let bell = presence.enter(BOB, FIRST);
        for _ in 0..ONLINE_MAX * 2 {
            presence.online(BOB, content());
        }
        assert_eq!(answer(&bell).unwrap().online.len(), ONLINE_MAX);
    }
}
