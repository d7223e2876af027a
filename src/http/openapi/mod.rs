//! `GET /openapi.json`: the interface as an OpenAPI 3.1 document, made from the routes and the types of the wire.
//!
//! Each file describes the routes of one resource. A route that none of them describes, or one that is described and not
//! there, fails a test.

mod account_data;
mod accounts;
mod attachments;
mod blocks;
mod build;
mod calling;
mod devices;
mod keys;
mod messages;
mod operation;
mod profiles;
mod registration;
mod service;
mod tokens;
mod usernames;

use std::sync::LazyLock;

use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};

use crate::http::etag::TaggedJson;

use build::Api;

static SERVED: LazyLock<TaggedJson> = LazyLock::new(|| TaggedJson::new(document().to_string()));

/// `GET /openapi.json`
pub(super) async fn serve(headers: HeaderMap) -> Response {
    SERVED.answer(&headers)
}

/// The whole document.
fn document() -> Value {
    let mut api = Api::new();
    service::describe(api.resource("service"));
    registration::describe(api.resource("registration"));
    accounts::describe(api.resource("accounts"));
    blocks::describe(api.resource("accounts"));
    devices::describe(api.resource("devices"));
    tokens::describe(api.resource("sessions"));
    usernames::describe(api.resource("user names"));
    account_data::describe(api.resource("account data"));
    keys::describe(api.resource("keys"));
    messages::describe(api.resource("messages"));
    profiles::describe(api.resource("profiles"));
    attachments::describe(api.resource("attachments"));
    calling::describe(api.resource("service"));
    let (paths, schemas) = api.finish();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "blind-relay",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A key directory and blind message relay. docs/protocol.md says what the routes mean.",
            "license": { "name": "AGPL-3.0-only", "identifier": "AGPL-3.0-only" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "device": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The user is an ACI, or an ACI, a dot and a device id; the password is the device's.",
                },
                "number": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The user is the number that is registered; the password becomes the new device's.",
                },
                "newDevice": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The user is not looked at; the password becomes the new device's.",
                },
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "An access token of a session of the device.",
                },
                "uploadForm": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The capability of an upload form; it may stand in the path instead.",
                },
                "accessKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Unidentified-Access-Key",
                    "description": "The 16 bytes in base64 that the target gave to those who may reach it.",
                },
            },
        },
    })
}

#[cfg(test)]
mod tests;
