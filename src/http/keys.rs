//! `/v2/keys`: the key directory.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use keys_schema::repeated_use_digest;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::directory;
use crate::domain::{BundleSelector, IdentityKind, Published, ServiceId};
use crate::limits::Limit;
use crate::telemetry::metrics;

use super::error::ApiError;
use super::extract::{Caller, JsonBody, OptionalCaller, PathParams, QueryParams, RawBody, device_id, service_id};
use super::idempotency::idempotency_key;
use super::key_claims::{Claim, requester};
use super::reach::reach_on_tick;
use super::state::AppState;
use super::wire::forms::IdentityText;
use super::wire::keys::{KeyCheckIn, KeyCountOut, identity_kind, parse_key_upload};

/// `?identity=`
#[derive(Deserialize, JsonSchema)]
pub(super) struct IdentityQuery {
    /// `aci`, which is the default, or `pni`.
    #[schemars(with = "Option<IdentityText>")]
    identity: Option<String>,
}

/// `PUT /v2/keys`
pub(super) async fn publish(
    State(node): State<AppState>,
    QueryParams(query): QueryParams<IdentityQuery>,
    Caller(caller): Caller,
    RawBody(body): RawBody,
) -> Result<StatusCode, ApiError> {
    let kind = identity_kind(query.identity.as_deref())?;
    let upload = parse_key_upload(&body)?;
    let account = node.relay.accounts.find(&ServiceId::Aci(caller.address.aci)).await?;
    let account = account.ok_or(ApiError::unauthorized())?;
    let identity = *account.identity(kind);
    // Up to 200 signatures: milliseconds of arithmetic that other requests of this thread should not wait for.
    let upload = tokio::task::spawn_blocking(move || directory::check_upload(&identity, &upload).map(|()| upload))
        .await
        .map_err(|_| ApiError::unavailable("a key check was cancelled"))??;
    match node.storage.keys.publish(&caller.actor(), kind, &upload).await? {
        Published::Done(spent) => {
            metrics::spent_keys_uploaded("same", spent);
            Ok(StatusCode::NO_CONTENT)
        }
        Published::Gone => Err(ApiError::unauthorized()),
        Published::SpentId => {
            metrics::spent_keys_uploaded("other", 1);
            Err(SPENT_ID)
        }
    }
}

/// `GET /v2/keys`
pub(super) async fn count(
    State(node): State<AppState>,
    QueryParams(query): QueryParams<IdentityQuery>,
    Caller(caller): Caller,
) -> Result<Json<KeyCountOut>, ApiError> {
    let kind = identity_kind(query.identity.as_deref())?;
    let left = node.storage.keys.count(caller.address, kind).await?;
    Ok(Json(KeyCountOut {
        count: left.ec,
        pq_count: left.kyber,
    }))
}

/// `POST /v2/keys/check`: does the client know the same repeated-use keys?
pub(super) async fn check(
    State(node): State<AppState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<KeyCheckIn>,
) -> Result<StatusCode, ApiError> {
    let kind = identity_kind(Some(&body.identity_type))?;
    if body.digest.0.len() != DIGEST_BYTES {
        return Err(ApiError::unprocessable("digest", "a digest has 32 bytes"));
    }
    let account = node.relay.accounts.find(&ServiceId::Aci(caller.address.aci)).await?;
    let account = account.ok_or(ApiError::unauthorized())?;
    let keys = node.storage.keys.find_signed(caller.address, kind).await?;
    let same = keys.is_some_and(|keys| {
        repeated_use_digest(account.identity(kind), &keys.signed, &keys.last_resort)[..] == body.digest.0[..]
    });
    Ok(if same { StatusCode::OK } else { StatusCode::CONFLICT })
}

/// `GET /v2/keys/{serviceId}/{deviceId}`, where the device may be `*` for all.
pub(super) async fn take(
    State(node): State<AppState>,
    method: Method,
    PathParams((target, device)): PathParams<(String, String)>,
    OptionalCaller(caller): OptionalCaller,
    extensions: Extensions,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if method == Method::HEAD {
        // Routes answer HEAD as GET without the body. Here that would spend keys on nobody.
        return Err(ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "keys are taken with GET",
        ));
    }
    let target = service_id(&target)?;
    let selector = match device.as_str() {
        "*" => BundleSelector::All,
        device => BundleSelector::One(device_id(device)?),
    };
    let retry = idempotency_key(&headers)?;
    let account = reach_on_tick(&node, &target, caller.as_ref(), &headers).await?;
    let requester = requester(&node, &target, &account, caller.as_ref(), &headers, &extensions).await?;
    let subject: [&[u8]; 2] = [&requester.name, account.aci.as_bytes()];
    node.limits.check(Limit::KeyFetches, &subject).await?;
    let claim = Claim {
        node,
        account,
        kind: IdentityKind::from(&target),
        selector,
        requester,
    };
    let bundles = match retry {
        None => claim.take().await?,
        Some(retry) => claim.take_once(caller.as_ref(), retry).await?,
    };
    // A stranger is not told which devices there are.
    let bundles = bundles.ok_or_else(|| {
        if caller.is_some() {
            ApiError::not_found()
        } else {
            ApiError::unauthorized()
        }
    })?;
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((json, bundles).into_response())
}

const SPENT_ID: ApiError = ApiError::new(
    StatusCode::CONFLICT,
    "key_id_spent",
    "a one-time key has the id of another one that was handed out; give it a new id",
);
const DIGEST_BYTES: usize = 32;
