//! Linking and lists of devices in JSON.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::accounts::{LinkRequest, LinkToken};
use crate::auth::Password;
use crate::domain::{CreatedAt, Device};
use crate::http::error::ApiError;

use super::account::{AttributesIn, registration_lock};
use super::base64_bytes::{Base64Bytes, padded, unpadded};
use super::forms::{DeviceIdNumber, DeviceNameText, Millis, RegistrationIdNumber, RegistrationLockText, UuidText};
use super::keys::{KyberPreKeySchema, SignedEcPreKeySchema, SignedPreKeyIn, malformed_key};
use super::registration::signed_keys;

/// Another password for a device.
#[derive(Deserialize, JsonSchema)]
pub struct PasswordIn {
    /// Drawn at random, with 128 bits of entropy or more: a salted hash of it is stored.
    #[schemars(length(min = 8, max = 256))]
    password: String,
}

impl PasswordIn {
    /// Checks its length.
    pub fn password(&self) -> Result<Password, ApiError> {
        Password::new(self.password.as_bytes())
            .ok_or(ApiError::unprocessable("password", "a password has 8 to 256 bytes"))
    }
}

/// How a device that keeps no connection is woken through Google. There is no push yet: only its form matters.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcmTokenIn {
    #[schemars(length(min = 1, max = 4096))]
    gcm_registration_id: String,
}

/// The same through Apple.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApnTokenIn {
    #[schemars(length(min = 1, max = 4096))]
    apn_registration_id: String,
}

impl GcmTokenIn {
    /// Checks the form.
    pub fn check(&self) -> Result<(), ApiError> {
        check_token(&self.gcm_registration_id)
    }
}

impl ApnTokenIn {
    /// Checks the form.
    pub fn check(&self) -> Result<(), ApiError> {
        check_token(&self.apn_registration_id)
    }
}

/// A device has exactly one way to learn of envelopes: it keeps a connection, or it is woken through one provider.
pub fn check_channel(
    fetches_messages: bool,
    gcm: Option<&GcmTokenIn>,
    apn: Option<&ApnTokenIn>,
) -> Result<(), ApiError> {
    gcm.map_or(Ok(()), GcmTokenIn::check)?;
    apn.map_or(Ok(()), ApnTokenIn::check)?;
    let ways = u8::from(fetches_messages) + u8::from(gcm.is_some()) + u8::from(apn.is_some());
    if ways == 1 {
        Ok(())
    } else {
        Err(ApiError::unprocessable(
            "delivery_channel",
            "a device either fetches messages or has exactly one push token",
        ))
    }
}

/// The answer to `GET /v1/devices/provisioning/code`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkCodeOut {
    /// What the new device shows.
    pub verification_code: String,
    /// Its hash, by which the primary waits for the device.
    pub token_identifier: String,
}

/// The account has as many devices as it may have.
#[derive(Serialize, JsonSchema)]
pub struct DeviceLimitOut {
    /// Devices that there are.
    pub current: u8,
    /// Devices that there may be.
    pub max: u8,
}

/// The body of `PUT /v1/devices/link`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkIn {
    verification_code: String,
    account_attributes: AttributesIn,
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

impl LinkIn {
    /// Checks everything that can be checked without the account.
    pub fn into_request(self, password: Password) -> Result<LinkRequest, ApiError> {
        let fetches_messages = self.account_attributes.fetches_messages();
        check_channel(fetches_messages, self.gcm_token.as_ref(), self.apn_token.as_ref())?;
        let (registration_id, pni_registration_id) = self.account_attributes.registration_ids()?;
        let (name, capabilities) = self.account_attributes.linked_device()?;
        let aci_keys = signed_keys(self.aci_signed_pre_key, self.aci_pq_last_resort_pre_key).map_err(malformed_key)?;
        let pni_keys = signed_keys(self.pni_signed_pre_key, self.pni_pq_last_resort_pre_key).map_err(malformed_key)?;
        Ok(LinkRequest {
            token: LinkToken::new(self.verification_code),
            password,
            registration_id,
            pni_registration_id,
            fetches_messages,
            name,
            capabilities,
            aci_keys,
            pni_keys,
        })
    }
}

/// The answer to `PUT /v1/devices/link`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkOut {
    /// ACI.
    #[schemars(with = "UuidText")]
    pub uuid: String,
    /// PNI, a bare UUID.
    #[schemars(with = "UuidText")]
    pub pni: String,
    /// The device's number.
    #[schemars(with = "DeviceIdNumber")]
    pub device_id: u8,
}

/// The answer to `GET /v1/devices`.
#[derive(Serialize, JsonSchema)]
pub struct DevicesOut {
    /// By device id.
    pub devices: Vec<DeviceOut>,
}

/// One device, as its account sees it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceOut {
    #[schemars(with = "DeviceIdNumber")]
    id: u8,
    #[schemars(with = "Option<DeviceNameText>")]
    name: Option<EncryptedName>,
    #[schemars(with = "Millis")]
    last_seen: i64,
    #[schemars(with = "RegistrationIdNumber")]
    registration_id: u16,
    #[serde(serialize_with = "sealed_time")]
    #[schemars(with = "String")]
    created_at_ciphertext: CreatedAt,
}

impl DeviceOut {
    /// Describes a device.
    pub fn new(device: &Device, created_at: CreatedAt) -> Self {
        Self {
            id: device.id.get(),
            name: device.name.as_ref().map(|name| EncryptedName(name.as_bytes().to_vec())),
            last_seen: device.last_seen.midnight().0,
            registration_id: device.registration_id.get(),
            created_at_ciphertext: created_at,
        }
    }
}

#[derive(Serialize)]
struct EncryptedName(#[serde(serialize_with = "padded_name")] Vec<u8>);

fn padded_name<S: serde::Serializer>(name: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    padded(name, serializer)
}

fn sealed_time<S: serde::Serializer>(sealed: &CreatedAt, serializer: S) -> Result<S::Ok, S::Error> {
    unpadded(&sealed.0, serializer)
}

/// The body of `PUT /v1/accounts/name`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameIn {
    /// Encrypted by the client.
    #[schemars(with = "DeviceNameText")]
    pub device_name: Base64Bytes,
}

/// The body of `PUT /v1/devices/capabilities`.
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CapabilitiesIn(pub HashMap<String, serde_json::Value>);

/// The body of `PUT /v1/accounts/registration_lock`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationLockIn {
    #[schemars(with = "RegistrationLockText")]
    registration_lock: String,
}

impl RegistrationLockIn {
    /// The lock.
    pub fn lock(&self) -> Result<crate::accounts::RegistrationLock, ApiError> {
        registration_lock(&self.registration_lock)
    }
}

/// The number has a registration lock.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LockedOut {
    /// For how long, in milliseconds.
    pub time_remaining: i64,
    /// There is no enclave that keeps a lock for its owner.
    pub svr2_credentials: Option<()>,
}

/// The body of `PUT /v2/accounts/phone_number_discoverability`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscoverableIn {
    /// Whether the number may be found.
    pub discoverable_by_phone_number: bool,
}

fn check_token(token: &str) -> Result<(), ApiError> {
    if (1..=MAX_TOKEN_BYTES).contains(&token.len()) {
        Ok(())
    } else {
        Err(ApiError::unprocessable(
            "push_token",
            "a push token has 1 to 4096 bytes",
        ))
    }
}

const MAX_TOKEN_BYTES: usize = 4096;
