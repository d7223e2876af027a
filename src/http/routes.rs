//! The one list of routes, and what every one of them has around it.

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use tower::Layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::normalize_path::NormalizePathLayer;
use tower_http::timeout::TimeoutLayer;

use crate::telemetry::metrics;

use super::error::ApiError;
use super::extract::{OptionalCaller, Tunnelled};
use super::health::{self, Readiness};
use super::state::AppState;
use super::{accounts, keys, mailbox, messages, registration, socket, verification};

/// Routes with their state.
pub type Router = axum::Router;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone.
    Anyone,
    /// Whoever has the number's password at hand: registration.
    Number,
    /// A device, for itself.
    Device,
    /// A device, or a stranger with the target's access key.
    DeviceOrAccessKey,
}

/// One method of one path.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// HTTP method.
    pub method: &'static str,
    /// Path, with parameters in braces.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    /// The largest body, in bytes.
    pub max_body: usize,
    /// How it is served.
    pub service: Service,
}

/// How a route is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Through a WebSocket as well as plainly; the answer takes at most [`REQUEST_TIMEOUT`].
    Usual,
    /// As usual, but the handler itself bounds how long the answer takes: it waits for something to happen.
    Waits,
    /// Only plainly, because bodies are streamed in either direction; the handler bounds how long they may stand still.
    Streams,
}

macro_rules! routes {
    ($($method:ident $path:literal $access:ident $max_body:ident $service:ident => $handler:expr;)*) => {
        /// Every route that handlers answer, for tests that hold each against its declaration.
        pub const ROUTES: &[Route] = &[
            $(Route {
                method: stringify!($method),
                path: $path,
                access: Access::$access,
                max_body: $max_body,
                service: Service::$service,
            }),*
        ];

        /// The handlers of the given kind of service.
        fn handlers(streams: bool) -> axum::Router<AppState> {
            let mut router = axum::Router::new();
            $(if streams == (Service::$service == Service::Streams) {
                router = router.route($path, bounded($method($handler), $max_body, Service::$service));
            })*
            router
        }
    };
}

routes! {
    // method  path                                     who               body     service    handler
    get    "/v1/keepalive"                              Anyone            NO_BODY  Usual   => keepalive;

    post   "/v1/verification/session"                   Anyone            SMALL    Usual   => verification::open;
    get    "/v1/verification/session/{id}"              Anyone            NO_BODY  Usual   => verification::show;
    patch  "/v1/verification/session/{id}"              Anyone            SMALL    Usual   => verification::update;
    post   "/v1/verification/session/{id}/code"         Anyone            SMALL    Usual   => verification::send_code;
    put    "/v1/verification/session/{id}/code"         Anyone            SMALL    Usual   => verification::try_code;
    post   "/v1/registration"                           Number            SMALL    Usual   => registration::register;

    get    "/v1/accounts/whoami"                        Device            NO_BODY  Usual   => accounts::whoami;
    put    "/v1/accounts/attributes"                    Device            SMALL    Usual   => accounts::set_attributes;
    delete "/v1/accounts/me"                            Device            NO_BODY  Usual   => accounts::delete;

    get    "/v2/keys"                                   Device            NO_BODY  Usual   => keys::count;
    put    "/v2/keys"                                   Device            KEYS     Usual   => keys::publish;
    post   "/v2/keys/check"                             Device            SMALL    Usual   => keys::check;
    get    "/v2/keys/{target}/{device}"                 DeviceOrAccessKey NO_BODY  Usual   => keys::take;

    put    "/v1/messages/{destination}"                 DeviceOrAccessKey MESSAGES Usual   => messages::send;
    get    "/v1/messages"                               Device            NO_BODY  Usual   => mailbox::fetch;
    delete "/v1/messages/uuid/{guid}"                   Device            NO_BODY  Usual   => mailbox::delete;
}

/// All routes, ready to be served. Paths are taken with and without a trailing slash.
pub fn router(node: AppState, readiness: Readiness) -> Router {
    let routes = handlers(false)
        .with_state(node.clone())
        .merge(health::router(readiness));
    // The socket reaches the routes through the same layers as a plain request, and is itself no route inside.
    let inside = slash_insensitive(with_layers(routes.clone(), &node));
    let upgrade = get(socket::upgrade).with_state((node.clone(), inside));
    let plain = routes
        .route("/v1/websocket", upgrade)
        .merge(handlers(true).with_state(node.clone()));
    slash_insensitive(with_layers(plain, &node))
}

fn slash_insensitive(routes: Router) -> Router {
    axum::Router::new().fallback_service(NormalizePathLayer::trim_trailing_slash().layer(routes))
}

fn with_layers(routes: Router, node: &AppState) -> Router {
    routes
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this path has no such method",
            )
        })
        .layer(from_fn(count))
        .layer(from_fn_with_state(node.clone(), stamp))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::unavailable("a handler panicked").into_response()
        }))
}

/// A client asks whether its connection is alive. To a device the answer also says that everything it acknowledged
/// before it asked is durable, and will not come again on any connection.
async fn keepalive(
    State(node): State<AppState>,
    OptionalCaller(caller): OptionalCaller,
) -> Result<StatusCode, ApiError> {
    if let Some(caller) = caller {
        node.relay
            .writer
            .acknowledge_durably(caller.address.aci, vec![])
            .await?;
    }
    Ok(StatusCode::OK)
}

fn bounded(route: MethodRouter<AppState>, max_body: usize, service: Service) -> MethodRouter<AppState> {
    let route = route.layer(DefaultBodyLimit::max(max_body));
    match service {
        Service::Usual => route.layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            REQUEST_TIMEOUT,
        )),
        Service::Waits | Service::Streams => route,
    }
}

async fn count(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let transport = if request.extensions().get::<Tunnelled>().is_some() {
        "websocket"
    } else {
        "http"
    };
    let response = next.run(request).await;
    metrics::request(
        route.as_ref().map_or("none", MatchedPath::as_str),
        transport,
        response.status().as_u16(),
    );
    response
}

async fn stamp(State(node): State<AppState>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .insert(TIMESTAMP, HeaderValue::from(node.clock.now().0));
    response
}

const TIMESTAMP: HeaderName = HeaderName::from_static("x-signal-timestamp");
/// The longest that an ordinary answer takes, the arrival of the body included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const NO_BODY: usize = 1024;
/// Registration is the largest of these, at about 6 kB.
const SMALL: usize = 32 * 1024;
/// 100 EC and 101 Kyber keys with signatures are 232 kB in base64.
const KEYS: usize = 512 * 1024;
/// 96 KiB for each of 6 devices, in base64, is 790 kB.
const MESSAGES: usize = 1024 * 1024;
