//! The service itself: life signs, health, the WebSocket, this document.

use serde_json::json;

use super::build::Api;
use crate::http::wire::forms::BoolText;

pub(super) fn describe(api: &mut Api) {
    api.route("get", "/v1/keepalive", "Is this connection alive?")
        .done(200, "It is; what a device acknowledged before is durable");

    api.route("get", "/openapi.json", "This document")
        .answers_bytes(200, "application/json", "The document")
        .with_header(200, "etag", json!({ "type": "string" }))
        .done(304, "The one that `if-none-match` names");

    api.beside("get", "/health/live", "Does the process answer?")
        .answers_bytes(200, TEXT, "It does");

    api.beside("get", "/health/ready", "Can the server do its work?")
        .answers_bytes(200, TEXT, "It can")
        .answers_bytes(
            503,
            TEXT,
            "The database does not answer, or the server is about to stop",
        );

    api.beside(
        "get",
        "/v1/websocket",
        "Opens a WebSocket, through which the other routes are reached",
    )
    .header::<BoolText>("X-Signal-Receive-Stories", false, "`true`: the device wants stories")
    .header::<BoolText>("X-Signal-Disable-Messages", false, "`true`: nothing is delivered")
    .done(101, "The socket is open")
    .refuses(400, &["no_websocket", "no_upgrade"])
    .refuses(403, &["bad_credentials"])
    .refuses(503, &["unavailable"]);

    api.beside(
        "get",
        "/v1/websocket/provisioning",
        "Opens the socket of a device that is about to be linked",
    )
    .done(101, "The socket is open")
    .refuses(400, &["no_websocket", "no_upgrade"])
    .refuses(503, &["unavailable"]);
}

const TEXT: &str = "text/plain; charset=utf-8";
