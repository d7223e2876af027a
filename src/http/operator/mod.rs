//! The routes of the admin socket: a router of its own, which no listener of the network has.
//!
//! [`socket`] binds and serves it, [`acts`] are its handlers, [`surroundings`] is what they may do to the rest of the node.
//! Whatever else is asked of it is refused, and is written down as well: whoever tries to add a device, to set a key or to
//! sign in as somebody leaves a trace of having tried.

mod acts;
pub mod socket;
mod surroundings;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

use crate::admin::AdminState;
use crate::admin::acts::Operator;
use crate::domain::AdminAct;

use super::error::ApiError;
use super::routes::Router;

pub use surroundings::NodeSurroundings;

/// In which form the handlers are given it.
type Admin = Arc<AdminState>;

macro_rules! acts {
    ($($method:ident $path:literal => $handler:expr;)*) => {
        /// Every method and path of the admin socket, for tests that hold them against what they may be.
        pub const ACTS: &[(&str, &str)] = &[$((stringify!($method), $path)),*];

        fn handlers() -> axum::Router<Admin> {
            axum::Router::new()$(.route($path, $method($handler)))*
        }
    };
}

acts! {
    get    "/stats"                       => acts::stats;
    get    "/accounts/{id}"               => acts::show;
    delete "/accounts/{id}"               => acts::delete;
    post   "/accounts/{id}/suspend"       => acts::suspend;
    post   "/accounts/{id}/resume"        => acts::resume;
    get    "/invites"                     => acts::invites;
    post   "/invites"                     => acts::create_invite;
    delete "/invites/{id}"                => acts::revoke_invite;
    get    "/drain"                       => acts::drained;
    put    "/drain"                       => acts::drain;
    delete "/drain"                       => acts::undo_drain;
    get    "/log"                         => acts::log;
}

/// All routes, ready to be served to operators whom [`socket`] has let in.
pub fn router(state: Admin) -> Router {
    handlers()
        .fallback(async |admin: State<Admin>, by: Extension<Operator>| {
            refuse(admin, by, AdminAct::UnknownPath, ApiError::not_found()).await
        })
        .method_not_allowed_fallback(async |admin: State<Admin>, by: Extension<Operator>| {
            refuse(admin, by, AdminAct::UnknownMethod, NO_METHOD).await
        })
        .with_state(state)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            REQUEST_TIMEOUT,
        ))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::unavailable("a handler panicked").into_response()
        }))
}

/// Writes down what was asked for, and says no.
async fn refuse(
    State(admin): State<Admin>,
    Extension(by): Extension<Operator>,
    act: AdminAct,
    refusal: ApiError,
) -> Response {
    match admin.refused(by, act).await {
        Ok(()) => refusal.into_response(),
        Err(error) => ApiError::from(error).into_response(),
    }
}

const NO_METHOD: ApiError = ApiError::new(
    StatusCode::METHOD_NOT_ALLOWED,
    "method_not_allowed",
    "this path has no such method",
);
/// The largest body there is says how an invite is to be.
const MAX_BODY: usize = 4 * 1024;
/// Sums over a large database take their time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
