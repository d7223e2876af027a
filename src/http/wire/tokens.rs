//! Sessions and tokens in JSON.

use base64::Engine;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::{Issued, PublishedKey};
use crate::domain::{TokenSession, TokenSessionId};
use crate::encoding::BASE64_URL;
use crate::http::error::ApiError;

use super::forms::{DeviceIdNumber, Millis};

/// A pair of tokens.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokensOut {
    /// To be shown as `Authorization: Bearer`.
    access_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// Seconds for which the access token is good.
    expires_in: u64,
    /// To be exchanged for the next pair, once.
    refresh_token: String,
    /// Seconds for which the refresh token is good.
    refresh_expires_in: u64,
    /// The session's name.
    session: String,
}

impl From<Issued> for TokensOut {
    fn from(issued: Issued) -> Self {
        Self {
            access_token: issued.access,
            token_type: "Bearer",
            expires_in: issued.access_secs,
            refresh_token: issued.refresh,
            refresh_expires_in: issued.refresh_secs,
            session: session_text(issued.session),
        }
    }
}

/// The body of `POST /v1/auth/refresh` and of `POST /v1/auth/revoke`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefreshIn {
    /// A refresh token.
    pub refresh_token: String,
}

/// The answer to `GET /v1/auth/sessions`.
#[derive(Serialize, JsonSchema)]
pub struct TokenSessionsOut {
    /// By device.
    pub sessions: Vec<TokenSessionOut>,
}

/// One session.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenSessionOut {
    /// Its name.
    id: String,
    /// Whose it is.
    #[schemars(with = "DeviceIdNumber")]
    device_id: u8,
    /// The beginning of the day on which it was opened.
    #[schemars(with = "Millis")]
    created: i64,
    /// When it is over, if it is not refreshed before.
    #[schemars(with = "Millis")]
    expires: i64,
    /// This was asked with a token of it.
    current: bool,
}

impl TokenSessionOut {
    /// Describes a session to whoever asks with a token of that one.
    pub fn new(session: &TokenSession, asking: Option<TokenSessionId>) -> Self {
        Self {
            id: session_text(session.id),
            device_id: session.device.get(),
            created: session.created.midnight().0,
            expires: session.expires.midnight().0,
            current: asking == Some(session.id),
        }
    }
}

/// The answer to `GET /.well-known/jwks.json` (RFC 7517).
#[derive(Serialize, JsonSchema)]
pub struct JwksOut {
    /// The latest first.
    keys: Vec<JwkOut>,
}

/// A public key.
#[derive(Serialize, JsonSchema)]
struct JwkOut {
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    r#use: &'static str,
    kid: String,
    x: String,
}

impl JwksOut {
    /// These keys.
    pub fn new(keys: Vec<PublishedKey>) -> Self {
        let described = keys.into_iter().map(|key| JwkOut {
            kty: "OKP",
            crv: "Ed25519",
            alg: "EdDSA",
            r#use: "sig",
            kid: key.kid,
            x: key.x,
        });
        Self {
            keys: described.collect(),
        }
    }
}

/// The session that a path names.
pub fn session_id(text: &str) -> Result<TokenSessionId, ApiError> {
    let id = BASE64_URL.decode(text).ok().and_then(|id| id.try_into().ok());
    id.map(TokenSessionId)
        .ok_or(ApiError::unprocessable("session_id", "this does not name a session"))
}

fn session_text(id: TokenSessionId) -> String {
    BASE64_URL.encode(id.0)
}
