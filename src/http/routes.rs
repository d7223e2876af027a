//! The one list of routes, and what every one of them has around it.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, head, options, patch, post, put};
use tower::Layer;
use tower_http::normalize_path::{NormalizePath, NormalizePathLayer};

use crate::limits::Limit;
use crate::telemetry::metrics::RouteCounters;

use super::around::{Around, without_limits};
use super::attachments::{self, download, put as put_upload, tus};
use super::error::ApiError;
use super::extract::OptionalCaller;
use super::health::{self, Readiness};
use super::state::AppState;
use super::wire::calling::TimeOut;
use super::{
    absent, account_data, accounts, blocks, calling, certificates, devices, export, keys, limits, mailbox, messages,
    multi_recipient, openapi, password, profiles, provisioning, registration, remote_config, reports, socket, tokens,
    usernames, verification,
};

/// Routes with their state.
pub type Router = axum::Router;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone.
    Anyone,
    /// Whoever does not say who it is. Device credentials answer 400.
    Anonymous,
    /// Whoever has the number's password at hand: registration.
    Number,
    /// Whoever shows a link token: the device that is being linked.
    LinkToken,
    /// A device, for itself.
    Device,
    /// A device that shows its password. Its tokens answer 403.
    Password,
    /// Whoever shows a refresh token.
    RefreshToken,
    /// The primary device, for its account.
    Primary,
    /// A device, or a stranger with the target's access key.
    DeviceOrAccessKey,
    /// Strangers with the access keys of all targets. Device credentials count for nothing.
    AccessKeys,
    /// Whoever holds the capability of an upload form.
    UploadForm,
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
    /// How often those may use it who do not prove to be a device.
    pub strangers: Limit,
    /// How often devices may.
    pub devices: Limit,
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
    ($($method:ident $path:literal $access:ident $max_body:ident $service:ident $strangers:ident $devices:ident => $handler:expr;)*) => {
        /// Every route that handlers answer, for tests that hold each against its declaration.
        pub const ROUTES: &[Route] = &[
            $(Route {
                method: stringify!($method),
                path: $path,
                access: Access::$access,
                max_body: $max_body,
                service: Service::$service,
                strangers: Limit::$strangers,
                devices: Limit::$devices,
            }),*
        ];

        /// The handlers of the given kind of service.
        fn handlers(streams: bool) -> axum::Router<AppState> {
            let mut router = axum::Router::new();
            let mut rows = ROUTES.iter().zip(&COUNTERS);
            $(if let Some((route, counters)) = rows.next()
                && streams == (Service::$service == Service::Streams)
            {
                router = router.route($path, $method(Around::route(route, counters, $handler)));
            })*
            router
        }

        /// In the order of [`ROUTES`].
        static COUNTERS: [RouteCounters; ROUTES.len()] = [$(RouteCounters::new($path)),*];
    };
}

routes! {
    // method  path                                     who               body     service strangers         devices            handler
    get    "/v1/keepalive"                              Anyone            NO_BODY  Usual   Requests          DeviceRequests  => keepalive;
    get    "/v1/time"                                   Anyone            NO_BODY  Usual   Requests          DeviceRequests  => time;
    get    "/v1/limits"                                 Anyone            NO_BODY  Usual   Requests          DeviceRequests  => limits::show;
    get    "/openapi.json"                              Anyone            NO_BODY  Usual   Requests          DeviceRequests  => openapi::serve;

    post   "/v1/verification/session"                   Anyone            SMALL    Usual   Sessions          DeviceRequests  => verification::open;
    get    "/v1/verification/session/{id}"              Anyone            NO_BODY  Usual   SessionRequests   DeviceRequests  => verification::show;
    patch  "/v1/verification/session/{id}"              Anyone            SMALL    Usual   SessionRequests   DeviceRequests  => verification::update;
    post   "/v1/verification/session/{id}/code"         Anyone            SMALL    Usual   CodesSent         DeviceRequests  => verification::send_code;
    put    "/v1/verification/session/{id}/code"         Anyone            SMALL    Usual   CodeTries         DeviceRequests  => verification::try_code;
    post   "/v1/registration"                           Number            SMALL    Usual   Registrations     DeviceRequests  => registration::register;

    get    "/v1/accounts/whoami"                        Device            NO_BODY  Usual   Requests          DeviceRequests  => accounts::whoami;
    get    "/v1/accounts/export"                        Primary           NO_BODY  Streams Requests          Exports         => export::export;
    put    "/v1/accounts/attributes"                    Device            SMALL    Usual   Requests          Changes         => accounts::set_attributes;
    delete "/v1/accounts/me"                            Device            NO_BODY  Usual   Requests          Changes         => accounts::delete;
    put    "/v1/accounts/name"                          Device            SMALL    Usual   Requests          Changes         => accounts::rename;
    put    "/v1/accounts/registration_lock"             Primary           SMALL    Usual   Requests          Changes         => accounts::set_registration_lock;
    delete "/v1/accounts/registration_lock"             Primary           NO_BODY  Usual   Requests          Changes         => accounts::clear_registration_lock;
    put    "/v1/accounts/gcm"                           Device            SMALL    Usual   Requests          Changes         => accounts::set_gcm;
    delete "/v1/accounts/gcm"                           Device            NO_BODY  Usual   Requests          Changes         => accounts::clear_push_token;
    put    "/v1/accounts/apn"                           Device            SMALL    Usual   Requests          Changes         => accounts::set_apn;
    delete "/v1/accounts/apn"                           Device            NO_BODY  Usual   Requests          Changes         => accounts::clear_push_token;
    head   "/v1/accounts/account/{id}"                  Anonymous         NO_BODY  Usual   Lookups           DeviceRequests  => accounts::exists;
    put    "/v2/accounts/phone_number_discoverability"  Device            SMALL    Usual   Requests          Changes         => accounts::set_discoverable;

    get    "/v1/blocks"                                 Device            NO_BODY  Usual   Requests          DeviceRequests  => blocks::count;
    put    "/v1/blocks/{id}"                            Device            NO_BODY  Usual   Requests          DataRequests    => blocks::block;
    delete "/v1/blocks/{id}"                            Device            NO_BODY  Usual   Requests          DataRequests    => blocks::unblock;
    delete "/v1/blocks"                                 Device            NO_BODY  Usual   Requests          DataRequests    => blocks::unblock_all;

    get    "/v1/devices"                                Device            NO_BODY  Usual   Requests          DeviceRequests  => devices::list;
    get    "/v1/devices/provisioning/code"              Primary           NO_BODY  Usual   Requests          Changes         => devices::link_code;
    put    "/v1/devices/link"                           LinkToken         SMALL    Usual   Links             Changes         => devices::link;
    put    "/v1/devices/capabilities"                   Device            SMALL    Usual   Requests          Changes         => devices::set_capabilities;
    put    "/v1/devices/password"                       Password          SMALL    Usual   Requests          PasswordChanges => password::change;
    delete "/v1/devices/{id}"                           Device            NO_BODY  Usual   Requests          Changes         => devices::remove;
    get    "/v1/devices/wait_for_linked_device/{token}" Device            NO_BODY  Waits   Requests          DeviceRequests  => devices::wait_for_linked;

    post   "/v1/auth/token"                             Password          NO_BODY  Usual   Requests          TokenSessions   => tokens::open;
    post   "/v1/auth/refresh"                           RefreshToken      SMALL    Usual   Refreshes         DeviceRequests  => tokens::refresh;
    post   "/v1/auth/revoke"                            RefreshToken      SMALL    Usual   Refreshes         DeviceRequests  => tokens::revoke;
    get    "/v1/auth/sessions"                          Device            NO_BODY  Usual   Requests          DeviceRequests  => tokens::list;
    delete "/v1/auth/sessions"                          Device            NO_BODY  Usual   Requests          Changes         => tokens::revoke_all;
    delete "/v1/auth/sessions/{id}"                     Device            NO_BODY  Usual   Requests          Changes         => tokens::revoke_one;
    get    "/.well-known/jwks.json"                     Anyone            NO_BODY  Usual   Requests          DeviceRequests  => tokens::jwks;

    put    "/v1/accounts/username_hash/reserve"         Device            SMALL    Usual   Requests          Changes         => usernames::reserve;
    put    "/v1/accounts/username_hash/confirm"         Device            SMALL    Usual   Requests          Changes         => usernames::take;
    delete "/v1/accounts/username_hash"                 Device            NO_BODY  Usual   Requests          Changes         => usernames::give_up;
    get    "/v1/accounts/username_hash/{hash}"          Anonymous         NO_BODY  Usual   Lookups           DeviceRequests  => usernames::find;
    put    "/v1/accounts/username_link"                 Device            SMALL    Usual   Requests          Changes         => usernames::set_link;
    delete "/v1/accounts/username_link"                 Device            NO_BODY  Usual   Requests          Changes         => usernames::drop_link;
    get    "/v1/accounts/username_link/{handle}"        Anonymous         NO_BODY  Usual   Lookups           DeviceRequests  => usernames::find_link;

    get    "/v1/data"                                   Device            NO_BODY  Usual   Requests          DataRequests    => account_data::changes;
    post   "/v1/data/batch"                             Device            BATCH    Usual   Requests          DataRequests    => account_data::batch;
    get    "/v1/data/{key}"                             Device            NO_BODY  Usual   Requests          DataRequests    => account_data::show;
    put    "/v1/data/{key}"                             Device            ENTRY    Usual   Requests          DataRequests    => account_data::put;
    delete "/v1/data/{key}"                             Device            NO_BODY  Usual   Requests          DataRequests    => account_data::delete;

    get    "/v2/keys"                                   Device            NO_BODY  Usual   Requests          DeviceRequests  => keys::count;
    put    "/v2/keys"                                   Device            KEYS     Usual   Requests          KeyUploads      => keys::publish;
    post   "/v2/keys/check"                             Device            SMALL    Usual   Requests          DeviceRequests  => keys::check;
    get    "/v2/keys/{target}/{device}"                 DeviceOrAccessKey NO_BODY  Usual   SealedKeyRequests KeyRequests     => keys::take;

    put    "/v1/profile"                                Device            SMALL    Usual   Requests          Changes         => profiles::publish;
    get    "/v1/profile/{target}"                       DeviceOrAccessKey NO_BODY  Usual   StrangersProfiles Profiles        => profiles::show;
    get    "/v1/profile/{target}/{version}"             DeviceOrAccessKey NO_BODY  Usual   StrangersProfiles Profiles        => profiles::show_version;
    get    "/v1/profile/{target}/{version}/{request}"   DeviceOrAccessKey NO_BODY  Usual   StrangersProfiles Profiles        => profiles::show_credential;
    post   "/v1/profile/identity_check/batch"           Anyone            CHECKS   Usual   Lookups           DeviceRequests  => profiles::check_identities;

    put    "/v1/provisioning/{address}"                 Device            LINKING  Usual   Requests          LinkMessages    => provisioning::hand_over;

    put    "/v1/messages/{destination}"                 DeviceOrAccessKey MESSAGES Usual   SealedSends       Sends           => messages::send;
    put    "/v1/messages/multi_recipient"               AccessKeys        FAN_OUT  Usual   FanOuts           DeviceRequests  => multi_recipient::send;
    get    "/v1/messages"                               Device            NO_BODY  Usual   Requests          DeviceRequests  => mailbox::fetch;
    delete "/v1/messages/uuid/{guid}"                   Device            NO_BODY  Usual   Requests          DeviceRequests  => mailbox::delete;
    post   "/v1/messages/report/{source}/{guid}"        Device            SMALL    Usual   Requests          Reports         => reports::report;

    get    "/v4/attachments/form/upload"                Device            NO_BODY  Usual   Requests          Uploads         => attachments::form;
    options "/upload/attachments"                       Anyone            NO_BODY  Streams UploadRequests    DeviceRequests  => tus::options;
    post   "/upload/attachments"                        UploadForm        UPLOAD   Streams UploadRequests    DeviceRequests  => tus::create;
    head   "/upload/attachments/{*upload}"              UploadForm        NO_BODY  Streams UploadRequests    DeviceRequests  => tus::progress;
    patch  "/upload/attachments/{*upload}"              UploadForm        UPLOAD   Streams UploadRequests    DeviceRequests  => tus::append;
    delete "/upload/attachments/{*upload}"              UploadForm        NO_BODY  Streams UploadRequests    DeviceRequests  => tus::remove;
    post   "/upload/attachments/{*upload}"              UploadForm        NO_BODY  Streams UploadRequests    DeviceRequests  => put_upload::open;
    put    "/upload/attachments/{*upload}"              UploadForm        UPLOAD   Streams UploadRequests    DeviceRequests  => put_upload::put;
    get    "/attachments/{*key}"                        Anyone            NO_BODY  Streams Downloads         DeviceRequests  => download::download;

    get    "/v2/config"                                 Device            NO_BODY  Usual   Requests          DeviceRequests  => remote_config::show;
    get    "/v2/calling/relays"                         Device            NO_BODY  Usual   Requests          DeviceRequests  => calling::relays;
    get    "/v1/storage/auth"                           Device            NO_BODY  Usual   Requests          DeviceRequests  => absent::service;
    get    "/v2/directory/auth"                         Device            NO_BODY  Usual   Requests          DeviceRequests  => absent::service;
    get    "/v2/svr/auth"                               Device            NO_BODY  Usual   Requests          DeviceRequests  => absent::service;
    get    "/v2/backup/auth"                            Device            NO_BODY  Usual   Requests          DeviceRequests  => absent::service;
    get    "/v1/certificate/delivery"                   Device            NO_BODY  Usual   Requests          DeviceRequests  => certificates::delivery;
    get    "/v1/certificate/auth/group"                 Device            NO_BODY  Usual   Requests          DeviceRequests  => absent::service;
    put    "/v1/challenge"                              Device            SMALL    Usual   Requests          DeviceRequests  => absent::challenge;
    post   "/v1/challenge/push"                         Device            SMALL    Usual   Requests          DeviceRequests  => absent::push_challenge;
}

/// All routes, ready to be served. Paths are taken with and without a trailing slash.
pub fn router(node: AppState, readiness: Readiness) -> Router {
    // The socket reaches the same routes as a plain request, and is itself no route inside.
    let inside = served(handlers(false), axum::Router::new(), &node);
    let upgrade = get(socket::upgrade)
        .connect(socket::upgrade)
        .with_state((node.clone(), inside));
    let provisioning = get(socket::provisioning::open)
        .connect(socket::provisioning::open)
        .with_state((node.clone(), inside_provisioning(&node)));
    let others = health::router(readiness)
        .route("/v1/websocket", upgrade)
        .route("/v1/websocket/provisioning", provisioning);
    let plain = served(handlers(false).merge(handlers(true)), others, &node);
    axum::Router::new().fallback_service(slash_insensitive(plain))
}

/// What may be asked inside the socket of a device that is about to be linked.
fn inside_provisioning(node: &AppState) -> Router {
    let keepalive = axum::Router::new().route("/v1/keepalive/provisioning", get(socket::provisioning::keepalive));
    served(axum::Router::new(), keepalive, node)
}

/// Has paths taken with and without a trailing slash.
pub(super) fn slash_insensitive(routes: Router) -> NormalizePath<Router> {
    NormalizePathLayer::trim_trailing_slash().layer(routes)
}

/// The handlers of the list with their state, and beside them what is not on it and has no limits.
fn served(listed: axum::Router<AppState>, others: Router, node: &AppState) -> Router {
    let others = others
        .method_not_allowed_fallback(async || METHOD_NOT_ALLOWED)
        .layer(from_fn_with_state(node.clone(), without_limits));
    listed
        .fallback(Around::nowhere(async || ApiError::not_found()))
        .method_not_allowed_fallback(Around::nowhere(async || METHOD_NOT_ALLOWED))
        .with_state(node.clone())
        .merge(others)
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

/// The server's time, for clients that cannot see headers.
async fn time(State(node): State<AppState>) -> Json<TimeOut> {
    Json(TimeOut {
        timestamp: node.clock.now().0,
    })
}

const METHOD_NOT_ALLOWED: ApiError = ApiError::new(
    StatusCode::METHOD_NOT_ALLOWED,
    "method_not_allowed",
    "this path has no such method",
);
/// The longest that an ordinary answer takes, the arrival of the body included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const NO_BODY: usize = 1024;
/// Registration is the largest of these, at about 6 kB.
const SMALL: usize = 32 * 1024;
/// 1000 service ids and fingerprints are 76 kB, and some clients write spaces.
const CHECKS: usize = 128 * 1024;
/// 100 EC and 101 Kyber keys with signatures are 232 kB in base64.
const KEYS: usize = 512 * 1024;
/// 256 KiB in base64 with line breaks are 359 kB.
const LINKING: usize = 512 * 1024;
/// 256 KiB, the most that may be allowed, in base64 are 350 kB.
const ENTRY: usize = 512 * 1024;
/// Ten entries of the usual 64 KiB in base64 are 874 kB.
const BATCH: usize = 1024 * 1024;
/// 96 KiB for each of 6 devices, in base64, is 790 kB.
const MESSAGES: usize = 1024 * 1024;
/// What an attachment may have is a setting, and its handlers keep to it.
const UPLOAD: usize = 1 << 40;
/// 256 KiB that all recipients share, their keys, and 100 bytes for each of 5000 recipients.
const FAN_OUT: usize = 256 * 1024 + 32 + 5000 * 100;
