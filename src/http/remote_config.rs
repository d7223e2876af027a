//! `GET /v2/config`: named values that an operator gives to all clients alike.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::error::ApiError;
use super::extract::Caller;
use super::state::AppState;
use super::wire::calling::RemoteConfigOut;

/// The values as they are sent. They are the same for everyone, so that none of them can aim at one account.
pub struct RemoteConfig {
    body: Bytes,
    etag: HeaderValue,
}

impl RemoteConfig {
    /// Writes the values down once.
    pub fn new(values: &BTreeMap<String, String>) -> Self {
        let body = serde_json::to_vec(&RemoteConfigOut { config: values }).expect("strings can be written as JSON");
        let body = Bytes::from(body);
        let hash = Sha256::digest(&body);
        let tag = hash[..16]
            .iter()
            .fold(String::from("\""), |tag, byte| format!("{tag}{byte:02x}"));
        let etag = HeaderValue::try_from(tag + "\"").expect("hexadecimal digits in quotes are a header value");
        Self { body, etag }
    }

    /// Whether a client that sent these headers has the values already.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            // Weak comparison (RFC 9110): a proxy that compresses marks the tag as weak.
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == self.etag.as_bytes())
    }
}

/// `GET /v2/config`
pub(super) async fn show(
    State(node): State<AppState>,
    Caller(_): Caller,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let config = &node.remote_config;
    let etag = [(ETAG, config.etag.clone())];
    if config.is_known(&headers) {
        return Ok((StatusCode::NOT_MODIFIED, etag).into_response());
    }
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    // `Body::from` of bytes says no content type of its own.
    Ok((etag, json, axum::body::Body::from(config.body.clone())).into_response())
}
