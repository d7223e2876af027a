//! Answers that a client may have already (RFC 9110, conditional requests).

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::encoding::hex;

/// Whether the client says that it has what this tag stands for. Compared weakly: a proxy that compresses marks a tag as
/// weak.
pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// JSON that is the same for everyone, written once.
pub struct TaggedJson {
    body: Bytes,
    tag: String,
}

impl TaggedJson {
    /// For a body that is JSON.
    pub fn new(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let tag = format!("\"{}\"", hex(&Sha256::digest(&body)[..16]));
        Self { body, tag }
    }

    /// The body, or that the client has it.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response {
        let tag = [(ETAG, self.tag.as_str()), (CACHE_CONTROL, "no-cache")];
        if is_known(headers, &self.tag) {
            return (StatusCode::NOT_MODIFIED, tag).into_response();
        }
        let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        // `Body::from` of bytes says no content type of its own.
        (tag, json, Body::from(self.body.clone())).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_alone_in_a_list_weakly_and_by_a_star() {
        let knows = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IF_NONE_MATCH, value.parse().unwrap());
            }
            is_known(&headers, "\"a\"")
        };
        for values in [
            &["\"a\""][..],
            &["W/\"a\""],
            &["\"b\", \"a\""],
            &["\"b\"", "\"a\""],
            &["*"],
        ] {
            assert!(knows(values), "{values:?}");
        }
        for values in [&[][..], &["a"], &["\"b\""], &["\"ab\""], &["W/\"b\""]] {
            assert!(!knows(values), "{values:?}");
        }
    }
}
