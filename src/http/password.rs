//! `PUT /v1/devices/password`: another password for the calling device.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;

use crate::auth::{DeviceSecret, queue_key};
use crate::domain::NewCredential;

use super::accounts::own_number;
use super::devices::own_account;
use super::error::ApiError;
use super::extract::{JsonBody, Reader, confirm};
use super::state::AppState;
use super::wire::devices::PasswordIn;

/// Password, queue key and what is queued change in one transaction. Connections that were opened with the old password
/// end; this answer has time to leave through one of them.
pub(super) async fn change(
    State(node): State<AppState>,
    Reader(caller, opener): Reader,
    JsonBody(body): JsonBody<PasswordIn>,
) -> Result<StatusCode, ApiError> {
    let password = body.password()?;
    confirm(&node, &caller).await?;
    if node.relay.open_mailbox(&caller.actor(), &opener).await?.is_none() {
        return Err(ApiError::unauthorized());
    }
    let account = own_account(&node, &caller).await?;
    let number = own_number(&account, &caller)?;
    let verifier = password.verifier();
    let key = queue_key(&password, &verifier.salt).public_key();
    let secret = DeviceSecret::derive(&password, &verifier.salt);
    let credential = NewCredential {
        sealed_number: secret.seal_number(caller.mailbox, &number),
        verifier,
    };
    if !node
        .relay
        .rekey(&caller.actor(), &opener, &key, Some(credential))
        .await?
    {
        // Another request of this device was quicker, with another password.
        return Err(ApiError::unauthorized());
    }
    let older = node.relay.password_changed(caller.address.aci);
    let ending = Arc::clone(&node);
    node.tasks.spawn(async move {
        tokio::time::sleep(ANSWER_FIRST).await;
        ending.relay.displace(caller.mailbox, older);
    });
    Ok(StatusCode::NO_CONTENT)
}

const ANSWER_FIRST: Duration = Duration::from_secs(1);
