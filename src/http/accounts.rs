//! `/v1/accounts`: a device's own account.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use crate::domain::ServiceId;

use super::error::ApiError;
use super::extract::{Caller, JsonBody, confirm};
use super::state::AppState;
use super::wire::account::{AccountOut, AttributesIn, Entitlements};

/// `GET /v1/accounts/whoami`
pub(super) async fn whoami(State(node): State<AppState>, Caller(caller): Caller) -> Result<Json<AccountOut>, ApiError> {
    let account = node.relay.accounts.find(&ServiceId::Aci(caller.address.aci)).await?;
    let account = account.ok_or(ApiError::unauthorized())?;
    let device = account
        .device(caller.address.device_id)
        .ok_or(ApiError::unauthorized())?;
    let number = caller
        .secret
        .open_number(device.mailbox, &device.sealed_number)
        .ok_or_else(|| ApiError::unavailable("a number does not open with the credential of its device"))?;
    Ok(Json(AccountOut {
        uuid: account.aci.to_string(),
        pni: account.pni.to_string(),
        number: number.as_str().to_owned(),
        username_hash: None,
        username_link_handle: None,
        storage_capable: account.devices.iter().any(|device| device.capabilities.has("storage")),
        entitlements: Entitlements::default(),
        reregistration: None,
    }))
}

/// `PUT /v1/accounts/attributes`
pub(super) async fn set_attributes(
    State(node): State<AppState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<AttributesIn>,
) -> Result<StatusCode, ApiError> {
    let aci = caller.address.aci;
    let update = body.attributes()?.update(&node.secrets, aci);
    confirm(&node, &caller).await?;
    if !node.storage.accounts.update_attributes(caller.address, &update).await? {
        return Err(ApiError::unauthorized());
    }
    node.relay.account_changed(aci, &[]);
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/accounts/me`
pub(super) async fn delete(State(node): State<AppState>, Caller(caller): Caller) -> Result<StatusCode, ApiError> {
    confirm(&node, &caller).await?;
    let gone = node.storage.accounts.delete(caller.address.aci).await?;
    node.relay.account_changed(caller.address.aci, &gone);
    Ok(StatusCode::NO_CONTENT)
}
