//! Under which URL clients reach this server: what an answer with a URL in it begins with.
//!
//! It is the operator's setting. Without one it is made of what the client itself asked for: its `Host`, and whether the
//! connection speaks TLS. Headers that a proxy may have added, or a client made up, are not looked at. A client can so
//! only be told of the host that it named.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::header::{HOST, ORIGIN};
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
            Some(tunnelled) => tunnelled.socket.origin.clone(),
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

/// Refuses a WebSocket that a page of another site opens in somebody's browser. Clients that are no pages name no site.
pub(super) fn refuse_foreign(
    node: &Node,
    uri: &Uri,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<(), ApiError> {
    for site in headers.get_all(ORIGIN) {
        let site = site.to_str().unwrap_or_default();
        let own = of(node, uri, headers, extensions);
        let known = own.is_some_and(|own| is_own(site, &own, node.public_url.is_some()));
        if !known && !node.allowed_origins.iter().any(|allowed| allowed == site) {
            return Err(FOREIGN);
        }
    }
    Ok(())
}

/// Whether a site is this server's. What speaks TLS in front of it is only known where the operator says so; without that
/// the host decides.
fn is_own(site: &str, own: &str, with_scheme: bool) -> bool {
    let parts = |url: &str| -> Option<(String, String)> {
        let (scheme, rest) = url.split_once("://")?;
        let host = rest.split('/').next()?;
        Some((scheme.to_ascii_lowercase(), host.to_ascii_lowercase()))
    };
    match (parts(site), parts(own)) {
        (Some((site_scheme, site)), Some((scheme, own))) => site == own && (!with_scheme || site_scheme == scheme),
        _ => false,
    }
}

fn is_host(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    !text.is_empty() && text.len() <= MAX_HOST && text.bytes().all(allowed)
}

const FOREIGN: ApiError = ApiError::forbidden(
    "foreign_origin",
    "pages of this site may not open WebSockets here; the setting allowed_origins names those that may",
);
pub(super) const NO_HOST: ApiError =
    ApiError::bad_request("host", "the request names no host under which this server is reached");
/// A name of 253 characters and a port.
const MAX_HOST: usize = 260;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t09_a_site_is_ours_by_its_host_and_by_its_scheme_where_that_is_known() {
        for (site, own, with_scheme, ours) in [
            ("https://relay.example", "https://relay.example", true, true),
            ("https://Relay.Example", "https://relay.example/chat", true, true),
            ("http://relay.example", "https://relay.example", true, false),
            ("https://relay.example", "http://relay.example", false, true),
            ("https://relay.example:8443", "https://relay.example", false, false),
            ("https://evil.example", "https://relay.example", false, false),
            (
                "https://relay.example.evil.example",
                "https://relay.example",
                false,
                false,
            ),
            ("null", "https://relay.example", false, false),
            ("", "https://relay.example", false, false),
        ] {
            assert_eq!(is_own(site, own, with_scheme), ours, "{site} at {own}");
        }
    }

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
