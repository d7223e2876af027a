//! Profiles in JSON.

use std::collections::{BTreeMap, HashMap};

use base64::Engine;
use bytes::Bytes;
use keys_schema::IdentityKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::{Profile, ProfileVersion, ServiceId};
use crate::encoding::{BASE64, read_hex};
use crate::http::error::ApiError;

use super::base64_bytes::Base64Bytes;
use super::forms::{
    AboutEmojiText, AboutText, CommitmentText, EcPublicKeyText, FingerprintText, PaymentAddressText,
    PhoneNumberSharingText, ProfileNameText, ProfileVersionText, ServiceIdText,
};

/// The body of `PUT /v1/profile`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProfileIn {
    #[schemars(with = "ProfileVersionText")]
    version: String,
    #[schemars(with = "CommitmentText")]
    commitment: Base64Bytes,
    #[schemars(with = "ProfileNameText")]
    name: Base64Bytes,
    #[serde(default)]
    #[schemars(with = "Option<AboutText>")]
    about: Option<Base64Bytes>,
    #[serde(default)]
    #[schemars(with = "Option<AboutEmojiText>")]
    about_emoji: Option<Base64Bytes>,
    #[serde(default)]
    #[schemars(with = "Option<PaymentAddressText>")]
    payment_address: Option<Base64Bytes>,
    #[serde(default)]
    #[schemars(with = "Option<PhoneNumberSharingText>")]
    phone_number_sharing: Option<Base64Bytes>,
    #[serde(default)]
    avatar: Option<bool>,
    #[serde(default)]
    same_avatar: Option<bool>,
}

/// What is to become of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AvatarWish {
    /// There is none.
    None,
    /// The one that is there.
    Same,
    /// Another one will be uploaded.
    New,
}

impl ProfileIn {
    /// What the two flags mean together.
    pub fn avatar(&self) -> AvatarWish {
        match (self.avatar.unwrap_or(false), self.same_avatar.unwrap_or(false)) {
            (false, _) => AvatarWish::None,
            (true, true) => AvatarWish::Same,
            (true, false) => AvatarWish::New,
        }
    }

    /// Checks the lengths: a padded ciphertext of another length was not made by a client that pads.
    pub fn profile(self) -> Result<(ProfileVersion, Profile), ApiError> {
        let version = parse_version(&self.version).ok_or(ApiError::unprocessable(
            "profile_version",
            "a version has 64 hexadecimal digits",
        ))?;
        let commitment = self
            .commitment
            .0
            .try_into()
            .map_err(|_| ApiError::unprocessable("commitment", "a commitment to a profile key has 97 bytes"))?;
        let profile = Profile {
            commitment,
            name: optional(Some(self.name), &[81, 285])?.ok_or(FIELD)?,
            about: optional(self.about, &[156, 282, 540])?,
            about_emoji: optional(self.about_emoji, &[60])?,
            payment_address: optional(self.payment_address, &[582])?,
            phone_number_sharing: optional(self.phone_number_sharing, &[29])?,
            avatar: None,
        };
        Ok((version, profile))
    }
}

/// A ciphertext of one of these lengths. An empty one stands for none.
fn optional(bytes: Option<Base64Bytes>, lengths: &[usize]) -> Result<Option<Bytes>, ApiError> {
    match bytes {
        Some(Base64Bytes(bytes)) if !bytes.is_empty() => {
            if lengths.contains(&bytes.len()) {
                Ok(Some(bytes.into()))
            } else {
                Err(FIELD)
            }
        }
        _ => Ok(None),
    }
}

/// A version as paths and bodies have it.
pub fn parse_version(text: &str) -> Option<ProfileVersion> {
    let mut version = ProfileVersion([0; 32]);
    read_hex(text, &mut version.0)?;
    Some(version)
}

/// A profile as contacts see it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProfileOut {
    #[schemars(with = "ServiceIdText")]
    uuid: String,
    #[schemars(with = "EcPublicKeyText")]
    identity_key: String,
    unidentified_access: Option<String>,
    unrestricted_unidentified_access: bool,
    capabilities: BTreeMap<&'static str, bool>,
    badges: [(); 0],
    name: Option<String>,
    about: Option<String>,
    about_emoji: Option<String>,
    avatar: Option<String>,
    payment_address: Option<String>,
    phone_number_sharing: Option<String>,
    commitment: Option<String>,
}

impl ProfileOut {
    /// An account that nobody reaches anonymously and that can do nothing, with what its version holds.
    pub fn new(id: &ServiceId, identity: &IdentityKey, profile: Option<Profile>) -> Self {
        let text = |bytes: Option<Bytes>| bytes.map(|bytes| BASE64.encode(bytes));
        let commitment = profile.as_ref().map(|profile| BASE64.encode(profile.commitment));
        let (name, rest) = match profile {
            Some(profile) => (Some(profile.name.clone()), Some(profile)),
            None => (None, None),
        };
        let field = |pick: fn(&Profile) -> Option<Bytes>| text(rest.as_ref().and_then(pick));
        Self {
            uuid: id.to_string(),
            identity_key: BASE64.encode(identity.serialized()),
            unidentified_access: None,
            unrestricted_unidentified_access: false,
            capabilities: BTreeMap::new(),
            badges: [],
            name: text(name),
            about: field(|profile| profile.about.clone()),
            about_emoji: field(|profile| profile.about_emoji.clone()),
            payment_address: field(|profile| profile.payment_address.clone()),
            phone_number_sharing: field(|profile| profile.phone_number_sharing.clone()),
            avatar: rest.and_then(|profile| profile.avatar).map(|avatar| avatar.0),
            commitment,
        }
    }

    /// How it is reached anonymously.
    pub fn with_access(mut self, checksum: Option<[u8; 32]>, unrestricted: bool) -> Self {
        self.unidentified_access = checksum.map(|checksum| BASE64.encode(checksum));
        self.unrestricted_unidentified_access = unrestricted;
        self
    }

    /// What it can do.
    pub fn with_capabilities(mut self, capabilities: BTreeMap<&'static str, bool>) -> Self {
        self.capabilities = capabilities;
        self
    }
}

/// The body of `POST /v1/profile/identity_check/batch`.
#[derive(Deserialize, JsonSchema)]
pub struct IdentityCheckIn {
    #[schemars(length(max = 1000))]
    elements: Vec<IdentityIn>,
}

#[derive(Deserialize, JsonSchema)]
struct IdentityIn {
    #[schemars(with = "ServiceIdText")]
    uuid: String,
    #[schemars(with = "FingerprintText")]
    fingerprint: Base64Bytes,
}

/// An identity key as a client knows it.
pub struct KnownIdentity {
    /// Whose.
    pub id: ServiceId,
    fingerprint: [u8; 4],
}

impl IdentityCheckIn {
    /// Checks the list, all of it or nothing.
    pub fn elements(self) -> Result<Vec<KnownIdentity>, ApiError> {
        if self.elements.len() > MAX_ELEMENTS {
            return Err(ApiError::unprocessable(
                "too_many_elements",
                "at most 1000 identity keys are checked at once",
            ));
        }
        let elements = self.elements.into_iter().map(|element| {
            let id = ServiceId::parse(&element.uuid)
                .map_err(|_| ApiError::unprocessable("service_id", "an element's uuid is no service id"))?;
            let fingerprint = element
                .fingerprint
                .0
                .try_into()
                .map_err(|_| ApiError::unprocessable("fingerprint", "a fingerprint has 4 bytes"))?;
            Ok(KnownIdentity { id, fingerprint })
        });
        elements.collect()
    }
}

/// The answer to an identity check.
#[derive(Serialize, JsonSchema)]
pub struct IdentityCheckOut {
    elements: Vec<IdentityOut>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct IdentityOut {
    #[schemars(with = "ServiceIdText")]
    uuid: String,
    #[schemars(with = "EcPublicKeyText")]
    identity_key: String,
}

impl IdentityCheckOut {
    /// Those who have another key than the client knows.
    pub fn mismatches(known: &[KnownIdentity], current: &HashMap<ServiceId, &IdentityKey>) -> Self {
        let differs = |known: &KnownIdentity| {
            let key = current.get(&known.id)?;
            let same = Sha256::digest(key.serialized())[..4] == known.fingerprint;
            (!same).then(|| IdentityOut {
                uuid: known.id.to_string(),
                identity_key: BASE64.encode(key.serialized()),
            })
        };
        Self {
            elements: known.iter().filter_map(differs).collect(),
        }
    }
}

const FIELD: ApiError = ApiError::unprocessable(
    "profile_field",
    "a field has a length that padded ciphertext of its kind never has",
);
const MAX_ELEMENTS: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_in_either_case() {
        let text = "0123456789abcdefABCDEF".to_owned() + &"f".repeat(42);
        let version = parse_version(&text).unwrap();
        assert_eq!(version.0[..11], [1, 35, 69, 103, 137, 171, 205, 239, 171, 205, 239]);
        let signs = "+1".repeat(32);
        let wide = "é".repeat(32);
        for text in [
            "",
            &text[1..],
            &(text.clone() + "0"),
            &text.replace('0', "g"),
            &signs,
            &wide,
        ] {
            assert!(parse_version(text).is_none(), "{text}");
        }
    }
}
