//! Account attributes and descriptions in JSON.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::accounts::{Attributes, RegistrationLock};
use crate::domain::{AccessKey, Capabilities, DeviceName, InvalidAddress, RegistrationId};
use crate::http::error::ApiError;

use super::base64_bytes::Base64Bytes;
use super::forms::{
    AccessKeyValue, Base64Of32, DeviceNameText, NumberText, RegistrationIdNumber, RegistrationLockText, UrlBase64Of32,
    UuidText,
};

/// `accountAttributes` of a registration, and the body of `PUT /v1/accounts/attributes`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttributesIn {
    #[serde(default)]
    fetches_messages: Option<bool>,
    #[serde(default)]
    #[schemars(with = "Option<RegistrationIdNumber>")]
    registration_id: Option<u64>,
    #[serde(default)]
    #[schemars(with = "Option<RegistrationIdNumber>")]
    pni_registration_id: Option<u64>,
    #[serde(default)]
    #[schemars(with = "Option<DeviceNameText>")]
    name: Option<Base64Bytes>,
    #[serde(default)]
    capabilities: Option<HashMap<String, serde_json::Value>>,
    #[serde(default, deserialize_with = "access_key")]
    #[schemars(with = "Option<AccessKeyValue>")]
    unidentified_access_key: Option<Vec<u8>>,
    #[serde(default)]
    unrestricted_unidentified_access: Option<bool>,
    #[serde(default)]
    discoverable_by_phone_number: Option<bool>,
    #[serde(default)]
    #[schemars(with = "Option<Base64Of32>")]
    recovery_password: Option<Base64Bytes>,
    #[serde(default)]
    #[schemars(with = "Option<RegistrationLockText>")]
    registration_lock: Option<String>,
}

impl AttributesIn {
    /// The ACI and PNI registration ids, both of which a registration needs.
    pub fn registration_ids(&self) -> Result<(RegistrationId, RegistrationId), ApiError> {
        let parse = |id: Option<u64>| RegistrationId::new(id.ok_or(InvalidAddress::RegistrationId)?);
        match (parse(self.registration_id), parse(self.pni_registration_id)) {
            (Ok(aci), Ok(pni)) => Ok((aci, pni)),
            _ => Err(ApiError::unprocessable(
                "registration_id",
                "registration ids run from 1 to 16383",
            )),
        }
    }

    /// Checks the rest.
    pub fn attributes(self) -> Result<Attributes, ApiError> {
        let unrestricted = self.unrestricted_unidentified_access.unwrap_or(false);
        let access_key = self
            .unidentified_access_key
            .and_then(|bytes| bytes.try_into().ok())
            .map(AccessKey);
        let access_key = match access_key {
            Some(key) => Some(key),
            None if unrestricted => None,
            None => return Err(MALFORMED_ACCESS_KEY),
        };
        let name = self.name.map(device_name).transpose()?;
        let lock = match self.registration_lock.as_deref() {
            None | Some("") => None,
            Some(text) => Some(registration_lock(text)?),
        };
        let recovery_password = match self.recovery_password {
            Some(bytes) => Some(
                bytes
                    .0
                    .try_into()
                    .map_err(|_| ApiError::unprocessable("recovery_password", "a recovery password has 32 bytes"))?,
            ),
            None => None,
        };
        Ok(Attributes {
            fetches_messages: self.fetches_messages.unwrap_or(false),
            name,
            capabilities: capabilities(&self.capabilities.unwrap_or_default()),
            access_key,
            unrestricted,
            discoverable: self.discoverable_by_phone_number.unwrap_or(true),
            recovery_password,
            lock,
        })
    }

    /// Whether the client keeps a connection instead of being woken by push.
    pub fn fetches_messages(&self) -> bool {
        self.fetches_messages.unwrap_or(false)
    }

    /// The name and the capabilities of a device that is being linked; what is the account's is not looked at. Without
    /// capabilities nobody could say whether the device may be linked.
    pub fn linked_device(self) -> Result<(Option<DeviceName>, Capabilities), ApiError> {
        let named = self.capabilities.ok_or(ApiError::unprocessable(
            "capabilities",
            "a device that is linked says what it can do",
        ))?;
        let name = self.name.map(device_name).transpose()?;
        Ok((name, capabilities(&named)))
    }
}

/// The names that are `true`.
pub fn capabilities(named: &HashMap<String, serde_json::Value>) -> Capabilities {
    Capabilities::from_names(named.iter().map(|(name, on)| (name.as_str(), *on == true)))
}

/// A device's name as the client encrypted it.
pub fn device_name(encrypted: Base64Bytes) -> Result<DeviceName, ApiError> {
    DeviceName::new(encrypted.0).ok_or(ApiError::unprocessable(
        "device_name_too_long",
        "an encrypted device name has at most 225 bytes",
    ))
}

/// A registration lock.
pub fn registration_lock(text: &str) -> Result<RegistrationLock, ApiError> {
    RegistrationLock::parse(text).ok_or(ApiError::unprocessable(
        "registration_lock",
        "a registration lock has 64 hexadecimal digits",
    ))
}

/// Base64, or an array of numbers: client stacks differ.
fn access_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Base64(Base64Bytes),
        Numbers(Vec<u8>),
    }
    let form = Option::<Form>::deserialize(deserializer)?;
    Ok(form.map(|form| match form {
        Form::Base64(bytes) => bytes.0,
        Form::Numbers(bytes) => bytes,
    }))
}

/// What a device is told about its own account.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountOut {
    /// ACI.
    #[schemars(with = "UuidText")]
    pub uuid: String,
    /// PNI, a bare UUID.
    #[schemars(with = "UuidText")]
    pub pni: String,
    /// The number.
    #[schemars(with = "NumberText")]
    pub number: String,
    /// Hash of the account's user name, if it has one.
    #[schemars(with = "Option<UrlBase64Of32>")]
    pub username_hash: Option<String>,
    /// Handle of the link to that name.
    #[schemars(with = "Option<UuidText>")]
    pub username_link_handle: Option<String>,
    /// Whether the account can store data.
    pub storage_capable: bool,
    /// What the account is entitled to beyond messages.
    pub entitlements: Entitlements,
    /// Whether the number had an account before; only in the answer to a registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reregistration: Option<bool>,
}

/// Nothing is sold here, so there is nothing to be entitled to.
#[derive(Default, JsonSchema, Serialize)]
pub struct Entitlements {
    badges: [(); 0],
    backup: Option<()>,
}

const MALFORMED_ACCESS_KEY: ApiError = ApiError::unprocessable(
    "access_key",
    "an unidentified access key has 16 bytes, and is needed unless unrestricted",
);
