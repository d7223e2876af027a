//! `POST /v1/registration`: a verified number becomes an account.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::accounts::RegistrationRefused;
use crate::auth::BasicUser;

use super::error::ApiError;
use super::extract::{JsonBody, basic};
use super::profiles;
use super::state::AppState;
use super::usernames::OwnUsername;
use super::wire::account::{AccountOut, Entitlements};
use super::wire::devices::LockedOut;
use super::wire::registration::RegistrationIn;

/// The number and the new device's password come as Basic credentials: on the request, or, on a WebSocket, inherited
/// from its upgrade.
pub(super) async fn register(
    State(node): State<AppState>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<RegistrationIn>,
) -> Result<Response, ApiError> {
    if node.verifier.is_closed() {
        // With 403 clients would tell their user that the recovery password is wrong.
        return Err(ApiError::bad_request(
            "registration_closed",
            "this server takes no registrations",
        ));
    }
    let credentials = basic(&headers).ok_or(ApiError::unauthorized())?;
    let BasicUser::Number(number) = credentials.user else {
        return Err(ApiError::unauthorized());
    };
    let request = body.into_request(number, credentials.password)?;
    // Whoever proves nothing must not learn by the time whether the number has an account.
    let registered = node.registrar.register(&request);
    let account = match node.pace.answer_if(registered, Result::is_err).await {
        Ok(account) => account,
        Err(RegistrationRefused::Locked(time_remaining)) => {
            let locked = LockedOut {
                time_remaining,
                svr2_credentials: None,
            };
            return Ok((StatusCode::LOCKED, Json(locked)).into_response());
        }
        Err(refused) => return Err(refused.into()),
    };
    node.relay.account_changed(account.aci, &account.dropped);
    profiles::retire(&node, account.avatars).await;
    // A number that has an account keeps its name. Whether it can be read or not, the account is registered: an error
    // would make the client ask again, with a session that is used up.
    let username = match node.storage.usernames.of_account(account.aci).await {
        Ok(username) => OwnUsername::from(username),
        Err(error) => {
            let cause = error.log_safe_cause();
            tracing::warn!(cause, "the user name of a registered account could not be read");
            OwnUsername::default()
        }
    };
    Ok(Json(AccountOut {
        uuid: account.aci.to_string(),
        pni: account.pni.to_string(),
        number: request.number.as_str().to_owned(),
        username_hash: username.hash,
        username_link_handle: username.link_handle,
        storage_capable: account.storage_capable,
        entitlements: Entitlements::default(),
        reregistration: Some(account.again),
    })
    .into_response())
}

impl From<RegistrationRefused> for ApiError {
    fn from(refused: RegistrationRefused) -> Self {
        match refused {
            RegistrationRefused::NotVerified => ApiError::unauthorized(),
            RegistrationRefused::OtherNumber => {
                ApiError::bad_request("other_number", "the verification session is for another number")
            }
            RegistrationRefused::RecoveryPassword => {
                ApiError::forbidden("recovery_password", "the recovery password is wrong")
            }
            // With a body of its own where a client asks.
            RegistrationRefused::Locked(_) => ApiError::new(
                StatusCode::LOCKED,
                "registration_lock",
                "the number's account has a registration lock",
            ),
            RegistrationRefused::TransferPossible => ApiError::new(
                StatusCode::CONFLICT,
                "transfer_possible",
                "the old device can transfer its data; set skipDeviceTransfer to go on without",
            ),
            RegistrationRefused::Busy => ApiError::unavailable("the number's account changes too quickly"),
            RegistrationRefused::Storage(error) => error.into(),
        }
    }
}
