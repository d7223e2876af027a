//! What every request has around it, in one piece: panics, time, counters, secrets in queries, limits, how long it takes.
//!
//! A route's handler is wrapped once, with its row of the one list of routes, whether requests come by plain HTTP or
//! through a WebSocket. As layers, each of these would be a service around the next that is copied for every request, in
//! a future on the heap of its own: that was a third of what a send cost.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::handler::Handler;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tokio::time::timeout;

use crate::telemetry::metrics::{self, RouteCounters};

use super::error::ApiError;
use super::extract::Tunnelled;
use super::routes::{REQUEST_TIMEOUT, Route, Service};
use super::state::{AppState, Node};
use super::{query_secrets, rate};

/// A handler with everything around it.
#[derive(Clone)]
pub(super) struct Around<H> {
    handler: H,
    place: Place,
}

/// Where a handler is.
#[derive(Clone, Copy)]
enum Place {
    /// At a row of the list.
    Route(&'static Route, &'static RouteCounters),
    /// Where nothing is, under a path that others have or under none. It is counted as the cheapest route that there is.
    Nowhere,
}

impl<H> Around<H> {
    /// The handler of a route, with its counters.
    pub(super) fn route(route: &'static Route, counters: &'static RouteCounters, handler: H) -> Self {
        Self {
            handler,
            place: Place::Route(route, counters),
        }
    }

    /// What answers where there is no route.
    pub(super) fn nowhere(handler: H) -> Self {
        Self {
            handler,
            place: Place::Nowhere,
        }
    }
}

impl<H, T> Handler<T, AppState> for Around<H>
where
    H: Handler<T, AppState>,
    T: 'static,
{
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, mut request: Request, node: AppState) -> Self::Future {
        let Self { handler, place } = self;
        Box::pin(async move {
            let (limits, counters) = match place {
                Place::Route(route, counters) => (route, Some(counters)),
                Place::Nowhere => (&rate::NO_ROUTE, None),
            };
            // Bodies that come through a socket are whole, and held against the limit where they are taken.
            if let Some(tunnelled) = request.extensions_mut().get_mut::<Tunnelled>() {
                tunnelled.max_body = limits.max_body;
            } else if counters.is_some() {
                DefaultBodyLimit::max(limits.max_body).apply(&mut request);
            }
            let bounded = counters.is_some() && limits.service == Service::Usual;
            let handled = |request| {
                let handled = handler.call(request, AppState::clone(&node));
                async move {
                    if !bounded {
                        return handled.await;
                    }
                    let answer = timeout(REQUEST_TIMEOUT, handled).await;
                    answer.unwrap_or_else(|_| StatusCode::REQUEST_TIMEOUT.into_response())
                }
            };
            let limited = |request| rate::limit(&node, limits, request, handled);
            whole(&node, request, counters, limited).await
        })
    }
}

/// The same around what is no route of the list and has no limits: upgrades and the checks of a load balancer.
pub(super) async fn without_limits(State(node): State<AppState>, request: Request, next: Next) -> Response {
    whole(&node, request, None, |request| next.run(request)).await
}

async fn whole<F: Future<Output = Response>>(
    node: &Node,
    request: Request,
    counters: Option<&RouteCounters>,
    run: impl FnOnce(Request) -> F,
) -> Response {
    let answered = async {
        let tunnelled = request.extensions().get::<Tunnelled>().is_some();
        let path = match counters {
            Some(_) => None,
            None => request.extensions().get::<MatchedPath>().cloned(),
        };
        let mut response = match request.uri().query() {
            Some(query) if query_secrets::has_secret(query) => query_secrets::SECRET.into_response(),
            _ => run(request).await,
        };
        let status = response.status().as_u16();
        match counters {
            Some(counters) => counters.request(tunnelled, status),
            None => metrics::request(path.as_ref().map_or("none", MatchedPath::as_str), tunnelled, status),
        }
        let now = HeaderValue::from(node.clock.now().0);
        response.headers_mut().insert(TIMESTAMP, now);
        response
    };
    let caught = AssertUnwindSafe(answered).catch_unwind().await;
    caught.unwrap_or_else(|_| ApiError::unavailable("a handler panicked").into_response())
}

const TIMESTAMP: HeaderName = HeaderName::from_static("x-signal-timestamp");
