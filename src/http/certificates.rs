//! `GET /v1/certificate/delivery`: a device's proof of who it is, which travels inside the messages that it seals.
//!
//! What is vouched for is read from the database and not from memory: a certificate outlives its request by days, and with
//! an identity key of before the last registration it would be worth nothing to anyone.

use axum::Json;
use axum::extract::State;
use base64::Engine;
use keys_schema::certificate::Sender;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::ServiceId;
use crate::encoding::BASE64;

use super::error::ApiError;
use super::extract::{Caller, QueryParams};
use super::state::AppState;
use super::wire::certificates::SenderCertificateOut;

/// `?includeE164=`
#[derive(Deserialize, JsonSchema)]
pub(super) struct DeliveryQuery {
    /// Whether recipients learn the sender's number from the certificate. Without it they do.
    #[serde(rename = "includeE164", default = "included")]
    include_e164: bool,
}

fn included() -> bool {
    true
}

/// Issues a certificate for the calling device.
pub(super) async fn delivery(
    State(node): State<AppState>,
    QueryParams(query): QueryParams<DeliveryQuery>,
    Caller(caller): Caller,
) -> Result<Json<SenderCertificateOut>, ApiError> {
    let aci = caller.address.aci;
    let account = node.relay.accounts.find_fresh(&ServiceId::Aci(aci)).await?;
    let account = account.ok_or(ApiError::unauthorized())?;
    // Not another one's that has taken its place since it was authenticated.
    let device = account
        .device(caller.address.device_id)
        .filter(|device| device.mailbox == caller.mailbox)
        .ok_or(ApiError::unauthorized())?;
    let e164 = if query.include_e164 {
        let number = caller
            .secret
            .open_number(device.mailbox, &device.sealed_number)
            .ok_or_else(|| ApiError::unavailable("a number does not open with the credential of its device"))?;
        Some(number.as_str().to_owned())
    } else {
        None
    };
    let sender = Sender {
        aci,
        device_id: caller.address.device_id.get(),
        identity_key: account.aci_identity,
        e164,
    };
    let certificate = node.issuer.issue(sender, node.clock.now());
    Ok(Json(SenderCertificateOut {
        certificate: BASE64.encode(certificate),
    }))
}
