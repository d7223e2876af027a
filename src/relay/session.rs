//! What one connection of one device is handed, and in which order.
//!
//! A [`Session`] does no I/O and reads no clock. Its owner asks for the [`Step`] to take, takes it, and tells the session
//! what happened: a page was read, a bell rang, the client answered. The rules it keeps:
//!
//! - Envelopes leave in the order of their numbers. One that just arrived is taken from memory only if it is the very
//!   next one; otherwise everything after the cursor is read from storage, so live traffic never overtakes the queue.
//! - At most a window of envelopes, by number and by bytes, is unanswered at any time.
//! - The end of the backlog that existed at the start is announced exactly once.
//! - An envelope is acknowledged only by a 2xx answer to the very request that carried it on this connection.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::domain::{PageLimit, Queued, Seq};

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
        seq: Seq,
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

/// One connection of one device.
pub struct Session {
    limits: SessionLimits,
    /// Everything up to here was taken over for this connection or is known to be gone.
    cursor: Seq,
    /// The highest number known to exist.
    head: Seq,
    backlog: Backlog,
    ready: VecDeque<(Queued, bool)>,
    ready_bytes: usize,
    in_flight: HashMap<u64, InFlight>,
    in_flight_bytes: usize,
    /// While a page is being read: what was known when the read began.
    reading: Option<Reading>,
    /// Storage is to be looked at although no new number is known.
    look: bool,
    next_request: u64,
    progressed: Instant,
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
    seq: Seq,
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
            next_request: 1,
            progressed: now,
        }
    }

    /// What to do next. To be asked again after each step except [`Step::Wait`].
    pub fn step(&mut self, now: Instant) -> Step {
        if self.window_open() {
            if let Some((queued, from_memory)) = self.ready.pop_front() {
                return self.push(queued, from_memory, now);
            }
            if self.reading.is_none() && (self.cursor < self.head || self.look) {
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
        } else {
            // A page has an end of its own. Whether the queue has ended with it, only an empty one tells.
            self.look |= reading.is_some_and(|reading| reading.look);
        }
        for queued in page {
            self.take_over(queued, false);
        }
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
    pub fn answered(&mut self, request: u64, status: u32, now: Instant) -> Option<Seq> {
        let answered = self.in_flight.remove(&request)?;
        self.in_flight_bytes -= answered.bytes;
        self.progressed = now;
        (200..300).contains(&status).then_some(answered.seq)
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

    fn push(&mut self, queued: Queued, from_memory: bool, now: Instant) -> Step {
        let Queued { seq, content } = queued;
        let request = self.request_id();
        self.ready_bytes -= content.len();
        if self.in_flight.is_empty() {
            self.progressed = now;
        }
        self.in_flight_bytes += content.len();
        self.in_flight.insert(
            request,
            InFlight {
                seq,
                bytes: content.len(),
            },
        );
        Step::Push {
            request,
            seq,
            content,
            from_memory,
        }
    }

    fn take_over(&mut self, queued: Queued, from_memory: bool) {
        if queued.seq > self.cursor {
            self.cursor = queued.seq;
            self.head = self.head.max(queued.seq);
            self.ready_bytes += queued.content.len();
            self.ready.push_back((queued, from_memory));
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
                Step::Push {
                    seq, from_memory: true, ..
                } => words.push(format!("push {} from memory", seq.0)),
                Step::Push { seq, .. } => words.push(format!("push {}", seq.0)),
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
        assert_eq!(session.answered(3, 200, Instant::now()), Some(Seq(3)));
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
        assert_eq!(session.answered(2, 204, Instant::now()), Some(Seq(2)));
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
                if let Step::Push { request, seq, .. } = step
                    && seq != Seq(1)
                {
                    assert_eq!(session.answered(request, 200, start), Some(seq));
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
}
