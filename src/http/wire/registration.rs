//! Verification sessions and registrations in JSON.

use keys_schema::{DecodeError, IdentityKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::accounts::{Proof, RegistrationRequest, SessionId, Standing};
use crate::auth::{Contact, EmailAddress, Number, Password};
use crate::directory::check_signed;
use crate::domain::SignedKeys;
use crate::http::error::ApiError;

use super::account::AttributesIn;
use super::base64_bytes::Base64Bytes;
use super::devices::{ApnTokenIn, GcmTokenIn, check_channel};
use super::forms::{Base64Of32, EcPublicKeyText, EmailText, NumberText, SessionIdText};
use super::keys::{KyberPreKeySchema, SignedEcPreKeySchema, SignedPreKeyIn, malformed_key};

/// The body of `POST /v1/verification/session`. Push tokens and network codes are of no use here.
#[derive(Deserialize, JsonSchema)]
pub struct SessionIn {
    /// E.164.
    #[serde(default)]
    #[schemars(with = "Option<NumberText>")]
    number: Option<String>,
    /// In place of a number: the session then has one that stands for the address. Of this server; stock clients know
    /// nothing of it.
    #[serde(default)]
    #[schemars(with = "Option<EmailText>")]
    email: Option<String>,
}

impl SessionIn {
    /// Where codes go.
    pub fn contact(self) -> Result<Contact, ApiError> {
        match (self.number, self.email) {
            (Some(number), None) => Number::parse(&number)
                .map(Contact::Number)
                .map_err(|_| malformed_number()),
            (None, Some(email)) => EmailAddress::parse(&email).map(Contact::Email).map_err(|_| {
                ApiError::bad_request(
                    "email",
                    "an e-mail address is NAME@DOMAIN in ASCII, of at most 254 bytes",
                )
            }),
            _ => Err(ApiError::unprocessable("contact", "give either number or email")),
        }
    }
}

/// The text is no number, or none to which a code could be sent.
pub fn malformed_number() -> ApiError {
    ApiError::bad_request("number", "a number is + and 5 to 15 digits, and not one of +999")
}

/// The body of `PATCH /v1/verification/session/{id}`. Other challenges are never asked for, and their answers not looked at.
#[derive(Deserialize, JsonSchema)]
pub struct SessionUpdateIn {
    /// The nonce of the proof of work.
    #[serde(default)]
    pub captcha: Option<String>,
}

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
    requested_information: Vec<&'static str>,
    verified: bool,
    /// Of a session for an e-mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NumberText>")]
    number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof_of_work: Option<WorkOut>,
    /// Of an answer 429, which is an error and a session, for those who read either.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

/// Work that is asked for before a code.
#[derive(Serialize, JsonSchema)]
pub struct WorkOut {
    /// `sha256`.
    algorithm: &'static str,
    /// Leading zero bits.
    bits: u8,
    challenge: String,
}

impl SessionOut {
    /// Describes a session.
    pub fn new(id: &SessionId, verified: bool, standing: Standing) -> Self {
        let id = id.encode();
        Self {
            next_sms: standing.next_sms,
            next_call: standing.next_call,
            next_verification_attempt: standing.next_attempt,
            allowed_to_request_code: standing.open,
            // The name that clients know for "ask your user to prove something".
            requested_information: standing.work.map(|_| "captcha").into_iter().collect(),
            verified,
            number: standing.number.map(|number| number.as_str().to_owned()),
            proof_of_work: standing.work.map(|bits| WorkOut {
                algorithm: "sha256",
                bits: bits.get(),
                challenge: id.clone(),
            }),
            code: None,
            message: None,
            id,
        }
    }

    /// The same for a client that asked too much of it.
    pub fn refused(self, code: &'static str, message: &'static str) -> Self {
        Self {
            code: Some(code),
            message: Some(message),
            ..self
        }
    }
}

/// The body of 440.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotDeliveredOut {
    /// `providerRejected` or `providerUnavailable`.
    pub reason: &'static str,
    /// Whether it would be the same later.
    pub permanent_failure: bool,
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
