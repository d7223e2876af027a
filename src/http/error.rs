//! The one place where failures become responses.
//!
//! A body is `{"code": …, "message": …}`: a stable code for programs, a sentence for people, nothing from what failed
//! inside. Failures of ours are logged here, once; those of a client are counted, not logged.

use std::borrow::Cow;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::directory::{KeysRefused, KeysUnavailable};
use crate::limits::Refused;
use crate::relay::writer::QueueUnavailable;
use crate::storage::StorageError;

/// A request that did not succeed.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
    retry_after_secs: Option<u64>,
    /// For the log, never for the client.
    cause: Option<Cow<'static, str>>,
}

impl ApiError {
    /// A refusal with a stable code and a sentence that says what to do.
    pub const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self {
            status,
            code,
            message,
            retry_after_secs: None,
            cause: None,
        }
    }

    /// The request is not well formed.
    pub const fn bad_request(code: &'static str, message: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The request is well formed, but a value in it is not acceptable.
    pub const fn unprocessable(code: &'static str, message: &'static str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// The caller has not proved what this needs. Says nothing about whether the target exists.
    pub const fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "valid credentials are needed")
    }

    /// The caller may not do this.
    pub const fn forbidden(code: &'static str, message: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// There is no such thing.
    pub const fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such resource")
    }

    /// Too much, for now.
    pub const fn too_many(code: &'static str, message: &'static str, retry_after_secs: u64) -> Self {
        let retry_after_secs = Some(retry_after_secs);
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            code,
            message,
            retry_after_secs,
            cause: None,
        }
    }

    /// Storage or another part of ours did not do its work. Nothing was promised.
    pub fn unavailable(cause: impl Into<Cow<'static, str>>) -> Self {
        Self {
            retry_after_secs: Some(1),
            cause: Some(cause.into()),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "try again")
        }
    }

    /// The operator sends clients to other nodes.
    pub const fn draining(retry_after_secs: u64) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            "this node takes no new sockets for a while; connect again, to another one",
        )
        .after(retry_after_secs)
    }

    /// The same, with the seconds after which another attempt makes sense.
    pub const fn after(self, secs: u64) -> Self {
        let mut error = self;
        error.retry_after_secs = Some(secs);
        error
    }

    /// Whether the request was refused, and not that something of ours did not do its work.
    pub(super) fn is_of_client(&self) -> bool {
        self.status.is_client_error()
    }

    /// The seconds after which another attempt makes sense.
    pub fn retry_after_secs(&self) -> Option<u64> {
        self.retry_after_secs
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Some(cause) = &self.cause {
            tracing::error!(code = self.code, %cause, "request failed");
        }
        let body = Json(json!({ "code": self.code, "message": self.message }));
        let mut response = (self.status, body).into_response();
        if let Some(seconds) = self.retry_after_secs {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"blind-relay\", Bearer realm=\"blind-relay\""),
            );
        }
        response
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        Self::unavailable(error.log_safe_cause())
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        Self::too_many(
            "rate_limited",
            "too many requests of this kind; the header Retry-After says in how many seconds to ask again",
            refused.retry_after_secs(),
        )
    }
}

impl From<QueueUnavailable> for ApiError {
    fn from(_: QueueUnavailable) -> Self {
        // The writer has logged why.
        Self {
            cause: None,
            ..Self::unavailable("")
        }
    }
}

impl From<KeysUnavailable> for ApiError {
    fn from(_: KeysUnavailable) -> Self {
        // Whoever took them has logged why.
        Self {
            cause: None,
            ..Self::unavailable("")
        }
    }
}

impl From<KeysRefused> for ApiError {
    fn from(refused: KeysRefused) -> Self {
        match refused {
            KeysRefused::TooMany => {
                Self::unprocessable("too_many_keys", "at most 100 one-time keys of a kind per upload")
            }
            KeysRefused::DuplicateId => {
                Self::unprocessable("duplicate_key_id", "two keys of one kind have the same id")
            }
            KeysRefused::Signature => Self::unprocessable(
                "bad_signature",
                "a key's signature is not by the account's identity key",
            ),
            KeysRefused::WeakKey => Self::unprocessable("weak_key", "an EC key is not one that a key generator makes"),
        }
    }
}
