//! What a device's socket has beside requests: its queue.
//!
//! Joins the session, which decides, with the bell that rings for it and the storage it reads from.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::auth::Authenticated;
use crate::domain::{Acknowledgement, IdentityKind, Notice, Seq};
use crate::http::envelope::{guid, is_story, offered_guid, random_guid};
use crate::http::state::AppState;
use crate::relay::bell::{Bell, Dismissal, ONLINE_LIFETIME, ONLINE_MAX, Rung};
use crate::relay::drain::{Page, QueueOpener};
use crate::relay::presence::Ticket;
use crate::relay::session::{EnvelopeName, Session, Step};
use crate::storage::StorageError;
use crate::telemetry::metrics;
use crate::wakeup::ConnectionId;

use super::end::End;
use super::frame::{push, push_envelope, push_json};

/// The queue's end at one socket.
pub(super) struct Delivery {
    pub(super) device: Arc<Authenticated>,
    pub(super) connection: ConnectionId,
    bell: Arc<Bell>,
    stories: bool,
    /// `None` until the mailbox is open.
    pub(super) session: Option<Session>,
    opener: QueueOpener,
    online: VecDeque<(Instant, Bytes)>,
    /// Of each sort at most one.
    notices: Vec<Notice>,
    reading: Option<BoxFuture<'static, Read>>,
    /// `reading` was begun and nobody has polled it yet.
    pub(super) read_begun: bool,
    pub(super) acknowledged: Vec<Acknowledgement>,
    /// Acknowledgements on their way to the writer.
    handing_over: Option<BoxFuture<'static, ()>>,
}

enum Read {
    Mailbox(Result<Option<Seq>, StorageError>),
    Page(Result<Page, StorageError>),
    /// A page could not be read a moment ago.
    Again,
}

impl Delivery {
    /// Enters the connection before the queue is looked at: what is committed in between rings the bell.
    pub(super) fn begin(
        node: &AppState,
        device: &Arc<Authenticated>,
        ticket: Ticket,
        opener: &QueueOpener,
        stories: bool,
    ) -> Self {
        let mailbox = device.mailbox;
        let bell = node.relay.connect(mailbox, ticket, opener.public_key());
        let reading = {
            let (node, actor, opener) = (Arc::clone(node), device.actor(), opener.clone());
            Box::pin(async move {
                // What the device acknowledged on an earlier connection is gone before the queue is looked at.
                let _ = node.relay.writer.acknowledge_durably(actor.address.aci, vec![]).await;
                Read::Mailbox(node.relay.open_mailbox(&actor, &opener).await)
            })
        };
        Self {
            device: Arc::clone(device),
            connection: ticket.connection,
            bell,
            stories,
            session: None,
            opener: opener.clone(),
            online: VecDeque::new(),
            notices: Vec::new(),
            reading: Some(reading),
            read_begun: false,
            acknowledged: Vec::new(),
            handing_over: None,
        }
    }

    /// Bell and reads from storage.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, node: &AppState, moved: &mut bool) -> Option<End> {
        if let Some(reading) = self.reading.as_mut()
            && let Poll::Ready(read) = reading.as_mut().poll(cx)
        {
            *moved = true;
            self.reading = None;
            match read {
                Read::Mailbox(Ok(Some(head))) => {
                    self.session = Some(Session::new(node.sockets.session, head, Instant::now()));
                }
                Read::Mailbox(Ok(None)) => return Some(End::Dismissed(Dismissal::CredentialsDead)),
                // The device has another password, and with it another connection soon.
                Read::Page(Ok(Page::OtherKey)) => return Some(End::Dismissed(Dismissal::Displaced)),
                // The client comes again; meanwhile storage may recover.
                Read::Mailbox(Err(error)) => {
                    tracing::error!(cause = error.log_safe_cause(), "a session could not begin");
                    return Some(End::Stopping);
                }
                Read::Page(Ok(Page::Envelopes(page))) => self.session.as_mut()?.page_read(page),
                Read::Page(Err(error)) => {
                    tracing::warn!(cause = error.log_safe_cause(), "a page of a queue could not be read");
                    // After a pause, so that a broken storage is not hammered.
                    self.read(async {
                        tokio::time::sleep(READ_AGAIN).await;
                        Read::Again
                    });
                }
                Read::Again => self.session.as_mut()?.page_failed(),
            }
        }
        // Before the head is known nothing is taken from the bell: it keeps what arrives.
        let session = self.session.as_mut()?;
        if let Some(Rung {
            offered,
            stored,
            arrived,
            head,
            look,
            online,
            notices,
            dismissed,
        }) = self.bell.answer(cx.waker(), Instant::now(), session.wish())
        {
            if let Some(dismissed) = dismissed {
                return Some(End::Dismissed(dismissed));
            }
            *moved = true;
            session.offered(offered);
            session.stored(stored);
            session.arrived(arrived, head, look);
            for notice in notices {
                self.notices.retain(|waiting| !notice.replaces(waiting));
                self.notices.push(notice);
            }
            let now = Instant::now();
            let room = ONLINE_MAX.saturating_sub(self.online.len());
            self.online
                .extend(online.into_iter().take(room).map(|content| (now, content)));
        }
        None
    }

    fn read(&mut self, read: impl Future<Output = Read> + Send + 'static) {
        self.reading = Some(Box::pin(read));
        self.read_begun = true;
    }

    /// Whether acknowledgements can be taken on. While some are on their way none are, so that a request that comes after
    /// them reaches the writer after them.
    pub(super) fn takes_more(&self) -> bool {
        self.handing_over.is_none() && self.acknowledged.len() < MAX_ACKNOWLEDGED
    }

    /// Gives up what is being read, and returns once what is on its way to the writer has reached it.
    pub(super) async fn settle(&mut self) {
        self.reading = None;
        if let Some(handing_over) = self.handing_over.take() {
            handing_over.await;
        }
    }

    /// Hands acknowledgements to the writer, one lot after the other.
    pub(super) fn poll_hand_over(&mut self, cx: &mut Context<'_>, node: &AppState, moved: &mut bool) {
        if self.handing_over.is_none() && !self.acknowledged.is_empty() {
            let (node, account) = (Arc::clone(node), self.device.address.aci);
            let acknowledged = std::mem::take(&mut self.acknowledged);
            self.handing_over = Some(Box::pin(async move {
                node.relay.writer.acknowledge(account, acknowledged).await
            }));
        }
        if let Some(handing_over) = self.handing_over.as_mut()
            && handing_over.as_mut().poll(cx).is_ready()
        {
            self.handing_over = None;
            *moved = true;
        }
    }

    pub(super) fn answered(&mut self, id: u64, status: u32) {
        let answered = self
            .session
            .as_mut()
            .and_then(|session| session.answered(id, status, Instant::now()));
        if let Some(name) = answered {
            self.acknowledge(name);
        }
    }

    fn acknowledge(&mut self, name: EnvelopeName) {
        let seq = match name {
            EnvelopeName::Stored(seq) => Some(seq),
            EnvelopeName::Offered(id) => self.bell.acknowledged(id),
        };
        let mailbox = self.device.mailbox;
        self.acknowledged
            .extend(seq.map(|seq| Acknowledgement { mailbox, seq }));
    }

    pub(super) fn next_message(&mut self, node: &AppState) -> Option<Message> {
        let session = self.session.as_mut()?;
        let now = node.clock.now().0;
        if let Some(notice) = self.notices.pop() {
            // Never counted as under way: no answer to it means anything.
            let body = notice_json(notice);
            return Some(Message::Binary(push_json(session.request_id(), NOTICE_PATH, now, body)));
        }
        while let Some((since, content)) = self.online.pop_front() {
            if since.elapsed() >= ONLINE_LIFETIME || (!self.stories && is_story(&content)) {
                continue;
            }
            metrics::pushed("online");
            return Some(Message::Binary(push_envelope(
                session.request_id(),
                MESSAGE_PATH,
                now,
                &content,
                random_guid(),
            )));
        }
        let mailbox = self.device.mailbox;
        loop {
            let session = self.session.as_mut()?;
            if session.wants_to_read() {
                session.settled(self.bell.settle());
            }
            match session.step(Instant::now()) {
                Step::Wait => return None,
                Step::Read { after } => {
                    let (node, limit) = (Arc::clone(node), session.page_limit());
                    let opener = self.opener.clone();
                    self.read(async move { Read::Page(node.relay.pending(mailbox, &opener, after, limit).await) });
                    return None;
                }
                Step::AnnounceEmpty { request } => {
                    return Some(Message::Binary(push(request, QUEUE_EMPTY_PATH, now, None)));
                }
                Step::Push { request, content, .. } if !self.stories && is_story(&content) => {
                    // A client that does not want stories never sees them, so the server acknowledges in its place.
                    self.answered(request, 200);
                }
                Step::Push {
                    request,
                    name,
                    content,
                    from_memory,
                } => {
                    metrics::pushed(if from_memory { "memory" } else { "storage" });
                    let guid = match name {
                        EnvelopeName::Stored(seq) => guid(mailbox, seq),
                        EnvelopeName::Offered(id) => offered_guid(self.connection, id),
                    };
                    return Some(Message::Binary(push_envelope(
                        request,
                        MESSAGE_PATH,
                        now,
                        &content,
                        guid,
                    )));
                }
            }
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // However the connection ended: what it was offered is written now.
        self.bell.end();
    }
}

fn notice_json(notice: Notice) -> String {
    let body = match notice {
        Notice::PreKeysLow { kind, left } => {
            let kind = match kind {
                IdentityKind::Aci => "aci",
                IdentityKind::Pni => "pni",
            };
            json!({ "code": "prekeys_low", "kind": kind, "ec": left.ec, "kyber": left.kyber })
        }
        Notice::SessionRevoked => json!({ "code": "session_revoked" }),
    };
    body.to_string()
}

const NOTICE_PATH: &str = "/api/v1/notice";
const MESSAGE_PATH: &str = "/api/v1/message";
const QUEUE_EMPTY_PATH: &str = "/api/v1/queue/empty";
const READ_AGAIN: Duration = Duration::from_secs(1);
const MAX_ACKNOWLEDGED: usize = 256;
