//! What one connection of one device is handed, and in which order.
//!
//! A [`Session`] does no I/O and reads no clock. Its owner asks for the [`Step`] to take, takes it, and tells the session
//! what happened: a page was read, a bell rang, the client answered. The rules it keeps:
//!
//! - Envelopes leave in the order of their numbers. One that just arrived is taken from memory only if it is the very
//!   next one; otherwise everything after the cursor is read from storage, so live traffic never overtakes the queue.
//! - An envelope that is offered before it has a number comes behind all others. Storage is read only when no such
//!   envelope is about: each of them has got its number by then, by which it is not handed out again, or is gone.
//! - At most a window of envelopes, by number and by bytes, is unanswered at any time.
//! - The end of the backlog that existed at the start is announced exactly once.
//! - An envelope is acknowledged only by a 2xx answer to the very request that carried it on this connection.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::domain::{PageLimit, Queued, Seq};

use super::bell::Wish;
use super::offers::OfferId;

/// The bounds of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Unanswered envelopes.
    pub window: usize,
    /// Bytes of unanswered envelopes; one envelope may always be under way.
    pub window_bytes: usize,
    /// How long a full window may go without an answer.
    pub stalled: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            window: 256,
            window_bytes: 1024 * 1024,
            stalled: Duration::from_secs(60),
        }
    }
}

/// What the owner of a session is to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Read a page from storage and give it to [`Session::page_read`].
    Read {
        /// Read what is after this.
        after: Seq,
    },
    /// Hand this envelope to the client as the request of this id.
    Push {
        /// The id of the request.
        request: u64,
        /// Which envelope.
        name: EnvelopeName,
        /// The envelope.
        content: Bytes,
        /// Whether it came from memory, not from storage.
        from_memory: bool,
    },
    /// Tell the client, in a request of this id, that it has the backlog.
    AnnounceEmpty {
        /// The id of the request.
        request: u64,
    },
    /// Nothing until something happens.
    Wait,
}

/// What an envelope is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeName {
    /// By its number: it is in storage.
    Stored(Seq),
    /// It has none yet.
    Offered(OfferId),
}

/// One connection of one device.
pub struct Session {
    limits: SessionLimits,
    /// Everything up to here was taken over for this connection or is known to be gone.
    cursor: Seq,
    /// The highest number known to exist.
    head: Seq,
    backlog: Backlog,
    ready: VecDeque<Ready>,
    ready_bytes: usize,
    in_flight: HashMap<u64, InFlight>,
    in_flight_bytes: usize,
    /// While a page is being read: what was known when the read began.
    reading: Option<Reading>,
    /// Storage is to be looked at although no new number is known.
    look: bool,
    /// Offers are about that have no number yet.
    unsettled: bool,
    /// Numbers after the cursor whose envelopes were offered before they had them.
    ahead: BTreeSet<Seq>,
    next_request: u64,
    progressed: Instant,
}

struct Ready {
    name: EnvelopeName,
    content: Bytes,
    from_memory: bool,
}

/// Whether the client has been told that it has the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backlog {
    /// It goes up to this number.
    UpTo(Seq),
    /// It has been.
    Announced,
}

struct Reading {
    /// The highest number known.
    head: Seq,
    /// The read was to find out whether there is more than that.
    look: bool,
}

struct InFlight {
    name: EnvelopeName,
    bytes: usize,
}

impl Session {
    /// A session for a mailbox whose head was `head` after the connection had been entered into the presence table: what
    /// is committed later rings the bell.
    pub fn new(limits: SessionLimits, head: Seq, now: Instant) -> Self {
        Self {
            limits,
            cursor: Seq::START,
            head,
            backlog: Backlog::UpTo(head),
            ready: VecDeque::new(),
            ready_bytes: 0,
            in_flight: HashMap::new(),
            in_flight_bytes: 0,
            reading: None,
            look: false,
            unsettled: false,
            ahead: BTreeSet::new(),
            next_request: 1,
            progressed: now,
        }
    }

    /// What to do next. To be asked again after each step except [`Step::Wait`].
    pub fn step(&mut self, now: Instant) -> Step {
        if self.window_open() {
            if let Some(ready) = self.ready.pop_front() {
                return self.push(ready, now);
            }
            if self.wants_to_read() && !self.unsettled {
                self.reading = Some(Reading {
                    head: self.head,
                    look: std::mem::take(&mut self.look),
                });
                return Step::Read { after: self.cursor };
            }
        }
        match self.backlog {
            Backlog::UpTo(end) if self.ready.is_empty() && self.reading.is_none() && self.cursor >= end => {
                self.backlog = Backlog::Announced;
                Step::AnnounceEmpty {
                    request: self.request_id(),
                }
            }
            _ => Step::Wait,
        }
    }

    /// What is wished of those who have envelopes for this device.
    pub fn wish(&self) -> Wish {
        let room = self.window_open() && self.ready.len() < self.limits.window;
        if self.wants_to_read() {
            Wish::NumbersOnly
        } else if self.backlog == Backlog::Announced && self.reading.is_none() && room {
            Wish::Offers
        } else {
            Wish::NoOffers
        }
    }

    /// Whether storage holds, or may hold, what is not here.
    pub fn wants_to_read(&self) -> bool {
        self.reading.is_none() && (self.cursor < self.head || self.look)
    }

    /// Whether every envelope that was offered is gone, or has got a number of which this session has heard. To be said
    /// before a [`Session::step`] when it [wants to read](Self::wants_to_read).
    pub fn settled(&mut self, settled: bool) {
        self.unsettled = !settled;
    }

    /// How much of a page there is room for.
    pub fn page_limit(&self) -> PageLimit {
        let free = self.limits.window.saturating_sub(self.in_flight.len()).max(1);
        PageLimit {
            envelopes: u32::try_from(free).unwrap_or(u32::MAX),
            bytes: self.limits.window_bytes / 2,
        }
    }

    /// The page asked for by [`Step::Read`]. Empty means that there was nothing after the cursor.
    pub fn page_read(&mut self, page: Vec<Queued>) {
        let reading = self.reading.take();
        if page.is_empty() {
            // All up to the head that was known before the read are gone: acknowledged earlier, or expired.
            self.cursor = self.cursor.max(reading.map_or(self.cursor, |reading| reading.head));
            self.pass_what_is_known();
        } else {
            // A page has an end of its own. Whether the queue has ended with it, only an empty one tells.
            self.look |= reading.is_some_and(|reading| reading.look);
        }
        for queued in page {
            self.take_over(queued, false);
        }
    }

    /// Envelopes that are not written yet. Nothing is in storage that this session does not know.
    pub fn offered(&mut self, offered: Vec<(OfferId, Bytes)>) {
        for (id, content) in offered {
            self.ready_bytes += content.len();
            self.ready.push_back(Ready {
                name: EnvelopeName::Offered(id),
                content,
                from_memory: true,
            });
        }
    }

    /// Offers that were written, and their numbers.
    pub fn stored(&mut self, stored: Vec<(OfferId, Seq)>) {
        for (id, seq) in stored {
            let offered = EnvelopeName::Offered(id);
            let waiting = self.ready.iter_mut().map(|ready| &mut ready.name);
            let under_way = self.in_flight.values_mut().map(|in_flight| &mut in_flight.name);
            for name in waiting.chain(under_way).filter(|name| **name == offered) {
                *name = EnvelopeName::Stored(seq);
            }
            self.head = self.head.max(seq);
            if seq > self.cursor {
                self.ahead.insert(seq);
            }
        }
        self.pass_what_is_known();
    }

    /// The page could not be read. It will be asked for again.
    pub fn page_failed(&mut self) {
        self.reading = None;
        self.look = true;
    }

    /// Envelopes that were just committed, and the highest number known.
    pub fn arrived(&mut self, arrived: Vec<Queued>, head: Option<Seq>, look: bool) {
        self.look |= look;
        self.head = self.head.max(head.unwrap_or(self.head));
        for queued in arrived {
            // During a read the page decides, and with a full store of ready ones storage keeps the rest.
            let room = self.ready.len() < self.limits.window && self.ready_bytes < self.limits.window_bytes;
            if self.reading.is_none() && room && queued.seq == self.cursor.next() {
                self.take_over(queued, true);
            }
        }
    }

    /// The client answered a request. Returns the envelope to acknowledge, if the answer acknowledges one.
    pub fn answered(&mut self, request: u64, status: u32, now: Instant) -> Option<EnvelopeName> {
        let answered = self.in_flight.remove(&request)?;
        self.in_flight_bytes -= answered.bytes;
        self.progressed = now;
        (200..300).contains(&status).then_some(answered.name)
    }

    /// The id for a request outside the queue's order.
    pub fn request_id(&mut self) -> u64 {
        let id = self.next_request;
        self.next_request += 1;
        id
    }

    /// Whether envelopes are under way that the client has not answered.
    pub fn awaits_answers(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Whether the client has let a full window go unanswered for too long.
    pub fn is_stalled(&self, now: Instant) -> bool {
        !self.window_open() && now.saturating_duration_since(self.progressed) >= self.limits.stalled
    }

    fn window_open(&self) -> bool {
        self.in_flight.is_empty()
            || (self.in_flight.len() < self.limits.window && self.in_flight_bytes < self.limits.window_bytes)
    }

    fn push(&mut self, ready: Ready, now: Instant) -> Step {
        let Ready {
            name,
            content,
            from_memory,
        } = ready;
        let request = self.request_id();
        self.ready_bytes -= content.len();
        if self.in_flight.is_empty() {
            self.progressed = now;
        }
        self.in_flight_bytes += content.len();
        self.in_flight.insert(
            request,
            InFlight {
                name,
                bytes: content.len(),
            },
        );
        Step::Push {
            request,
            name,
            content,
            from_memory,
        }
    }

    fn take_over(&mut self, queued: Queued, from_memory: bool) {
        let Queued { seq, content } = queued;
        if seq > self.cursor {
            self.cursor = seq;
            self.head = self.head.max(seq);
            if !self.ahead.remove(&seq) {
                self.ready_bytes += content.len();
                self.ready.push_back(Ready {
                    name: EnvelopeName::Stored(seq),
                    content,
                    from_memory,
                });
            }
            self.pass_what_is_known();
        }
    }

    /// Moves the cursor over numbers whose envelopes were handed out before they had them.
    fn pass_what_is_known(&mut self) {
        while let Some(first) = self.ahead.first().copied()
            && first <= self.cursor.next()
        {
            self.ahead.pop_first();
            self.cursor = self.cursor.max(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SessionLimits = SessionLimits {
        window: 4,
        window_bytes: 100,
        stalled: Duration::from_secs(60),
    };

    fn queued(seq: i64) -> Queued {
        Queued {
            seq: Seq(seq),
            content: Bytes::from_static(b"ten bytes."),
        }
    }

    fn page(seqs: impl IntoIterator<Item = i64>) -> Vec<Queued> {
        seqs.into_iter().map(queued).collect()
    }

    /// The steps until the session waits, in words.
    fn steps(session: &mut Session) -> Vec<String> {
        let mut words = Vec::new();
        loop {
            match session.step(Instant::now()) {
                Step::Wait => return words,
                Step::Read { after } => words.push(format!("read after {}", after.0)),
                Step::Push { name, from_memory, .. } => words.push(match name {
                    EnvelopeName::Offered(id) => format!("push offer {}", id.0),
                    EnvelopeName::Stored(seq) if from_memory => format!("push {} from memory", seq.0),
                    EnvelopeName::Stored(seq) => format!("push {}", seq.0),
                }),
                Step::AnnounceEmpty { .. } => words.push("empty".into()),
            }
        }
    }

    fn session(head: i64) -> Session {
        Session::new(LIMITS, Seq(head), Instant::now())
    }

    fn caught_up(head: i64) -> Session {
        let mut session = session(head);
        steps(&mut session);
        session.page_read(vec![]);
        steps(&mut session);
        session
    }

    #[test]
    fn an_empty_queue_is_announced_at_once() {
        assert_eq!(steps(&mut session(0)), ["empty"]);
    }

    #[test]
    fn the_backlog_comes_in_order_and_is_announced_once() {
        let mut session = session(3);
        assert_eq!(steps(&mut session), ["read after 0"]);
        session.page_read(page([1, 2]));
        assert_eq!(steps(&mut session), ["push 1", "push 2", "read after 2"]);
        session.page_read(page([3]));
        assert_eq!(steps(&mut session), ["push 3", "empty"]);
        session.arrived(page([4]), Some(Seq(4)), false);
        assert_eq!(steps(&mut session), ["push 4 from memory"]);
    }

    #[test]
    fn a_backlog_that_is_gone_is_announced_as_empty() {
        let mut session = session(9);
        assert_eq!(steps(&mut session), ["read after 0"]);
        session.page_read(vec![]);
        assert_eq!(steps(&mut session), ["empty"]);
        session.arrived(page([10]), Some(Seq(10)), false);
        assert_eq!(steps(&mut session), ["push 10 from memory"]);
    }

    #[test]
    fn an_arrival_never_overtakes_what_is_in_storage() {
        let mut session = caught_up(5);
        session.arrived(page([7]), Some(Seq(7)), false);
        assert_eq!(steps(&mut session), ["read after 5"]);
        session.page_read(page([6, 7]));
        assert_eq!(steps(&mut session), ["push 6", "push 7"]);
    }

    #[test]
    fn an_arrival_during_a_read_is_read_later_and_only_once() {
        let mut session = caught_up(5);
        session.arrived(vec![], Some(Seq(6)), false);
        assert_eq!(steps(&mut session), ["read after 5"]);
        session.arrived(page([7]), Some(Seq(7)), false);
        session.page_read(page([6, 7]));
        assert_eq!(steps(&mut session), ["push 6", "push 7"]);
        session.arrived(page([7]), Some(Seq(7)), false);
        assert_eq!(steps(&mut session), Vec::<String>::new());
    }

    #[test]
    fn the_window_stops_pushing_until_answers_come() {
        let mut session = session(6);
        steps(&mut session);
        session.page_read(page([1, 2, 3, 4, 5, 6]));
        assert_eq!(steps(&mut session), ["push 1", "push 2", "push 3", "push 4"]);
        assert_eq!(
            session.answered(3, 200, Instant::now()),
            Some(EnvelopeName::Stored(Seq(3)))
        );
        assert_eq!(steps(&mut session), ["push 5"]);
    }

    #[test]
    fn the_window_is_bounded_in_bytes_but_lets_one_large_envelope_through() {
        let mut session = session(2);
        steps(&mut session);
        let large = |seq| Queued {
            seq: Seq(seq),
            content: Bytes::from(vec![0; 1000]),
        };
        session.page_read(vec![large(1), large(2)]);
        assert_eq!(steps(&mut session), ["push 1"]);
        session.answered(1, 200, Instant::now());
        assert_eq!(steps(&mut session), ["push 2", "empty"]);
    }

    #[test]
    fn only_a_2xx_answer_to_its_own_request_acknowledges() {
        let mut session = session(2);
        steps(&mut session);
        session.page_read(page([1, 2]));
        steps(&mut session);
        assert_eq!(session.answered(99, 200, Instant::now()), None);
        assert_eq!(session.answered(1, 500, Instant::now()), None);
        assert_eq!(session.answered(1, 200, Instant::now()), None);
        assert_eq!(
            session.answered(2, 204, Instant::now()),
            Some(EnvelopeName::Stored(Seq(2)))
        );
        assert_eq!(session.answered(2, 200, Instant::now()), None);
        assert!(!session.awaits_answers());
    }

    #[test]
    fn a_full_window_without_answers_is_a_stall_and_an_idle_session_is_not() {
        let start = Instant::now();
        let mut session = session(5);
        assert!(!session.is_stalled(start + Duration::from_secs(3600)));
        session.step(start);
        session.page_read(page([1, 2, 3, 4, 5]));
        while session.step(start) != Step::Wait {}
        assert!(!session.is_stalled(start + Duration::from_secs(59)));
        assert!(session.is_stalled(start + Duration::from_secs(60)));
        session.answered(1, 500, start + Duration::from_secs(60));
        assert!(!session.is_stalled(start + Duration::from_secs(61)));
    }

    #[test]
    fn one_unanswered_envelope_does_not_stall_the_rest() {
        let start = Instant::now();
        let mut session = session(0);
        for seq in 1..=50 {
            session.arrived(page([seq]), Some(Seq(seq)), false);
            while let step @ (Step::Push { .. } | Step::AnnounceEmpty { .. }) = session.step(start) {
                if let Step::Push { request, name, .. } = step
                    && name != EnvelopeName::Stored(Seq(1))
                {
                    assert_eq!(session.answered(request, 200, start), Some(name));
                }
            }
        }
        assert_eq!(session.in_flight.len(), 1);
        assert!(!session.is_stalled(start + Duration::from_secs(600)));
    }

    #[test]
    fn a_failed_read_is_asked_for_again() {
        let mut session = session(1);
        assert_eq!(steps(&mut session), ["read after 0"]);
        session.page_failed();
        assert_eq!(steps(&mut session), ["read after 0"]);
    }

    #[test]
    fn a_look_without_a_number_reads_until_there_is_no_more() {
        let mut session = caught_up(3);
        session.arrived(vec![], None, true);
        assert_eq!(steps(&mut session), ["read after 3"]);
        session.page_read(page([4]));
        assert_eq!(steps(&mut session), ["push 4", "read after 4"]);
        session.page_read(vec![]);
        assert_eq!(steps(&mut session), Vec::<String>::new());
    }

    #[test]
    fn arrivals_beyond_what_may_be_held_are_left_to_storage() {
        let mut session = caught_up(0);
        let many: Vec<_> = page(1..=20);
        session.arrived(many, Some(Seq(20)), false);
        assert!(session.ready.len() <= LIMITS.window);
        assert_eq!(session.head, Seq(20));
    }

    fn offer(session: &mut Session, ids: impl IntoIterator<Item = u64>) {
        let content = Bytes::from_static(b"ten bytes.");
        session.offered(ids.into_iter().map(|id| (OfferId(id), content.clone())).collect());
    }

    #[test]
    fn offers_are_welcome_when_nothing_is_left_to_read_and_there_is_room() {
        let mut session = session(2);
        assert_eq!(session.wish(), Wish::NumbersOnly);
        steps(&mut session);
        assert_eq!(session.wish(), Wish::NoOffers, "a page is being read");
        session.page_read(page([1, 2]));
        assert_eq!(session.wish(), Wish::NoOffers, "the backlog is not announced");
        steps(&mut session);
        assert_eq!(session.wish(), Wish::Offers);
        offer(&mut session, [0, 1]);
        assert_eq!(steps(&mut session), ["push offer 0", "push offer 1"]);
        assert_eq!(session.wish(), Wish::NoOffers, "the window is full");
        assert_eq!(
            session.answered(1, 200, Instant::now()),
            Some(EnvelopeName::Stored(Seq(1)))
        );
        assert_eq!(session.wish(), Wish::Offers);
        session.arrived(vec![], Some(Seq(3)), false);
        assert_eq!(session.wish(), Wish::NumbersOnly);
    }

    #[test]
    fn storage_is_read_only_when_every_offer_has_a_number_or_is_gone() {
        let mut session = caught_up(4);
        offer(&mut session, [0]);
        assert_eq!(steps(&mut session), ["push offer 0"]);
        session.arrived(vec![], None, true);
        session.settled(false);
        assert_eq!(steps(&mut session), Vec::<String>::new());
        session.stored(vec![(OfferId(0), Seq(5))]);
        session.settled(true);
        assert_eq!(steps(&mut session), ["read after 5"]);
    }

    #[test]
    fn an_offer_that_was_written_is_acknowledged_by_its_number_and_not_handed_out_again() {
        let mut session = caught_up(4);
        offer(&mut session, [0, 1]);
        assert_eq!(steps(&mut session), ["push offer 0", "push offer 1"]);
        // Another node has put number 5 before them.
        session.stored(vec![(OfferId(0), Seq(6)), (OfferId(1), Seq(7))]);
        assert_eq!(steps(&mut session), ["read after 4"]);
        session.page_read(page([5, 6, 7]));
        assert_eq!(steps(&mut session), ["push 5"]);
        let first = session.next_request - 3;
        assert_eq!(
            session.answered(first, 200, Instant::now()),
            Some(EnvelopeName::Stored(Seq(6)))
        );
        session.arrived(page([8]), Some(Seq(8)), false);
        assert_eq!(steps(&mut session), ["push 8 from memory"]);
    }

    #[test]
    fn a_number_that_is_known_ahead_is_passed_when_the_gap_closes() {
        let mut session = caught_up(4);
        offer(&mut session, [0]);
        steps(&mut session);
        session.stored(vec![(OfferId(0), Seq(6))]);
        session.arrived(page([5]), Some(Seq(6)), false);
        assert_eq!(steps(&mut session), ["push 5 from memory"]);
        assert_eq!((session.cursor, session.wish()), (Seq(6), Wish::Offers));
    }

    #[test]
    fn an_offer_that_waits_for_room_in_the_window_takes_its_number_with_it() {
        let mut session = caught_up(0);
        offer(&mut session, 0..6);
        assert_eq!(steps(&mut session).len(), LIMITS.window);
        session.stored(
            (0..6)
                .map(|id| (OfferId(id), Seq(i64::try_from(id).unwrap() + 1)))
                .collect(),
        );
        session.answered(2, 200, Instant::now());
        assert_eq!(steps(&mut session), ["push 5 from memory"]);
    }
}
