//! `POST /v1/messages/report/{source}/{messageGuid}`: a client calls a message spam.

use axum::http::StatusCode;

use crate::telemetry::metrics;

use super::error::ApiError;
use super::extract::{Caller, RawBody};

/// Counts it. Whom it is about, and by whom, is not looked at and goes nowhere: a list of who accuses whom would be a
/// list of who writes to whom.
pub(super) async fn report(Caller(_): Caller, RawBody(_): RawBody) -> Result<StatusCode, ApiError> {
    metrics::spam_reported();
    Ok(StatusCode::ACCEPTED)
}
