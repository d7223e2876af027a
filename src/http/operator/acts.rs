//! The handlers of the admin socket.
//!
//! What changes something runs on a task of its own, so that what was begun is finished when whoever asked goes away.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;

use crate::accounts::{InviteForm, InviteRefused, InviteWish};
use crate::admin::Connections;
use crate::admin::acts::Operator;
use crate::admin::wire::{
    AccountOut, DrainOut, InviteIn, InviteMade, InviteOut, InvitesOut, LogOut, QueuedOut, RefusedOut, StatsOut,
};
use crate::domain::{Aci, AdminAct, Invite, InviteId, ServiceId};
use crate::http::error::ApiError;
use crate::storage::StorageError;

use super::Admin;

/// `GET /stats`. Not written down: sums are about nobody.
pub(super) async fn stats(State(admin): State<Admin>) -> Result<Json<StatsOut>, ApiError> {
    let (sums, invites) = admin.sums().await?;
    let Connections {
        devices,
        sockets,
        draining,
    } = admin.connections();
    let queued = |&(bucket_kib, envelopes): &(u32, u64)| QueuedOut {
        bucket_kib,
        envelopes,
        bytes: envelopes.saturating_mul(u64::from(bucket_kib) * 1024),
    };
    let refused = admin.surroundings.refused().into_iter().filter(|(_, times)| *times > 0);
    Ok(Json(StatsOut {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_secs: admin.since.elapsed().as_secs(),
        accounts: sums.accounts,
        suspended: sums.suspended,
        devices: sums.devices,
        queued: sums.queued.iter().map(queued).collect(),
        one_time_ec_keys: sums.ec_keys,
        one_time_kyber_keys: sums.kyber_keys,
        invites,
        database_bytes: sums.database_bytes,
        connected_devices: devices,
        sockets,
        draining,
        refused: refused
            .map(|(limit, times)| RefusedOut {
                limit: limit.to_owned(),
                times,
            })
            .collect(),
    }))
}

/// `GET /accounts/{id}`
pub(super) async fn show(
    State(admin): State<Admin>,
    Extension(by): Extension<Operator>,
    Path(id): Path<String>,
) -> Result<Json<AccountOut>, ApiError> {
    let account = named(&admin, by, &id, AdminAct::AccountShow).await?;
    let glance = admin.show(by, account).await?.ok_or(NO_ACCOUNT)?;
    Ok(Json(AccountOut {
        suspended: glance.suspended,
        devices: glance.devices,
        last_seen_day: glance.last_seen.0,
    }))
}

/// `POST /accounts/{id}/suspend`
pub(super) async fn suspend(
    State(admin): State<Admin>,
    Extension(by): Extension<Operator>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let account = named(&admin, by, &id, AdminAct::AccountSuspend).await?;
    finished(async move { admin.set_suspended(by, account, true).await }).await
}

/// `POST /accounts/{id}/resume`
pub(super) async fn resume(
    State(admin): State<Admin>,
    Extension(by): Extension<Operator>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let account = named(&admin, by, &id, AdminAct::AccountResume).await?;
    finished(async move { admin.set_suspended(by, account, false).await }).await
}

/// `DELETE /accounts/{id}`
pub(super) async fn delete(
    State(admin): State<Admin>,
    Extension(by): Extension<Operator>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let account = named(&admin, by, &id, AdminAct::AccountDelete).await?;
    finished(async move { admin.delete(by, account).await }).await
}

/// `GET /invites`. Not written down: an invite is nobody's.
pub(super) async fn invites(State(admin): State<Admin>) -> Result<Json<InvitesOut>, ApiError> {
    let invites = admin.invites().await?.iter().map(shown).collect();
    Ok(Json(InvitesOut { invites }))
}

/// `POST /invites`
pub(super) async fn create_invite(
    State(admin): State<Admin>,
    Extension(by): Extension<Operator>,
    body: Result<Json<InviteIn>, JsonRejection>,
) -> Result<Json<InviteMade>, ApiError> {
    let Ok(Json(body)) = body else {
        admin.refused(by, AdminAct::InviteCreate).await?;
        return Err(ApiError::bad_request(
            "malformed_body",
            "the body is not the JSON that this takes",
        ));
    };
    let wish = InviteWish {
        uses: body.uses,
        days: body.days,
        recovers: body.recover,
        form: if body.digits {
            InviteForm::Digits
        } else {
            InviteForm::Letters
        },
    };
    let making = tokio::spawn(async move { admin.create_invite(by, wish).await });
    let made = making.await.map_err(|_| panicked())?;
    let (invite, code) = made.map_err(|refused| match refused {
        InviteRefused::Uses => ApiError::unprocessable("uses", "an invite is for 1 to 100000 numbers"),
        InviteRefused::Days => ApiError::unprocessable("days", "an invite is good for at most 365 days"),
        InviteRefused::TooMany => ApiError::new(
            StatusCode::CONFLICT,
            "too_many_invites",
            "there are too many invites; revoke some first",
        ),
        InviteRefused::Storage(error) => error.into(),
    })?;
    Ok(Json(InviteMade {
        code: code.to_string(),
        invite: shown(&invite),
    }))
}

/// `DELETE /invites/{id}`
pub(super) async fn revoke_invite(
    State(admin): State<Admin>,
    Extension(by): Extension<Operator>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let Some(id) = InviteId::parse(&id) else {
        admin.refused(by, AdminAct::InviteRevoke).await?;
        return Err(MALFORMED_ID);
    };
    let revoking = tokio::spawn(async move { admin.revoke_invite(by, &id).await });
    if revoking.await.map_err(|_| panicked())?? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "no_invite",
            "there is no such invite; it may have been used up",
        ))
    }
}

/// `GET /drain`
pub(super) async fn drained(State(admin): State<Admin>) -> Json<DrainOut> {
    Json(stand(admin.connections()))
}

/// `PUT /drain`
pub(super) async fn drain(
    State(admin): State<Admin>,
    Extension(by): Extension<Operator>,
) -> Result<Json<DrainOut>, ApiError> {
    set_drain(admin, by, true).await
}

/// `DELETE /drain`
pub(super) async fn undo_drain(
    State(admin): State<Admin>,
    Extension(by): Extension<Operator>,
) -> Result<Json<DrainOut>, ApiError> {
    set_drain(admin, by, false).await
}

/// `?after=0&limit=1000&account=ACI`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    #[serde(default)]
    after: i64,
    #[serde(default)]
    limit: u32,
    account: Option<String>,
}

/// `GET /log`: entries behind a place, all or those about an account, and where all of the log begins and ends. Not written down, or every look at it would
/// make it longer.
pub(super) async fn log(
    State(admin): State<Admin>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Json<LogOut>, ApiError> {
    let Ok(Query(query)) = query else {
        return Err(ApiError::bad_request(
            "malformed_query",
            "after and limit are numbers, account is an ACI",
        ));
    };
    let account = query
        .account
        .as_deref()
        .map(|id| aci(id).ok_or(MALFORMED_ID))
        .transpose()?
        .map(|account| admin.pseudonyms.account(account));
    let limit = query.limit.min(MAX_ENTRIES);
    let page = admin.log(query.after, limit, account.as_ref()).await?;
    Ok(Json(LogOut::new(&page, account)))
}

async fn set_drain(admin: Admin, by: Operator, on: bool) -> Result<Json<DrainOut>, ApiError> {
    let setting = tokio::spawn(async move { admin.drain(by, on).await });
    Ok(Json(stand(setting.await.map_err(|_| panicked())??)))
}

fn stand(connections: Connections) -> DrainOut {
    DrainOut {
        draining: connections.draining,
        sockets: connections.sockets,
    }
}

/// The account of a path. What names none is written down as an act that was refused.
async fn named(admin: &Admin, by: Operator, id: &str, act: AdminAct) -> Result<Aci, ApiError> {
    match aci(id) {
        Some(aci) => Ok(aci),
        None => {
            admin.refused(by, act).await?;
            Err(MALFORMED_ID)
        }
    }
}

fn aci(text: &str) -> Option<Aci> {
    match ServiceId::parse(text) {
        Ok(ServiceId::Aci(aci)) => Some(aci),
        Ok(ServiceId::Pni(_)) | Err(_) => None,
    }
}

async fn finished(
    act: impl Future<Output = Result<bool, StorageError>> + Send + 'static,
) -> Result<StatusCode, ApiError> {
    if tokio::spawn(act).await.map_err(|_| panicked())?? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(NO_ACCOUNT)
    }
}

fn shown(invite: &Invite) -> InviteOut {
    InviteOut {
        id: invite.id.to_string(),
        uses_left: invite.uses_left,
        recovers: invite.recovers,
        expires_day: invite.expires.0,
        created_day: invite.created.0,
    }
}

fn panicked() -> ApiError {
    ApiError::unavailable("an act panicked")
}

/// Entries of one answer.
const MAX_ENTRIES: u32 = 1000;
const NO_ACCOUNT: ApiError = ApiError::new(StatusCode::NOT_FOUND, "no_account", "no account has this id");
const MALFORMED_ID: ApiError = ApiError::bad_request("malformed_id", "this is no id");
