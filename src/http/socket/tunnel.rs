//! Carries a client's requests from its WebSocket to the routes, and the answers back.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::auth::Authenticated;
use crate::http::error::ApiError;
use crate::http::extract::Tunnelled;
use crate::http::network::Network;
use crate::http::routes::Router;
use crate::relay::drain::QueueOpener;

use super::frame::{InnerRequest, answer};

/// The way from one socket to the routes.
pub(super) struct Tunnel {
    router: Router,
    principal: Option<Arc<Authenticated>>,
    /// What opens its queue.
    opener: Option<QueueOpener>,
    /// Credentials of the upgrade that requests without their own inherit. Only kept where they are not yet those of a
    /// device: a device's are proven at the upgrade and never looked at again.
    inherited: Option<HeaderValue>,
    reached: Reached,
}

/// How a socket was reached: its requests are as its upgrade was.
#[derive(Default)]
pub(super) struct Reached {
    /// Under which URL, if that is known.
    pub(super) origin: Option<Arc<str>>,
    /// From which network.
    pub(super) network: Option<Network>,
}

impl Tunnel {
    pub(super) fn new(
        router: Router,
        principal: Option<Arc<Authenticated>>,
        opener: Option<QueueOpener>,
        inherited: Option<HeaderValue>,
        reached: Reached,
    ) -> Self {
        Self {
            router,
            principal,
            opener,
            inherited,
            reached,
        }
    }

    pub(super) fn principal(&self) -> Option<&Arc<Authenticated>> {
        self.principal.as_ref()
    }

    /// The answer to a request, ready to be sent; `None` if the request wants none.
    pub(super) fn call(&self, request: InnerRequest) -> BoxFuture<'static, Option<Bytes>> {
        let InnerRequest { id, head, body } = request;
        let router = self.router.clone();
        let tunnelled = Tunnelled {
            principal: self.principal.clone(),
            opener: self.opener.clone(),
            origin: self.reached.origin.clone(),
        };
        let inherited = self.inherited.clone();
        let network = self.reached.network.clone();
        Box::pin(async move {
            let response = match head {
                None => ApiError::bad_request("malformed_request", "the request inside the frame is malformed")
                    .into_response(),
                Some((method, uri, mut headers)) => {
                    headers.remove("x-forwarded-for");
                    if let Some(inherited) = inherited {
                        headers.entry(AUTHORIZATION).or_insert(inherited);
                    }
                    let mut request = Request::new(Body::from(body));
                    *request.method_mut() = method;
                    *request.uri_mut() = uri;
                    *request.headers_mut() = headers;
                    request.extensions_mut().insert(tunnelled);
                    if let Some(network) = network {
                        request.extensions_mut().insert(network);
                    }
                    match router.oneshot(request).await {
                        Ok(response) => response,
                        Err(never) => match never {},
                    }
                }
            };
            Some(encode(id?, response).await)
        })
    }
}

async fn encode(id: u64, response: Response) -> Bytes {
    let (parts, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => answer(id, parts.status, &parts.headers, body.to_bytes()),
        // Our own bodies are whole before they are sent, so this is for a route to come.
        Err(_) => answer(id, StatusCode::INTERNAL_SERVER_ERROR, &parts.headers, Bytes::new()),
    }
}
