//! Holds every request against the limits of its route, before its handler runs.
//!
//! Whoever proves to be a device is counted as that device or its account, and everyone else by the network it comes from. On
//! routes for devices a request with credentials is counted once they were looked at ([`proven`], [`refused`]), any other
//! request here. Limits that need to know more than who asks are the handlers' own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::Request;
use axum::http::Extensions;
use axum::http::header::AUTHORIZATION;
use axum::response::{IntoResponse, Response};

use crate::domain::ProtocolAddress;
use crate::limits::{By, Limit, Refused};

use super::error::ApiError;
use super::extract::Tunnelled;
use super::network::{self, Network};
use super::routes::{Access, Route, Service};
use super::state::Node;

/// The answer to a request of this route: what `run` makes of it, or a refusal.
pub(super) async fn limit<F: Future<Output = Response>>(
    node: &Node,
    route: &'static Route,
    mut request: Request,
    run: impl FnOnce(Request) -> F,
) -> Response {
    if looks_at_credentials(&request, route) {
        let limited = Limited {
            route,
            counted: Arc::default(),
        };
        let network = network::of_request(request.extensions());
        request.extensions_mut().insert(limited.clone());
        let answer = run(request).await;
        // A path or a query that cannot be read is refused before anybody looks at credentials.
        if limited.counted.load(Ordering::Relaxed) {
            return answer;
        }
        let name = network.as_ref().map_or(&[][..], Network::as_bytes);
        return match node.limits.check(route.strangers, &[name]).await {
            Ok(()) => answer,
            Err(refused) => ApiError::from(refused).into_response(),
        };
    }
    match before(node, route, request.extensions()).await {
        Ok(()) => run(request).await,
        Err(refused) => ApiError::from(refused).into_response(),
    }
}

/// A request whose credentials are about to be looked at, for the extractor that does.
#[derive(Clone)]
struct Limited {
    route: &'static Route,
    /// The extractor has come to it.
    counted: Arc<AtomicBool>,
}

/// Counts a request that shows no credentials to anyone.
async fn before(node: &Node, route: &Route, extensions: &Extensions) -> Result<(), Refused> {
    let tunnelled = extensions.get::<Tunnelled>();
    if let Some(principal) = tunnelled.and_then(|tunnelled| tunnelled.socket.principal.as_ref()) {
        of_device(node, route.devices, principal.address).await?;
        // What takes no notice of who asks is no cheaper for having an account.
        if route.strangers == Limit::Requests || asks_who_calls(route.access) {
            return Ok(());
        }
    }
    of_network(node, route.strangers, extensions).await
}

/// Whether credentials of this request are looked at. Inside a socket nobody does that again.
fn looks_at_credentials(request: &Request, route: &Route) -> bool {
    asks_who_calls(route.access)
        && request.headers().contains_key(AUTHORIZATION)
        && request.extensions().get::<Tunnelled>().is_none()
}

/// Whether handlers of such routes ask who the caller is.
fn asks_who_calls(access: Access) -> bool {
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
        Some(limited) => {
            limited.counted.store(true, Ordering::Relaxed);
            of_device(node, limited.route.devices, device).await
        }
        // Counted by its network already.
        None => Ok(()),
    }
}

/// Counts a request whose credentials are not valid.
pub(super) async fn refused(node: &Node, extensions: &Extensions) -> Result<(), Refused> {
    if let Some(limited) = extensions.get::<Limited>() {
        limited.counted.store(true, Ordering::Relaxed);
        of_network(node, limited.route.strangers, extensions).await?;
    }
    of_network(node, Limit::FailedLogins, extensions).await
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
    let name = network::name_of(extensions);
    node.limits.check(limit, &[name]).await
}

/// Stands for all that is not there: it is counted as the cheapest that there is.
pub(super) static NO_ROUTE: Route = Route {
    method: "get",
    path: "",
    access: Access::Anyone,
    max_body: 0,
    service: Service::Usual,
    strangers: Limit::Requests,
    devices: Limit::DeviceRequests,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::ROUTES;

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
    }
}
