//! The upgrade itself: that of HTTP/1.1, and the extended CONNECT of HTTP/2 (RFC 8441).
//!
//! The two differ in how a client asks and is answered. From there on a socket cannot tell which it runs on.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::SEC_WEBSOCKET_VERSION;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tokio_util::sync::CancellationToken;

use crate::http::error::ApiError;
use crate::http::extract::Tunnelled;
use crate::http::listener::{ConnectionSlot, SocketPlace};
use crate::http::transport::Transport;

use super::line::Line;

/// A request that becomes a socket.
pub(super) struct Accepted {
    /// What the client is told.
    pub(super) answer: Response,
    /// What there is once it has that.
    pub(super) upgrade: Upgrade,
    /// To be kept until the socket's end.
    pub(super) place: Option<SocketPlace>,
}

/// An upgrade whose answer is on its way.
pub(super) struct Upgrade(OnUpgrade);

/// Checks what a client asks for, and takes a place for its socket.
pub(super) fn accept(request: &mut Request) -> Result<Accepted, ApiError> {
    if request.extensions().get::<Tunnelled>().is_some() {
        return Err(ApiError::bad_request(
            "nested_socket",
            "a WebSocket cannot be opened through a WebSocket",
        ));
    }
    let answer = if request.method() == Method::CONNECT {
        stream_answer(request)
    } else {
        connection_answer(request)
    };
    let answer = answer.ok_or(ApiError::bad_request(
        "no_websocket",
        "this is no WebSocket of version 13, neither an upgrade of HTTP/1.1 nor an extended CONNECT of HTTP/2",
    ))?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or(ApiError::bad_request(
        "no_upgrade",
        "this connection cannot be upgraded",
    ))?;
    let place = match request.extensions().get::<ConnectionSlot>() {
        Some(slot) => Some(slot.socket_place().ok_or(NO_ROOM)?),
        None => None,
    };
    Ok(Accepted {
        answer,
        upgrade: Upgrade(upgrade),
        place,
    })
}

impl Upgrade {
    /// The socket, for messages up to `max_message` bytes; `None` if the peer went away before the answer reached it, or has not taken what there was for it
    /// before: a place is for a socket, and keeps the connection's clock from ending it. `stop` ends the waiting, too.
    pub(super) async fn open(self, max_message: usize, stop: &CancellationToken) -> Option<Line> {
        let upgraded = stop
            .run_until_cancelled(tokio::time::timeout(PATIENCE, self.0))
            .await?
            .ok()?;
        let (transport, read) = Transport::upgraded(upgraded.ok()?);
        Some(Line::new(transport, &read, max_message))
    }
}

/// HTTP/1.1: 101, with the proof that the key was read.
fn connection_answer(request: &Request) -> Option<Response> {
    let mut head = http::Request::new(());
    *head.method_mut() = request.method().clone();
    *head.version_mut() = request.version();
    *head.headers_mut() = request.headers().clone();
    let accepted = create_response(&head).ok()?;
    Some(accepted.map(|()| Body::empty()).into_response())
}

/// HTTP/2: 200 opens the stream. There is no key to prove anything about.
fn stream_answer(request: &Request) -> Option<Response> {
    let protocol = request.extensions().get::<Protocol>()?;
    let version = request.headers().get(SEC_WEBSOCKET_VERSION);
    let fits = protocol.as_str() == "websocket" && version.is_none_or(|version| version.as_bytes() == b"13");
    fits.then(|| StatusCode::OK.into_response())
}

const PATIENCE: Duration = Duration::from_secs(30);
const NO_ROOM: ApiError = ApiError::too_many(
    "too_many_sockets",
    "neither this connection nor the server has room for another WebSocket now",
    5,
);
