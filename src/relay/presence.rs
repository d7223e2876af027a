//! Who is connected to this node, and who displaces whom.
//!
//! A device has one live connection; the newest wins. Each connection has a [`Bell`]: others ring it, the connection's
//! own task answers.

use std::collections::hash_map::{Entry, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use keys_schema::sealed_queue::QueuePublicKey;

use crate::domain::{MailboxId, Notice, Seq};
use crate::wakeup::ConnectionId;

use super::bell::{Bell, Dismissal};

/// The connections of this node.
pub struct Presence {
    shards: Vec<Shard>,
    tickets: AtomicU64,
}

/// A connection that was asked for, and its place among those of this node. Their tasks may get here in another order.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    order: u64,
    /// Its name on all nodes.
    pub connection: ConnectionId,
}

type Shard = Mutex<HashMap<MailboxId, Connected>>;

struct Connected {
    ticket: Ticket,
    /// Of the queue key that the connection holds.
    key: QueuePublicKey,
    bell: Arc<Bell>,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            tickets: AtomicU64::new(0),
        }
    }
}

impl Presence {
    /// To be drawn when a connection is asked for.
    pub fn ticket(&self, connection: ConnectionId) -> Ticket {
        Ticket {
            order: self.tickets.fetch_add(1, Ordering::Relaxed),
            connection,
        }
    }

    /// Enters a connection, and dismisses the older one that the device had on this node; this one itself, if a newer one was
    /// quicker to get here.
    pub fn enter(&self, mailbox: MailboxId, ticket: Ticket, key: QueuePublicKey) -> Arc<Bell> {
        let bell = Arc::new(Bell::default());
        let mut shard = self.shard(mailbox);
        if shard.get(&mailbox).is_some_and(|here| here.ticket.order > ticket.order) {
            bell.dismiss(Dismissal::Displaced);
            return bell;
        }
        let older = shard.insert(
            mailbox,
            Connected {
                ticket,
                key,
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
            && entry.get().ticket.connection == connection
        {
            entry.remove().bell.end();
        }
    }

    /// Whether the device is connected to this node.
    pub fn is_here(&self, mailbox: MailboxId) -> bool {
        self.shard(mailbox).contains_key(&mailbox)
    }

    /// The bell of a device's connection to this node, if that holds this queue key.
    pub(super) fn bell(&self, mailbox: MailboxId, key: &QueuePublicKey) -> Option<Arc<Bell>> {
        let shard = self.shard(mailbox);
        let connected = shard.get(&mailbox).filter(|connected| connected.key == *key)?;
        Some(Arc::clone(&connected.bell))
    }

    /// The connection of a device to this node, and its bell.
    pub fn connection(&self, mailbox: MailboxId) -> Option<(ConnectionId, Arc<Bell>)> {
        let shard = self.shard(mailbox);
        let connected = shard.get(&mailbox)?;
        Some((connected.ticket.connection, Arc::clone(&connected.bell)))
    }

    /// An envelope for this mailbox is durable, sealed to this key. Must be called in the order of the numbers. A connection
    /// with another key, of a device that has another password by now, hears that there is something, and cannot open it.
    pub fn arrived(&self, mailbox: MailboxId, key: &QueuePublicKey, seq: Seq, content: Bytes) {
        let shard = self.shard(mailbox);
        match shard.get(&mailbox) {
            Some(connected) if connected.key == *key => connected.bell.arrived(seq, content),
            Some(connected) => {
                connected.bell.head(seq);
            }
            None => {}
        }
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

    /// Something to tell the device; returns whether it is here.
    pub fn notice(&self, mailbox: MailboxId, notice: Notice) -> bool {
        self.with(mailbox, |bell| bell.notice(notice, Instant::now())).is_some()
    }

    /// The device connected elsewhere. If its connection here is the newer one, nothing happens to it, and its id is
    /// returned: the other node is to hear of it again.
    pub fn displaced(&self, mailbox: MailboxId, by: ConnectionId) -> Option<ConnectionId> {
        let mut shard = self.shard(mailbox);
        let here = shard.get(&mailbox)?.ticket.connection;
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
                .map(|(mailbox, here)| (*mailbox, here.ticket.connection))
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

const SHARDS: usize = 64;
const SHARDS_I64: i64 = 64;

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::domain::Timestamp;
    use crate::relay::bell::{Rung, Wish};
    use crate::storage::conformance::fixtures::queue_key;

    const BOB: MailboxId = MailboxId(7);
    const FIRST: ConnectionId = ConnectionId {
        since: Timestamp(1),
        nonce: 9,
    };
    const SECOND: ConnectionId = ConnectionId {
        since: Timestamp(2),
        nonce: 0,
    };

    fn first() -> Ticket {
        Ticket {
            order: 1,
            connection: FIRST,
        }
    }

    fn second() -> Ticket {
        Ticket {
            order: 2,
            connection: SECOND,
        }
    }

    fn answer(bell: &Bell) -> Option<Rung> {
        bell.answer(Waker::noop(), Instant::now(), Wish::Offers)
    }

    fn content() -> Bytes {
        Bytes::from_static(b"ciphertext")
    }

    #[test]
    fn the_newest_connection_wins_and_the_older_may_still_leave() {
        let presence = Presence::default();
        let first = presence.enter(BOB, first(), queue_key(BOB));
        let second = presence.enter(BOB, second(), queue_key(BOB));
        assert_eq!(answer(&first).unwrap().dismissed, Some(Dismissal::Displaced));
        presence.leave(BOB, FIRST);
        presence.arrived(BOB, &queue_key(BOB), Seq(1), content());
        assert_eq!(answer(&second).unwrap().arrived.len(), 1);
        presence.leave(BOB, SECOND);
        assert!(!presence.is_here(BOB));
    }

    #[test]
    fn a_connection_with_an_older_key_is_handed_no_envelope() {
        let presence = Presence::default();
        let bell = presence.enter(BOB, first(), queue_key(BOB));
        presence.arrived(BOB, &queue_key(MailboxId(8)), Seq(1), content());
        let rung = answer(&bell).unwrap();
        assert_eq!((rung.arrived.len(), rung.head), (0, Some(Seq(1))));
    }

    #[test]
    fn an_older_connection_that_comes_later_displaces_nobody() {
        let presence = Presence::default();
        let second = presence.enter(BOB, second(), queue_key(BOB));
        let first = presence.enter(BOB, first(), queue_key(BOB));
        assert_eq!(answer(&first).unwrap().dismissed, Some(Dismissal::Displaced));
        presence.leave(BOB, FIRST);
        presence.arrived(BOB, &queue_key(BOB), Seq(1), content());
        assert_eq!(answer(&second).unwrap().arrived.len(), 1);
    }

    #[test]
    fn a_connection_is_displaced_by_a_newer_one_elsewhere_only() {
        let presence = Presence::default();
        let bell = presence.enter(BOB, first(), queue_key(BOB));
        assert_eq!(presence.displaced(BOB, FIRST), None);
        assert!(answer(&bell).is_none());
        assert_eq!(presence.displaced(BOB, SECOND), None);
        assert_eq!(answer(&bell).unwrap().dismissed, Some(Dismissal::Displaced));
        assert!(!presence.is_here(BOB));
    }

    #[test]
    fn a_late_word_of_an_older_connection_is_answered_with_the_newer_one() {
        let presence = Presence::default();
        let bell = presence.enter(BOB, second(), queue_key(BOB));
        assert_eq!(presence.displaced(BOB, FIRST), Some(SECOND));
        assert!(answer(&bell).is_none());
    }
}
