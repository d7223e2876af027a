//! Envelopes that a connection was offered before they were written: where each of them is.
//!
//! An [`Offer`] is in memory only, and nobody was told that its envelope is accepted. Its sender waits: either the device
//! acknowledges the envelope, which then was never written, or the offer falls due and goes the way of all others, into a
//! batch. The rules:
//!
//! - Offers of a connection fall due in their order, and reach the writer in it: a later one waits for its turn.
//! - What was acknowledged before its batch began is left out of the batch; what is acknowledged meanwhile is deleted by
//!   the number that the batch gives it.
//! - A send that comes while there are offers, and is offered to nobody, waits behind them for its turn as well.
//! - Offers are few, by number and by bytes. What finds no room is written as if its device were not connected.
//!
//! This is a table without I/O or clock; [`super::bell`] guards it, [`super::direct`] waits on it.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// Where an envelope is that was offered to a connection.
///
/// ```text
///           linger over, or            its turn         given to          its batch
///           the connection ends        has come         the writer        begins
/// Offered ────────────────────► Due ─────────► Leaving ─────────► Queued ─────────► Writing ──► stored, by a number
///    │                           │                │                  │                 │
///    └───────────────────────────┴──── acknowledged: never written ──┘            acknowledged
///                                                                                      ▼
///                                                                                 Superfluous ──► stored, and deleted
/// ```
///
/// An offer that has left the diagram is in the table no more. From any of these it also goes when its sender does, or when
/// the batch fails: nobody was promised anything then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// The connection has it, and its sender waits for an acknowledgement.
    Offered,
    /// It is to be written.
    Due,
    /// Its turn has come.
    Leaving,
    /// The writer has it.
    Queued,
    /// It is in the batch that is being committed.
    Writing,
    /// As before, and acknowledged meanwhile.
    Superfluous,
}

impl Offer {
    /// Whether later offers have to wait for it before they go to the writer.
    fn has_precedence(self) -> bool {
        matches!(self, Self::Offered | Self::Due | Self::Leaving)
    }
}

/// The name of an offer among those of its connection. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfferId(pub u64);

/// What an acknowledgement was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// The envelope will not be written.
    Unwritten,
    /// It will be deleted once it is written.
    Superfluous,
    /// There is no such offer.
    Unknown,
}

/// What became of an offer that its sender waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The device has it.
    Acknowledged,
    /// It is to be written.
    Due,
}

/// The offers of one connection.
#[derive(Default)]
pub(super) struct Offers {
    entries: VecDeque<Entry>,
    bytes: usize,
    next: u64,
}

struct Entry {
    id: OfferId,
    bytes: usize,
    at: Offer,
    /// Nobody was offered it: it only waits for its turn.
    follower: bool,
    /// Of whoever waits for a change.
    waker: Option<Waker>,
}

impl Offers {
    /// Whether there is room for one of that size.
    pub(super) fn have_room(&self, bytes: usize) -> bool {
        self.entries.len() < MAX_OFFERS && self.bytes + bytes <= MAX_BYTES
    }

    /// Whether there is none.
    pub(super) fn are_settled(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes one in.
    pub(super) fn add(&mut self, bytes: usize) -> OfferId {
        self.push(bytes, Offer::Offered, false)
    }

    /// Takes in what is to be written behind all that was offered; `None` if there is nothing to wait for.
    pub(super) fn follow(&mut self) -> Option<OfferId> {
        let waits = self.entries.iter().any(|entry| entry.at.has_precedence());
        self.all_fall_due();
        waits.then(|| self.push(0, Offer::Due, true))
    }

    fn push(&mut self, bytes: usize, at: Offer, follower: bool) -> OfferId {
        let id = OfferId(self.next);
        self.next += 1;
        self.bytes += bytes;
        self.entries.push_back(Entry {
            id,
            bytes,
            at,
            follower,
            waker: None,
        });
        id
    }

    /// The device has it.
    pub(super) fn acknowledge(&mut self, id: OfferId) -> Acknowledged {
        let Some(index) = self.find(id) else {
            return Acknowledged::Unknown;
        };
        match self.entries[index].at {
            Offer::Writing | Offer::Superfluous => {
                self.entries[index].at = Offer::Superfluous;
                Acknowledged::Superfluous
            }
            Offer::Offered | Offer::Due | Offer::Leaving | Offer::Queued => {
                self.remove_at(index);
                Acknowledged::Unwritten
            }
        }
    }

    /// Waits until it is acknowledged or due.
    pub(super) fn poll_outcome(&mut self, id: OfferId, cx: &Context<'_>) -> Poll<Outcome> {
        let Some(index) = self.find(id) else {
            return Poll::Ready(Outcome::Acknowledged);
        };
        let entry = &mut self.entries[index];
        if entry.at == Offer::Offered {
            entry.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Outcome::Due)
    }

    /// It is to be written, and with it whatever was offered before.
    pub(super) fn fall_due(&mut self, id: OfferId) {
        for entry in self.entries.iter_mut().take_while(|entry| entry.id <= id) {
            entry.fall_due();
        }
    }

    /// All are to be written.
    pub(super) fn all_fall_due(&mut self) {
        self.entries.iter_mut().for_each(Entry::fall_due);
    }

    /// Waits until all that was offered before is with the writer, or gone. Then it is its turn, and it is `Leaving`; `false`
    /// if it was acknowledged.
    pub(super) fn poll_turn(&mut self, id: OfferId, cx: &Context<'_>) -> Poll<bool> {
        let Some(index) = self.find(id) else {
            return Poll::Ready(false);
        };
        let waits = self.entries.iter().take(index).any(|entry| entry.at.has_precedence());
        let entry = &mut self.entries[index];
        if waits {
            entry.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        entry.at = Offer::Leaving;
        Poll::Ready(true)
    }

    /// The writer has it: the next may follow.
    pub(super) fn queued(&mut self, id: OfferId) {
        if let Some(index) = self.find(id)
            && self.entries[index].at == Offer::Leaving
        {
            if self.entries[index].follower {
                self.remove_at(index);
            } else {
                self.entries[index].at = Offer::Queued;
                self.wake_from(index + 1);
            }
        }
    }

    /// Its batch begins; `false` if it need not be written any more.
    pub(super) fn begin_write(&mut self, id: OfferId) -> bool {
        let Some(index) = self.find(id) else {
            return false;
        };
        self.entries[index].at = Offer::Writing;
        self.wake_from(index + 1);
        true
    }

    /// It is stored. `None` if it is in the table no more, else whether it was acknowledged meanwhile.
    pub(super) fn stored(&mut self, id: OfferId) -> Option<bool> {
        let index = self.find(id)?;
        let superfluous = self.entries[index].at == Offer::Superfluous;
        self.remove_at(index);
        Some(superfluous)
    }

    /// Nobody waits for it any more: its sender went, or its batch failed.
    pub(super) fn withdraw(&mut self, id: OfferId) {
        if let Some(index) = self.find(id) {
            self.remove_at(index);
        }
    }

    fn find(&self, id: OfferId) -> Option<usize> {
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok()
    }

    fn remove_at(&mut self, index: usize) {
        let Some(entry) = self.entries.remove(index) else {
            return;
        };
        self.bytes -= entry.bytes;
        if let Some(waker) = entry.waker {
            waker.wake();
        }
        if entry.at.has_precedence() {
            self.wake_from(index);
        }
        if self.entries.is_empty() {
            self.entries.shrink_to(KEPT);
        }
    }

    fn wake_from(&mut self, index: usize) {
        for entry in self.entries.iter_mut().skip(index) {
            if entry.at == Offer::Due
                && let Some(waker) = entry.waker.take()
            {
                waker.wake();
            }
        }
    }
}

impl Entry {
    fn fall_due(&mut self) {
        if self.at == Offer::Offered {
            self.at = Offer::Due;
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }
}

/// Offers that one connection may have; what comes beyond them waits in storage.
pub(super) const MAX_OFFERS: usize = 128;
const MAX_BYTES: usize = 512 * 1024;
const KEPT: usize = 4;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, RngExt, SeedableRng};

    use super::*;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn add(offers: &mut Offers, count: usize) -> Vec<OfferId> {
        (0..count).map(|_| offers.add(1)).collect()
    }

    /// To the writer.
    fn leave(offers: &mut Offers, id: OfferId) -> bool {
        offers.fall_due(id);
        match offers.poll_turn(id, &cx()) {
            Poll::Ready(true) => {
                offers.queued(id);
                true
            }
            _ => false,
        }
    }

    #[test]
    fn what_is_acknowledged_before_its_batch_begins_is_never_written() {
        for steps in 0..4 {
            let mut offers = Offers::default();
            let id = offers.add(10);
            if steps > 0 {
                offers.fall_due(id);
            }
            if steps > 1 {
                assert_eq!(offers.poll_turn(id, &cx()), Poll::Ready(true));
            }
            if steps > 2 {
                offers.queued(id);
            }
            assert_eq!(offers.acknowledge(id), Acknowledged::Unwritten);
            assert_eq!(offers.poll_outcome(id, &cx()), Poll::Ready(Outcome::Acknowledged));
            assert!(!offers.begin_write(id) && offers.are_settled() && offers.bytes == 0);
        }
    }

    #[test]
    fn what_is_acknowledged_while_it_is_written_is_to_be_deleted() {
        let mut offers = Offers::default();
        let ids = add(&mut offers, 2);
        for id in &ids {
            assert!(leave(&mut offers, *id) && offers.begin_write(*id));
        }
        assert_eq!(offers.acknowledge(ids[1]), Acknowledged::Superfluous);
        assert_eq!(
            (offers.stored(ids[0]), offers.stored(ids[1])),
            (Some(false), Some(true))
        );
        assert_eq!(
            (offers.stored(ids[0]), offers.acknowledge(ids[0])),
            (None, Acknowledged::Unknown)
        );
    }

    #[test]
    fn a_later_one_waits_for_its_turn_and_earlier_ones_fall_due_with_it() {
        let mut offers = Offers::default();
        let ids = add(&mut offers, 3);
        offers.fall_due(ids[1]);
        assert_eq!(offers.poll_outcome(ids[0], &cx()), Poll::Ready(Outcome::Due));
        assert_eq!(offers.poll_outcome(ids[2], &cx()), Poll::Pending);
        assert_eq!(offers.poll_turn(ids[1], &cx()), Poll::Pending);
        assert_eq!(offers.poll_turn(ids[0], &cx()), Poll::Ready(true));
        assert_eq!(
            offers.poll_turn(ids[1], &cx()),
            Poll::Pending,
            "it has not reached the writer yet"
        );
        offers.queued(ids[0]);
        assert_eq!(offers.poll_turn(ids[1], &cx()), Poll::Ready(true));
    }

    #[test]
    fn what_is_offered_to_nobody_is_written_behind_what_was() {
        let mut offers = Offers::default();
        assert_eq!(offers.follow(), None);
        let first = offers.add(1);
        let (second, third) = (offers.follow().unwrap(), offers.follow().unwrap());
        assert_eq!(offers.poll_turn(second, &cx()), Poll::Pending);
        assert!(leave(&mut offers, first));
        assert_eq!(offers.poll_turn(third, &cx()), Poll::Pending);
        assert!(leave(&mut offers, second) && leave(&mut offers, third));
        assert_eq!(offers.follow(), None);
    }

    #[test]
    fn they_are_bounded_by_number_and_by_bytes() {
        let mut offers = Offers::default();
        assert!(!offers.have_room(MAX_BYTES + 1));
        add(&mut offers, MAX_OFFERS);
        assert!(!offers.have_room(0));
    }

    /// Random steps of senders, device and writer against a model that only knows what each of them saw.
    #[test]
    fn whatever_happens_nothing_is_lost_kept_or_reordered() {
        for seed in 0..2_000 {
            Model::new(seed).run();
        }
    }

    #[derive(Clone, Copy, Default, Debug)]
    struct Seen {
        acknowledged: bool,
        withdrawn: bool,
        /// Its sender was told that the device has it.
        told: bool,
        leaving: bool,
        queued: bool,
        writing: bool,
        stored: bool,
        deleted: bool,
    }

    struct Model {
        offers: Offers,
        seen: BTreeMap<OfferId, Seen>,
        /// In which order they reached the writer.
        order: Vec<OfferId>,
        random: StdRng,
    }

    impl Model {
        fn new(seed: u64) -> Self {
            Self {
                offers: Offers::default(),
                seen: BTreeMap::new(),
                order: Vec::new(),
                random: StdRng::seed_from_u64(seed),
            }
        }

        fn run(&mut self) {
            for _ in 0..60 {
                self.step();
            }
            // Everybody comes to an end.
            self.offers.all_fall_due();
            // Six steps each, the last one after all others.
            for _ in 0..self.seen.len() + 6 {
                for id in self.seen.keys().copied().collect::<Vec<_>>() {
                    self.write(id);
                }
            }
            assert!(self.offers.are_settled() && self.offers.bytes == 0, "{:?}", self.seen);
            assert!(self.order.is_sorted(), "{:?}", self.order);
            for seen in self.seen.values() {
                assert!(
                    !(seen.told && seen.stored && !seen.deleted),
                    "acknowledged, and there: {seen:?}"
                );
                assert!(seen.told || seen.stored || seen.withdrawn, "lost: {seen:?}");
                assert!(
                    !seen.deleted || seen.acknowledged,
                    "deleted without an acknowledgement: {seen:?}"
                );
                assert_eq!(seen.acknowledged && seen.stored, seen.deleted, "{seen:?}");
            }
        }

        fn step(&mut self) {
            let known: Vec<_> = self.seen.keys().copied().collect();
            let chosen = (!known.is_empty()).then(|| known[self.random.random_range(0..known.len())]);
            match (self.random.next_u32() % 6, chosen) {
                (0, _) | (_, None) => {
                    if self.offers.have_room(1) {
                        let id = self.offers.add(1);
                        self.seen.insert(id, Seen::default());
                    }
                }
                (1, Some(id)) => {
                    let acknowledged = self.offers.acknowledge(id);
                    let seen = self.seen.get_mut(&id).unwrap();
                    match acknowledged {
                        Acknowledged::Unwritten => {
                            assert!(!seen.writing);
                            (seen.acknowledged, seen.told) = (true, true);
                        }
                        Acknowledged::Superfluous => {
                            assert!(seen.writing);
                            seen.acknowledged = true;
                        }
                        Acknowledged::Unknown => assert!(seen.told || seen.stored || seen.withdrawn),
                    }
                }
                (2, Some(id)) if !self.seen[&id].stored && !self.seen[&id].writing => {
                    self.offers.withdraw(id);
                    let seen = self.seen.get_mut(&id).unwrap();
                    seen.withdrawn |= !seen.told;
                }
                (3, Some(id)) => self.offers.fall_due(id),
                (_, Some(id)) => self.write(id),
            }
        }

        /// The next thing that its sender or the writer does with one that is to be written.
        fn write(&mut self, id: OfferId) {
            let seen = self.seen.get_mut(&id).unwrap();
            if seen.withdrawn || seen.stored || seen.told {
                return;
            }
            if seen.writing {
                seen.deleted = self.offers.stored(id).unwrap();
                seen.stored = true;
            } else if seen.queued {
                seen.writing = self.offers.begin_write(id);
            } else if seen.leaving {
                self.offers.queued(id);
                seen.queued = true;
            } else if self.offers.poll_outcome(id, &cx()).is_ready() {
                seen.leaving = self.offers.poll_turn(id, &cx()) == Poll::Ready(true);
                if seen.leaving {
                    self.order.push(id);
                }
            }
        }
    }
}
