//! `/v1/profile`: what owners tell their contacts about themselves, as ciphertext.
//!
//! Whoever may reach an account may read its profile, and what it reads is the same whether the owner is connected,
//! asleep or gone for a month.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::attachments::Class;
use crate::auth::{Authenticated, access_key_checksum};
use crate::domain::{Account, Avatar, AvatarChange, Capabilities, DeviceId, IdentityKind, Profile, ServiceId};

use super::attachments::{DOWNLOADS, upload_form};
use super::error::ApiError;
use super::extract::{Caller, JsonBody, OptionalCaller, PathParams, confirm, service_id};
use super::origin::{NO_HOST, Origin};
use super::reach::reach_on_tick;
use super::state::{AppState, Node};
use super::wire::profiles::{AvatarWish, IdentityCheckIn, IdentityCheckOut, ProfileIn, ProfileOut, parse_version};

/// `PUT /v1/profile`
pub(super) async fn publish(
    State(node): State<AppState>,
    Caller(caller): Caller,
    origin: Option<Origin>,
    JsonBody(body): JsonBody<ProfileIn>,
) -> Result<Response, ApiError> {
    let wanted = body.avatar();
    let (version, profile) = body.profile()?;
    let account = node.relay.accounts.find(&ServiceId::Aci(caller.address.aci)).await?;
    let account = account.ok_or(ApiError::unauthorized())?;
    if account
        .devices
        .iter()
        .all(|device| device.capabilities.has("profiles_v2"))
    {
        return Err(ApiError::new(
            StatusCode::PRECONDITION_FAILED,
            "profiles_v2",
            "an account whose devices all read the second form of profiles does not write the first",
        ));
    }
    // An upload is begun before the profile is written, and asks for no device.
    confirm(&node, &caller).await?;
    let (avatar, form) = match wanted {
        AvatarWish::None => (AvatarChange::Clear, None),
        AvatarWish::Same => (AvatarChange::Keep, None),
        AvatarWish::New => {
            let Origin(origin) = origin.ok_or(NO_HOST)?;
            let form = upload_form(&node, &origin, caller.address.aci, Class::Avatar, None).await?;
            let path = format!("{DOWNLOADS}/{}", form.key);
            (AvatarChange::Replace(Avatar(path)), Some(form))
        }
    };
    let profiles = &node.storage.profiles;
    let dropped = profiles.publish(&caller.actor(), &version, &profile, &avatar).await?;
    retire(&node, dropped.ok_or(ApiError::unauthorized())?).await;
    Ok(match form {
        Some(form) => Json(form).into_response(),
        None => StatusCode::OK.into_response(),
    })
}

/// Removes pictures that no profile has any more. Whoever wrote the profile has done so: what fails here is told to the
/// operator, and the picture goes on its day.
pub(super) async fn retire(node: &Node, avatars: Vec<Avatar>) {
    if let Err(error) = node.attachments.retire(keys(&avatars)).await {
        tracing::warn!(
            cause = error.log_safe_cause(),
            "pictures of a profile could not be removed"
        );
    }
}

/// The keys under which pictures were uploaded.
pub(super) fn keys(avatars: &[Avatar]) -> impl Iterator<Item = &str> {
    avatars
        .iter()
        .filter_map(|Avatar(path)| path.strip_prefix(DOWNLOADS)?.strip_prefix('/'))
}

/// `GET /v1/profile/{serviceId}`: what does not depend on a profile key.
pub(super) async fn show(
    State(node): State<AppState>,
    PathParams(target): PathParams<String>,
    OptionalCaller(caller): OptionalCaller,
    headers: HeaderMap,
) -> Result<Json<ProfileOut>, ApiError> {
    let target = service_id(&target)?;
    let account = reach_on_tick(&node, &target, caller.as_ref(), &headers).await?;
    Ok(Json(describe(&node, &target, &account, caller.as_ref(), None)))
}

/// `GET /v1/profile/{aci}/{version}`
pub(super) async fn show_version(
    State(node): State<AppState>,
    PathParams((target, version)): PathParams<(String, String)>,
    OptionalCaller(caller): OptionalCaller,
    headers: HeaderMap,
) -> Result<Json<ProfileOut>, ApiError> {
    versioned(&node, &target, &version, caller, &headers).await
}

/// `GET /v1/profile/{aci}/{version}/{credentialRequest}`: the profile, without the credential that was asked for.
/// Issuing one needs zkgroup; clients take the profile and go on without.
pub(super) async fn show_credential(
    State(node): State<AppState>,
    PathParams((target, version, _)): PathParams<(String, String, String)>,
    OptionalCaller(caller): OptionalCaller,
    headers: HeaderMap,
) -> Result<Json<ProfileOut>, ApiError> {
    versioned(&node, &target, &version, caller, &headers).await
}

/// `POST /v1/profile/identity_check/batch`: which of these identity keys are not the current ones. Accounts that do not
/// exist are left out, as those whose key is right.
pub(super) async fn check_identities(
    State(node): State<AppState>,
    JsonBody(body): JsonBody<IdentityCheckIn>,
) -> Result<Json<IdentityCheckOut>, ApiError> {
    let asked = body.elements()?;
    let ids: BTreeMap<ServiceId, ()> = asked.iter().map(|element| (element.id, ())).collect();
    let ids: Vec<ServiceId> = ids.into_keys().collect();
    let accounts = node.relay.accounts.find_all(&ids).await?;
    let current: HashMap<ServiceId, _> = accounts
        .iter()
        .flat_map(|account| {
            [IdentityKind::Aci, IdentityKind::Pni].map(|kind| (account.service_id(kind), account.identity(kind)))
        })
        .collect();
    Ok(Json(IdentityCheckOut::mismatches(&asked, &current)))
}

async fn versioned(
    node: &Node,
    target: &str,
    version: &str,
    caller: Option<Authenticated>,
    headers: &HeaderMap,
) -> Result<Json<ProfileOut>, ApiError> {
    let target = service_id(target)?;
    let account = reach_on_tick(node, &target, caller.as_ref(), headers).await?;
    if target.is_pni() {
        return Err(ApiError::not_found());
    }
    // A version of another form was never written by anyone: it is unknown like others.
    let profile = match parse_version(version) {
        Some(version) => node.storage.profiles.find(account.aci, &version).await?,
        None => None,
    };
    Ok(Json(describe(node, &target, &account, caller.as_ref(), profile)))
}

/// A PNI shows its identity key and nothing by which it could be matched with its ACI.
fn describe(
    node: &Node,
    target: &ServiceId,
    account: &Account,
    caller: Option<&Authenticated>,
    profile: Option<Profile>,
) -> ProfileOut {
    let by_aci = !target.is_pni();
    let own = caller.is_some_and(|caller| caller.address.aci == account.aci);
    let checksum = access_key_checksum(&node.secrets, account).filter(|_| by_aci);
    let capabilities = if by_aci {
        capabilities(account, own)
    } else {
        BTreeMap::new()
    };
    ProfileOut::new(target, account.identity(target.into()), profile)
        .with_access(checksum, by_aci && account.access.unrestricted)
        .with_capabilities(capabilities)
}

/// What the account as a whole can do. Contacts are told what they need in order to write to it, its own devices all.
fn capabilities(account: &Account, own: bool) -> BTreeMap<&'static str, bool> {
    let devices = || account.devices.iter().map(|device| device.capabilities);
    let primary = account.device(DeviceId::PRIMARY);
    Capabilities::NAMES
        .into_iter()
        .filter(|name| own || PUBLIC.contains(name))
        .map(|name| {
            let able = match name {
                "storage" => devices().any(|device| device.has(name)),
                "transfer" | "attachmentBackfill" => primary.is_some_and(|device| device.capabilities.has(name)),
                _ => devices().all(|device| device.has(name)),
            };
            (name, able)
        })
        .collect()
}

/// The capabilities that change what contacts send.
const PUBLIC: [&str; 1] = ["spqr"];
