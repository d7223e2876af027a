//! Runs one WebSocket until its end.
//!
//! One task does everything: it reads frames, hands requests to the tunnel, feeds answers and envelopes to the socket as
//! long as the socket takes them, and flushes once for all that was ready. It never waits for one thing without polling
//! the others: a request that is being answered may hold a connection of the database that the others want.
//!
//! Most sockets wait most of the time. One that has little to do lets go of what it needs for more as soon as it waits, and
//! looks at the clock only when there is something to see by then.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::domain::Day;
use crate::http::drain::OpenSocket;
use crate::http::seen;
use crate::http::state::AppState;
use crate::relay::bell::Dismissal;
use crate::relay::session::Session;
use crate::storage::Watched;
use crate::telemetry::metrics;

use super::delivery::Delivery;
use super::end::End;
use super::frame::{Frame, parse_frame};
use super::line::Line;
use super::tunnel::Tunnel;

/// One socket.
pub(super) struct Driver {
    node: AppState,
    socket: Line,
    tunnel: Tunnel,
    delivery: Option<Box<Delivery>>,
    /// Requests of the client that are being answered, if there are any.
    answering: Option<Answering>,
    /// Messages to the client that are not envelopes.
    outgoing: VecDeque<Message>,
    outgoing_bytes: usize,
    /// Something was given to the socket and not flushed.
    unflushed: bool,
    heard: Instant,
    asked: Option<Instant>,
    /// Since when the socket has not taken what there was for it.
    blocked: Option<Instant>,
    look_at_clock: Pin<Box<Sleep>>,
    /// The clock is looked at soon, because of what is under way.
    looks_soon: bool,
    /// Messages that came and went since the last look at the clock.
    moved: u32,
    /// Its place among the sockets of the node, by which it is told to close.
    counted: OpenSocket,
    /// The session on which it rests, if it was opened with a token. When that is over the socket is, too; the token itself
    /// may be.
    session: Option<Watched>,
    /// The day that was kept of a device without deliveries, which no presence table knows.
    seen: Day,
}

type Answering = FuturesUnordered<BoxFuture<'static, Option<Bytes>>>;

/// What the loop does outside of polling.
enum Turn {
    CheckCredentials,
    End(End),
}

impl Driver {
    pub(super) fn new(
        node: AppState,
        socket: Line,
        tunnel: Tunnel,
        delivery: Option<Delivery>,
        counted: OpenSocket,
    ) -> Self {
        let seen = node.clock.now().day();
        let session = tunnel.principal().and_then(|device| device.session);
        let session = session.map(|session| node.tokens.sessions.watch(session));
        Self {
            node,
            socket,
            tunnel,
            delivery: delivery.map(Box::new),
            answering: None,
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            unflushed: false,
            heard: Instant::now(),
            asked: None,
            blocked: None,
            look_at_clock: Box::pin(tokio::time::sleep(LOOK_UNWATCHED)),
            looks_soon: true,
            moved: 0,
            counted,
            session,
            seen,
        }
    }

    /// Runs until the socket is closed.
    pub(super) async fn run(mut self: Box<Self>) {
        let kind = if self.tunnel.principal().is_some() {
            "device"
        } else {
            "anonymous"
        };
        metrics::socket_opened(kind);
        let stop = self.counted.close.clone();
        let mut stopping = pin!(stop.cancelled());
        let end = loop {
            match poll_fn(|cx| self.poll_turn(cx, stopping.as_mut())).await {
                Turn::CheckCredentials => {
                    if Box::pin(self.credentials_are_dead()).await {
                        break End::Dismissed(Dismissal::CredentialsDead);
                    }
                }
                Turn::End(end) => break end,
            }
        };
        Box::pin(self.finish(end)).await;
        metrics::socket_closed(kind, end.label());
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>, stopping: Pin<&mut impl Future<Output = ()>>) -> Poll<Turn> {
        if stopping.poll(cx).is_ready() {
            return Poll::Ready(Turn::End(End::Stopping));
        }
        if self
            .session
            .as_mut()
            .is_some_and(|session| session.poll_over(cx).is_ready())
        {
            return Poll::Ready(Turn::End(End::Dismissed(Dismissal::CredentialsDead)));
        }
        // As long as anything moves, go round again. A socket that is never idle still yields: the runtime's budget makes
        // its reads pend.
        loop {
            let mut moved = false;
            if let Some(delivery) = self.delivery.as_mut()
                && let Some(end) = delivery.poll(cx, &self.node, &mut moved)
            {
                return Poll::Ready(Turn::End(end));
            }
            while let Some(Poll::Ready(Some(answer))) = self.answering.as_mut().map(|all| all.poll_next_unpin(cx)) {
                if let Some(answer) = answer {
                    self.outgoing_bytes += answer.len();
                    self.outgoing.push_back(Message::Binary(answer));
                }
                moved = true;
            }
            if let Some(end) = self.poll_incoming(cx, &mut moved) {
                return Poll::Ready(Turn::End(end));
            }
            if let Err(end) = self.poll_outgoing(cx, &mut moved) {
                return Poll::Ready(Turn::End(end));
            }
            if let Some(delivery) = self.delivery.as_mut() {
                moved |= std::mem::take(&mut delivery.read_begun);
                delivery.poll_hand_over(cx, &self.node, &mut moved);
            }
            if let Some(turn) = self.poll_clock(cx) {
                return Poll::Ready(turn);
            }
            if !moved {
                if self.rest() {
                    // So that the clock wakes this task.
                    continue;
                }
                return Poll::Pending;
            }
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Option<End> {
        // Whatever ends this early goes on: an answer leaves, or acknowledgements are handed over.
        while self.outgoing.len() + self.answering.as_ref().map_or(0, FuturesUnordered::len) < MAX_REQUESTS
            && self.outgoing_bytes < MAX_OUTGOING_BYTES
            && self.delivery.as_ref().is_none_or(|delivery| delivery.takes_more())
        {
            let message = match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Pending => return None,
                Poll::Ready(None) => return Some(End::Left),
                Poll::Ready(Some(Err(error))) => return Some(End::from(&error)),
                Poll::Ready(Some(Ok(message))) => message,
            };
            *moved = true;
            self.moved = self.moved.saturating_add(1);
            self.heard = Instant::now();
            self.asked = None;
            match message {
                Message::Binary(bytes) => {
                    if let Err(end) = self.take_frame(bytes) {
                        return Some(end);
                    }
                }
                // The answer is in the socket already and wants to be flushed.
                Message::Ping(_) => self.unflushed = true,
                Message::Close(_) => return Some(End::Left),
                // Text carries nothing on this wire.
                Message::Text(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        None
    }

    fn take_frame(&mut self, bytes: Bytes) -> Result<(), End> {
        match parse_frame(bytes).map_err(|_| End::BadFrame)? {
            Frame::Request(request) => {
                let answer = self.tunnel.call(*request);
                self.answering.get_or_insert_default().push(answer);
            }
            Frame::Answer { id, status } => {
                if let Some(delivery) = self.delivery.as_mut() {
                    delivery.answered(id, status);
                }
            }
        }
        Ok(())
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Result<(), End> {
        loop {
            if Pin::new(&mut self.socket)
                .poll_ready(cx)
                .map_err(|error| End::from(&error))?
                .is_pending()
            {
                self.blocked.get_or_insert_with(Instant::now);
                return Ok(());
            }
            self.blocked = None;
            let Some(message) = self.next_message() else { break };
            Pin::new(&mut self.socket)
                .start_send(message)
                .map_err(|error| End::from(&error))?;
            self.unflushed = true;
            self.moved = self.moved.saturating_add(1);
            *moved = true;
        }
        if self.unflushed {
            match Pin::new(&mut self.socket)
                .poll_flush(cx)
                .map_err(|error| End::from(&error))?
            {
                Poll::Ready(()) => {
                    self.unflushed = false;
                    self.blocked = None;
                }
                Poll::Pending => {
                    self.blocked.get_or_insert_with(Instant::now);
                }
            }
        }
        Ok(())
    }

    fn next_message(&mut self) -> Option<Message> {
        if let Some(message) = self.outgoing.pop_front() {
            self.outgoing_bytes -= message.len();
            return Some(message);
        }
        self.delivery.as_mut()?.next_message(&self.node)
    }

    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Option<Turn> {
        if self.look_at_clock.as_mut().poll(cx).is_pending() {
            return None;
        }
        let now = Instant::now();
        self.moved = 0;
        self.looks_soon = false;
        // A socket with deliveries hears through its bell that its device is gone; others have to ask.
        let unwatched = self.delivery.is_none() && self.tunnel.principal().is_some();
        let idle = self.node.sockets.idle;
        let next = if self.asked.is_some() { idle } else { idle / 3 * 2 };
        let look = (self.heard + next).saturating_duration_since(now).max(LOOK_AT_CLOCK);
        let look = if unwatched { LOOK_UNWATCHED } else { look };
        self.look_at_clock.as_mut().reset(now + look);
        cx.waker().wake_by_ref();
        let session = self.delivery.as_ref().and_then(|delivery| delivery.session.as_ref());
        let stalled_after = self.node.sockets.session.stalled;
        if session.is_some_and(|session| session.is_stalled(now.into_std()))
            || self.blocked.is_some_and(|since| now - since >= stalled_after)
        {
            return Some(Turn::End(End::Stalled));
        }
        let silence = now - self.heard;
        // With envelopes under way a dead connection must be found sooner: they could go to another one.
        let awaiting = session.is_some_and(Session::awaits_answers);
        let patience = if awaiting {
            AWAITING_SILENCE
        } else {
            self.node.sockets.idle
        };
        if silence >= patience {
            return Some(Turn::End(End::Silent));
        }
        let ask_after = if awaiting {
            ASK_WHEN_AWAITING
        } else {
            self.node.sockets.idle / 3 * 2
        };
        if silence >= ask_after && self.asked.is_none() {
            self.asked = Some(now);
            self.outgoing.push_back(Message::Ping(Bytes::new()));
        }
        unwatched.then_some(Turn::CheckCredentials)
    }

    /// Before the task waits: a socket that has little to do keeps nothing for more. Returns whether it is to look at the
    /// clock sooner than it thought.
    fn rest(&mut self) -> bool {
        let busy = self.moved >= BUSY;
        if !busy {
            self.socket.rest();
            if self.answering.as_ref().is_some_and(FuturesUnordered::is_empty) {
                self.answering = None;
            }
            if self.outgoing.is_empty() && self.outgoing.capacity() > 0 {
                self.outgoing = VecDeque::new();
            }
        }
        let session = self.delivery.as_ref().and_then(|delivery| delivery.session.as_ref());
        let soon = busy || self.blocked.is_some() || session.is_some_and(Session::awaits_answers);
        if !soon || self.looks_soon {
            return false;
        }
        self.looks_soon = true;
        let now = Instant::now();
        let sooner = self.look_at_clock.deadline() > now + LOOK_AT_CLOCK;
        if sooner {
            self.look_at_clock.as_mut().reset(now + LOOK_AT_CLOCK);
        }
        sooner
    }

    /// Whether the socket's device is certain to be gone; a storage that does not answer is no proof.
    // By unique reference: futures that are being answered are not shared between threads.
    async fn credentials_are_dead(&mut self) -> bool {
        let Some(device) = self.tunnel.principal() else {
            return false;
        };
        let today = self.node.clock.now().day();
        if today > self.seen {
            self.seen = today;
            seen::by_request(&self.node, device);
        }
        matches!(self.node.authenticator.still_valid(device).await, Ok(false))
    }

    /// Answers what the client has asked already.
    async fn finish_requests(&mut self) -> Result<(), Error> {
        if let Some(mut answering) = self.answering.take() {
            while let Some(answer) = answering.next().await {
                self.outgoing.extend(answer.map(Message::Binary));
            }
        }
        for message in std::mem::take(&mut self.outgoing) {
            self.socket.feed(message).await?;
        }
        self.socket.flush().await
    }

    /// Says goodbye. When the client has said it first, the answer leaves after its acknowledgements are durable.
    async fn finish(mut self: Box<Self>, end: End) {
        if let Some(delivery) = &self.delivery {
            // First of all: what arrives from now on is for the next connection, here or on another node.
            self.node
                .relay
                .presence
                .leave(delivery.device.mailbox, delivery.connection);
        }
        // Who deletes its account through this socket is told so, however quickly others hear of it.
        if matches!(end, End::Stopping | End::Dismissed(Dismissal::CredentialsDead)) {
            let _ = tokio::time::timeout(GOODBYE, self.finish_requests()).await;
        }
        // What nobody polls any more must not hold what others wait for.
        self.answering = None;
        if let Some(delivery) = self.delivery.as_mut() {
            delivery.settle().await;
        }
        if let Some(frame) = end.close_frame() {
            let goodbye = async {
                self.socket.send(Message::Close(Some(frame))).await?;
                // What was under way in the other direction may still hold acknowledgements.
                while let Some(message) = self.socket.next().await {
                    if let (Message::Binary(bytes), Some(delivery)) = (message?, self.delivery.as_mut())
                        && end == End::Stopping
                        && let Ok(Frame::Answer { id, status }) = parse_frame(bytes)
                    {
                        delivery.answered(id, status);
                    }
                }
                Ok::<(), Error>(())
            };
            let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        }
        if let Some(mut delivery) = self.delivery.take() {
            let acknowledged = std::mem::take(&mut delivery.acknowledged);
            // If it fails, the envelopes are delivered again.
            let _ = self
                .node
                .relay
                .writer
                .acknowledge_durably(delivery.device.address.aci, acknowledged)
                .await;
        }
        if end == End::Left {
            let _ = tokio::time::timeout(GOODBYE, self.socket.flush()).await;
        }
    }
}

/// Requests of one socket that are answered at the same time; more wait in the socket.
const MAX_REQUESTS: usize = 16;
/// Bytes of answers that the socket has not taken yet, before no more requests are read.
const MAX_OUTGOING_BYTES: usize = 1024 * 1024;
/// As long as something is under way.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(5);
/// With so many messages between two looks at the clock a socket keeps what it needs for them.
const BUSY: u32 = 8;
/// With the lease of what is remembered of an account, a device that is gone is out within five seconds.
const LOOK_UNWATCHED: Duration = Duration::from_secs(2);
/// With envelopes under way: when to ask for a sign of life, and when to stop believing in one. A half-open connection
/// is found within 45 seconds.
const ASK_WHEN_AWAITING: Duration = Duration::from_secs(15);
const AWAITING_SILENCE: Duration = Duration::from_secs(40);
const GOODBYE: Duration = Duration::from_secs(2);
