//! `/v1/verification/session`: a client proves a number, or what the operator's policy asks for in place of that.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::accounts::{Asked, CodeRefused, Sent, SessionId, Transport, Worked, whole_seconds};
use crate::domain::{NumberHash, VerificationSession};
use crate::limits::{Limit, Limits, Refused};

use super::error::ApiError;
use super::extract::{JsonBody, PathParams};
use super::state::{AppState, Node};
use super::wire::registration::{
    CodeIn, CodeRequestIn, NotDeliveredOut, SessionIn, SessionOut, SessionUpdateIn, malformed_number,
};

/// `POST /v1/verification/session`
pub(super) async fn open(
    State(node): State<AppState>,
    JsonBody(body): JsonBody<SessionIn>,
) -> Result<Json<SessionOut>, ApiError> {
    if node.verifier.is_closed() {
        return Err(ApiError::forbidden(
            "registration_closed",
            "this server takes no registrations",
        ));
    }
    let contact = body.contact()?;
    if !node.verifier.may_verify(&contact) {
        return Err(malformed_number());
    }
    let (id, session) = node.verifier.open(&contact).await?;
    Ok(Json(shown(&node, &id, &session)))
}

/// `PATCH /v1/verification/session/{id}`: the answer to a challenge, of which there is one kind.
pub(super) async fn update(
    State(node): State<AppState>,
    PathParams(id): PathParams<String>,
    JsonBody(body): JsonBody<SessionUpdateIn>,
) -> Result<Response, ApiError> {
    let (id, session) = find(&node, &id).await?;
    let Some(nonce) = body.captcha else {
        return Ok(Json(shown(&node, &id, &session)).into_response());
    };
    match node.verifier.work(&id, session, &nonce).await? {
        Worked::Done(session) => Ok(Json(shown(&node, &id, &session)).into_response()),
        Worked::Wrong(session) => Ok(with(StatusCode::FORBIDDEN, &node, &id, &session)),
        Worked::Gone => Err(ApiError::not_found()),
    }
}

/// `GET /v1/verification/session/{id}`
pub(super) async fn show(
    State(node): State<AppState>,
    PathParams(id): PathParams<String>,
) -> Result<Json<SessionOut>, ApiError> {
    let (id, session) = find(&node, &id).await?;
    Ok(Json(shown(&node, &id, &session)))
}

/// `POST /v1/verification/session/{id}/code`
///
/// The answer waits until somebody carries the code on, so that a client learns what became of it, and leaves on the tick.
/// Whether the number has an account is not looked at, so the time tells of the carrier alone.
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
    if !node.verifier.standing(&id, &session).open {
        return Ok(with(StatusCode::CONFLICT, &node, &id, &session));
    }
    let outgoing = match node.verifier.ask(&id, &session, transport) {
        Asked::Nothing => return Ok(with(StatusCode::OK, &node, &id, &session)),
        Asked::Transport => return Ok(with(StatusCode::IM_A_TEAPOT, &node, &id, &session)),
        Asked::TooSoon(wait) => return Ok(refused(&node, &id, &session, TOO_SOON, wait)),
        Asked::May(outgoing) => outgoing,
    };
    if let Err(over) = may_be_sent(&node.limits, &session.number).await {
        return Ok(refused(&node, &id, &session, TOO_SOON, over.retry_after));
    }
    match node.pace.answer(node.verifier.send(&id, &outgoing)).await? {
        Sent::Done(session) => Ok(with(StatusCode::OK, &node, &id, &session)),
        Sent::TooLate(session) => match node.verifier.ask(&id, &session, transport) {
            Asked::TooSoon(wait) => Ok(refused(&node, &id, &session, TOO_SOON, wait)),
            _ => Ok(with(StatusCode::CONFLICT, &node, &id, &session)),
        },
        Sent::Refused(CodeRefused::Rejected, _) => Ok(not_delivered("providerRejected", true)),
        Sent::Refused(CodeRefused::Unavailable, _) => Ok(not_delivered("providerUnavailable", false)),
        Sent::Refused(CodeRefused::Busy, _) => {
            Err(ApiError::unavailable("too many codes are being sent").after(BUSY_SECS))
        }
        Sent::Gone => Err(ApiError::not_found()),
    }
}

/// `PUT /v1/verification/session/{id}/code`. A wrong code is a success that leaves the session unverified; after too many
/// the right one is refused like any other.
pub(super) async fn try_code(
    State(node): State<AppState>,
    PathParams(id): PathParams<String>,
    JsonBody(body): JsonBody<CodeIn>,
) -> Result<Response, ApiError> {
    let (id, session) = find(&node, &id).await?;
    if let Some(answer) = without_a_try(&node, &id, &session) {
        return Ok(answer);
    }
    let tried = node.verifier.try_code(&id, &session, &body.code).await?;
    let tried = tried.ok_or(ApiError::not_found())?;
    if tried.counted {
        return Ok(with(StatusCode::OK, &node, &id, &tried.session));
    }
    // Others were quicker: they verified it, or used up its tries.
    Ok(without_a_try(&node, &id, &tried.session)
        .unwrap_or_else(|| with(StatusCode::CONFLICT, &node, &id, &tried.session)))
}

/// What is answered where no code may be tried.
fn without_a_try(node: &Node, id: &SessionId, session: &VerificationSession) -> Option<Response> {
    if session.is_locked() {
        let left = node.verifier.left(session);
        return Some(refused(node, id, session, LOCKED, left));
    }
    let open = node.verifier.standing(id, session).open && node.verifier.takes_codes(session);
    (!open).then(|| with(StatusCode::CONFLICT, node, id, session))
}

/// Counts a code for the number, whoever asks for it and in how many sessions.
async fn may_be_sent(limits: &Limits, number: &NumberHash) -> Result<(), Refused> {
    for limit in [Limit::CodeOfNumber, Limit::CodesOfNumber] {
        limits.check(limit, &[&number.0]).await?;
    }
    Ok(())
}

async fn find(node: &Node, id: &str) -> Result<(SessionId, VerificationSession), ApiError> {
    let id = SessionId::parse(id).ok_or(ApiError::bad_request(
        "session_id",
        "this is not the id of a verification session",
    ))?;
    let session = node.verifier.find(&id).await?.ok_or(ApiError::not_found())?;
    Ok((id, session))
}

fn shown(node: &Node, id: &SessionId, session: &VerificationSession) -> SessionOut {
    SessionOut::new(id, session.verified, node.verifier.standing(id, session))
}

fn with(status: StatusCode, node: &Node, id: &SessionId, session: &VerificationSession) -> Response {
    (status, Json(shown(node, id, session))).into_response()
}

/// Clients wait as long as the header says, and then begin where they stopped.
fn refused(
    node: &Node,
    id: &SessionId,
    session: &VerificationSession,
    (code, message): (&'static str, &'static str),
    wait: Duration,
) -> Response {
    let body = Json(shown(node, id, session).refused(code, message));
    let wait = HeaderValue::from(whole_seconds(wait).max(1));
    (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, wait)], body).into_response()
}

fn not_delivered(reason: &'static str, permanent_failure: bool) -> Response {
    let body = Json(NotDeliveredOut {
        reason,
        permanent_failure,
    });
    (not_delivered_status(), body).into_response()
}

/// No status of HTTP; clients know it.
fn not_delivered_status() -> StatusCode {
    StatusCode::from_u16(440).expect("it has three digits")
}

const TOO_SOON: (&str, &str) = (
    "rate_limited",
    "a code was sent just now, or too many today; the header Retry-After says in how many seconds to ask again",
);
const LOCKED: (&str, &str) = (
    "otp_locked",
    "too many wrong codes were tried; begin another session, or wait until this one is gone",
);
const BUSY_SECS: u64 = 5;

#[cfg(test)]
mod tests;
