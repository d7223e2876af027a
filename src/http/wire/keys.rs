//! Prekeys in JSON.

use keys_schema::{DecodeError, EcPreKey, EcPublicKey, KeyId, KyberPreKey, KyberPublicKey, Signature, SignedEcPreKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::{IdentityKind, KeyUpload, PreKeyBundle, TakenBundles};
use crate::http::error::ApiError;
use crate::http::extract::parse_json;

use super::base64_bytes::{Base64Bytes, padded, unpadded};
use super::forms::{
    Base64Of32, DeviceIdNumber, EcPublicKeyText, IdentityText, KeyIdNumber, KyberPublicKeyText, RegistrationIdNumber,
    SignatureText,
};

/// A one-time EC prekey as a client sends it.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EcPreKeyIn {
    #[schemars(with = "KeyIdNumber")]
    key_id: u64,
    #[schemars(with = "EcPublicKeyText")]
    public_key: Base64Bytes,
}

/// A signed prekey, EC or Kyber, as a client sends it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedPreKeyIn {
    key_id: u64,
    public_key: Base64Bytes,
    signature: Base64Bytes,
}

/// [`SignedPreKeyIn`] of a signed EC prekey.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", rename = "SignedEcPreKeyIn")]
#[expect(dead_code, reason = "only its schema is used")]
pub struct SignedEcPreKeySchema {
    key_id: KeyIdNumber,
    public_key: EcPublicKeyText,
    signature: SignatureText,
}

/// [`SignedPreKeyIn`] of a Kyber prekey.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", rename = "KyberPreKeyIn")]
#[expect(dead_code, reason = "only its schema is used")]
pub struct KyberPreKeySchema {
    key_id: KeyIdNumber,
    public_key: KyberPublicKeyText,
    signature: SignatureText,
}

impl TryFrom<EcPreKeyIn> for EcPreKey {
    type Error = DecodeError;

    fn try_from(key: EcPreKeyIn) -> Result<Self, DecodeError> {
        Ok(Self {
            id: KeyId::new(key.key_id)?,
            key: EcPublicKey::parse(&key.public_key.0)?,
        })
    }
}

impl TryFrom<SignedPreKeyIn> for SignedEcPreKey {
    type Error = DecodeError;

    fn try_from(key: SignedPreKeyIn) -> Result<Self, DecodeError> {
        Ok(Self {
            id: KeyId::new(key.key_id)?,
            key: EcPublicKey::parse(&key.public_key.0)?,
            signature: Signature::parse(&key.signature.0)?,
        })
    }
}

impl TryFrom<SignedPreKeyIn> for KyberPreKey {
    type Error = DecodeError;

    fn try_from(key: SignedPreKeyIn) -> Result<Self, DecodeError> {
        Ok(Self {
            id: KeyId::new(key.key_id)?,
            key: KyberPublicKey::parse(&key.public_key.0)?,
            signature: Signature::parse(&key.signature.0)?,
        })
    }
}

/// The body of `PUT /v2/keys`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyUploadIn {
    #[serde(default)]
    #[schemars(length(max = 100))]
    pre_keys: Option<Vec<EcPreKeyIn>>,
    #[serde(default)]
    #[schemars(with = "Option<Vec<KyberPreKeySchema>>", length(max = 100))]
    pq_pre_keys: Option<Vec<SignedPreKeyIn>>,
    #[serde(default)]
    #[schemars(with = "Option<SignedEcPreKeySchema>")]
    signed_pre_key: Option<SignedPreKeyIn>,
    #[serde(default)]
    #[schemars(with = "Option<KyberPreKeySchema>")]
    pq_last_resort_pre_key: Option<SignedPreKeyIn>,
    /// The name that one client stack uses for the field above.
    #[serde(default)]
    #[schemars(with = "Option<KyberPreKeySchema>")]
    pq_last_resort_key: Option<SignedPreKeyIn>,
}

/// Parses the body of a key upload. Signatures are checked later, against the account.
pub fn parse_key_upload(body: &[u8]) -> Result<KeyUpload, ApiError> {
    parse_json::<KeyUploadIn>(body)?.try_into().map_err(malformed_key)
}

impl TryFrom<KeyUploadIn> for KeyUpload {
    type Error = DecodeError;

    fn try_from(upload: KeyUploadIn) -> Result<Self, DecodeError> {
        Ok(Self {
            one_time: all(upload.pre_keys)?,
            one_time_kyber: all(upload.pq_pre_keys)?,
            signed: upload.signed_pre_key.map(TryInto::try_into).transpose()?,
            last_resort: upload
                .pq_last_resort_pre_key
                .or(upload.pq_last_resort_key)
                .map(TryInto::try_into)
                .transpose()?,
        })
    }
}

fn all<T, U: TryFrom<T, Error = DecodeError>>(keys: Option<Vec<T>>) -> Result<Vec<U>, DecodeError> {
    keys.unwrap_or_default().into_iter().map(TryInto::try_into).collect()
}

/// A key is not of its form.
pub fn malformed_key(_: DecodeError) -> ApiError {
    ApiError::unprocessable("malformed_key", "a key, key id or signature is not of its form")
}

/// The `identity` of a query or body, in any case. Absent means ACI.
pub fn identity_kind(text: Option<&str>) -> Result<IdentityKind, ApiError> {
    match text {
        None => Ok(IdentityKind::Aci),
        Some(text) if text.eq_ignore_ascii_case("aci") => Ok(IdentityKind::Aci),
        Some(text) if text.eq_ignore_ascii_case("pni") => Ok(IdentityKind::Pni),
        Some(_) => Err(ApiError::unprocessable("identity", "an identity is aci or pni")),
    }
}

/// The body of `POST /v2/keys/check`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyCheckIn {
    /// `ACI` or `PNI`.
    #[schemars(with = "IdentityText")]
    pub identity_type: String,
    /// SHA-256 over the repeated-use keys.
    #[schemars(with = "Base64Of32")]
    pub digest: Base64Bytes,
}

/// The answer of `GET /v2/keys`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyCountOut {
    /// One-time EC prekeys.
    pub count: u32,
    /// One-time Kyber prekeys.
    pub pq_count: u32,
}

/// The answer of `GET /v2/keys/{serviceId}/{deviceId}`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundlesOut<'a> {
    #[serde(serialize_with = "padded")]
    #[schemars(with = "EcPublicKeyText")]
    identity_key: &'a [u8],
    #[schemars(length(min = 1))]
    devices: Vec<BundleOut<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct BundleOut<'a> {
    #[schemars(with = "DeviceIdNumber")]
    device_id: u8,
    #[schemars(with = "RegistrationIdNumber")]
    registration_id: u16,
    #[schemars(with = "SignedEcPreKeySchema")]
    signed_pre_key: SignedKeyOut<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pre_key: Option<KeyOut<'a>>,
    #[schemars(with = "KyberPreKeySchema")]
    pq_pre_key: SignedKeyOut<'a>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct KeyOut<'a> {
    #[schemars(with = "KeyIdNumber")]
    key_id: u32,
    #[serde(serialize_with = "padded")]
    #[schemars(with = "EcPublicKeyText")]
    public_key: &'a [u8],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignedKeyOut<'a> {
    key_id: u32,
    #[serde(serialize_with = "padded")]
    public_key: &'a [u8],
    #[serde(serialize_with = "unpadded")]
    signature: &'a [u8],
}

impl<'a> From<&'a TakenBundles> for BundlesOut<'a> {
    fn from(taken: &'a TakenBundles) -> Self {
        Self {
            identity_key: taken.identity.serialized(),
            devices: taken.devices.iter().map(Into::into).collect(),
        }
    }
}

impl<'a> From<&'a PreKeyBundle> for BundleOut<'a> {
    fn from(bundle: &'a PreKeyBundle) -> Self {
        Self {
            device_id: bundle.device_id.get(),
            registration_id: bundle.registration_id.get(),
            signed_pre_key: SignedKeyOut {
                key_id: bundle.signed.id.get(),
                public_key: bundle.signed.key.serialized(),
                signature: bundle.signed.signature.as_bytes(),
            },
            pre_key: bundle.one_time.as_ref().map(|key| KeyOut {
                key_id: key.id.get(),
                public_key: key.key.serialized(),
            }),
            pq_pre_key: SignedKeyOut {
                key_id: bundle.kyber.id.get(),
                public_key: bundle.kyber.key.serialized(),
                signature: bundle.kyber.signature.as_bytes(),
            },
        }
    }
}
