//! `GET /v1/websocket`: the upgrade, and who the socket is for.
//!
//! [`frame`] reads and writes the messages of the wire, [`tunnel`] carries a client's requests to the routes, and
//! [`driver`] runs one socket until its [`end`], with a device's [`delivery`] beside its requests.

mod delivery;
mod driver;
mod end;
pub(super) mod frame;
mod tunnel;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::auth::{Authenticated, BasicCredentials, BasicUser};
use crate::domain::ProtocolAddress;

use super::error::ApiError;
use super::extract::Tunnelled;
use super::listener::ConnectionSlot;
use super::routes::Router;
use super::state::{AppState, SocketLimits};
use super::transport::Transport;
use delivery::Delivery;
use driver::Driver;
use tunnel::Tunnel;

/// Who opened a socket.
enum Principal {
    /// Nobody in particular.
    Anonymous,
    /// Somebody who is about to register: requests inherit the credentials of the upgrade.
    Registering(HeaderValue),
    /// A device.
    Device(Arc<Authenticated>),
}

/// Answers the upgrade and runs the socket on a task of its own.
pub(super) async fn upgrade(State((node, router)): State<(AppState, Router)>, mut request: Request) -> Response {
    if request.extensions().get::<Tunnelled>().is_some() {
        return ApiError::bad_request("nested_socket", "a WebSocket cannot be opened through a WebSocket")
            .into_response();
    }
    let principal = match principal(&node, request.headers()).await {
        Ok(principal) => principal,
        Err(refused) => return refused.into_response(),
    };
    let Ok(accepted) = create_response(&head_of(&request)) else {
        return ApiError::bad_request(
            "no_websocket",
            "this is no WebSocket upgrade of version 13 over HTTP/1.1",
        )
        .into_response();
    };
    let Some(on_upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return ApiError::bad_request("no_upgrade", "this connection cannot be upgraded").into_response();
    };
    let wishes = Wishes::from_headers(request.headers());
    let slot = request.extensions().get::<ConnectionSlot>().cloned();
    let tasks = node.tasks.clone();
    tasks.spawn(async move {
        // Boxed parts, so that a socket that only waits is small.
        if let Some(driver) = Box::pin(open(node, router, principal, wishes, on_upgrade)).await {
            driver.run().await;
        }
        drop(slot);
    });
    accepted.map(|()| axum::body::Body::empty()).into_response()
}

/// What a client said about its deliveries.
struct Wishes {
    stories: bool,
    deliveries: bool,
}

impl Wishes {
    fn from_headers(headers: &HeaderMap) -> Self {
        let is_true = |name| {
            headers
                .get(name)
                .is_some_and(|value: &HeaderValue| value.as_bytes() == b"true")
        };
        Self {
            stories: is_true("x-signal-receive-stories"),
            deliveries: !is_true("x-signal-disable-messages"),
        }
    }
}

async fn principal(node: &AppState, headers: &HeaderMap) -> Result<Principal, ApiError> {
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Ok(Principal::Anonymous);
    };
    let credentials = BasicCredentials::parse(header.as_bytes()).map_err(|_| REFUSED)?;
    let address = match credentials.user {
        BasicUser::Number(_) => return Ok(Principal::Registering(header.clone())),
        BasicUser::Device(address) => address,
    };
    let device = node
        .authenticator
        .authenticate(address, &credentials.password)
        .await?
        .ok_or(REFUSED)?;
    remember_day(node, device.address);
    Ok(Principal::Device(Arc::new(device)))
}

/// Keeps the day of a connection, beside the upgrade and not before it: on the first morning minute all devices come.
fn remember_day(node: &AppState, address: ProtocolAddress) {
    let today = node.clock.now().day();
    let accounts = Arc::clone(&node.storage.accounts);
    node.tasks.spawn(async move {
        if let Err(error) = accounts.touch(address, today).await {
            // Only the day is lost, and the next connection will bring it.
            tracing::warn!(
                cause = error.log_safe_cause(),
                "the day of a connection could not be kept"
            );
        }
    });
}

async fn open(
    node: AppState,
    router: Router,
    principal: Principal,
    wishes: Wishes,
    on_upgrade: OnUpgrade,
) -> Option<Driver> {
    // The peer went away before the answer reached it.
    let upgraded = on_upgrade.await.ok()?;
    let parts = downcast::<TokioIo<Transport>>(upgraded).ok()?;
    let config = websocket_config(&node.sockets);
    let socket = WebSocketStream::from_partially_read(
        parts.io.into_inner(),
        parts.read_buf.to_vec(),
        Role::Server,
        Some(config),
    )
    .await;
    let (device, inherited) = match principal {
        Principal::Anonymous => (None, None),
        Principal::Registering(header) => (None, Some(header)),
        Principal::Device(device) => (Some(device), None),
    };
    let delivery = match &device {
        Some(device) if wishes.deliveries => Some(Delivery::begin(&node, device, wishes.stories)),
        _ => None,
    };
    let tunnel = Tunnel::new(router, device, inherited);
    Some(Driver::new(node, socket, tunnel, delivery))
}

fn websocket_config(limits: &SocketLimits) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(Some(limits.max_message))
        .max_frame_size(Some(limits.max_message))
}

fn head_of(request: &Request) -> http::Request<()> {
    let mut head = http::Request::new(());
    *head.method_mut() = request.method().clone();
    *head.version_mut() = request.version();
    *head.headers_mut() = request.headers().clone();
    head
}

/// Clients take 403 at the upgrade, and only that, as "these credentials are dead".
const REFUSED: ApiError = ApiError::new(
    StatusCode::FORBIDDEN,
    "bad_credentials",
    "the credentials are not valid",
);
/// The defaults are made for few busy sockets; these for many that wait.
const READ_BUFFER: usize = 4 * 1024;
/// What may be gathered before it is written.
const WRITE_BUFFER: usize = 64 * 1024;
/// More than the gathered bytes and the largest message.
const MAX_WRITE_BUFFER: usize = 4 * 1024 * 1024;
