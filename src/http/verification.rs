//! `/v1/verification/session`: a client proves a number.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::accounts::{CodeRefused, SessionId, Transport};
use crate::auth::Number;
use crate::domain::{MAX_ATTEMPTS, VerificationSession};

use super::error::ApiError;
use super::extract::{JsonBody, PathParams};
use super::state::{AppState, Node};
use super::wire::registration::{CodeIn, CodeRequestIn, SessionIn, SessionOut, SessionUpdateIn};

/// `POST /v1/verification/session`
pub(super) async fn open(
    State(node): State<AppState>,
    JsonBody(body): JsonBody<SessionIn>,
) -> Result<Json<SessionOut>, ApiError> {
    if !node.registration_open {
        return Err(ApiError::forbidden(
            "registration_closed",
            "this server takes no registrations",
        ));
    }
    let number =
        Number::parse(&body.number).map_err(|_| ApiError::bad_request("number", "a number is + and 5 to 15 digits"))?;
    let (id, session) = node.verifier.open(&number).await?;
    Ok(Json(SessionOut::new(&id, &session)))
}

/// `PATCH /v1/verification/session/{id}`: answers to challenges. None are asked for, so none are looked at.
pub(super) async fn update(
    State(node): State<AppState>,
    PathParams(id): PathParams<String>,
    JsonBody(_): JsonBody<SessionUpdateIn>,
) -> Result<Json<SessionOut>, ApiError> {
    show(State(node), PathParams(id)).await
}

/// `GET /v1/verification/session/{id}`
pub(super) async fn show(
    State(node): State<AppState>,
    PathParams(id): PathParams<String>,
) -> Result<Json<SessionOut>, ApiError> {
    let (id, session) = find(&node, &id).await?;
    Ok(Json(SessionOut::new(&id, &session)))
}

/// `POST /v1/verification/session/{id}/code`
pub(super) async fn send_code(
    State(node): State<AppState>,
    PathParams(id): PathParams<String>,
    JsonBody(body): JsonBody<CodeRequestIn>,
) -> Result<Response, ApiError> {
    let transport = match body.transport.as_str() {
        "sms" => Transport::Sms,
        "voice" => Transport::Voice,
        _ => return Err(ApiError::unprocessable("transport", "a code is sent by sms or voice")),
    };
    let (id, session) = find(&node, &id).await?;
    if session.verified || session.attempts >= MAX_ATTEMPTS {
        return Ok((StatusCode::CONFLICT, Json(SessionOut::new(&id, &session))).into_response());
    }
    match node.verifier.send_code(&id, &session, transport).await {
        Ok(()) => Ok(Json(SessionOut::new(&id, &session)).into_response()),
        Err(CodeRefused::Transport) => {
            Ok((StatusCode::IM_A_TEAPOT, Json(SessionOut::new(&id, &session))).into_response())
        }
        Err(CodeRefused::Unavailable) => Err(ApiError::unavailable("no code could be sent")),
    }
}

/// `PUT /v1/verification/session/{id}/code`. A wrong code is a success that leaves the session unverified.
pub(super) async fn try_code(
    State(node): State<AppState>,
    PathParams(id): PathParams<String>,
    JsonBody(body): JsonBody<CodeIn>,
) -> Result<Response, ApiError> {
    let (id, session) = find(&node, &id).await?;
    if session.verified || session.attempts >= MAX_ATTEMPTS {
        return Ok((StatusCode::CONFLICT, Json(SessionOut::new(&id, &session))).into_response());
    }
    let session = node
        .verifier
        .try_code(&id, &session, &body.code)
        .await?
        .ok_or(ApiError::not_found())?;
    Ok(Json(SessionOut::new(&id, &session)).into_response())
}

async fn find(node: &Node, id: &str) -> Result<(SessionId, VerificationSession), ApiError> {
    let id = SessionId::parse(id).ok_or(ApiError::bad_request(
        "session_id",
        "this is not the id of a verification session",
    ))?;
    let session = node.verifier.find(&id).await?.ok_or(ApiError::not_found())?;
    Ok((id, session))
}
