//! `GET /v1/limits`: how often anyone may do anything here, so that clients need not find out.

use axum::Json;
use axum::extract::State;

use crate::limits::Scale;

use super::routes::ROUTES;
use super::state::AppState;
use super::wire::limits::{LimitOut, LimitsOut, RouteLimitsOut};

/// The limits in force, and those of each route.
pub(super) async fn show(State(node): State<AppState>) -> Json<LimitsOut> {
    let limits = node.limits.in_force().into_iter().map(|(declared, bucket)| LimitOut {
        name: declared.name,
        counts: declared.what,
        by: declared.by.words(),
        burst: bucket.burst.get(),
        every_millis: u64::try_from(bucket.every.as_millis()).unwrap_or(u64::MAX),
        across_nodes: declared.shared,
    });
    let routes = ROUTES.iter().map(|route| RouteLimitsOut {
        method: route.method,
        path: route.path,
        strangers: route.strangers.name(),
        devices: route.devices.name(),
    });
    Json(LimitsOut {
        enforced: node.limits.scale() != Scale::Off,
        limits: limits.collect(),
        routes: routes.collect(),
    })
}
