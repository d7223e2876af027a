//! `GET /v2/config`: named values that an operator gives to all clients alike.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::etag::TaggedJson;
use super::extract::Caller;
use super::state::AppState;
use super::wire::calling::RemoteConfigOut;

/// Writes the values down once, as they are sent. They are the same for everyone, so that none of them can aim at one
/// account.
pub fn remote_config(values: &BTreeMap<String, String>) -> TaggedJson {
    TaggedJson::new(serde_json::to_vec(&RemoteConfigOut { config: values }).expect("strings can be written as JSON"))
}

/// `GET /v2/config`
pub(super) async fn show(State(node): State<AppState>, Caller(_): Caller, headers: HeaderMap) -> Response {
    node.remote_config.answer(&headers)
}
