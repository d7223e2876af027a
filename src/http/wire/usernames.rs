//! User names in JSON. Bytes are in the URL-safe alphabet here, written without padding.

use base64::Engine;
use keys_schema::username::PROOF_LENGTH;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::{EncryptedUsername, LinkHandle, UsernameHash};
use crate::encoding::BASE64_URL;
use crate::http::error::ApiError;

use super::forms::{EncryptedUsernameText, UrlBase64Of32, UsernameProofText, UuidText};

/// The body of `PUT /v1/accounts/username_hash/reserve`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReserveUsernameIn {
    #[schemars(with = "Vec<UrlBase64Of32>", length(min = 1, max = 20))]
    username_hashes: Vec<UrlBytes>,
}

impl ReserveUsernameIn {
    /// The hashes in the order of preference.
    pub fn hashes(self) -> Result<Vec<UsernameHash>, ApiError> {
        if !(1..=MAX_CANDIDATES).contains(&self.username_hashes.len()) {
            return Err(ApiError::unprocessable(
                "username_hashes",
                "ask for at least one and at most 20 user names",
            ));
        }
        self.username_hashes.into_iter().map(UrlBytes::hash).collect()
    }
}

/// The answer to a reservation.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservedUsernameOut {
    /// The one that is reserved.
    #[schemars(with = "UrlBase64Of32")]
    pub username_hash: String,
}

/// The body of `PUT /v1/accounts/username_hash/confirm`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmUsernameIn {
    #[schemars(with = "UrlBase64Of32")]
    username_hash: UrlBytes,
    #[schemars(with = "UsernameProofText")]
    zk_proof: UrlBytes,
    #[serde(default)]
    #[schemars(with = "Option<EncryptedUsernameText>")]
    encrypted_username: Option<UrlBytes>,
}

/// A confirmation, checked for form.
pub struct Confirmation {
    /// The name.
    pub hash: UsernameHash,
    /// What proves that the caller knows the name behind the hash.
    pub proof: [u8; PROOF_LENGTH],
    /// For the link.
    pub encrypted: Option<EncryptedUsername>,
}

impl ConfirmUsernameIn {
    /// Checks the form.
    pub fn confirmation(self) -> Result<Confirmation, ApiError> {
        Ok(Confirmation {
            hash: self.username_hash.hash()?,
            proof: self.zk_proof.0.try_into().map_err(|_| BAD_PROOF)?,
            encrypted: self.encrypted_username.map(UrlBytes::encrypted).transpose()?,
        })
    }
}

/// The answer to a confirmation.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsernameOut {
    /// The caller's name.
    #[schemars(with = "UrlBase64Of32")]
    pub username_hash: String,
    /// The handle of its link, if it has one.
    #[schemars(with = "Option<UuidText>")]
    pub username_link_handle: Option<String>,
}

/// The body of `PUT /v1/accounts/username_link`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsernameLinkIn {
    #[schemars(with = "EncryptedUsernameText")]
    username_link_encrypted_value: UrlBytes,
    #[serde(default)]
    keep_link_handle: Option<bool>,
}

impl UsernameLinkIn {
    /// The encrypted name, and whether the old handle is to be kept.
    pub fn link(self) -> Result<(EncryptedUsername, bool), ApiError> {
        let encrypted = self.username_link_encrypted_value.encrypted()?;
        Ok((encrypted, self.keep_link_handle.unwrap_or(false)))
    }
}

/// The answer to a new link.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkHandleOut {
    /// Under which others find it.
    #[schemars(with = "UuidText")]
    pub username_link_handle: String,
}

/// The answer to a search for a name.
#[derive(Serialize, JsonSchema)]
pub struct UsernameOwnerOut {
    /// The owner's ACI.
    #[schemars(with = "UuidText")]
    pub uuid: String,
}

/// The answer to a search for a link.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsernameLinkOut {
    /// What the owner stored.
    #[schemars(with = "EncryptedUsernameText")]
    pub username_link_encrypted_value: String,
}

/// Bytes of which the form is checked later, so that each refusal can have its own code. Without bytes if it was no
/// base64 at all.
struct UrlBytes(Vec<u8>);

impl UrlBytes {
    fn hash(self) -> Result<UsernameHash, ApiError> {
        self.0.try_into().map(UsernameHash).map_err(|_| MALFORMED_HASH)
    }

    fn encrypted(self) -> Result<EncryptedUsername, ApiError> {
        EncryptedUsername::new(self.0).ok_or(ApiError::unprocessable(
            "encrypted_username",
            "an encrypted user name has 1 to 128 bytes in URL-safe base64",
        ))
    }
}

impl<'de> Deserialize<'de> for UrlBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // Some stacks write one alphabet where they read the other; no text means two things.
        let text = text.replace('+', "-").replace('/', "_");
        Ok(Self(BASE64_URL.decode(text).unwrap_or_default()))
    }
}

/// A name in a path.
pub fn parse_hash(text: &str) -> Result<UsernameHash, ApiError> {
    let bytes = BASE64_URL.decode(text).map_err(|_| MALFORMED_HASH)?;
    UrlBytes(bytes).hash()
}

/// A hash as it is written.
pub fn hash_text(hash: &UsernameHash) -> String {
    BASE64_URL.encode(hash.0)
}

/// A handle as it is written.
pub fn handle_text(handle: &LinkHandle) -> String {
    handle.0.to_string()
}

/// What is stored under a link, as it is written.
pub fn encrypted_text(encrypted: &EncryptedUsername) -> String {
    BASE64_URL.encode(encrypted.as_bytes())
}

/// The proof does not prove it.
pub const BAD_PROOF: ApiError = ApiError::unprocessable("zk_proof", "the proof is not one of knowing this user name");
const MALFORMED_HASH: ApiError =
    ApiError::unprocessable("username_hash", "a user name's hash has 32 bytes in URL-safe base64");
const MAX_CANDIDATES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_are_read_and_the_url_safe_one_is_written() {
        for text in ["\"-_8\"", "\"+/8\"", "\"-_8=\"", "\"+_8=\""] {
            let bytes: UrlBytes = serde_json::from_str(text).unwrap();
            assert_eq!(bytes.0, [0xfb, 0xff], "{text}");
        }
        for text in ["\"-_9\"", "\"?\"", "\"a\""] {
            let bytes: UrlBytes = serde_json::from_str(text).unwrap();
            assert!(bytes.0.is_empty(), "{text}");
        }
        let encrypted = EncryptedUsername::new(vec![0xfb, 0xff]).unwrap();
        assert_eq!(encrypted_text(&encrypted), "-_8");
    }
}
