//! What the operator tells clients, and what the server does not have.

use serde_json::json;

use super::build::Api;
use crate::http::wire::calling::{RelaysOut, RemoteConfigOut, TimeOut};
use crate::http::wire::limits::LimitsOut;

pub(super) fn describe(api: &mut Api) {
    api.route("get", "/v1/time", "What time is it?")
        .answers::<TimeOut>(200, "The server's time");

    api.route("get", "/v1/limits", "How often may anyone do what?")
        .answers::<LimitsOut>(200, "The limits in force, and those of each route");

    api.route("get", "/v2/config", "Values that the operator gives to all clients")
        .header::<String>("If-None-Match", false, "The tag of the values that are known")
        .answers::<RemoteConfigOut<'_>>(200, "The values")
        .with_header(200, "etag", json!({ "type": "string" }))
        .done(304, "The values are those of the tag")
        .with_header(304, "etag", json!({ "type": "string" }));

    api.route("get", "/v2/calling/relays", "Credentials for TURN servers")
        .answers::<RelaysOut>(200, "Fresh ones, that say nothing about the caller");

    for (path, what) in [
        ("/v1/storage/auth", "There is no storage service"),
        ("/v2/directory/auth", "There is no contact discovery"),
        ("/v2/svr/auth", "There is no secure value recovery"),
        ("/v2/backup/auth", "There is no secure value recovery"),
        ("/v1/certificate/auth/group", "There is no group service"),
    ] {
        api.route("get", path, what).refuses(404, &["feature_absent"]);
    }
    for (method, path, what) in [
        ("put", "/v1/challenge", "Challenges are never given"),
        ("post", "/v1/challenge/push", "Challenges are never pushed"),
    ] {
        api.route(method, path, what)
            .takes_bytes("application/json", "Not looked at")
            .refuses(404, &["feature_absent"]);
    }

    api.route(
        "post",
        "/v1/messages/report/{source}/{guid}",
        "Calls a message spam; it is counted, no more",
    )
    .path::<String>("source", "Not looked at")
    .path::<String>("guid", "Not looked at")
    .takes_bytes("application/json", "Not looked at")
    .done(202, "Counted");
}
