//! `/v1/accounts/username_hash` and `/v1/accounts/username_link`: names by which people find one another without a number.
//!
//! The server sees the hash of a name, and a link's content as ciphertext. Looking up is for strangers only: an answer to
//! a device would tell who is looking for whom.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use keys_schema::username;

use crate::auth::random_link_handle;
use crate::domain::{Aci, Confirmed, LinkHandle, Reserved, Username, UsernameLink};

use super::error::ApiError;
use super::extract::{Caller, JsonBody, PathParams, Stranger, confirm};
use super::state::{AppState, Node};
use super::wire::usernames::{
    BAD_PROOF, ConfirmUsernameIn, LinkHandleOut, ReserveUsernameIn, ReservedUsernameOut, UsernameLinkIn,
    UsernameLinkOut, UsernameOut, UsernameOwnerOut, encrypted_text, handle_text, hash_text, parse_hash,
};

/// `PUT /v1/accounts/username_hash/reserve`
pub(super) async fn reserve(
    State(node): State<AppState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<ReserveUsernameIn>,
) -> Result<Json<ReservedUsernameOut>, ApiError> {
    let hashes = body.hashes()?;
    let reserved = node
        .storage
        .usernames
        .reserve(&caller.actor(), &hashes, node.clock.now())
        .await?;
    match reserved {
        Reserved::Name(hash) => Ok(Json(ReservedUsernameOut {
            username_hash: hash_text(&hash),
        })),
        Reserved::AllTaken => Err(ApiError::new(
            StatusCode::CONFLICT,
            "usernames_taken",
            "all of these user names are taken",
        )),
        Reserved::TooManyGivenUp => Err(ApiError::too_many(
            "username_changes",
            "too many user names of this account were given up lately",
            A_DAY_SECS,
        )),
        Reserved::UnknownAccount => Err(ApiError::unauthorized()),
    }
}

/// `PUT /v1/accounts/username_hash/confirm`
pub(super) async fn take(
    State(node): State<AppState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<ConfirmUsernameIn>,
) -> Result<Json<UsernameOut>, ApiError> {
    let confirmation = body.confirmation()?;
    let hash = confirmation.hash;
    // Without it anyone could claim a hash that was seen somewhere, and so keep its owner from the name.
    if !username::verify(&hash.0, &confirmation.proof) {
        return Err(BAD_PROOF);
    }
    let link = confirmation.encrypted.map(|encrypted| UsernameLink {
        handle: random_link_handle(),
        encrypted,
    });
    let confirmed = node
        .storage
        .usernames
        .confirm(&caller.actor(), &hash, link.as_ref(), node.clock.now())
        .await?;
    match confirmed {
        Confirmed::Owned(handle) => Ok(Json(UsernameOut {
            username_hash: hash_text(&hash),
            username_link_handle: handle.as_ref().map(handle_text),
        })),
        Confirmed::NotReserved => Err(ApiError::new(
            StatusCode::CONFLICT,
            "username_not_reserved",
            "reserve the user name, and confirm it within five minutes",
        )),
        Confirmed::Taken => Err(ApiError::new(
            StatusCode::GONE,
            "username_taken",
            "the user name is taken",
        )),
        Confirmed::UnknownAccount => Err(ApiError::unauthorized()),
    }
}

/// `DELETE /v1/accounts/username_hash`
pub(super) async fn give_up(State(node): State<AppState>, Caller(caller): Caller) -> Result<StatusCode, ApiError> {
    let today = node.clock.now().day();
    let released = node.storage.usernames.release(&caller.actor(), today).await?;
    done(released)
}

/// `GET /v1/accounts/username_hash/{hash}`
pub(super) async fn find(
    State(node): State<AppState>,
    _: Stranger,
    PathParams(hash): PathParams<String>,
) -> Result<Json<UsernameOwnerOut>, ApiError> {
    let hash = parse_hash(&hash)?;
    let found = node.storage.usernames.find(&hash);
    // Whether a name that leads to nobody is reserved, or was given up, is nobody's business.
    let owner = node
        .pace
        .answer_if(found, |found| !matches!(found, Ok(Some(_))))
        .await?;
    let owner = owner.ok_or(ApiError::not_found())?;
    Ok(Json(UsernameOwnerOut {
        uuid: owner.to_string(),
    }))
}

/// `PUT /v1/accounts/username_link`
pub(super) async fn set_link(
    State(node): State<AppState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<UsernameLinkIn>,
) -> Result<Json<LinkHandleOut>, ApiError> {
    let (encrypted, keep_handle) = body.link()?;
    let link = UsernameLink {
        handle: random_link_handle(),
        encrypted,
    };
    let set = node
        .storage
        .usernames
        .set_link(&caller.actor(), &link, keep_handle)
        .await?;
    let Some(handle) = set else {
        confirm(&node, &caller).await?;
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "no_username",
            "a link needs a user name to lead to",
        ));
    };
    Ok(Json(LinkHandleOut {
        username_link_handle: handle_text(&handle),
    }))
}

/// `DELETE /v1/accounts/username_link`
pub(super) async fn drop_link(State(node): State<AppState>, Caller(caller): Caller) -> Result<StatusCode, ApiError> {
    done(node.storage.usernames.drop_link(&caller.actor()).await?)
}

/// Storage does nothing for a device that has been replaced.
fn done(done: bool) -> Result<StatusCode, ApiError> {
    if done {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::unauthorized())
    }
}

/// `GET /v1/accounts/username_link/{handle}`
pub(super) async fn find_link(
    State(node): State<AppState>,
    _: Stranger,
    PathParams(handle): PathParams<String>,
) -> Result<Json<UsernameLinkOut>, ApiError> {
    // A handle that cannot be parsed names nothing.
    let handle = uuid::Uuid::try_parse(&handle).map_err(|_| ApiError::not_found())?;
    let encrypted = node.storage.usernames.find_link(&LinkHandle(handle)).await?;
    let encrypted = encrypted.ok_or(ApiError::not_found())?;
    Ok(Json(UsernameLinkOut {
        username_link_encrypted_value: encrypted_text(&encrypted),
    }))
}

/// An account's name, as the account is told of it.
#[derive(Default)]
pub(super) struct OwnUsername {
    /// The hash.
    pub(super) hash: Option<String>,
    /// The handle of its link.
    pub(super) link_handle: Option<String>,
}

/// The name of the account, if it has one.
pub(super) async fn of_account(node: &Node, aci: Aci) -> Result<OwnUsername, ApiError> {
    Ok(node.storage.usernames.of_account(aci).await?.into())
}

impl From<Option<Username>> for OwnUsername {
    fn from(username: Option<Username>) -> Self {
        Self {
            hash: username.as_ref().map(|username| hash_text(&username.hash)),
            link_handle: username.and_then(|username| username.link).as_ref().map(handle_text),
        }
    }
}

const A_DAY_SECS: u64 = 24 * 60 * 60;
