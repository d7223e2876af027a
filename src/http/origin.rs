//! Under which URL clients reach this server: what an answer with a URL in it begins with.
//!
//! It is the operator's setting. Without one it is made of what the client itself asked for: its `Host`, and whether the
//! connection speaks TLS. Headers that a proxy may have added, or a client made up, are not looked at. A client can so
//! only be told of the host that it named.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Uri};

use super::error::ApiError;
use super::extract::Tunnelled;
use super::listener::ConnectionSlot;
use super::state::{AppState, Node};

/// Scheme, host, and what comes before the paths of this server, without a slash at the end.
pub(super) struct Origin(pub(super) Arc<str>);

impl FromRequestParts<AppState> for Origin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, node: &AppState) -> Result<Self, ApiError> {
        let found = match parts.extensions.get::<Tunnelled>() {
            Some(tunnelled) => tunnelled.origin.clone(),
            None => of(node, &parts.uri, &parts.headers, &parts.extensions),
        };
        found.map(Self).ok_or(NO_HOST)
    }
}

/// For what needs it in some cases only.
impl OptionalFromRequestParts<AppState> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, node: &AppState) -> Result<Option<Self>, Infallible> {
        Ok(<Self as FromRequestParts<AppState>>::from_request_parts(parts, node)
            .await
            .ok())
    }
}

/// The origin that a request names; `None` if it names none.
pub(super) fn of(node: &Node, uri: &Uri, headers: &HeaderMap, extensions: &Extensions) -> Option<Arc<str>> {
    if let Some(url) = &node.public_url {
        return Some(Arc::clone(url));
    }
    let tls = extensions.get::<ConnectionSlot>().is_some_and(ConnectionSlot::is_tls);
    // HTTP/2 says it in the place of the header.
    let host = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(HOST)?.to_str().ok()?,
    };
    is_host(host).then(|| format!("{}://{host}", if tls { "https" } else { "http" }).into())
}

fn is_host(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    !text.is_empty() && text.len() <= MAX_HOST && text.bytes().all(allowed)
}

pub(super) const NO_HOST: ApiError =
    ApiError::bad_request("host", "the request names no host under which this server is reached");
/// A name of 253 characters and a port.
const MAX_HOST: usize = 260;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses_with_or_without_a_port() {
        for host in ["localhost", "relay.example:8443", "127.0.0.1:80", "[::1]:443"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "a/b", "user@host", "a\"b", "a b", "a\\b", &"a".repeat(261)] {
            assert!(!is_host(host), "{host}");
        }
    }
}
