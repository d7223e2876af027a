//! `/v1/websocket/provisioning`: where a device waits that is about to be linked.
//!
//! Two requests are ever pushed: the address at which it waits, and the one message that comes there. Clients of the field
//! give up linking when they see anything else. A client may ask whether the socket is alive, and nothing more. The
//! message counts as taken when the device has answered it, or, as not every client does, when the socket took its bytes
//! and is still open a little later.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use keys_schema::proto::ProvisioningAddress;
use prost::Message as _;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use crate::http::error::ApiError;
use crate::http::network;
use crate::http::origin;
use crate::http::rate;
use crate::http::routes::Router;
use crate::http::state::AppState;
use crate::http::wire::provisioning::address_text;
use crate::limits::Limit;
use crate::provisioning::{Offer, Receipt, Waiting};
use crate::telemetry::metrics;

use super::end::End;
use super::frame::{Frame, parse_frame, push};
use super::line::Line;
use super::tunnel::{Reached, Tunnel};
use super::upgrade::{Accepted, accept};

/// Answers the upgrade and runs the socket on a task of its own. Nobody has to say who they are.
pub(in crate::http) async fn open(
    State((node, router)): State<(AppState, Router)>,
    mut request: Request,
) -> Result<Response, ApiError> {
    origin::refuse_foreign(&node, request.uri(), request.headers(), request.extensions())?;
    let counted = node.drain.enter()?;
    rate::of_network(&node, Limit::Upgrades, request.extensions()).await?;
    let Accepted { answer, upgrade, place } = accept(&mut request)?;
    let waiting = node.provisioning.wait().ok_or(FULL)?;
    let reached = Reached {
        origin: None,
        network: network::of_request(request.extensions()),
    };
    let tasks = node.tasks.clone();
    tasks.spawn(async move {
        if let Some(socket) = upgrade.open(MAX_MESSAGE, &counted.close).await {
            let conversation = Conversation {
                node,
                socket,
                tunnel: Tunnel::new(router, None, None, None, reached),
                heard: Instant::now(),
                handed_over: None,
            };
            Box::pin(conversation.run(waiting, &counted.close)).await;
        }
        drop(place);
    });
    Ok(answer)
}

/// The one request that is answered inside such a socket.
pub(in crate::http) async fn keepalive() -> StatusCode {
    StatusCode::OK
}

/// One open socket.
struct Conversation {
    node: AppState,
    socket: Line,
    tunnel: Tunnel,
    heard: Instant,
    /// The message has left for the device.
    handed_over: Option<HandedOver>,
}

/// A message that the socket has taken and the device has not answered.
struct HandedOver {
    since: Instant,
    /// Until the sender has been told.
    receipt: Option<Receipt>,
}

impl Conversation {
    async fn run(mut self, waiting: Waiting, close: &CancellationToken) {
        metrics::socket_opened(KIND);
        let node = self.node.clone();
        let lifetime = node.sockets.provisioning_lifetime;
        let end = tokio::select! {
            () = close.cancelled() => End::Stopping,
            end = timeout(lifetime, self.converse(waiting)) => end.unwrap_or(End::TimedOut),
        };
        let _ = timeout(GOODBYE, self.say_goodbye(end)).await;
        metrics::socket_closed(KIND, end.label());
    }

    /// Returns when there is a reason to end. One thing is done after the other, so a client that takes no answers is not
    /// listened to; how long all of it takes is the caller's to bound.
    async fn converse(&mut self, mut waiting: Waiting) -> End {
        let address = ProvisioningAddress {
            address: Some(address_text(waiting.address)),
        };
        let address = address.encode_to_vec().into();
        let mut outcome = self.push(ADDRESS, ADDRESS_PATH, address).await;
        let mut spent = false;
        loop {
            if let Err(end) = outcome {
                return end;
            }
            // Such a device mostly waits for somebody to scan its code.
            self.socket.rest();
            let look_at_clock = self.look_at_clock();
            outcome = tokio::select! {
                message = self.socket.next() => self.take(message).await,
                offer = &mut waiting.offer, if !spent => {
                    spent = true;
                    match offer {
                        Ok(offer) => self.hand_over(offer).await,
                        Err(_) => Ok(()),
                    }
                }
                () = sleep_until(look_at_clock) => self.check_clock(),
            };
        }
    }

    async fn take(&mut self, message: Option<Result<Message, Error>>) -> Result<(), End> {
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(End::from(&error)),
            None => return Err(End::Left),
        };
        self.heard = Instant::now();
        match message {
            Message::Binary(bytes) => match parse_frame(bytes).map_err(|_| End::BadFrame)? {
                Frame::Request(request) => match self.tunnel.call(*request).await {
                    Some(answer) => self.send(answer).await,
                    None => Ok(()),
                },
                Frame::Answer { id, .. } => self.answered(id),
            },
            // The answer to a ping is in the socket already.
            Message::Ping(_) => self.socket.flush().await.map_err(|error| End::from(&error)),
            Message::Close(_) => Err(End::Left),
            // Text carries nothing on this wire.
            Message::Text(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    async fn hand_over(&mut self, offer: Offer) -> Result<(), End> {
        self.push(MESSAGE, MESSAGE_PATH, offer.message).await?;
        self.handed_over = Some(HandedOver {
            since: Instant::now(),
            receipt: Some(offer.receipt),
        });
        Ok(())
    }

    /// The device has what it came for. What it thinks of it, it tells the sender in another way.
    fn answered(&mut self, id: u64) -> Result<(), End> {
        if id != MESSAGE || self.handed_over.is_none() {
            return Ok(());
        }
        self.confirm();
        Err(End::Done)
    }

    fn confirm(&mut self) {
        if let Some(receipt) = self.handed_over.as_mut().and_then(|handed| handed.receipt.take()) {
            self.node.provisioning.taken(receipt);
        }
    }

    fn look_at_clock(&self) -> Instant {
        let idle = self.heard + self.node.sockets.provisioning_idle;
        match &self.handed_over {
            Some(handed) if handed.receipt.is_some() => idle.min(handed.since + ANSWER),
            _ => idle,
        }
    }

    fn check_clock(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self
            .handed_over
            .as_ref()
            .is_some_and(|handed| now - handed.since >= ANSWER)
        {
            self.confirm();
        }
        if now - self.heard >= self.node.sockets.provisioning_idle {
            return Err(End::TimedOut);
        }
        Ok(())
    }

    async fn push(&mut self, id: u64, path: &str, body: Bytes) -> Result<(), End> {
        let now = self.node.clock.now().0;
        self.send(push(id, path, now, Some(body))).await
    }

    async fn send(&mut self, frame: Bytes) -> Result<(), End> {
        let sent = self.socket.send(Message::Binary(frame)).await;
        sent.map_err(|error| End::from(&error))
    }

    async fn say_goodbye(&mut self, end: End) -> Result<(), Error> {
        let Some(frame) = end.close_frame() else {
            return self.socket.flush().await;
        };
        self.socket.send(Message::Close(Some(frame))).await?;
        while self.socket.next().await.transpose()?.is_some() {}
        Ok(())
    }
}

const FULL: ApiError = ApiError::too_many(
    "provisioning_full",
    "too many devices wait to be linked; try again in a minute",
    30,
);
/// In the metrics.
const KIND: &str = "provisioning";
const ADDRESS_PATH: &str = "/v1/address";
const MESSAGE_PATH: &str = "/v1/message";
/// The numbers of the two pushes.
const ADDRESS: u64 = 1;
const MESSAGE: u64 = 2;
/// Of what a client says here nothing is larger than a keepalive.
const MAX_MESSAGE: usize = 16 * 1024;
/// A device that says nothing for so long after the message has taken it all the same, if it is still there.
const ANSWER: Duration = Duration::from_secs(3);
const GOODBYE: Duration = Duration::from_secs(2);
