//! Requests to types: who is calling, what they sent.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use crate::auth::{Authenticated, BasicCredentials, BasicUser, Credentials, Proven};
use crate::domain::{AccessKey, Account, DeviceId, ServiceId};
use crate::encoding::BASE64;
use crate::relay::drain::QueueOpener;

use super::error::ApiError;
use super::network::Network;
use super::rate;
use super::seen;
use super::state::AppState;

/// The caller is this device. A handler without it has no address to act for.
pub(super) struct Caller(pub(super) Authenticated);

/// The caller may be a device. Wrong credentials count as none, as the wire has it.
pub(super) struct OptionalCaller(pub(super) Option<Authenticated>);

/// How a request came through a WebSocket, in the request's extensions. Its principal was fixed when the socket was
/// opened; no header of the request changes it.
#[derive(Clone)]
pub(super) struct Tunnelled {
    /// The socket.
    pub(super) socket: Arc<Opened>,
    /// How long the request's body may be, in bytes.
    pub(super) max_body: usize,
}

/// What all requests of one socket have from its upgrade.
pub(super) struct Opened {
    /// The socket's device, if it has one.
    pub(super) principal: Option<Arc<Authenticated>>,
    /// What opens its queue.
    pub(super) opener: Option<QueueOpener>,
    /// Under which URL the socket was opened, if that is known.
    pub(super) origin: Option<Arc<str>>,
    /// From which network, if that is known.
    pub(super) network: Option<Network>,
}

impl FromRequestParts<AppState> for OptionalCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let asking = asking(parts, state).await?;
        Ok(Self(asking.map(|asking| asking.device)))
    }
}

/// A device that asks.
struct Asking {
    device: Authenticated,
    shown: Shown,
    /// Its account, if this request came whole: nothing that was found out about the caller waited for its body.
    account: Option<Arc<Account>>,
}

/// What it has shown.
enum Shown {
    /// With this request.
    Here(Proven),
    /// When its socket was opened.
    AtTheUpgrade(Option<QueueOpener>),
}

/// The device that asks, if one does; counted as whom it is.
async fn asking(parts: &Parts, state: &AppState) -> Result<Option<Asking>, ApiError> {
    if let Some(tunnelled) = parts.extensions.get::<Tunnelled>() {
        let Some(principal) = &tunnelled.socket.principal else {
            return Ok(None);
        };
        // The socket is closed when its device goes; a request may be quicker than that.
        let account = state.authenticator.standing(principal).await?;
        // Counted before: what is around the routes knows whose socket it is.
        return Ok(account.map(|account| Asking {
            device: Authenticated::clone(principal),
            shown: Shown::AtTheUpgrade(tunnelled.socket.opener.clone()),
            account: Some(account),
        }));
    }
    let Some(header) = parts.headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    // What is not meant for us, as a number's password, or malformed, was counted as a stranger's if it has no place here;
    // with credentials that say nothing it is counted now.
    let credentials = match Credentials::parse(header.as_bytes()) {
        Ok(Credentials::Basic(basic)) if !matches!(basic.user, BasicUser::Device(_)) => None,
        parsed => parsed.ok(),
    };
    let Some(credentials) = credentials else {
        rate::refused(state, &parts.extensions).await?;
        return Ok(None);
    };
    let proven = state.authenticator.prove_device(credentials);
    let proven = state
        .pace
        .answer_if(proven, |proven| !matches!(proven, Ok(Some(_))))
        .await?;
    let Some(proven) = proven else {
        rate::refused(state, &parts.extensions).await?;
        return Ok(None);
    };
    rate::proven(state, &parts.extensions, proven.device.address).await?;
    seen::by_request(state, &proven.device);
    Ok(Some(Asking {
        device: proven.device.clone(),
        shown: Shown::Here(proven),
        account: None,
    }))
}

/// As [`OptionalCaller`], with the caller's account if that was looked at when the whole request was here.
pub(super) struct OptionalSender(pub(super) Option<(Authenticated, Option<Arc<Account>>)>);

impl FromRequestParts<AppState> for OptionalSender {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let asking = asking(parts, state).await?;
        Ok(Self(asking.map(|asking| (asking.device, asking.account))))
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let OptionalCaller(caller) = OptionalCaller::from_request_parts(parts, state).await?;
        caller.map(Self).ok_or(ApiError::unauthorized())
    }
}

/// The caller is this device, and reads its queue.
pub(super) struct Reader(pub(super) Authenticated, pub(super) QueueOpener);

impl FromRequestParts<AppState> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let asking = asking(parts, state).await?.ok_or(ApiError::unauthorized())?;
        let opener = match asking.shown {
            Shown::Here(proven) => Some(QueueOpener::new(&proven.queue_key())),
            Shown::AtTheUpgrade(opener) => opener,
        };
        Ok(Self(asking.device, opener.ok_or(ApiError::unauthorized())?))
    }
}

/// The caller is this device, and has shown its password: a token is not enough to change the password, or to open a session
/// that would outlive it.
pub(super) struct ByPassword(pub(super) Authenticated, pub(super) QueueOpener);

impl FromRequestParts<AppState> for ByPassword {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Reader(caller, opener) = Reader::from_request_parts(parts, state).await?;
        match caller.session {
            None => Ok(Self(caller, opener)),
            Some(_) => Err(ApiError::forbidden(
                "password_needed",
                "this is asked with the device's password, not with a token",
            )),
        }
    }
}

/// The caller is the primary device of its account.
pub(super) struct PrimaryCaller(pub(super) Authenticated);

impl FromRequestParts<AppState> for PrimaryCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Caller(caller) = Caller::from_request_parts(parts, state).await?;
        if caller.address.device_id == DeviceId::PRIMARY {
            Ok(Self(caller))
        } else {
            Err(ApiError::unauthorized())
        }
    }
}

/// The caller does not say who it is. Wrong credentials say as little as none.
pub(super) struct Stranger;

impl FromRequestParts<AppState> for Stranger {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        match OptionalCaller::from_request_parts(parts, state).await? {
            OptionalCaller(None) => Ok(Self),
            OptionalCaller(Some(_)) => Err(ApiError::bad_request("anonymous_only", "ask this without credentials")),
        }
    }
}

/// Refuses a caller that has been replaced since it was authenticated. To be called once a body has arrived.
pub(super) async fn confirm(node: &AppState, caller: &Authenticated) -> Result<(), ApiError> {
    if node.authenticator.confirm(caller).await? {
        Ok(())
    } else {
        Err(ApiError::unauthorized())
    }
}

/// The Basic credentials of a request; `None` if there are none or they are malformed.
pub(super) fn basic(headers: &HeaderMap) -> Option<BasicCredentials> {
    BasicCredentials::parse(headers.get(AUTHORIZATION)?.as_bytes()).ok()
}

/// The parameters of a path.
pub(super) struct PathParams<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for PathParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(params)| Self(params))
            .map_err(|_| ApiError::bad_request("malformed_path", "the path is not UTF-8"))
    }
}

/// The parameters of a query.
pub(super) struct QueryParams<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(params)| Self(params))
            .map_err(|_| ApiError::bad_request("malformed_query", "a parameter of the query is not of its form"))
    }
}

/// A body as it came.
pub(super) struct RawBody(pub(super) Bytes);

impl FromRequest<AppState> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        // What came through a socket is here as a whole.
        if let Some(Tunnelled { max_body, .. }) = request.extensions().get() {
            let max_body = *max_body;
            let bytes = collect(request.into_body()).await.map_err(|_| BODY_INCOMPLETE)?;
            return if bytes.len() <= max_body {
                Ok(Self(bytes))
            } else {
                Err(BODY_TOO_LARGE)
            };
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                BODY_TOO_LARGE
            } else {
                BODY_INCOMPLETE
            }
        })?;
        Ok(Self(bytes))
    }
}

/// A JSON body.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<AppState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let RawBody(bytes) = RawBody::from_request(request, state).await?;
        parse_json(&bytes).map(Self)
    }
}

/// Parses JSON. What is no JSON at all is a bad request; JSON of another shape is unprocessable.
pub(super) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        if error.is_data() {
            ApiError::unprocessable(
                "unexpected_json",
                "a field of the body is missing or not of the right form",
            )
        } else {
            ApiError::bad_request("malformed_json", "the body is not JSON")
        }
    })
}

/// The service id of a path. One that cannot be parsed names nothing.
pub(super) fn service_id(text: &str) -> Result<ServiceId, ApiError> {
    ServiceId::parse(text).map_err(|_| ApiError::not_found())
}

/// The device id of a path.
pub(super) fn device_id(text: &str) -> Result<DeviceId, ApiError> {
    DeviceId::parse(text).map_err(|_| ApiError::unprocessable("device_id", "device ids run from 1 to 127"))
}

/// What a request shows in order to reach an account without an account of its own.
pub(super) struct AnonymousAccess {
    /// The access key, if the header is there and holds one.
    pub(super) key: Option<AccessKey>,
    /// The header for an access key is there.
    pub(super) has_key: bool,
    /// A group send token is shown.
    pub(super) group_token: bool,
}

impl AnonymousAccess {
    /// Reads the headers. A malformed key opens as little as none.
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        let shown = headers.get(ACCESS_KEY);
        let key = shown
            .and_then(|value| BASE64.decode(value.as_bytes()).ok())
            .and_then(|key| key.try_into().ok());
        Self {
            key: key.map(AccessKey),
            has_key: shown.is_some(),
            group_token: headers.contains_key(GROUP_TOKEN),
        }
    }
}

impl FromRequestParts<AppState> for AnonymousAccess {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Infallible> {
        Ok(Self::from_headers(&parts.headers))
    }
}

/// The whole body. One in a single piece is not copied.
pub(super) async fn collect(mut body: Body) -> Result<Bytes, axum::Error> {
    let mut whole = Bytes::new();
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame?.into_data() {
            whole = if whole.is_empty() {
                piece
            } else {
                [whole, piece].concat().into()
            };
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(whole)
}

const BODY_INCOMPLETE: ApiError = ApiError::bad_request("body_incomplete", "the body did not arrive whole");
const BODY_TOO_LARGE: ApiError = ApiError::new(
    StatusCode::PAYLOAD_TOO_LARGE,
    "body_too_large",
    "the body is larger than this route takes",
);
const ACCESS_KEY: &str = "unidentified-access-key";
const GROUP_TOKEN: &str = "group-send-token";
