//! `/v1/auth`: sessions with tokens, beside the passwords of devices.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{Extensions, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::auth::{Refreshed, TokenError};
use crate::domain::{Aci, Notice, ServiceId, TokenSessionId};
use crate::limits::Limit;
use crate::telemetry::metrics;
use crate::wakeup::Hint;

use super::error::ApiError;
use super::extract::{ByPassword, Caller, JsonBody, PathParams, RawBody, confirm};
use super::idempotency::idempotency_key;
use super::rate;
use super::state::{AppState, Node};
use super::wire::tokens::{JwksOut, RefreshIn, TokenSessionOut, TokenSessionsOut, TokensOut, session_id};

/// `POST /v1/auth/token`: a session of the calling device, for its password.
pub(super) async fn open(
    State(node): State<AppState>,
    ByPassword(caller, opener): ByPassword,
    // Not looked at, but for its length.
    RawBody(_): RawBody,
) -> Result<Response, ApiError> {
    let opened = node.tokens.open(&caller, &opener.key()).await?;
    let opened = opened.ok_or(ApiError::unauthorized())?;
    end(&node, &opened.dropped);
    metrics::token("issued");
    Ok(tokens(opened.issued.into()))
}

/// `POST /v1/auth/refresh`: the next tokens of a session, for its refresh token.
pub(super) async fn refresh(
    State(node): State<AppState>,
    headers: HeaderMap,
    extensions: Extensions,
    JsonBody(body): JsonBody<RefreshIn>,
) -> Result<Response, ApiError> {
    let again = idempotency_key(&headers)?;
    if let Some(device) = node.tokens.device_of(&body.refresh_token) {
        rate::of_device(&node, Limit::DeviceRefreshes, device).await?;
    }
    let refreshing = Arc::clone(&node);
    // On a task of its own: when the client goes away, a session that was found with a thief is still ended everywhere.
    let work = node.tasks.spawn(async move {
        let refreshed = refreshing.tokens.refresh(&body.refresh_token, again.as_deref()).await?;
        if let Refreshed::Reused { session, account } = &refreshed {
            reused(&refreshing, *session, *account).await;
        }
        Ok::<_, ApiError>(refreshed)
    });
    let work = async { work.await.map_err(|_| ApiError::unavailable("a refresh panicked"))? };
    let refused = |refreshed: &Result<Refreshed, _>| !matches!(refreshed, Ok(Refreshed::Done(_)));
    match node.pace.answer_if(work, refused).await? {
        Refreshed::Done(issued) => {
            metrics::token("refreshed");
            Ok(tokens(issued.into()))
        }
        Refreshed::Reused { .. } | Refreshed::Refused => {
            rate::of_network(&node, Limit::FailedLogins, &extensions).await?;
            Err(ApiError::unauthorized())
        }
    }
}

/// `POST /v1/auth/revoke`: ends the session of a refresh token.
pub(super) async fn revoke(
    State(node): State<AppState>,
    extensions: Extensions,
    JsonBody(body): JsonBody<RefreshIn>,
) -> Result<StatusCode, ApiError> {
    let ended = node.tokens.end(&body.refresh_token);
    match node
        .pace
        .answer_if(ended, |ended| !matches!(ended, Ok(Some(_))))
        .await?
    {
        Some(session) => {
            end(&node, &[session]);
            metrics::token("revoked");
            Ok(StatusCode::NO_CONTENT)
        }
        None => {
            rate::of_network(&node, Limit::FailedLogins, &extensions).await?;
            Err(ApiError::unauthorized())
        }
    }
}

/// `GET /v1/auth/sessions`: those of the calling device; for a primary those of the account.
pub(super) async fn list(
    State(node): State<AppState>,
    Caller(caller): Caller,
) -> Result<Json<TokenSessionsOut>, ApiError> {
    let sessions = node.tokens.list(&caller.actor()).await?;
    let described = sessions
        .iter()
        .map(|session| TokenSessionOut::new(session, caller.session));
    Ok(Json(TokenSessionsOut {
        sessions: described.collect(),
    }))
}

/// `DELETE /v1/auth/sessions`: ends all of those.
pub(super) async fn revoke_all(State(node): State<AppState>, Caller(caller): Caller) -> Result<StatusCode, ApiError> {
    confirm(&node, &caller).await?;
    let ended = node.tokens.revoke(&caller.actor(), None).await?;
    end(&node, &ended);
    ended.iter().for_each(|_| metrics::token("revoked"));
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/auth/sessions/{id}`: ends one of those. One that is not there is as good as ended.
pub(super) async fn revoke_one(
    State(node): State<AppState>,
    Caller(caller): Caller,
    PathParams(id): PathParams<String>,
) -> Result<StatusCode, ApiError> {
    let id = session_id(&id)?;
    confirm(&node, &caller).await?;
    let ended = node.tokens.revoke(&caller.actor(), Some(id)).await?;
    end(&node, &ended);
    ended.iter().for_each(|_| metrics::token("revoked"));
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /.well-known/jwks.json`: the keys that verify access tokens now.
pub(super) async fn jwks(State(node): State<AppState>) -> Response {
    let keys = Json(JwksOut::new(node.tokens.keys.published()));
    ([(CACHE_CONTROL, JWKS_CACHED)], keys).into_response()
}

/// Has every node forget sessions that are over, and end their sockets. To be called after the change is durable.
pub(super) fn end(node: &Node, ids: &[TokenSessionId]) {
    for id in ids {
        node.tokens.sessions.over(*id);
    }
    if !ids.is_empty() {
        node.relay
            .bus
            .publish(ids.iter().map(|id| Hint::SessionOver(*id)).collect());
    }
}

/// A used refresh token was shown: somebody has what another has. Its session is over by now, and the devices of the
/// account are told.
async fn reused(node: &AppState, session: TokenSessionId, account: Aci) {
    end(node, &[session]);
    metrics::token("reused");
    match node.relay.accounts.find(&ServiceId::Aci(account)).await {
        Ok(account) => {
            for device in account.iter().flat_map(|account| &account.devices) {
                node.relay.notify(device.mailbox, Notice::SessionRevoked);
            }
        }
        // The session is over in any case, and its device finds out.
        Err(error) => tracing::warn!(
            cause = error.log_safe_cause(),
            "devices could not be told of a revoked session"
        ),
    }
}

/// Nobody on the way keeps tokens.
fn tokens(tokens: TokensOut) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(tokens)).into_response()
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Storage(error) => error.into(),
            TokenError::NoKey => Self::unavailable("there is no key that signs tokens"),
        }
    }
}

/// Less than the minute within which a key may have to be dead.
const JWKS_CACHED: &str = "public, max-age=30";
