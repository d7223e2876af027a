//! Account attributes and descriptions in JSON.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::accounts::Attributes;
use crate::domain::{AccessKey, Capabilities, DeviceName, InvalidAddress, RegistrationId};
use crate::http::error::ApiError;

use super::base64_bytes::Base64Bytes;

/// `accountAttributes` of a registration, and the body of `PUT /v1/accounts/attributes`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttributesIn {
    #[serde(default)]
    fetches_messages: Option<bool>,
    #[serde(default)]
    registration_id: Option<u64>,
    #[serde(default)]
    pni_registration_id: Option<u64>,
    #[serde(default)]
    name: Option<Base64Bytes>,
    #[serde(default)]
    capabilities: Option<HashMap<String, serde_json::Value>>,
    #[serde(default, deserialize_with = "access_key")]
    unidentified_access_key: Option<Vec<u8>>,
    #[serde(default)]
    unrestricted_unidentified_access: Option<bool>,
    #[serde(default)]
    discoverable_by_phone_number: Option<bool>,
    #[serde(default)]
    recovery_password: Option<Base64Bytes>,
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
        let name = match self.name {
            Some(name) => Some(DeviceName::new(name.0).ok_or(ApiError::unprocessable(
                "device_name_too_long",
                "an encrypted device name has at most 225 bytes",
            ))?),
            None => None,
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
        let capabilities = self.capabilities.unwrap_or_default();
        Ok(Attributes {
            fetches_messages: self.fetches_messages.unwrap_or(false),
            name,
            capabilities: Capabilities::from_names(capabilities.iter().map(|(name, on)| (name.as_str(), *on == true))),
            access_key,
            unrestricted,
            discoverable: self.discoverable_by_phone_number.unwrap_or(true),
            recovery_password,
        })
    }
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
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountOut {
    /// ACI.
    pub uuid: String,
    /// PNI, a bare UUID.
    pub pni: String,
    /// The number.
    pub number: String,
    /// There are no user names yet.
    pub username_hash: Option<String>,
    /// There are no user names yet.
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
#[derive(Default, Serialize)]
pub struct Entitlements {
    badges: [(); 0],
    backup: Option<()>,
}

const MALFORMED_ACCESS_KEY: ApiError = ApiError::unprocessable(
    "access_key",
    "an unidentified access key has 16 bytes, and is needed unless unrestricted",
);
