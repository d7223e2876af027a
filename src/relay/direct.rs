//! Durable or delivered: an envelope whose device is connected to this node, and has all that came before, goes to its
//! connection at once, and into storage only if the device does not acknowledge it soon.
//!
//! The sender's own task does all of it: it offers, waits for the linger at most, and gives to the writer what is left. It
//! is told of success at whichever comes first, so nothing that anybody was promised is in memory alone (ADR 0037).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use keys_schema::sealed_queue::QueuePublicKey;

use crate::domain::{MailboxId, Seq};

use super::bell::{Bell, Stored};
use super::offers::{OfferId, Outcome};
use super::presence::Presence;

/// A copy that a connection was offered. Dropped, it is withdrawn: it will not be written.
pub struct OfferedCopy {
    bell: Arc<Bell>,
    id: OfferId,
}

impl OfferedCopy {
    /// Its batch begins; `false` if the device has it by now.
    pub(super) fn begin_write(&self) -> bool {
        self.bell.begin_write(self.id)
    }

    /// Its batch is committed.
    pub(super) fn stored(self, seq: Seq) -> Stored {
        self.bell.stored(self.id, seq)
    }
}

impl Drop for OfferedCopy {
    fn drop(&mut self) {
        self.bell.withdrawn(self.id);
    }
}

/// How a copy gets to its device.
pub enum Way {
    /// Its device is not connected here.
    Storage,
    /// Its device is connected here, and was not offered it.
    Behind(BehindStorage),
    /// Its device was offered it.
    Offered(OfferedCopy),
}

impl Way {
    /// By which is said that the writer has the copy.
    pub(super) fn place(&self) -> Option<Place> {
        let (bell, id) = match self {
            Self::Storage => return None,
            Self::Behind(behind) => (&behind.bell, behind.turn?),
            Self::Offered(offered) => (&offered.bell, offered.id),
        };
        Some(Place {
            bell: Arc::clone(bell),
            id,
        })
    }
}

/// The place of a copy in the order in which a connection's copies reach the writer.
pub(super) struct Place {
    bell: Arc<Bell>,
    id: OfferId,
}

impl Place {
    /// The writer has it: whatever waits behind it may follow.
    pub(super) fn queued(&self) {
        self.bell.queued(self.id);
    }
}

/// As long as this lives, nothing is offered to the device: it would overtake what is on its way into storage.
pub struct BehindStorage {
    bell: Arc<Bell>,
    turn: Option<OfferId>,
}

impl Drop for BehindStorage {
    fn drop(&mut self) {
        if let Some(turn) = self.turn {
            self.bell.withdrawn(turn);
        }
        self.bell.end_storing();
    }
}

/// The ways of copies that nobody was offered, once it is their turn.
pub(super) async fn store(presence: &Presence, devices: &[(MailboxId, &QueuePublicKey)]) -> Vec<Way> {
    let bells: Vec<_> = devices
        .iter()
        .map(|(mailbox, key)| presence.bell(*mailbox, key))
        .collect();
    let mut order: Vec<_> = (0..bells.len()).filter(|index| bells[*index].is_some()).collect();
    order.sort_unstable_by_key(|index| devices[*index].0.0);
    let connected: Vec<_> = order.iter().filter_map(|index| bells[*index].as_deref()).collect();
    let turns = Bell::begin_storing(&connected);
    let mut ways: Vec<_> = bells.iter().map(|_| Way::Storage).collect();
    for (index, turn) in order.into_iter().zip(turns) {
        if let Some(bell) = bells[index].clone() {
            ways[index] = Way::Behind(BehindStorage { bell, turn });
        }
    }
    poll_fn(|cx| {
        let waits = |way: &Way| match way {
            Way::Behind(BehindStorage { bell, turn: Some(turn) }) => bell.poll_turn(*turn, cx).is_pending(),
            _ => false,
        };
        // All of them, so that each wakes this task.
        let waiting = ways.iter().filter(|way| waits(way)).count();
        if waiting > 0 { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    ways
}

/// One message that the devices of its recipient were offered.
pub(super) struct Direct(Vec<Option<OfferedCopy>>);

impl Direct {
    /// Offers each copy to its device, if all of them are connected here and have all that came before; else nothing to
    /// nobody.
    pub(super) fn offer(presence: &Presence, copies: &[(MailboxId, &QueuePublicKey, &Bytes)]) -> Option<Self> {
        let find = |(mailbox, key, _): &(MailboxId, &QueuePublicKey, &Bytes)| presence.bell(*mailbox, key);
        let bells = copies.iter().map(find).collect::<Option<Vec<_>>>()?;
        // In the order of the mailboxes, which is the same for everybody.
        let mut order: Vec<_> = (0..copies.len()).collect();
        order.sort_unstable_by_key(|index| copies[*index].0.0);
        let each: Vec<_> = order.iter().map(|index| (&*bells[*index], copies[*index].2)).collect();
        let ids = Bell::offer_all(&each)?;
        let mut offered: Vec<_> = bells.iter().map(|_| None).collect();
        for (index, id) in order.into_iter().zip(ids) {
            let bell = Arc::clone(&bells[index]);
            offered[index] = Some(OfferedCopy { bell, id });
        }
        Some(Self(offered))
    }

    /// Waits for the devices, no longer than that. Returns what is to be written: for each copy its offer, or `None` if its
    /// device has it.
    pub(super) async fn wait(mut self, linger: Duration) -> Vec<Option<OfferedCopy>> {
        let settled = poll_fn(|cx| self.poll_outcome(cx));
        if linger.is_zero() || tokio::time::timeout(linger, settled).await.is_err() {
            self.fall_due();
        }
        if self.0.iter().any(Option::is_some) {
            // One that falls due takes the others with it: a message is written once.
            self.fall_due();
            poll_fn(|cx| self.poll_turn(cx)).await;
        }
        self.0
    }

    fn fall_due(&self) {
        for copy in self.0.iter().flatten() {
            copy.bell.fall_due(copy.id);
        }
    }

    fn poll_outcome(&mut self, cx: &Context<'_>) -> Poll<()> {
        let mut pending = false;
        for offered in &mut self.0 {
            let Some(copy) = offered else { continue };
            match copy.bell.poll_outcome(copy.id, cx) {
                Poll::Ready(Outcome::Acknowledged) => *offered = None,
                Poll::Ready(Outcome::Due) => return Poll::Ready(()),
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    }

    fn poll_turn(&mut self, cx: &Context<'_>) -> Poll<()> {
        let mut pending = false;
        for offered in &mut self.0 {
            let Some(copy) = offered else { continue };
            match copy.bell.poll_turn(copy.id, cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => *offered = None,
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;
    use std::time::Instant;

    use futures_util::FutureExt;

    use super::*;
    use crate::domain::Timestamp;
    use crate::relay::bell::Wish;
    use crate::storage::conformance::fixtures::queue_key;
    use crate::wakeup::ConnectionId;

    const PHONE: MailboxId = MailboxId(2);
    const TABLET: MailboxId = MailboxId(1);
    const LONG: Duration = Duration::from_secs(3600);

    /// Devices that are connected and have all there is.
    fn connected(mailboxes: &[MailboxId]) -> (Presence, Vec<Arc<Bell>>) {
        let presence = Presence::default();
        let connection = ConnectionId {
            since: Timestamp(0),
            nonce: 0,
        };
        let enter = |mailbox: &MailboxId| presence.enter(*mailbox, presence.ticket(connection), queue_key(*mailbox));
        let bells: Vec<_> = mailboxes.iter().map(enter).collect();
        for bell in &bells {
            look(bell);
        }
        (presence, bells)
    }

    fn look(bell: &Bell) -> Vec<OfferId> {
        let rung = bell.answer(Waker::noop(), Instant::now(), Wish::Offers);
        rung.map_or_else(Vec::new, |rung| rung.offered.into_iter().map(|(id, _)| id).collect())
    }

    fn offer(presence: &Presence, mailboxes: &[MailboxId]) -> Option<Direct> {
        let content = Bytes::from_static(b"ciphertext");
        let keys: Vec<_> = mailboxes.iter().map(|mailbox| queue_key(*mailbox)).collect();
        let copies: Vec<_> = mailboxes
            .iter()
            .zip(&keys)
            .map(|(mailbox, key)| (*mailbox, key, &content))
            .collect();
        Direct::offer(presence, &copies)
    }

    #[tokio::test(start_paused = true)]
    async fn what_all_devices_acknowledge_is_not_written() {
        let (presence, bells) = connected(&[PHONE, TABLET]);
        let direct = offer(&presence, &[PHONE, TABLET]).unwrap();
        let waiting = tokio::spawn(direct.wait(LONG));
        for bell in &bells {
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            assert_eq!(bell.acknowledged(look(bell)[0]), None);
        }
        assert!(waiting.await.unwrap().iter().all(Option::is_none));
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_device_does_not_acknowledge_in_time_is_written_for_it_alone() {
        let (presence, bells) = connected(&[PHONE, TABLET]);
        let direct = offer(&presence, &[PHONE, TABLET]).unwrap();
        bells[1].acknowledged(look(&bells[1])[0]);
        let left = direct.wait(Duration::from_millis(10)).await;
        assert!(left[0].is_some() && left[1].is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_ends_has_its_offers_written_at_once() {
        let (presence, bells) = connected(&[PHONE]);
        let direct = offer(&presence, &[PHONE]).unwrap();
        bells[0].end();
        let left = direct.wait(LONG).await;
        assert!(left[0].is_some());
        assert!(offer(&presence, &[PHONE]).is_none(), "nobody takes offers any more");
    }

    #[test]
    fn nothing_is_offered_to_some_devices_only() {
        let (presence, bells) = connected(&[PHONE, TABLET]);
        bells[1].look();
        assert!(offer(&presence, &[PHONE, TABLET]).is_none());
        assert!(offer(&presence, &[PHONE, MailboxId(99)]).is_none());
        assert_eq!(look(&bells[0]), []);
        assert!(offer(&presence, &[PHONE]).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_overtakes_what_is_on_its_way_into_storage() {
        let (presence, _bells) = connected(&[PHONE]);
        let key = queue_key(PHONE);
        let ways = store(&presence, &[(PHONE, &key)]).await;
        assert!(offer(&presence, &[PHONE]).is_none());
        drop(ways);
        let offered = offer(&presence, &[PHONE]).unwrap();
        let devices = [(PHONE, &key)];
        let mut follows = pin!(store(&presence, &devices));
        assert!(
            follows.as_mut().now_or_never().is_none(),
            "it waits for what was offered"
        );
        let left = offered.wait(LONG).await;
        assert!(
            follows.as_mut().now_or_never().is_none(),
            "that has not reached the writer yet"
        );
        let way = Way::Offered(left.into_iter().flatten().next().unwrap());
        way.place().unwrap().queued();
        assert!(matches!(follows.await[..], [Way::Behind(_)]));
    }

    /// Two messages to the same two devices, offered from two threads: neither waits for the other for ever.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn messages_to_the_same_devices_do_not_wait_for_one_another() {
        let (presence, bells) = connected(&[PHONE, TABLET]);
        let presence = Arc::new(presence);
        for round in 0..200 {
            let send = |order: [MailboxId; 2]| {
                let presence = Arc::clone(&presence);
                tokio::spawn(async move {
                    let left = offer(&presence, &order)?.wait(Duration::from_micros(round)).await;
                    for way in left.into_iter().flatten().map(Way::Offered) {
                        way.place()?.queued();
                        tokio::task::yield_now().await;
                    }
                    Some(())
                })
            };
            let (one, other) = (send([PHONE, TABLET]), send([TABLET, PHONE]));
            let both = async { (one.await.unwrap(), other.await.unwrap()) };
            let _ = tokio::time::timeout(Duration::from_secs(60), both)
                .await
                .expect("both end");
            bells.iter().for_each(|bell| {
                look(bell);
            });
        }
    }
}
