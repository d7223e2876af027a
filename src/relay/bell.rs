//! What others ring to tell a connection something.
//!
//! A bell holds a bounded number of envelopes that just arrived, so that a session that has caught up need not read them
//! back from storage. When it overflows, the session reads them from storage instead. A connection that has all there is
//! is also offered envelopes that are not written yet: [`super::offers`].

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::domain::{IdentityKind, Notice, Queued, Seq};

use super::offers::{Acknowledged, OfferId, Offers, Outcome};

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
    /// Envelopes that are not written, and that nobody else has. They come before whatever arrived.
    pub offered: Vec<(OfferId, Bytes)>,
    /// Offers that are stored by now, and their numbers.
    pub stored: Vec<(OfferId, Seq)>,
    /// Envelopes that were just committed, in order. Without gaps among themselves.
    pub arrived: Vec<Queued>,
    /// The highest number known to exist, if any was named.
    pub head: Option<Seq>,
    /// Storage should be looked at although no number was named.
    pub look: bool,
    /// Online-only envelopes that are still fresh.
    pub online: Vec<Bytes>,
    /// What the server has to say, of each sort the newest.
    pub notices: Vec<Notice>,
    /// The connection is to end.
    pub dismissed: Option<Dismissal>,
}

/// What a session wishes of those who have something for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It has all there is: offers are welcome.
    Offers,
    /// It has enough to do.
    NoOffers,
    /// It is about to read storage, where all that it was offered is to be found by its number.
    NumbersOnly,
}

/// What became of an offer whose batch is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// The connection has the envelope, and learns the number.
    Known,
    /// The connection has ended: whoever has taken its place is to hear of the envelope.
    Elsewhere,
    /// The device has acknowledged it meanwhile: it is to be deleted.
    Superfluous,
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
    notices: Vec<Notice>,
    /// When this connection last heard that keys are low, of each identity.
    keys_low: Vec<(IdentityKind, Instant)>,
    dismissed: Option<Dismissal>,
    waker: Option<Waker>,
    /// Offers are welcome.
    welcoming: bool,
    /// Nobody answers any more.
    ended: bool,
    offers: Offers,
    offered: VecDeque<(OfferId, Bytes)>,
    stored: Vec<(OfferId, Seq)>,
    /// The same, of the last ones: an acknowledgement may name the offer still.
    numbers: VecDeque<(OfferId, Seq)>,
    /// Sends that are on their way into storage. What is offered now would overtake them.
    on_the_way: usize,
}

impl BellState {
    fn takes(&self, bytes: usize) -> bool {
        self.welcoming && self.on_the_way == 0 && self.offers.have_room(bytes)
    }

    fn offer(&mut self, content: Bytes) -> OfferId {
        let id = self.offers.add(content.len());
        self.offered.push_back((id, content));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        id
    }

    fn end(&mut self) {
        self.ended = true;
        self.welcoming = false;
        self.offers.all_fall_due();
    }

    fn stored(&mut self, id: OfferId, seq: Seq) {
        self.known = self.known.max(seq);
        self.stored.push((id, seq));
        if self.numbers.len() == NUMBERS_MAX {
            self.numbers.pop_front();
        }
        self.numbers.push_back((id, seq));
    }

    /// Lets a session go on that waits for its offers to be settled.
    fn offer_went(&mut self) {
        if !self.welcoming
            && self.offers.are_settled()
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }
}

impl Bell {
    /// Takes what has been rung; registers the waker if that is nothing. Offers are welcome, or not, until asked again.
    pub fn answer(&self, waker: &Waker, now: Instant, wish: Wish) -> Option<Rung> {
        let mut state = self.lock();
        state.welcoming = wish == Wish::Offers && !state.ended;
        if wish == Wish::NumbersOnly {
            state.offers.all_fall_due();
        }
        let fresh: Vec<Bytes> = state
            .online
            .drain(..)
            .filter(|(since, _)| now.saturating_duration_since(*since) < ONLINE_LIFETIME)
            .map(|(_, content)| content)
            .collect();
        let rung = Rung {
            offered: state.offered.drain(..).collect(),
            stored: std::mem::take(&mut state.stored),
            arrived: state.arrived.drain(..).collect(),
            head: state.head.take(),
            look: std::mem::take(&mut state.look),
            online: fresh,
            notices: std::mem::take(&mut state.notices),
            dismissed: state.dismissed,
        };
        state.arrived_bytes = 0;
        let silent = rung.offered.is_empty()
            && rung.stored.is_empty()
            && rung.arrived.is_empty()
            && rung.head.is_none()
            && !rung.look
            && rung.online.is_empty()
            && rung.notices.is_empty()
            && rung.dismissed.is_none();
        if silent {
            if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                state.waker = Some(waker.clone());
            }
            return None;
        }
        state.welcoming &= rung.arrived.is_empty() && rung.head.is_none() && !rung.look;
        Some(rung)
    }

    /// Takes no more offers, and has those that there are written. Returns whether none is left of which the session has to
    /// hear the number yet; it will be woken when that is so.
    pub fn settle(&self) -> bool {
        let mut state = self.lock();
        state.welcoming = false;
        state.offers.all_fall_due();
        state.offers.are_settled() && state.offered.is_empty() && state.stored.is_empty()
    }

    /// The device has an envelope that it was offered. Returns the number to delete, if it was written.
    pub fn acknowledged(&self, id: OfferId) -> Option<Seq> {
        let mut state = self.lock();
        let acknowledged = state.offers.acknowledge(id);
        state.offer_went();
        match acknowledged {
            Acknowledged::Unwritten | Acknowledged::Superfluous => None,
            Acknowledged::Unknown => {
                let stored = state.numbers.iter().find(|(stored, _)| *stored == id);
                stored.map(|(_, seq)| *seq)
            }
        }
    }

    /// Nobody answers any more: what was offered is to be written.
    pub fn end(&self) {
        self.lock().end();
    }

    /// Offers each bell its envelope, or none of them anything. They are locked in this order, which has to be the same for
    /// all who offer to several.
    pub(super) fn offer_all(bells: &[(&Self, &Bytes)]) -> Option<Vec<OfferId>> {
        let mut states: Vec<_> = bells.iter().map(|(bell, _)| bell.lock()).collect();
        let welcome = states
            .iter()
            .zip(bells)
            .all(|(state, (_, content))| state.takes(content.len()));
        let offer = |(state, (_, content)): (&mut MutexGuard<'_, BellState>, &(&Self, &Bytes))| {
            state.offer(Bytes::clone(content))
        };
        welcome.then(|| states.iter_mut().zip(bells).map(offer).collect())
    }

    /// Waits until the device has the envelope, or it is to be written.
    pub(super) fn poll_outcome(&self, id: OfferId, cx: &Context<'_>) -> Poll<Outcome> {
        self.lock().offers.poll_outcome(id, cx)
    }

    /// The envelope is to be written.
    pub(super) fn fall_due(&self, id: OfferId) {
        self.lock().offers.fall_due(id);
    }

    /// Waits until it may be given to the writer; `false` if it need not be any more.
    pub(super) fn poll_turn(&self, id: OfferId, cx: &Context<'_>) -> Poll<bool> {
        self.lock().offers.poll_turn(id, cx)
    }

    /// The writer has it.
    pub(super) fn queued(&self, id: OfferId) {
        self.lock().offers.queued(id);
    }

    /// Its batch begins; `false` if it need not be written any more.
    pub(super) fn begin_write(&self, id: OfferId) -> bool {
        self.lock().offers.begin_write(id)
    }

    /// Its batch is committed, and gave it this number.
    pub(super) fn stored(&self, id: OfferId, seq: Seq) -> Stored {
        let mut state = self.lock();
        // Also of what is deleted at once: the session has to know that there is nothing to read under this number.
        state.stored(id, seq);
        match state.offers.stored(id) {
            Some(true) => {
                state.offer_went();
                Stored::Superfluous
            }
            Some(false) | None => {
                if let Some(waker) = state.waker.take() {
                    waker.wake();
                }
                if state.ended { Stored::Elsewhere } else { Stored::Known }
            }
        }
    }

    /// Nobody waits for it any more, and it will not be written.
    pub(super) fn withdrawn(&self, id: OfferId) {
        let mut state = self.lock();
        state.offers.withdraw(id);
        state.offer_went();
    }

    /// A send is on its way into storage: nothing is offered until that is over. For each bell the turn that has to be waited
    /// for, if any. They are locked in this order, as by [`Self::offer_all`].
    pub(super) fn begin_storing(bells: &[&Self]) -> Vec<Option<OfferId>> {
        let mut states: Vec<_> = bells.iter().map(|bell| bell.lock()).collect();
        let begin = |state: &mut MutexGuard<'_, BellState>| {
            state.on_the_way += 1;
            state.offers.follow()
        };
        states.iter_mut().map(begin).collect()
    }

    /// The send has got there, or failed.
    pub(super) fn end_storing(&self) {
        let mut state = self.lock();
        state.on_the_way = state.on_the_way.saturating_sub(1);
    }

    pub(super) fn arrived(&self, seq: Seq, content: Bytes) {
        self.ring(|state| {
            state.head = state.head.max(Some(seq));
            state.known = state.known.max(seq);
            state.welcoming = false;
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

    pub(super) fn head(&self, seq: Seq) -> bool {
        self.ring_if(|state| {
            let news = seq > state.known;
            if news {
                state.known = seq;
                state.head = state.head.max(Some(seq));
                state.welcoming = false;
            }
            news
        })
    }

    /// What another node says is no reason to believe in a number, only to look.
    pub(super) fn hinted(&self, seq: Seq) -> bool {
        self.ring_if(|state| {
            let news = seq > state.known;
            state.look |= news;
            state.welcoming &= !news;
            news
        })
    }

    pub(super) fn look(&self) {
        self.ring(|state| {
            state.look = true;
            state.welcoming = false;
        });
    }

    pub(super) fn online(&self, content: Bytes, now: Instant) {
        self.ring(|state| {
            if state.online.len() < ONLINE_MAX {
                state.online.push_back((now, content));
            }
        });
    }

    /// Of each sort the newest is kept. That keys are low is not said again within an hour.
    pub(super) fn notice(&self, notice: Notice, now: Instant) {
        self.ring_if(|state| {
            if let Notice::PreKeysLow { kind, .. } = notice
                && !state.notices.iter().any(|waiting| notice.replaces(waiting))
            {
                state
                    .keys_low
                    .retain(|(_, said)| now.saturating_duration_since(*said) < KEYS_LOW_AGAIN);
                if state.keys_low.iter().any(|(said, _)| *said == kind) {
                    return false;
                }
                state.keys_low.push((kind, now));
            }
            state.notices.retain(|waiting| !notice.replaces(waiting));
            state.notices.push(notice);
            true
        });
    }

    pub(super) fn dismiss(&self, why: Dismissal) {
        self.ring(|state| {
            state.dismissed.get_or_insert(why);
            state.end();
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

/// How long an online-only envelope waits for a busy connection.
pub const ONLINE_LIFETIME: Duration = Duration::from_secs(10);
/// How many of them wait for one connection.
pub const ONLINE_MAX: usize = 64;
/// How long a connection that heard that keys are low does not hear it again.
pub const KEYS_LOW_AGAIN: Duration = Duration::from_secs(60 * 60);
/// No fewer than a connection may have under way.
const NUMBERS_MAX: usize = 1024;
const ARRIVED_MAX: usize = 128;
const ARRIVED_MAX_BYTES: usize = 512 * 1024;
const ARRIVED_KEPT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::KeyCount;

    fn answer(bell: &Bell) -> Option<Rung> {
        bell.answer(Waker::noop(), Instant::now(), Wish::Offers)
    }

    fn content() -> Bytes {
        Bytes::from_static(b"ciphertext")
    }

    #[test]
    fn an_overflowing_bell_names_the_head_and_holds_nothing() {
        let bell = Bell::default();
        let many = i64::try_from(ARRIVED_MAX).unwrap() + 1;
        for seq in 1..=many {
            bell.arrived(Seq(seq), content());
        }
        let rung = answer(&bell).unwrap();
        assert!(rung.arrived.is_empty());
        assert_eq!(rung.head, Some(Seq(many)));
    }

    #[test]
    fn what_is_handed_over_has_no_gap() {
        let bell = Bell::default();
        for seq in [1, 2, 4, 5] {
            bell.arrived(Seq(seq), content());
        }
        let rung = answer(&bell).unwrap();
        assert!(rung.arrived.windows(2).all(|pair| pair[0].seq.next() == pair[1].seq));
        assert_eq!(rung.head, Some(Seq(5)));
    }

    #[test]
    fn what_is_known_wakes_nobody_and_a_hint_only_makes_it_look() {
        let bell = Bell::default();
        assert!(bell.head(Seq(5)));
        assert_eq!(answer(&bell).unwrap().head, Some(Seq(5)));
        assert!(!bell.head(Seq(5)));
        assert!(!bell.hinted(Seq(5)));
        assert!(answer(&bell).is_none());
        assert!(bell.hinted(Seq(i64::MAX)));
        let rung = answer(&bell).unwrap();
        assert_eq!((rung.head, rung.look), (None, true));
        assert!(bell.head(Seq(6)), "a hint is not believed");
    }

    #[test]
    fn a_stale_online_envelope_is_dropped() {
        let bell = Bell::default();
        bell.online(content(), Instant::now());
        let later = Instant::now() + ONLINE_LIFETIME;
        assert!(bell.answer(Waker::noop(), later, Wish::Offers).is_none());
    }

    #[test]
    fn t43_online_envelopes_are_bounded() {
        let bell = Bell::default();
        for _ in 0..ONLINE_MAX * 2 {
            bell.online(content(), Instant::now());
        }
        assert_eq!(answer(&bell).unwrap().online.len(), ONLINE_MAX);
    }

    #[test]
    fn of_each_sort_of_notice_the_newest_is_kept_and_low_keys_are_told_once_an_hour() {
        let low = |kind, ec| Notice::PreKeysLow {
            kind,
            left: KeyCount { ec, kyber: 7 },
        };
        let (bell, start) = (Bell::default(), Instant::now());
        for ec in 0..100 {
            bell.notice(low(IdentityKind::Aci, ec), start);
            bell.notice(low(IdentityKind::Pni, ec), start);
            bell.notice(Notice::SessionRevoked, start);
        }
        let all = [
            low(IdentityKind::Aci, 99),
            low(IdentityKind::Pni, 99),
            Notice::SessionRevoked,
        ];
        assert_eq!(answer(&bell).unwrap().notices, all);
        let soon = start + KEYS_LOW_AGAIN - Duration::from_secs(1);
        bell.notice(low(IdentityKind::Aci, 1), soon);
        assert!(answer(&bell).is_none(), "it has been told");
        bell.notice(Notice::SessionRevoked, soon);
        assert_eq!(answer(&bell).unwrap().notices, [Notice::SessionRevoked]);
        bell.notice(low(IdentityKind::Aci, 1), start + KEYS_LOW_AGAIN);
        assert_eq!(answer(&bell).unwrap().notices, [low(IdentityKind::Aci, 1)]);
    }

    #[test]
    fn a_silent_bell_answers_nothing() {
        assert!(answer(&Bell::default()).is_none());
    }
}
