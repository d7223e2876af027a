//! What others ring to tell a connection something.
//!
//! A bell holds a bounded number of envelopes that just arrived, so that a session that has caught up need not read them
//! back from storage. When it overflows, the session reads them from storage instead.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::domain::{IdentityKind, Notice, Queued, Seq};

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
    /// What the server has to say, of each sort the newest.
    pub notices: Vec<Notice>,
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
    notices: Vec<Notice>,
    /// When this connection last heard that keys are low, of each identity.
    keys_low: Vec<(IdentityKind, Instant)>,
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
            notices: std::mem::take(&mut state.notices),
            dismissed: state.dismissed,
        };
        state.arrived_bytes = 0;
        let silent = rung.arrived.is_empty()
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
        Some(rung)
    }

    pub(super) fn arrived(&self, seq: Seq, content: Bytes) {
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

    pub(super) fn head(&self, seq: Seq) -> bool {
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
    pub(super) fn hinted(&self, seq: Seq) -> bool {
        self.ring_if(|state| {
            let news = seq > state.known;
            state.look |= news;
            news
        })
    }

    pub(super) fn look(&self) {
        self.ring(|state| state.look = true);
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
const ARRIVED_MAX: usize = 128;
const ARRIVED_MAX_BYTES: usize = 512 * 1024;
const ARRIVED_KEPT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::KeyCount;

    fn answer(bell: &Bell) -> Option<Rung> {
        bell.answer(Waker::noop(), Instant::now())
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
        assert!(bell.answer(Waker::noop(), later).is_none());
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
