//! `/v1/websocket`: who the socket is for.
//!
//! [`upgrade`](mod@upgrade) makes a socket of a request, [`frame`] reads and writes the messages of the wire, [`tunnel`]
//! carries a client's requests to the routes, and [`driver`] runs one socket over its [`line`](mod@line) until its [`end`], with a device's
//! [`delivery`] beside its requests. [`provisioning`] is the other kind of socket, for a device that is about to be
//! linked.

mod delivery;
mod driver;
mod end;
pub(super) mod frame;
mod line;
pub(super) mod provisioning;
mod tunnel;
mod upgrade;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;

use crate::auth::{Authenticated, BasicUser, Credentials};
use crate::limits::Limit;

use super::drain::OpenSocket;
use super::error::ApiError;
use super::listener::SocketPlace;
use super::network;
use super::origin;
use super::rate;
use super::routes::Router;
use super::seen;
use super::state::AppState;
use crate::relay::drain::QueueOpener;
use crate::relay::presence::Ticket;
use delivery::Delivery;
use driver::Driver;
use tunnel::{Reached, Tunnel};
use upgrade::{Accepted, Upgrade, accept};

/// Who opened a socket.
enum Principal {
    /// Nobody in particular.
    Anonymous,
    /// Somebody who is about to register: requests inherit the credentials of the upgrade.
    Registering(HeaderValue),
    /// A device, and what opens its queue.
    Device(Arc<Authenticated>, QueueOpener),
}

/// Answers the upgrade and runs the socket on a task of its own.
pub(super) async fn upgrade(
    State((node, router)): State<(AppState, Router)>,
    mut request: Request,
) -> Result<Response, ApiError> {
    origin::refuse_foreign(&node, request.uri(), request.headers(), request.extensions())?;
    let counted = node.drain.enter()?;
    let ticket = node.relay.ticket();
    let principal = principal(&node, request.headers(), request.extensions()).await?;
    let Accepted { answer, upgrade, place } = accept(&mut request)?;
    let wishes = Wishes::from_headers(request.headers());
    let reached = Reached {
        origin: origin::of(&node, request.uri(), request.headers(), request.extensions()),
        network: network::of_request(request.extensions()),
    };
    let tasks = node.tasks.clone();
    let running = tasks.clone();
    tasks.spawn(async move {
        let opened = open(node, router, principal, ticket, wishes, reached, (counted, upgrade)).await;
        if let Some(driver) = opened {
            // On a task of its own: this one is as large as all that the way here needed, and a socket lives for days.
            running.spawn(run(driver, place));
        }
    });
    Ok(answer)
}

async fn run(driver: Box<Driver>, place: Option<SocketPlace>) {
    driver.run().await;
    drop(place);
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

/// Who asks, counted as whom it is.
async fn principal(node: &AppState, headers: &HeaderMap, from: &Extensions) -> Result<Principal, ApiError> {
    let found = prove(node, headers).await;
    match &found {
        Ok(Principal::Device(device, _)) => rate::of_device(node, Limit::DeviceUpgrades, device.address).await?,
        Ok(Principal::Anonymous | Principal::Registering(_)) => rate::of_network(node, Limit::Upgrades, from).await?,
        Err(refused) => {
            if refused.is_of_client() {
                rate::of_network(node, Limit::FailedLogins, from).await?;
            }
            rate::of_network(node, Limit::Upgrades, from).await?;
        }
    }
    found
}

async fn prove(node: &AppState, headers: &HeaderMap) -> Result<Principal, ApiError> {
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Ok(Principal::Anonymous);
    };
    let credentials = Credentials::parse(header.as_bytes()).map_err(|_| REFUSED)?;
    if matches!(&credentials, Credentials::Basic(basic) if matches!(basic.user, BasicUser::Number(_))) {
        return Ok(Principal::Registering(header.clone()));
    }
    let proven = node.authenticator.prove_device(credentials);
    let proven = node
        .pace
        .answer_if(proven, |proven| !matches!(proven, Ok(Some(_))))
        .await?
        .ok_or(REFUSED)?;
    seen::by_request(node, &proven.device);
    let opener = QueueOpener::new(&proven.queue_key());
    Ok(Principal::Device(Arc::new(proven.device), opener))
}

async fn open(
    node: AppState,
    router: Router,
    principal: Principal,
    ticket: Ticket,
    wishes: Wishes,
    reached: Reached,
    (counted, upgrade): (OpenSocket, Upgrade),
) -> Option<Box<Driver>> {
    let socket = upgrade.open(node.sockets.max_message, &counted.close).await?;
    let (device, opener, inherited) = match principal {
        Principal::Anonymous => (None, None, None),
        Principal::Registering(header) => (None, None, Some(header)),
        Principal::Device(device, opener) => (Some(device), Some(opener), None),
    };
    let delivery = match (&device, &opener) {
        (Some(device), Some(opener)) if wishes.deliveries => {
            Some(Delivery::begin(&node, device, ticket, opener, wishes.stories))
        }
        _ => None,
    };
    let tunnel = Tunnel::new(router, device, opener, inherited, reached);
    Some(Box::new(Driver::new(node, socket, tunnel, delivery, counted)))
}

/// Clients take 403 at the upgrade, and only that, as "these credentials are dead".
const REFUSED: ApiError = ApiError::new(
    StatusCode::FORBIDDEN,
    "bad_credentials",
    "the credentials are not valid",
);

#[cfg(test)]
mod tests {
    use super::line::Line;
    use super::*;

    fn size_of_answer<F, G, A, B>(_: F) -> usize
    where
        F: Fn(A, B) -> G,
    {
        size_of::<G>()
    }

    /// Tens of thousands of sockets wait in one process. What each has beside this is counted by `bench`.
    #[test]
    fn a_socket_that_waits_is_small() {
        let (task, driver, delivery) = (size_of_answer(run), size_of::<Driver>(), size_of::<Delivery>());
        assert!(task <= 384, "{task}");
        assert!(driver <= 512, "{driver}");
        assert!(delivery <= 512, "{delivery}");
        assert!(size_of::<Line>() <= 64, "{}", size_of::<Line>());
    }
}
