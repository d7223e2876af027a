//! Who may upload: whoever holds the capability of a form, whoever that is.
//!
//! It comes as a bearer token beside the key in the path, as tus has it, or in the place of the key, where the URL is all
//! that a client has.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};

use crate::attachments::{Attachments, Capability};
use crate::http::error::ApiError;

/// The capability in the `Authorization` header.
pub(super) fn by_header(attachments: &Attachments, headers: &HeaderMap) -> Result<Capability, ApiError> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    token.and_then(|token| attachments.capability(token)).ok_or(REFUSED)
}

/// The capability for the upload that a path names.
pub(super) fn for_path(attachments: &Attachments, path: &str, headers: &HeaderMap) -> Result<Capability, ApiError> {
    let plausible = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if path.is_empty() || path.len() > MAX_TEXT || !path.bytes().all(plausible) {
        return Err(NO_KEY);
    }
    if let Some(capability) = attachments.capability(path) {
        return Ok(capability);
    }
    let capability = by_header(attachments, headers)?;
    if capability.key.to_string() == path {
        Ok(capability)
    } else {
        Err(REFUSED)
    }
}

/// The same whether the upload exists or not.
const REFUSED: ApiError = ApiError::new(
    StatusCode::FORBIDDEN,
    "upload_form",
    "this is not, or no longer, allowed by an upload form of this server",
);
/// What is no key and cannot be one.
pub(super) const NO_KEY: ApiError = ApiError::bad_request("attachment_key", "this is not a key of an attachment");
/// Twice a capability.
const MAX_TEXT: usize = 256;
