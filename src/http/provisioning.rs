//! `PUT /v1/provisioning/{address}`: a message to a device that is about to be linked.

use axum::extract::State;
use axum::http::StatusCode;

use crate::provisioning::NotTaken;

use super::error::ApiError;
use super::extract::{Caller, PathParams, RawBody, confirm};
use super::state::AppState;
use super::wire::provisioning::{parse_address, parse_provisioning};

/// The success status says that the new device has taken the message.
pub(super) async fn hand_over(
    State(node): State<AppState>,
    PathParams(address): PathParams<String>,
    Caller(caller): Caller,
    RawBody(body): RawBody,
) -> Result<StatusCode, ApiError> {
    let message = parse_provisioning(&body)?;
    let address = parse_address(&address).ok_or(ApiError::not_found())?;
    confirm(&node, &caller).await?;
    let taken = node.provisioning.hand_over(caller.address.aci, address, message).await;
    taken.map(|()| StatusCode::NO_CONTENT).map_err(|error| match error {
        NotTaken::NobodyWaits => ApiError::not_found(),
        NotTaken::Busy => ApiError::too_many(
            "provisioning_busy",
            "a message of this account is still under way, or too many others are",
            5,
        ),
    })
}
