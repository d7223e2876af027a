//! Carries a client's requests from its WebSocket to the routes, and the answers back.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tower::Service;
use tower_http::normalize_path::NormalizePath;

use crate::auth::Authenticated;
use crate::http::error::ApiError;
use crate::http::extract::{Opened, Tunnelled, collect};
use crate::http::network::Network;
use crate::http::routes::{Router, slash_insensitive};
use crate::relay::drain::QueueOpener;

use super::frame::{InnerRequest, answer};

/// The way from one socket to the routes.
pub(super) struct Tunnel {
    routes: NormalizePath<Router>,
    socket: Arc<Opened>,
    /// Credentials of the upgrade that requests without their own inherit. Only kept where they are not yet those of a
    /// device: a device's are proven at the upgrade and never looked at again.
    inherited: Option<HeaderValue>,
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
            routes: slash_insensitive(router),
            socket: Arc::new(Opened {
                principal,
                opener,
                origin: reached.origin,
                network: reached.network,
            }),
            inherited,
        }
    }

    pub(super) fn principal(&self) -> Option<&Arc<Authenticated>> {
        self.socket.principal.as_ref()
    }

    /// The answer to a request, ready to be sent; `None` if the request wants none.
    pub(super) fn call(&self, request: InnerRequest) -> BoxFuture<'static, Option<Bytes>> {
        let InnerRequest { id, head, body } = request;
        let Some((method, uri, mut headers)) = head else {
            let malformed = ApiError::bad_request("malformed_request", "the request inside the frame is malformed");
            return Box::pin(async move { Some(encode(id?, malformed.into_response()).await) });
        };
        headers.remove("x-forwarded-for");
        if let Some(inherited) = &self.inherited {
            headers.entry(AUTHORIZATION).or_insert_with(|| inherited.clone());
        }
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request.extensions_mut().insert(Tunnelled {
            socket: Arc::clone(&self.socket),
            max_body: 0,
        });
        let answered = self.routes.clone().call(request);
        Box::pin(async move {
            let response = match answered.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            Some(encode(id?, response).await)
        })
    }
}

async fn encode(id: u64, response: Response) -> Bytes {
    let (parts, body) = response.into_parts();
    match collect(body).await {
        Ok(body) => answer(id, parts.status, &parts.headers, &body),
        // Our own bodies are whole before they are sent, so this is for a route to come.
        Err(_) => answer(id, StatusCode::INTERNAL_SERVER_ERROR, &parts.headers, b""),
    }
}
