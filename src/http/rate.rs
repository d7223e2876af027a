//! Holds every request against the limits of its route, before its handler runs.
//!
//! Whoever proves to be a device is counted as that device or its account, and everyone else by the network it comes from. On
//! routes for devices a request with credentials is counted once they were looked at ([`proven`], [`refused`]), any other
//! request here. Limits that need to know more than who asks are the handlers' own.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{Extensions, HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::domain::ProtocolAddress;
use crate::limits::{By, Limit, Refused};

use super::error::ApiError;
use super::extract::Tunnelled;
use super::network;
use super::routes::{Access, ROUTES, Route};
use super::state::{AppState, Node};

/// The layer around all routes.
pub(super) async fn limit(State(node): State<AppState>, mut request: Request, next: Next) -> Response {
    let Some(route) = route_of(&request) else {
        return next.run(request).await;
    };
    if let Err(refused) = before(&node, route, request.headers(), request.extensions()).await {
        return ApiError::from(refused).into_response();
    }
    request.extensions_mut().insert(Limited(route));
    next.run(request).await
}

/// The route of a request, for extractors.
#[derive(Clone, Copy)]
struct Limited(&'static Route);

/// Counts what is not left to the extractor that looks at credentials.
async fn before(node: &Node, route: &Route, headers: &HeaderMap, extensions: &Extensions) -> Result<(), Refused> {
    let tunnelled = extensions.get::<Tunnelled>();
    if let Some(principal) = tunnelled.and_then(|tunnelled| tunnelled.principal.as_ref()) {
        of_device(node, route.devices, principal.address).await?;
        // What takes no notice of who asks is no cheaper for having an account.
        return match route.strangers {
            Limit::Requests => Ok(()),
            _ if looks_at_credentials(route.access) => Ok(()),
            guarded => of_network(node, guarded, extensions).await,
        };
    }
    // Inside a socket nobody looks at credentials again.
    if tunnelled.is_none() && looks_at_credentials(route.access) && headers.contains_key(AUTHORIZATION) {
        return Ok(());
    }
    of_network(node, route.strangers, extensions).await
}

/// Whether handlers of such routes ask who the caller is, so that nobody gets past both counts.
fn looks_at_credentials(access: Access) -> bool {
    match access {
        Access::Device | Access::Password | Access::Primary | Access::DeviceOrAccessKey | Access::Anonymous => true,
        Access::Anyone
        | Access::Number
        | Access::LinkToken
        | Access::RefreshToken
        | Access::AccessKeys
        | Access::UploadForm => false,
    }
}

/// Counts a request of a device that has proved itself by its credentials.
pub(super) async fn proven(node: &Node, extensions: &Extensions, device: ProtocolAddress) -> Result<(), Refused> {
    match extensions.get::<Limited>() {
        Some(Limited(route)) if looks_at_credentials(route.access) => of_device(node, route.devices, device).await,
        // Counted by its network already.
        _ => Ok(()),
    }
}

/// Counts a request whose credentials are not valid.
pub(super) async fn refused(node: &Node, extensions: &Extensions) -> Result<(), Refused> {
    of_network(node, Limit::FailedLogins, extensions).await?;
    match extensions.get::<Limited>() {
        Some(Limited(route)) if looks_at_credentials(route.access) => {
            of_network(node, route.strangers, extensions).await
        }
        _ => Ok(()),
    }
}

/// Counts for a device, or for its account.
pub(super) async fn of_device(node: &Node, limit: Limit, device: ProtocolAddress) -> Result<(), Refused> {
    let aci = device.aci.as_bytes();
    match limit.declared().by {
        By::Account => node.limits.check(limit, &[aci]).await,
        _ => node.limits.check(limit, &[aci, &[device.device_id.get()]]).await,
    }
}

/// Counts for the network that a request comes from.
pub(super) async fn of_network(node: &Node, limit: Limit, extensions: &Extensions) -> Result<(), Refused> {
    let network = network::of_request(extensions);
    // Whatever comes from nowhere shares one name.
    let name = network.as_ref().map_or(&[][..], |network| network.as_bytes());
    node.limits.check(limit, &[name]).await
}

/// The route that a request will find. What finds none is counted as the cheapest that there is; the sockets and the checks
/// of a load balancer are none of these.
fn route_of(request: &Request) -> Option<&'static Route> {
    let Some(path) = request.extensions().get::<MatchedPath>() else {
        return Some(&NO_ROUTE);
    };
    let path = path.as_str();
    if path.starts_with("/health/") || path.starts_with("/v1/websocket") || path == "/v1/keepalive/provisioning" {
        return None;
    }
    let method = match *request.method() {
        // Answered as GET without the body, unless there is a route of its own.
        Method::HEAD if !BY_PATH.contains_key(&("HEAD", path)) => "GET",
        ref method => method.as_str(),
    };
    Some(BY_PATH.get(&(method, path)).copied().unwrap_or(&NO_ROUTE))
}

static BY_PATH: LazyLock<HashMap<(&'static str, &'static str), &'static Route>> = LazyLock::new(|| {
    let upper = |route: &Route| -> &'static str {
        match route.method {
            "get" => "GET",
            "put" => "PUT",
            "post" => "POST",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "head" => "HEAD",
            _ => "OPTIONS",
        }
    };
    ROUTES.iter().map(|route| ((upper(route), route.path), route)).collect()
});

/// Stands for all that is not there.
static NO_ROUTE: Route = Route {
    method: "get",
    path: "",
    access: Access::Anyone,
    max_body: 0,
    service: super::routes::Service::Usual,
    strangers: Limit::Requests,
    devices: Limit::DeviceRequests,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_counts_strangers_by_network_and_devices_by_device_or_account() {
        for route in ROUTES {
            let at = (route.method, route.path);
            assert_eq!(route.strangers.declared().by, By::Network, "{at:?}");
            assert!(
                matches!(route.devices.declared().by, By::Device | By::Account),
                "{at:?}"
            );
        }
        assert_eq!(BY_PATH.len(), ROUTES.len(), "each is found");
    }
}
