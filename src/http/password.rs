//! `PUT /v1/devices/password`: another password for the calling device.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;

use crate::auth::{Authenticated, DeviceSecret, Password, queue_key};
use crate::domain::NewCredential;
use crate::relay::drain::QueueOpener;

use super::accounts::own_number;
use super::devices::own_account;
use super::error::ApiError;
use super::extract::{ByPassword, JsonBody, confirm};
use super::state::AppState;
use super::tokens;
use super::wire::devices::PasswordIn;

/// Password, queue key and what is queued change in one transaction. Connections that were opened with the old password
/// end; this answer has time to leave through one of them.
pub(super) async fn change(
    State(node): State<AppState>,
    ByPassword(caller, opener): ByPassword,
    JsonBody(body): JsonBody<PasswordIn>,
) -> Result<StatusCode, ApiError> {
    let password = body.password()?;
    // On a task of its own: when the client goes away, what was begun is still finished, and its consequences with it.
    let changing = Arc::clone(&node);
    let changing = node
        .tasks
        .spawn(async move { replace(&changing, &caller, &opener, &password).await });
    changing
        .await
        .map_err(|_| ApiError::unavailable("a change of password panicked"))??;
    Ok(StatusCode::NO_CONTENT)
}

async fn replace(
    node: &AppState,
    caller: &Authenticated,
    opener: &QueueOpener,
    password: &Password,
) -> Result<(), ApiError> {
    confirm(node, caller).await?;
    if node.relay.open_mailbox(&caller.actor(), opener).await?.is_none() {
        return Err(ApiError::unauthorized());
    }
    let account = own_account(node, caller).await?;
    let number = own_number(&account, caller)?;
    let verifier = password.verifier();
    let key = queue_key(password, &verifier.salt).public_key();
    let secret = DeviceSecret::derive(password, &verifier.salt);
    let credential = NewCredential {
        sealed_number: secret.seal_number(caller.mailbox, &number),
        verifier,
    };
    let sessions = node.tokens.list(&caller.actor()).await?;
    let changed = node.relay.rekey(&caller.actor(), opener, &key, Some(credential)).await;
    // Also after an error, which need not mean that nothing was committed.
    let older = node.relay.password_changed(caller.address.aci);
    if matches!(changed, Ok(true)) {
        // They went with the old password. Their sockets are told so before the device's connections are displaced: their
        // clients have nothing left to come back with.
        let own = sessions.iter().filter(|session| session.mailbox == caller.mailbox);
        tokens::end(node, &own.map(|session| session.id).collect::<Vec<_>>());
    }
    if !changed? {
        // Another request of this device was quicker, with another password.
        return Err(ApiError::unauthorized());
    }
    let (ending, mailbox) = (Arc::clone(node), caller.mailbox);
    node.tasks.spawn(async move {
        tokio::time::sleep(ANSWER_FIRST).await;
        ending.relay.displace(mailbox, older);
    });
    Ok(())
}

const ANSWER_FIRST: Duration = Duration::from_secs(1);
