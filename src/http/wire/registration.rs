//! Verification sessions and registrations in JSON.

use keys_schema::{DecodeError, IdentityKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::accounts::{Proof, RegistrationRequest, SessionId};
use crate::auth::{Number, Password};
use crate::directory::check_signed;
use crate::domain::{MAX_ATTEMPTS, SignedKeys, VerificationSession};
use crate::http::error::ApiError;

use super::account::AttributesIn;
use super::base64_bytes::Base64Bytes;
use super::devices::{ApnTokenIn, GcmTokenIn, check_channel};
use super::forms::{Base64Of32, EcPublicKeyText, NumberText, SessionIdText};
use super::keys::{KyberPreKeySchema, SignedEcPreKeySchema, SignedPreKeyIn, malformed_key};

/// The body of `POST /v1/verification/session`. Push tokens and network codes are of no use here.
#[derive(Deserialize, JsonSchema)]
pub struct SessionIn {
    /// E.164.
    #[schemars(with = "NumberText")]
    pub number: String,
}

/// The body of `PATCH /v1/verification/session/{id}`. Nothing in it is looked at.
#[derive(Deserialize, JsonSchema)]
pub struct SessionUpdateIn {}

/// The body of `POST /v1/verification/session/{id}/code`.
#[derive(Deserialize, JsonSchema)]
pub struct CodeRequestIn {
    /// `sms` or `voice`.
    #[schemars(regex(pattern = "^(sms|voice)$"))]
    pub transport: String,
}

/// The body of `PUT /v1/verification/session/{id}/code`.
#[derive(Deserialize, JsonSchema)]
pub struct CodeIn {
    /// What the user typed.
    pub code: String,
}

/// A session as the client sees it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionOut {
    #[schemars(with = "SessionIdText")]
    id: String,
    next_sms: Option<u32>,
    next_call: Option<u32>,
    next_verification_attempt: Option<u32>,
    allowed_to_request_code: bool,
    requested_information: [&'static str; 0],
    verified: bool,
}

impl SessionOut {
    /// Describes a session.
    pub fn new(id: &SessionId, session: &VerificationSession) -> Self {
        let may_try = !session.verified && session.attempts < MAX_ATTEMPTS;
        Self {
            id: id.encode(),
            next_sms: may_try.then_some(0),
            next_call: may_try.then_some(0),
            next_verification_attempt: may_try.then_some(0),
            allowed_to_request_code: may_try,
            requested_information: [],
            verified: session.verified,
        }
    }
}

/// The body of `POST /v1/registration`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationIn {
    #[serde(default)]
    #[schemars(with = "Option<SessionIdText>")]
    session_id: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<Base64Of32>")]
    recovery_password: Option<Base64Bytes>,
    account_attributes: AttributesIn,
    #[serde(default)]
    skip_device_transfer: Option<bool>,
    #[schemars(with = "EcPublicKeyText")]
    aci_identity_key: Base64Bytes,
    #[schemars(with = "EcPublicKeyText")]
    pni_identity_key: Base64Bytes,
    #[schemars(with = "SignedEcPreKeySchema")]
    aci_signed_pre_key: SignedPreKeyIn,
    #[schemars(with = "SignedEcPreKeySchema")]
    pni_signed_pre_key: SignedPreKeyIn,
    #[schemars(with = "KyberPreKeySchema")]
    aci_pq_last_resort_pre_key: SignedPreKeyIn,
    #[schemars(with = "KyberPreKeySchema")]
    pni_pq_last_resort_pre_key: SignedPreKeyIn,
    #[serde(default)]
    gcm_token: Option<GcmTokenIn>,
    #[serde(default)]
    apn_token: Option<ApnTokenIn>,
}

impl RegistrationIn {
    /// Checks everything that can be checked without storage.
    pub fn into_request(self, number: Number, password: Password) -> Result<RegistrationRequest, ApiError> {
        let proof = match (self.session_id, self.recovery_password) {
            (Some(id), None) => {
                // An id of another form names no session.
                Proof::Session(SessionId::parse(&id).ok_or(ApiError::unauthorized())?)
            }
            (None, Some(password)) => Proof::RecoveryPassword(
                password
                    .0
                    .try_into()
                    .map_err(|_| ApiError::unprocessable("recovery_password", "a recovery password has 32 bytes"))?,
            ),
            _ => {
                return Err(ApiError::unprocessable(
                    "registration_proof",
                    "give either sessionId or recoveryPassword",
                ));
            }
        };
        check_channel(
            self.account_attributes.fetches_messages(),
            self.gcm_token.as_ref(),
            self.apn_token.as_ref(),
        )?;
        let (registration_id, pni_registration_id) = self.account_attributes.registration_ids()?;
        let attributes = self.account_attributes.attributes()?;
        let aci_identity = IdentityKey::parse(&self.aci_identity_key.0).map_err(malformed_key)?;
        let pni_identity = IdentityKey::parse(&self.pni_identity_key.0).map_err(malformed_key)?;
        let aci_keys = signed_keys(self.aci_signed_pre_key, self.aci_pq_last_resort_pre_key).map_err(malformed_key)?;
        let pni_keys = signed_keys(self.pni_signed_pre_key, self.pni_pq_last_resort_pre_key).map_err(malformed_key)?;
        check_signed(&aci_identity, &aci_keys)?;
        check_signed(&pni_identity, &pni_keys)?;
        Ok(RegistrationRequest {
            number,
            password,
            proof,
            registration_id,
            pni_registration_id,
            attributes,
            skip_device_transfer: self.skip_device_transfer.unwrap_or(false),
            aci_identity,
            pni_identity,
            aci_keys,
            pni_keys,
        })
    }
}

/// The two keys of a namespace that a new device brings.
pub(super) fn signed_keys(signed: SignedPreKeyIn, last_resort: SignedPreKeyIn) -> Result<SignedKeys, DecodeError> {
    Ok(SignedKeys {
        signed: signed.try_into()?,
        last_resort: last_resort.try_into()?,
    })
}
