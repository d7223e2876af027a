//! `GET /v2/calling/relays`: credentials for the operator's TURN servers.

use axum::Json;
use axum::extract::State;

use crate::sealing::random;

use super::error::ApiError;
use super::extract::Caller;
use super::state::AppState;
use super::wire::calling::{RelayOut, RelaysOut};

/// Fresh credentials for whoever has an account. They say nothing about it, so nobody can tell for whom they were made.
pub(super) async fn relays(State(node): State<AppState>, Caller(_): Caller) -> Result<Json<RelaysOut>, ApiError> {
    let relays = node.turn.iter().map(|turn| {
        let credentials = turn.credentials(node.clock.now(), random());
        RelayOut {
            username: credentials.username,
            password: credentials.password,
            ttl: turn.ttl.as_secs(),
            urls: turn.urls.clone(),
            urls_with_ips: [],
            hostname: None,
        }
    });
    Ok(Json(RelaysOut {
        relays: relays.collect(),
    }))
}
