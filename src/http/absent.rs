//! Calls of the reference that belong to services this server does not have. Clients ask for some of them unprompted;
//! they are told so, rather than given credentials that open nothing.

use axum::http::StatusCode;

use super::error::ApiError;
use super::extract::{Caller, RawBody};

/// Credentials for storage, contact discovery, secure value recovery and groups, all of them services of other hosts.
pub(super) async fn service(Caller(_): Caller) -> ApiError {
    FEATURE_ABSENT
}

/// An answer to a challenge: none was asked, so none can be right.
pub(super) async fn challenge(Caller(_): Caller, RawBody(_): RawBody) -> ApiError {
    FEATURE_ABSENT
}

/// A wish for a challenge by push: none is sent.
pub(super) async fn push_challenge(Caller(_): Caller, RawBody(_): RawBody) -> ApiError {
    FEATURE_ABSENT
}

const FEATURE_ABSENT: ApiError = ApiError::new(
    StatusCode::NOT_FOUND,
    "feature_absent",
    "this server has no such service",
);
