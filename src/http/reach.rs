//! Who may reach an account: a caller with an account of its own, or a stranger with the right access key.
//!
//! A stranger learns nothing from a refusal: an unknown account, a PNI, an account without a key and a wrong key all
//! answer 401.

use std::sync::Arc;

use axum::http::HeaderMap;

use crate::auth::{Authenticated, allows_unidentified, is_access_key};
use crate::domain::{AccessKey, Account, ServiceId};

use super::error::ApiError;
use super::extract::AnonymousAccess;
use super::state::Node;

/// As [`reach`], for answers that do not leave on the tick anyway: a refusal does, so that its time tells no more than it
/// does itself.
pub(super) async fn reach_on_tick(
    node: &Node,
    target: &ServiceId,
    caller: Option<&Authenticated>,
    headers: &HeaderMap,
) -> Result<Arc<Account>, ApiError> {
    let reached = reach(node, target, caller, headers);
    node.pace
        .answer_if(reached, |found| caller.is_none() && found.is_err())
        .await
}

/// The account, if this caller may reach it.
pub(super) async fn reach(
    node: &Node,
    target: &ServiceId,
    caller: Option<&Authenticated>,
    headers: &HeaderMap,
) -> Result<Arc<Account>, ApiError> {
    reach_showing(node, target, caller, AnonymousAccess::from_headers(headers)).await
}

/// As [`reach`], for a request that shows this.
pub(super) async fn reach_showing(
    node: &Node,
    target: &ServiceId,
    caller: Option<&Authenticated>,
    shown: AnonymousAccess,
) -> Result<Arc<Account>, ApiError> {
    if shown.group_token && (caller.is_some() || shown.has_key) {
        return Err(TWO_AUTHORIZATIONS);
    }
    if caller.is_some() {
        return node.relay.accounts.find(target).await?.ok_or(ApiError::not_found());
    }
    // Group send tokens cannot be verified here (they need zkgroup); clients fall back when one is refused.
    let key = shown.key.ok_or(ApiError::unauthorized())?;
    let remembered = node.relay.accounts.find(target).await?;
    if let Some(account) = remembered.filter(|account| may_reach(node, target, account, &key)) {
        return Ok(account);
    }
    // The key may have changed on another node a moment ago, and whoever is refused sends again with its name on it.
    let account = node.relay.accounts.find_fresh(target).await?;
    account
        .filter(|account| may_reach(node, target, account, &key))
        .ok_or(ApiError::unauthorized())
}

/// Whether the request shows the account's own access key, beside whatever else it shows. Never with a PNI: it would tell
/// whoever knows the ACI's key that the two are one account.
pub(super) fn is_known_to(node: &Node, target: &ServiceId, account: &Account, headers: &HeaderMap) -> bool {
    let shown = AnonymousAccess::from_headers(headers);
    !target.is_pni() && shown.key.is_some_and(|key| is_access_key(&node.secrets, account, &key))
}

fn may_reach(node: &Node, target: &ServiceId, account: &Account, key: &AccessKey) -> bool {
    !target.is_pni() && allows_unidentified(&node.secrets, account, key)
}

/// A group send token and another proof, of which either would have to be ignored.
pub(super) const TWO_AUTHORIZATIONS: ApiError = ApiError::bad_request(
    "two_authorizations",
    "show a group send token or another proof, not both",
);
