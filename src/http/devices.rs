//! `/v1/devices`: the devices of one's own account, and how there come to be more.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use serde::Deserialize;

use crate::accounts::{LinkRefused, created_at};
use crate::auth::{Authenticated, BasicCredentials};
use crate::domain::{Account, Device, DeviceId, LinkTokenHash, ServiceId};
use crate::encoding::BASE64_URL;

use super::accounts::own_number;
use super::error::ApiError;
use super::extract::{Caller, JsonBody, PathParams, PrimaryCaller, QueryParams, confirm, device_id};
use super::listener::ConnectionSlot;
use super::state::{AppState, Node};
use super::wire::account::capabilities;
use super::wire::devices::{CapabilitiesIn, DeviceLimitOut, DeviceOut, DevicesOut, LinkCodeOut, LinkIn, LinkOut};

/// `GET /v1/devices/provisioning/code`: a token with which one more device may join, for ten minutes.
pub(super) async fn link_code(
    State(node): State<AppState>,
    PrimaryCaller(caller): PrimaryCaller,
) -> Result<Response, ApiError> {
    let account = own_account(&node, &caller).await?;
    let number = own_number(&account, &caller)?;
    let token = match node.linker.offer(&account, &number, &caller.actor()).await {
        Ok(token) => token,
        Err(refused) => return link_refused(refused),
    };
    Ok(Json(LinkCodeOut {
        verification_code: token.as_str().to_owned(),
        token_identifier: BASE64_URL.encode(token.hash().0),
    })
    .into_response())
}

/// `PUT /v1/devices/link`. The password of the Basic credentials becomes the new device's; their user says nothing, and
/// the principal of a socket matters as little: what counts is the token.
pub(super) async fn link(
    State(node): State<AppState>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<LinkIn>,
) -> Result<Response, ApiError> {
    let authorization = headers.get(AUTHORIZATION).ok_or(ApiError::unauthorized())?;
    let password = BasicCredentials::parse_password(authorization.as_bytes()).map_err(|_| ApiError::unauthorized())?;
    let request = body.into_request(password)?;
    let linked = match node.linker.link(&request).await {
        Ok(linked) => linked,
        Err(refused) => return link_refused(refused),
    };
    node.relay.account_changed(linked.aci, &[]);
    Ok(Json(LinkOut {
        uuid: linked.aci.to_string(),
        pni: linked.pni.to_string(),
        device_id: linked.id.get(),
    })
    .into_response())
}

/// `GET /v1/devices`
pub(super) async fn list(State(node): State<AppState>, Caller(caller): Caller) -> Result<Json<DevicesOut>, ApiError> {
    let account = own_account(&node, &caller).await?;
    let devices = account.devices.iter().map(|device| describe(&account, device));
    Ok(Json(DevicesOut {
        devices: devices.collect::<Result<_, _>>()?,
    }))
}

/// `DELETE /v1/devices/{id}`. A device that is not there is as good as removed.
pub(super) async fn remove(
    State(node): State<AppState>,
    Caller(caller): Caller,
    PathParams(id): PathParams<String>,
) -> Result<StatusCode, ApiError> {
    let id = device_id(&id)?;
    if caller.address.device_id != DeviceId::PRIMARY && caller.address.device_id != id {
        return Err(ApiError::unauthorized());
    }
    if id == DeviceId::PRIMARY {
        return Err(ApiError::forbidden(
            "primary_device",
            "the primary device goes with its account only",
        ));
    }
    confirm(&node, &caller).await?;
    let gone = node.storage.devices.remove(id, &caller.actor()).await?;
    node.relay.account_changed(caller.address.aci, &gone);
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /v1/devices/capabilities`
pub(super) async fn set_capabilities(
    State(node): State<AppState>,
    Caller(caller): Caller,
    JsonBody(CapabilitiesIn(named)): JsonBody<CapabilitiesIn>,
) -> Result<StatusCode, ApiError> {
    let changed = node
        .storage
        .devices
        .set_capabilities(capabilities(&named), &caller.actor())
        .await?;
    if !changed {
        return Err(ApiError::unauthorized());
    }
    node.relay.account_changed(caller.address.aci, &[]);
    Ok(StatusCode::NO_CONTENT)
}

/// `?timeout=`
#[derive(Deserialize, schemars::JsonSchema)]
pub(super) struct WaitQuery {
    /// Seconds.
    #[schemars(range(min = 1, max = 3600))]
    timeout: Option<u64>,
}

/// `GET /v1/devices/wait_for_linked_device/{tokenIdentifier}`: the device that took up the offer, once one has. What other
/// nodes do is learned by their hints, or else by looking into storage now and then.
pub(super) async fn wait_for_linked(
    State(node): State<AppState>,
    Caller(caller): Caller,
    PathParams(identifier): PathParams<String>,
    QueryParams(query): QueryParams<WaitQuery>,
    slot: Option<Extension<ConnectionSlot>>,
) -> Result<Response, ApiError> {
    let token = BASE64_URL
        .decode(&identifier)
        .ok()
        .and_then(|hash| hash.try_into().ok());
    let token = LinkTokenHash(token.ok_or(ApiError::unprocessable(
        "token_identifier",
        "this does not identify a link token",
    ))?);
    let seconds = query.timeout.unwrap_or(DEFAULT_WAIT_SECS);
    if !(1..=MAX_WAIT_SECS).contains(&seconds) {
        return Err(ApiError::unprocessable("timeout", "a wait takes 1 to 3600 seconds"));
    }
    let over = tokio::time::sleep(Duration::from_secs(seconds));
    tokio::pin!(over);
    let wait = node.waits.begin(caller.address).ok_or(ApiError::too_many(
        "too_many_waits",
        "too many devices wait for others to be linked",
        60,
    ))?;
    let mut changes = node.relay.accounts.changes();
    loop {
        if let Some(device) = linked_with(&node, &caller, &token).await? {
            return Ok(Json(device).into_response());
        }
        // A connection on which nothing happens would be taken for one whose peer is stuck.
        if let Some(Extension(slot)) = &slot {
            slot.got_on();
        }
        tokio::select! {
            () = &mut over => return Ok(StatusCode::NO_CONTENT.into_response()),
            () = wait.ended() => return Ok(StatusCode::NO_CONTENT.into_response()),
            () = node.stop.cancelled() => return Ok(StatusCode::NO_CONTENT.into_response()),
            () = changes.of(caller.address.aci) => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn linked_with(
    node: &Node,
    caller: &Authenticated,
    token: &LinkTokenHash,
) -> Result<Option<DeviceOut>, ApiError> {
    if !node.authenticator.still_valid(caller).await? {
        return Err(ApiError::unauthorized());
    }
    let Some(id) = node.linker.linked_with(token, caller.address.aci).await? else {
        return Ok(None);
    };
    let account = own_account(node, caller).await?;
    account.device(id).map(|device| describe(&account, device)).transpose()
}

/// The caller's account as it is in storage, with the caller in it.
pub(super) async fn own_account(node: &Node, caller: &Authenticated) -> Result<std::sync::Arc<Account>, ApiError> {
    let account = node
        .relay
        .accounts
        .find_fresh(&ServiceId::Aci(caller.address.aci))
        .await?;
    account
        .filter(|account| {
            let device = account.device(caller.address.device_id);
            device.is_some_and(|device| device.mailbox == caller.mailbox)
        })
        .ok_or(ApiError::unauthorized())
}

/// Clients open the creation time of every device, and refuse the list if one does not open. Devices from before it was
/// kept get the day on which they were last seen.
fn describe(account: &Account, device: &Device) -> Result<DeviceOut, ApiError> {
    let at = device.last_seen.midnight();
    device
        .created_at
        .or_else(|| created_at(&account.aci_identity, device.id, device.registration_id, at))
        .map(|created_at| DeviceOut::new(device, created_at))
        .ok_or_else(|| ApiError::unavailable("nothing can be sealed to an account's identity key"))
}

fn link_refused(refused: LinkRefused) -> Result<Response, ApiError> {
    Err(match refused {
        LinkRefused::Full { current, max } => {
            return Ok((StatusCode::LENGTH_REQUIRED, Json(DeviceLimitOut { current, max })).into_response());
        }
        LinkRefused::Token => ApiError::forbidden("link_token", "the link token is unknown, used or expired"),
        LinkRefused::Downgrade => ApiError::new(
            StatusCode::CONFLICT,
            "capability_downgrade",
            "the device lacks a capability that all devices of the account have",
        ),
        LinkRefused::Gone => ApiError::unauthorized(),
        LinkRefused::Busy => ApiError::unavailable("other links of the account were quicker"),
        LinkRefused::Keys(refused) => refused.into(),
        LinkRefused::Storage(error) => error.into(),
    })
}

const DEFAULT_WAIT_SECS: u64 = 30;
const MAX_WAIT_SECS: u64 = 3600;
/// Between looks into storage, in case a hint of another node is lost.
const LOOK: Duration = Duration::from_secs(15);
