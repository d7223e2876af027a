//! `/v1/blocks`: whom the caller's account does not want to hear from. An extension of ours.
//!
//! What somebody who is blocked sends is answered like anything else, and goes no further. Nobody is told who is blocked: the
//! list holds keyed hashes, so that not even its owner can be shown it. That an id was taken in says nothing about whether
//! there is such an account, because nobody looks.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use crate::auth::Authenticated;
use crate::domain::{Account, BlockChange, BlocksChanged, IdentityKind, ServiceId};
use crate::storage::StorageError;

use super::devices::own_account;
use super::error::ApiError;
use super::extract::{Caller, PathParams, RawBody, service_id};
use super::state::{AppState, Node};
use super::wire::blocks::BlocksOut;

/// `GET /v1/blocks`
pub(super) async fn count(State(node): State<AppState>, Caller(caller): Caller) -> Result<Json<BlocksOut>, ApiError> {
    let account = own_account(&node, &caller).await?;
    Ok(Json(BlocksOut {
        count: account.blocks.len(),
    }))
}

/// `PUT /v1/blocks/{id}`
pub(super) async fn block(
    State(node): State<AppState>,
    Caller(caller): Caller,
    PathParams(id): PathParams<String>,
    // Not looked at, but for its length.
    RawBody(_): RawBody,
) -> Result<StatusCode, ApiError> {
    let id = service_id(&id)?;
    let own = own_account(&node, &caller).await?;
    if [IdentityKind::Aci, IdentityKind::Pni]
        .map(|kind| own.service_id(kind))
        .contains(&id)
    {
        return Err(ApiError::unprocessable("own_account", "nobody blocks themselves"));
    }
    let tag = node.secrets.block_tag(own.aci, &id);
    change(&node, &caller, BlockChange::Add(tag)).await
}

/// `DELETE /v1/blocks/{id}`
pub(super) async fn unblock(
    State(node): State<AppState>,
    Caller(caller): Caller,
    PathParams(id): PathParams<String>,
) -> Result<StatusCode, ApiError> {
    let tag = node.secrets.block_tag(caller.address.aci, &service_id(&id)?);
    change(&node, &caller, BlockChange::Remove(tag)).await
}

/// `DELETE /v1/blocks`
pub(super) async fn unblock_all(State(node): State<AppState>, Caller(caller): Caller) -> Result<StatusCode, ApiError> {
    change(&node, &caller, BlockChange::Clear).await
}

async fn change(node: &Node, caller: &Authenticated, change: BlockChange) -> Result<StatusCode, ApiError> {
    match node.storage.devices.change_blocks(change, &caller.actor()).await? {
        BlocksChanged::Done => {
            node.relay.account_changed(caller.address.aci, &[]);
            Ok(StatusCode::NO_CONTENT)
        }
        BlocksChanged::TooMany => Err(ApiError::unprocessable(
            "too_many_blocks",
            "an account blocks at most 1000 ids",
        )),
        BlocksChanged::Gone => Err(ApiError::unauthorized()),
    }
}

/// Whether the account has blocked that caller, under whichever of its two ids. Costs nothing where nobody is blocked.
pub(super) async fn has_blocked(node: &Node, account: &Account, caller: &Authenticated) -> Result<bool, StorageError> {
    let aci = caller.address.aci;
    if account.blocks.is_empty() || account.aci == aci {
        return Ok(false);
    }
    let is_blocked = |id: &ServiceId| account.blocks.contains(&node.secrets.block_tag(account.aci, id));
    let by_aci = ServiceId::Aci(aci);
    if is_blocked(&by_aci) {
        return Ok(true);
    }
    let sender = node.relay.accounts.find(&by_aci).await?;
    Ok(sender.is_some_and(|sender| is_blocked(&ServiceId::Pni(sender.pni))))
}
