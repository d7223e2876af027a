//! `POST /v1/registration`: a verified number becomes an account.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};

use crate::accounts::RegistrationRefused;
use crate::auth::BasicUser;

use super::error::ApiError;
use super::extract::{JsonBody, basic};
use super::state::AppState;
use super::wire::account::{AccountOut, Entitlements};
use super::wire::registration::RegistrationIn;

/// The number and the new device's password come as Basic credentials: on the request, or, on a WebSocket, inherited
/// from its upgrade.
pub(super) async fn register(
    State(node): State<AppState>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<RegistrationIn>,
) -> Result<Json<AccountOut>, ApiError> {
    if !node.registration_open {
        return Err(ApiError::forbidden(
            "registration_closed",
            "this server takes no registrations",
        ));
    }
    let credentials = basic(&headers).ok_or(ApiError::unauthorized())?;
    let BasicUser::Number(number) = credentials.user else {
        return Err(ApiError::unauthorized());
    };
    let request = body.into_request(number, credentials.password)?;
    let account = node.registrar.register(&request).await?;
    node.relay.account_changed(account.aci, &account.dropped);
    Ok(Json(AccountOut {
        uuid: account.aci.to_string(),
        pni: account.pni.to_string(),
        number: request.number.as_str().to_owned(),
        username_hash: None,
        username_link_handle: None,
        storage_capable: account.storage_capable,
        entitlements: Entitlements::default(),
        reregistration: Some(account.again),
    }))
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
            RegistrationRefused::TransferPossible => ApiError::new(
                StatusCode::CONFLICT,
                "transfer_possible",
                "the old device can transfer its data; set skipDeviceTransfer to go on without",
            ),
            RegistrationRefused::Storage(error) => error.into(),
        }
    }
}
