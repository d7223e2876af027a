//! `/v1/accounts`: a device's own account.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use crate::auth::{Authenticated, Number};
use crate::domain::{Account, Aci, DeviceId, Erased, MailboxId, ServiceId};

use super::devices::own_account;
use super::error::ApiError;
use super::extract::{
    Caller, JsonBody, PathParams, PrimaryCaller, QueryParams, Stranger, confirm, device_id, service_id,
};
use super::profiles;
use super::state::{AppState, Node};
use super::usernames;
use super::wire::account::{AccountOut, AttributesIn, Entitlements, device_name};
use super::wire::devices::{ApnTokenIn, DiscoverableIn, GcmTokenIn, NameIn, RegistrationLockIn};

/// `GET /v1/accounts/whoami`
pub(super) async fn whoami(State(node): State<AppState>, Caller(caller): Caller) -> Result<Json<AccountOut>, ApiError> {
    let account = node.relay.accounts.find(&ServiceId::Aci(caller.address.aci)).await?;
    let account = account.ok_or(ApiError::unauthorized())?;
    let number = own_number(&account, &caller)?;
    let username = usernames::of_account(&node, account.aci).await?;
    Ok(Json(AccountOut {
        uuid: account.aci.to_string(),
        pni: account.pni.to_string(),
        number: number.as_str().to_owned(),
        username_hash: username.hash,
        username_link_handle: username.link_handle,
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
    let update = body.attributes()?.update(&node.secrets, caller.address);
    if !node
        .storage
        .accounts
        .update_attributes(&caller.actor(), &update)
        .await?
    {
        return Err(ApiError::unauthorized());
    }
    node.relay.account_changed(aci, &[]);
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/accounts/me`
pub(super) async fn delete(State(node): State<AppState>, Caller(caller): Caller) -> Result<StatusCode, ApiError> {
    // On a task of its own: when the client goes away, what was begun is still finished.
    let erasing = Arc::clone(&node);
    let erased = node.tasks.spawn(async move { erase(erasing, &caller).await });
    let erased = erased.await.map_err(|_| ApiError::unavailable("a deletion panicked"))?;
    // Connections end now, and the answer is on its way before that of the caller does.
    erased.map(|_| StatusCode::NO_CONTENT)
}

/// An account that is gone, of which everybody hears when this is dropped.
pub(super) struct Gone {
    node: AppState,
    account: Aci,
    mailboxes: Vec<MailboxId>,
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.node.relay.account_changed(self.account, &self.mailboxes);
    }
}

async fn erase(node: AppState, caller: &Authenticated) -> Result<Gone, ApiError> {
    let account = caller.address.aci;
    let avatars = node.storage.profiles.avatars(account).await?;
    // Whose pictures these are is known only while there are profiles, so they go first: what fails is asked for again.
    confirm(&node, caller).await?;
    node.attachments.retire(profiles::keys(&avatars)).await?;
    let erased = node.storage.accounts.delete(&caller.actor()).await?;
    if erased.mailboxes.is_empty() {
        return Err(ApiError::unauthorized());
    }
    Ok(left_behind(node, account, erased, !avatars.is_empty()).await)
}

/// Removes what an account that was erased leaves behind outside the rows that named it; also when the operator erased it.
pub(super) async fn left_behind(node: AppState, account: Aci, erased: Erased, pictures: bool) -> Gone {
    let gone = Gone {
        node: Arc::clone(&node),
        account,
        mailboxes: erased.mailboxes,
    };
    // Those that came in between.
    profiles::retire(&node, erased.avatars).await;
    if let Err(error) = node.attachments.drop_budgets(account).await {
        tracing::warn!(
            cause = error.log_safe_cause(),
            "the upload budget of a deleted account could not be dropped; it goes with its day"
        );
    }
    if pictures {
        // Not before the answer, and not by the clock of the sweeper either.
        let attachments = Arc::clone(&node.attachments);
        node.tasks.spawn(async move { attachments.sweep().await });
    }
    gone
}

/// `?deviceId=`
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceQuery {
    #[schemars(with = "Option<super::wire::forms::DeviceIdText>")]
    device_id: Option<String>,
}

/// `PUT /v1/accounts/name`: a primary names any device of its account, others name themselves.
pub(super) async fn rename(
    State(node): State<AppState>,
    QueryParams(query): QueryParams<DeviceQuery>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<NameIn>,
) -> Result<StatusCode, ApiError> {
    let own = caller.address.device_id;
    let device = query.device_id.as_deref().map_or(Ok(own), device_id)?;
    let name = device_name(body.device_name)?;
    if own != DeviceId::PRIMARY && own != device {
        return Err(ApiError::forbidden(
            "other_device",
            "only the primary device names other devices",
        ));
    }
    let account = own_account(&node, &caller).await?;
    account.device(device).ok_or(ApiError::not_found())?;
    if !node.storage.devices.rename(device, &name, &caller.actor()).await? {
        // The one that asks is gone, or the one that was to get a name.
        confirm(&node, &caller).await?;
        return Err(ApiError::not_found());
    }
    node.relay.account_changed(caller.address.aci, &[]);
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /v1/accounts/registration_lock`
pub(super) async fn set_registration_lock(
    State(node): State<AppState>,
    PrimaryCaller(caller): PrimaryCaller,
    JsonBody(body): JsonBody<RegistrationLockIn>,
) -> Result<StatusCode, ApiError> {
    let lock = body.lock()?.verifier();
    let set = node.storage.devices.set_lock(Some(&lock), &caller.actor()).await?;
    changed(&node, &caller, set)
}

/// `DELETE /v1/accounts/registration_lock`
pub(super) async fn clear_registration_lock(
    State(node): State<AppState>,
    PrimaryCaller(caller): PrimaryCaller,
) -> Result<StatusCode, ApiError> {
    let cleared = node.storage.devices.set_lock(None, &caller.actor()).await?;
    changed(&node, &caller, cleared)
}

/// `PUT /v2/accounts/phone_number_discoverability`
pub(super) async fn set_discoverable(
    State(node): State<AppState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<DiscoverableIn>,
) -> Result<StatusCode, ApiError> {
    let discoverable = body.discoverable_by_phone_number;
    let set = node
        .storage
        .devices
        .set_discoverable(discoverable, &caller.actor())
        .await?;
    changed(&node, &caller, set)
}

/// `PUT /v1/accounts/gcm`. There is no push yet, so nothing is kept of the token.
pub(super) async fn set_gcm(Caller(_): Caller, JsonBody(body): JsonBody<GcmTokenIn>) -> Result<StatusCode, ApiError> {
    body.check().map(|()| StatusCode::NO_CONTENT)
}

/// `PUT /v1/accounts/apn`. There is no push yet, so nothing is kept of the token.
pub(super) async fn set_apn(Caller(_): Caller, JsonBody(body): JsonBody<ApnTokenIn>) -> Result<StatusCode, ApiError> {
    body.check().map(|()| StatusCode::NO_CONTENT)
}

/// `DELETE /v1/accounts/gcm` and `DELETE /v1/accounts/apn`: there is never a token to delete.
pub(super) async fn clear_push_token(Caller(_): Caller) -> StatusCode {
    StatusCode::NO_CONTENT
}

/// `HEAD /v1/accounts/account/{serviceId}`: is there such an account?
pub(super) async fn exists(
    State(node): State<AppState>,
    _: Stranger,
    PathParams(id): PathParams<String>,
) -> Result<StatusCode, ApiError> {
    // Without a body, which an answer to HEAD does not have.
    let Ok(id) = service_id(&id) else {
        return Ok(StatusCode::NOT_FOUND);
    };
    let account = node.relay.accounts.find(&id).await?;
    Ok(account.map_or(StatusCode::NOT_FOUND, |_| StatusCode::OK))
}

/// The caller's number, which only its password opens.
pub(super) fn own_number(account: &Account, caller: &Authenticated) -> Result<Number, ApiError> {
    let device = account
        .device(caller.address.device_id)
        .ok_or(ApiError::unauthorized())?;
    caller
        .secret
        .open_number(device.mailbox, &device.sealed_number)
        .ok_or_else(|| ApiError::unavailable("a number does not open with the credential of its device"))
}

fn changed(node: &Node, caller: &Authenticated, done: bool) -> Result<StatusCode, ApiError> {
    if !done {
        return Err(ApiError::unauthorized());
    }
    node.relay.account_changed(caller.address.aci, &[]);
    Ok(StatusCode::NO_CONTENT)
}
